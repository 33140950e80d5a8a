"""All state of the linker, in parts: a struct for each room that keeps something; the one instance
is in libdlopen.pyx. A function is handed the part that it needs, the whole if that is several.

The structs of rooms above this one stand here because the whole holds them. The head of each names
the file that writes it and what guards it: a lock, atomic access, or that it is written before
`ready` says READY. File-scope state is only where the ABI forces it: exported functions, what
assembly and constructors find without an argument, thread-local variables, the log, the heap.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t

from dlopen.core.base.contract cimport LocateMember
from dlopen.core.base.environment cimport Environment
from dlopen.core.base.growable cimport Pointers, Text
from dlopen.core.base.lock cimport (
    RANK_ARENA, RANK_DEBUGGER, RANK_RECLAIMING, RANK_REGISTRY, RANK_TLS, Lock, give_rank,
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


cdef struct Donor:
    Donor* next                  # nearer to the thread pointer
    void* handle                 # the host's
    int64_t offset               # of its block from the thread pointer
    bint is_unused               # to be closed when all that are farther have gone


cdef struct StaticStorage:       # host/static_tls.pxd; guarded by Tls.lock
    Donor* donors                # owned
    uint64_t made                # numbers their names
    bint is_changing             # a thread opens or closes some


cdef struct HostUse:             # host/host_lock.pxd; atomic
    uint32_t entered             # threads that are in the host's loader for us
    uint32_t forking             # threads that fork
    uint32_t knows_handles       # one of its handles was seen to be the image's link map


cdef enum:
    UNSEALED_MAX = 16


cdef struct Rebinding:           # host/rebind.pxd, unwinder.pxd, redirect.pxd
    # Pages of RELRO of ours that could not be closed again. Under Registry.lock.
    uint64_t unsealed[UNSEALED_MAX]
    # The segment of libc's symbol table, likewise; 0: it is closed.
    uint64_t open_table, open_table_size
    uint32_t has_unsealed        # atomic
    uint32_t is_due              # atomic: what asks for frames has still to be bound to ours
    uint32_t expects_unwinders   # atomic: host/redirect.pxd is done


cdef struct Namespace:
    Namespace* next
    int64_t id
    char* search_path            # owned; as LD_LIBRARY_PATH; NULL: none
    uint32_t users               # opens into it that are under way
    bint has_ended


cdef struct Namespaces:          # host/namespaces.pxd; guarded by Registry.lock
    Namespace* records           # owned: those that were made by themselves
    uint64_t made


cdef enum:
    MAX_SUBFOLDERS = 40
    FOLDER_BUCKETS = 64
    MAX_FOLDERS = 512
    FOLDER_UNKNOWN = 0
    FOLDER_EXISTS = 1
    FOLDER_MISSING = 2
    FOLDER_IN_FILE = 3           # its path leads through a file: perhaps in an archive


cdef struct Folder:              # once published it stays for ever
    Folder* next
    uint32_t states[MAX_SUBFOLDERS]      # atomic, FOLDER_*: of its subfolders, itself last
    char path[0]                 # ends with a slash


cdef struct SearchSettings:      # found once, on the first search: search/settings.pxd
    # LD_LIBRARY_PATH as the process was started with; empty in secure execution.
    Text library_path
    Text default_folders         # strings one after another
    size_t default_count
    Text lib                     # $LIB
    Text platform                # $PLATFORM
    Text subfolders              # strings one after another, "" last
    size_t subfolder_count
    uint32_t hwcaps_count        # how many of them are glibc-hwcaps folders, best first
    uint64_t legacy_hwcap        # bits that an entry of ld.so.cache may ask for
    bint is_secure               # in secure execution $ORIGIN leads nowhere


cdef struct CacheFile:           # /etc/ld.so.cache as it was at one time: search/cache.pxd
    uint64_t start, size         # of the mapping
    uint64_t device, inode, changed_at
    uint32_t users               # searches that look into it; under Registry.lock


cdef struct Asking:              # on the stack of who asks, in Archives.askings
    Asking* next
    uint64_t thread
    uint32_t age                 # Archives.age of what it asks
    void* data


cdef struct Archives:            # search/archives.pxd; guarded by Registry.lock
    LocateMember* locate         # and atomic; NULL: there are none
    void* data
    uint32_t age                 # counts what was set
    Asking* askings              # those that have not ended
    uint32_t waiting             # threads that wait for the end of some
    uint32_t ended               # counts their ends; a futex word


cdef struct Search:              # search/
    uint32_t has_settings        # atomic; they are written before, and never again
    SearchSettings settings
    CacheFile* cache             # owned, the newest; under Registry.lock; NULL: none was needed
    Folder* folders[FOLDER_BUCKETS]      # atomic: chains that only grow, at their heads
    uint32_t folder_count        # atomic; a bound only
    Archives archives


cdef struct Patch:
    Patch* next
    uint64_t number
    Image* image
    void* borrowed               # of the host's: the count that keeps it


cdef struct Patches:             # running/patch.pxd; guarded by Registry.lock
    Patch* in_force              # owned
    uint64_t made                # the number of the last one
    uint64_t reloadable_uses     # how often one has stored what leads to a reloadable image


cdef struct Process:             # face/starting.pxd; written before `ready` says READY
    int argc                     # as the host gives them to constructors
    char** argv
    Environment environment
    uint64_t page
    bint is_secure               # AT_SECURE
    bint bind_now                # LD_BIND_NOW
    bint bind_not                # LD_BIND_NOT: each lazy call is looked up anew
    bint is_exiting              # under Registry.lock: its own destructors have run


cdef struct Keys:                # of pthread_key_create(3); written before `ready` says READY
    bint has_tls                 # Tls.key is one
    bint has_message             # `message` is one
    Key message                  # of threads that dlerror has something for: family/errors.pxd


cdef enum:                       # Preparation.ready
    UNPREPARED = 0
    READY = 1
    NO_LIBC = 2                  # or not one that is known: host/assumptions.pxd; for good


cdef struct Preparation:         # face/starting.pxd
    uint32_t ready               # atomic: UNPREPARED …
    # Atomic: the process and the thread that make it READY, 0: none. The first is a futex word.
    uint32_t process
    uint64_t thread
    Image scratch                # that thread's


cdef enum:
    OWN_NAME_COUNT = 16


cdef struct Linker:
    Registry registry
    Tls tls
    OwnName own_names[OWN_NAME_COUNT]    # written before `ready` says READY
    HostFunctions host           # written before `ready` says READY
    HostHabits habits            # likewise
    HostUse host_use
    StaticStorage static_storage
    Rebinding rebinding
    Debugger debugger
    Namespaces namespaces
    Search search
    Patches patches
    Process process
    Keys keys
    Preparation preparation
    # Of our images; guarded as its file says. Last: it is large, and seldom touched.
    UniqueTable uniques


cdef inline void rank_locks(Linker* linker) noexcept nogil:
    """Before any of them is taken; Allocator.lock is a leaf."""
    give_rank(&linker.debugger.lock, RANK_DEBUGGER)
    give_rank(&linker.tls.lock, RANK_TLS)
    give_rank(&linker.registry.reclaiming, RANK_RECLAIMING)
    give_rank(&linker.registry.lock, RANK_REGISTRY)
    give_rank(&linker.registry.arena.lock, RANK_ARENA)


cdef inline const char* program_name(const Process* process) noexcept nogil:
    """As glibc names the program in messages."""
    if process.argv != NULL and process.argv[0] != NULL:
        return process.argv[0]
    return b"<main program>"
