"""dlopen.h, stated once for Cython: the core that implements it and the binding that calls it.

Declarations only, and the one file of the core that the binding may cimport.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "dlopen.h" nogil:
    enum:
        DLOPEN_ABI, DLOPEN_PRIVATE, DLOPEN_NO_FOREIGN_CODE, DLOPEN_KEEP_AS_LIBC
        DLOPEN_REPLACE_IN_TREE, DLOPEN_RELOADABLE, DLOPEN_ARENA, DLOPEN_MEMBER_MAPPED_ONLY
        DLOPEN_OK, DLOPEN_E_OPEN, DLOPEN_E_READ, DLOPEN_E_MAP, DLOPEN_E_PROTECT, DLOPEN_E_MEMORY
        DLOPEN_E_NOT_FOUND, DLOPEN_E_NOT_ELF, DLOPEN_E_FORMAT, DLOPEN_E_UNSUPPORTED
        DLOPEN_E_SYMBOL, DLOPEN_E_VERSION, DLOPEN_E_RELOCATION, DLOPEN_E_HOST
        DLOPEN_E_HANDLE, DLOPEN_E_INVALID, DLOPEN_E_NOT_LOADED, DLOPEN_E_STATE
        DLOPEN_E_STOPPED, DLOPEN_E_CONSTRUCTOR
        DLOPEN_SEARCHED_MAX
        DLOPEN_REJECTED_LOADED, DLOPEN_REJECTED_MACHINE, DLOPEN_REJECTED_FILES
        DLOPEN_REJECTED_HOSTS
        DLOPEN_OWN_ONLY, DLOPEN_NO_RESOLVE
        DLOPEN_STATE_MAPPED, DLOPEN_STATE_LOADING, DLOPEN_STATE_INITIALISING
        DLOPEN_STATE_READY, DLOPEN_STATE_CLOSING
        DLOPEN_R_NONE, DLOPEN_R_RELATIVE, DLOPEN_R_SYMBOLIC, DLOPEN_R_GLOB_DAT
        DLOPEN_R_JUMP_SLOT, DLOPEN_R_COPY, DLOPEN_R_IRELATIVE, DLOPEN_R_DTPMOD
        DLOPEN_R_DTPOFF, DLOPEN_R_TPOFF, DLOPEN_R_TLSDESC, DLOPEN_R_SIZE
        DLOPEN_R_PC_RELATIVE, DLOPEN_R_UNKNOWN
        DLOPEN_HELD_OPEN, DLOPEN_HELD_NODELETE, DLOPEN_HELD_DEPENDENCY
        DLOPEN_HELD_BINDING, DLOPEN_HELD_INITIALISING, DLOPEN_HELD_THREAD_LOCAL, DLOPEN_HELD_PATCH
        DLOPEN_HELD_RETAINED
    ctypedef struct PublicImage "DLOPEN_image":
        pass
    ctypedef struct Error "struct DLOPEN_error":
        int32_t code
        int32_t errnum
        uint64_t offset
        uint64_t value
        const char* library
        const char* detail
        const char* symbol
        const char* version
        const char* needed_by
        const char* searched
        uint32_t searched_count
        uint16_t text_used
        uint16_t detail_number
        int32_t searched_errno[64]
        char text[16384]
    ctypedef struct PublicReplacement "struct DLOPEN_replacement":
        const char* name
        const char* version
        const void* address
    ctypedef struct Patched "struct DLOPEN_patched":
        uint64_t places
        uint64_t original
    ctypedef int FindSymbol "DLOPEN_find_symbol"(
        const char* name, const char* version, const void** address, void* data
    ) noexcept
    ctypedef int ReadFile "DLOPEN_read_file"(
        const char* path, const void** bytes, size_t* size, void* data
    ) noexcept
    ctypedef void Done "DLOPEN_done"(void* data) noexcept
    ctypedef struct Member "struct DLOPEN_member":
        size_t size
        const char* archive
        const char* path
        const void* bytes
        size_t bytes_size
        uint64_t offset
        uint64_t length
        int32_t descriptor
        uint32_t flags
        const char* reason
        Done* done
        void* done_data
    ctypedef int LocateMember "DLOPEN_locate_member"(
        const char* path, Member* member, void* data
    ) noexcept
    ctypedef struct Request "struct DLOPEN_request":
        size_t size
        const char* name
        const void* bytes
        size_t bytes_size
        const void* caller
        uint32_t mode
        uint32_t flags
        int64_t namespace_id
        const PublicReplacement* replacements
        size_t replacement_count
        FindSymbol* find
        void* find_data
        PublicImage* replaces
        ReadFile* files
        void* files_data
        const Member* member
        LocateMember* members
        void* members_data
    ctypedef struct PublicSymbol "struct DLOPEN_symbol":
        const char* name
        const char* version
        PublicImage* image
        uint64_t address
        uint64_t value
        uint64_t size
        uint32_t index
        uint8_t type
        uint8_t binding
        uint8_t visibility
        uint8_t is_default
        uint16_t section
    ctypedef struct Info "struct DLOPEN_info":
        size_t size
        const char* path
        const char* name
        const char* soname
        const char* rpath
        const char* runpath
        const char* interpreter
        uint64_t load_bias
        uint64_t map_start
        uint64_t map_end
        uint64_t dynamic
        uint64_t phdr
        uint64_t device
        uint64_t inode
        uint64_t flags
        uint64_t flags_1
        uint64_t tls_size
        uint64_t tls_align
        uint64_t tls_module_id
        uint32_t phnum
        uint32_t state
        uint32_t is_host
        uint32_t is_global
        uint32_t is_private
        uint32_t open_count
        uint32_t symbol_count
        uint32_t relocation_count
        uint32_t needed_count
        uint32_t dependency_count
        uint32_t version_count
        uint32_t has_textrel
        uint32_t nodelete
        int64_t namespace_id
        const char* machine
        uint64_t relro_size
        uint64_t arena_size
        void* handle
        const char* archive
        uint64_t offset
    ctypedef struct PublicRelocation "struct DLOPEN_relocation":
        uint64_t place
        int64_t addend
        uint32_t type
        uint32_t kind
        uint32_t symbol
        uint32_t width
        uint32_t table
    ctypedef struct PublicVersion "struct DLOPEN_version":
        const char* name
        const char* library
        uint32_t hash
        uint16_t flags
        uint16_t index
    ctypedef void VisitCandidate "DLOPEN_visit_candidate"(
        const char* path, const char* origin, int result, void* data
    ) noexcept
    ctypedef void VisitRelocation "DLOPEN_visit_relocation"(
        const PublicRelocation* relocation, void* data
    ) noexcept
    ctypedef void VisitHolder "DLOPEN_visit_holder"(
        int kind, PublicImage* holder, void* data
    ) noexcept
    # The functions: the core defines them in libdlopen.pyx, and the binding calls them.
    uint32_t DLOPEN_abi()
    size_t DLOPEN_message(const Error* error, char* buffer, size_t size)
    int DLOPEN_namespace_new(const char* search_path, int64_t* namespace_id, Error* error)
    int DLOPEN_namespace_end(int64_t namespace_id, Error* error)
    void DLOPEN_set_archives(LocateMember* locate, void* data)
    int DLOPEN_open(const Request* request, PublicImage** image, Error* error)
    int DLOPEN_map(const Request* request, PublicImage** image, Error* error)
    int DLOPEN_relocate(
        PublicImage* image, const Request* request, PublicImage** scope, size_t scope_count,
        Error* error
    )
    int DLOPEN_existing(const char* name, PublicImage** image, Error* error)
    int DLOPEN_close(PublicImage* image, Error* error)
    int DLOPEN_find(
        const char* name, const void* caller, VisitCandidate* visit, void* data, Error* error
    )
    int DLOPEN_symbol_find(
        PublicImage* image, const char* name, const char* version, uint32_t flags,
        PublicSymbol* symbol, Error* error
    )
    int DLOPEN_symbol_at(PublicImage* image, uint32_t index, PublicSymbol* symbol)
    int DLOPEN_symbol_is_export(const PublicSymbol* symbol)
    int DLOPEN_address(const void* address, PublicImage** image, PublicSymbol* symbol)
    int DLOPEN_info(PublicImage* image, Info* info)
    const char* DLOPEN_needed_at(PublicImage* image, uint32_t index)
    PublicImage* DLOPEN_dependency_at(PublicImage* image, uint32_t index)
    int DLOPEN_relocations(PublicImage* image, VisitRelocation* visit, void* data)
    int DLOPEN_version_at(PublicImage* image, uint32_t index, PublicVersion* version)
    size_t DLOPEN_images(PublicImage** images, size_t capacity)
    uint32_t DLOPEN_read_enter()
    void DLOPEN_read_leave(uint32_t token)
    int DLOPEN_patch(
        PublicImage* image, const PublicReplacement* replacements, size_t count, Patched* patched,
        uint64_t* number, Error* error
    )
    int DLOPEN_unpatch(uint64_t number, Error* error)
    int DLOPEN_swap(
        PublicImage* old, PublicImage* successor, uint64_t* places, Error* error
    )
    int DLOPEN_retain(PublicImage* image, Error* error)
    int DLOPEN_release(PublicImage* image, Error* error)
    size_t DLOPEN_holders(PublicImage* image, VisitHolder* visit, void* data)
    long DLOPEN_closed_function()
