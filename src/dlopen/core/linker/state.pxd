"""All state of the linker in one structure, handed down."""

from libc.stddef cimport size_t
from libc.stdint cimport uint16_t, uint32_t, uint64_t

from dlopen.core.base.growable cimport Text
from dlopen.core.elf.structures cimport Phdr
from dlopen.core.image.image cimport Image
from dlopen.core.image.registry cimport Registry
from dlopen.core.relocation.relocate cimport OwnName


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
ctypedef int (*HostDlFindObject)(void* address, void* result) noexcept nogil
ctypedef const char* (*HostGnuGetLibcVersion)() noexcept nogil


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
    HostGnuGetLibcVersion gnu_get_libc_version


cdef enum:
    OWN_NAME_COUNT = 16
    MAX_SUBFOLDERS = 40


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


cdef struct Linker:
    Registry registry
    HostFunctions host
    OwnName own_names[OWN_NAME_COUNT]
    SearchSettings search
    uint32_t ready               # atomic: 0 not yet, 1 being made, 2 usable
    uint64_t page
    bint secure
    # As the host gives them to constructors.
    int argc
    char** argv
    char** environ
    bint exiting                 # the process's own destructors have run
