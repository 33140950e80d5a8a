"""The interface of libc's loader as far as it is used: its functions by their types, and the
structs of <link.h> and <dlfcn.h> that pass between it and us.

HostHabits holds what differs between its releases. Both are written while the linker is made
usable, by one thread, and only read from then on.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint16_t, uint32_t, uint64_t

from dlopen.core.arch.machine cimport THIS_MACHINE
from dlopen.core.elf.structures cimport Phdr
from dlopen.core.image.image cimport LinkMap
from dlopen.core.image.registry cimport ObjectDestructor
from dlopen.core.tls.modules cimport TlsIndex


cdef struct HostInfo:            # struct dl_phdr_info of <link.h>
    uint64_t dlpi_addr
    const char* dlpi_name
    const Phdr* dlpi_phdr
    uint16_t dlpi_phnum
    unsigned long long dlpi_adds
    unsigned long long dlpi_subs
    size_t dlpi_tls_modid
    void* dlpi_tls_data


ctypedef int (*PhdrVisitor)(HostInfo* info, size_t size, void* data) noexcept nogil


ctypedef int (*HostDlIteratePhdr)(PhdrVisitor visit, void* data) noexcept nogil


ctypedef void* (*HostDlopen)(const char* name, int mode) noexcept nogil


ctypedef int (*HostDlclose)(void* handle) noexcept nogil


ctypedef void* (*HostDlsym)(void* handle, const char* name) noexcept nogil


ctypedef void* (*HostDlvsym)(void* handle, const char* name, const char* version) noexcept nogil


ctypedef int (*HostDlinfo)(void* handle, int request, void* result) noexcept nogil


ctypedef int (*HostDladdr)(const void* address, void* info) noexcept nogil


ctypedef int (*HostDladdr1)(const void* address, void* info, void** extra, int flags) noexcept nogil


ctypedef char* (*HostDlerror)() noexcept nogil


ctypedef void* (*HostDlmopen)(long namespace, const char* name, int mode) noexcept nogil


ctypedef int (*HostCxaThreadAtexit)(
    ObjectDestructor destructor, void* object, void* dso_handle
) noexcept nogil


ctypedef int (*HostDlFindObject)(void* address, void* result) noexcept nogil


ctypedef void* (*HostTlsGetAddr)(TlsIndex* index) noexcept nogil


ctypedef int* (*HostErrnoLocation)() noexcept nogil


cdef struct HostFunctions:       # libc's own, found in its symbol table: nobody stands before them
    HostDlIteratePhdr dl_iterate_phdr
    HostDlopen dlopen
    HostDlclose dlclose
    HostDlsym dlsym
    HostDlvsym dlvsym
    HostDlinfo dlinfo
    HostDladdr dladdr
    HostDladdr1 dladdr1
    HostDlerror dlerror
    HostDlmopen dlmopen
    HostDlFindObject dl_find_object
    HostCxaThreadAtexit cxa_thread_atexit
    HostTlsGetAddr tls_get_addr  # the loader's
    void* processor_features     # FEATURES_FUNCTION, where there is one
    uint64_t* stack_end          # the loader's __libc_stack_end: where argc is (psABI)
    HostErrnoLocation errno_location


cdef struct HostHabits:          # of its loader, by release: host/assumptions.pxd
    # Atomic, set when HostFunctions are: all that are called without a look.
    uint32_t has_functions
    bint fits_link_maps          # debuggers find what they read behind one of ours
    bint has_debug_chain         # HostDebug.r_next is there
    # A list that dlmopen adds is stored in the r_next of its last one, whatever stood there;
    # else at the end of the chain.
    bint overwrites_chain
    bint searches_platform_folders       # tls/, x86_64/ … beside glibc-hwcaps/
    # A definition without version table, where the reference names its file, ends the process.
    bint asserts_versions
    # The library that is closed goes before all that goes with it, also in a cycle of needs.
    bint finishes_closed_first
    # How many images are in its global scope; NULL: not known. Of the program's namespace.
    const uint32_t* global_count


cdef struct HostDebug:           # struct r_debug_extended of <link.h>
    int r_version
    LinkMap* r_map
    void (*r_brk)() noexcept nogil
    int r_state
    uint64_t r_ldbase
    HostDebug* r_next            # not before glibc 2.35


cdef extern from "<dlfcn.h>" nogil:
    enum:
        RTLD_LAZY, RTLD_NOW, RTLD_NOLOAD, RTLD_GLOBAL, RTLD_NODELETE, RTLD_DEEPBIND, RTLD_LOCAL
        RTLD_DI_LINKMAP, RTLD_DI_SERINFO, RTLD_DI_SERINFOSIZE


cdef extern from "<sys/auxv.h>" nogil:
    unsigned long getauxval(unsigned long kind)
    enum:
        AT_PHDR, AT_PHNUM, AT_ENTRY, AT_PAGESZ, AT_SECURE, AT_SYSINFO_EHDR, AT_EXECFN


cdef inline char* host_block(const HostFunctions* host, uint64_t module) noexcept nogil:
    """The calling thread's storage of a module of the host's, which is made at the first touch."""
    cdef TlsIndex index
    index.module = module
    index.offset = <uint64_t>0 - THIS_MACHINE.dtv_offset
    return <char*>host.tls_get_addr(&index)
