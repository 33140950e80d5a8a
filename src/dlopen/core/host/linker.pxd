"""All state of the linker in one structure, handed down; the one instance is in libdlopen.pyx.

Each field says what guards it: a lock, atomic access, or that it is written before `ready` says
READY. File-scope state is only where the ABI forces it: exported functions, what assembly and
constructors find without an argument, thread-local variables, the log.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t

from dlopen.core.base.environment cimport Environment
from dlopen.core.base.growable cimport Pointers, Text
from dlopen.core.base.lock cimport (
    RANK_DEBUGGER, RANK_RECLAIMING, RANK_REGISTRY, RANK_TLS, Lock, give_rank,
)
from dlopen.core.base.registrations cimport Key
from dlopen.core.host.abi cimport HostDebug, HostFunctions, HostHabits
from dlopen.core.image.image cimport Image, LinkMap
from dlopen.core.image.registry cimport Registry
from dlopen.core.symbols.scopes cimport OwnName
from dlopen.core.symbols.unique cimport UniqueTable
from dlopen.core.tls.modules cimport Tls


cdef struct Debugger:            # host/debugger.pxd
    uint32_t wish                # what the environment asks for; set at the start
    HostDebug* host              # the process's; NULL: not found yet
    uint32_t knows_probe         # atomic: `probe` was looked for
    uint64_t probe               # of the host's loader, where gdb reads its lists; 0: r_brk
    Lock lock                    # guards the rest, and how our link maps are linked
    HostDebug node               # ours, in the host's chain
    LinkMap* last                # of its list
    Pointers open_callers        # void*, the host's handles: of what called us for lldb


cdef enum:                       # Linker.ready
    UNPREPARED = 0
    READY = 1
    NO_LIBC = 2                  # or not one that is known: host/assumptions.pxd; for good


cdef enum:
    OWN_NAME_COUNT = 16
    UNSEALED_MAX = 16
    MAX_SUBFOLDERS = 40
    FOLDER_BUCKETS = 64
    MAX_FOLDERS = 512
    FOLDER_UNKNOWN = 0
    FOLDER_EXISTS = 1
    FOLDER_MISSING = 2


cdef struct Folder:              # of the search; once published it stays for ever
    Folder* next
    uint32_t states[MAX_SUBFOLDERS]      # atomic, FOLDER_*: of its subfolders, itself last
    char path[0]                 # ends with a slash


cdef struct SearchSettings:      # found once, on the first search; written before `ready` is
    uint32_t ready
    # LD_LIBRARY_PATH as the process was started with; empty in secure execution.
    Text library_path
    Text default_folders         # strings one after another
    size_t default_count
    Text lib                     # $LIB
    Text platform                # $PLATFORM
    Text subfolders              # strings one after another, "" last
    size_t subfolder_count
    uint32_t hwcaps_count        # how many of them are glibc-hwcaps folders, best first
    uint64_t legacy_hwcap
    bint is_secure               # in secure execution $ORIGIN leads nowhere


cdef struct Donor:               # of static TLS: host/static_tls.pxd
    Donor* next                  # nearer to the thread pointer
    void* handle                 # the host's
    int64_t offset               # of its block from the thread pointer
    bint is_unused               # to be closed when all that are farther have gone


cdef struct Patch:               # running/patch.pxd
    Patch* next
    uint64_t number
    Image* image
    void* borrowed               # of the host's: the count that keeps it


cdef struct Namespace:           # host/namespaces.pxd; in Linker.namespaces under Registry.lock
    Namespace* next
    int64_t id
    char* search_path            # owned; as LD_LIBRARY_PATH; NULL: none
    uint32_t users               # opens into it that are under way
    bint has_ended


cdef struct Linker:
    Registry registry
    Tls tls
    # Guarded by Tls.lock.
    Donor* donors
    uint64_t donors_made
    bint donors_change           # a thread opens or closes some
    Patch* patches               # in force; guarded by Registry.lock, like their numbers
    uint64_t patches_made
    # host/rebind.pxd: pages of RELRO of ours that could not be closed again. Under Registry.lock.
    uint64_t unsealed[UNSEALED_MAX]
    uint32_t has_unsealed        # atomic
    uint32_t must_rebind         # atomic: host/unwinder.pxd has still to do it
    uint64_t reloadable_uses     # how often a patch has stored what leads to a reloadable image
    HostFunctions host
    HostHabits habits
    uint32_t knows_handles       # atomic: one of the host's was seen to be its link map
    Image scratch                # of who makes it ready
    uint32_t in_host, forking    # atomic: threads that are in its loader for us, that fork
    OwnName own_names[OWN_NAME_COUNT]
    UniqueTable uniques          # of our images; guarded as its file says
    SearchSettings search
    Folder* folders[FOLDER_BUCKETS]      # written under Registry.lock, read with load_pointer
    size_t folder_count          # written under Registry.lock; a bound only
    uint32_t ready               # atomic: UNPREPARED …
    # Atomic: the process and the thread that make it READY, 0: none. The first is a futex word.
    uint32_t preparing_process
    uint64_t preparer
    uint64_t page
    bint secure
    Environment environment      # written once, with the lock
    bint bind_now                # LD_BIND_NOW
    bint bind_not                # LD_BIND_NOT: each lazy call is looked up anew
    uint64_t namespaces_made     # written under Registry.lock
    Namespace* namespaces        # owned: those that were made by themselves
    # As the host gives them to constructors.
    int argc
    char** argv
    Debugger debugger
    bint has_tls_key, has_message_key
    Key message_key              # of threads that dlerror has something for: family/errors.pxd
    uint32_t has_unwinder        # atomic: libgcc_s was asked for
    bint exiting                 # the process's own destructors have run


cdef inline void rank_locks(Linker* linker) noexcept nogil:
    """Before any of them is taken; Allocator.lock is a leaf."""
    give_rank(&linker.debugger.lock, RANK_DEBUGGER)
    give_rank(&linker.tls.lock, RANK_TLS)
    give_rank(&linker.registry.reclaiming, RANK_RECLAIMING)
    give_rank(&linker.registry.lock, RANK_REGISTRY)


cdef inline const char* program_name(const Linker* linker) noexcept nogil:
    """As glibc names the program in messages."""
    if linker.argv != NULL and linker.argv[0] != NULL:
        return linker.argv[0]
    return b"<main program>"
