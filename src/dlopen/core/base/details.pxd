"""What an error says is wrong, by number: in our words, and in libc's where they are others.

Ours say more of what is wrong with a file, or say it better; dlerror(3) has libc's. What is
found out only when it fails (another loader's message, the name of an exception) is a text, and
has no number. The numbers are this release's own.
"""

from libc.stdint cimport uint32_t


cdef extern from *:
    """
    #include <stddef.h>
    /* D(number, ours, libc's: "" where they are the same) */
    #define DLOPEN_DETAILS(D) \\
        /* In general */ \\
        D(NONE, "", "") \\
        D(NO_MEMORY, "no memory for the linker's records", "") \\
        D(NO_HANDLE, "not a handle of an open library", "") \\
        D(REQUEST_SIZE, "the request's size", "") \\
        D(NO_NAMESPACE, "not a namespace, or ended already", "") \\
        /* The file */ \\
        D(CANNOT_OPEN, "cannot open shared object file", "") \\
        D(CANNOT_READ, "cannot read file data", "") \\
        D(SHRANK, "file too short: it shrank", "file too short") \\
        D(MEMBER_BEYOND, \\
          "file too short: a member ends after it (is the archive truncated?)", \\
          "file too short") \\
        D(MEMBER_SIZE, "the size of the struct that describes a member", "") \\
        D(MEMBER_COMPRESSED, "it may only be mapped, and the archive has it compressed", "") \\
        D(MEMBER_UNALIGNED, \\
          "it may only be mapped, and the archive has it at no multiple of the page size", "") \\
        D(MEMBER_NOEXEC, \\
          "it may only be mapped, which the archive's file system refuses for code", "") \\
        D(EMPTY, "file too short: it is empty", "file too short") \\
        D(SHORT_TEXT, "file too short: a text file (a linker script?)", "file too short") \\
        D(SHORT_ARCHIVE, "file too short: a static library (ar archive)", "file too short") \\
        D(SHORT, "file too short", "") \\
        D(ARCHIVE, \\
          "invalid ELF header: a static library (ar archive)", \\
          "invalid ELF header") \\
        D(TEXT, "invalid ELF header: a text file (a linker script?)", "invalid ELF header") \\
        D(NO_ELF, "invalid ELF header", "") \\
        /* The ELF header */ \\
        D(CLASS_32, "wrong ELF class: ELFCLASS32", "") \\
        D(CLASS, "invalid ELF header: unknown class", "invalid ELF header") \\
        D(DATA, "ELF file data encoding not little-endian", "") \\
        D(IDENT_VERSION, "ELF file version ident does not match current one", "") \\
        D(OS_ABI, "ELF file OS ABI invalid", "") \\
        D(ABI_VERSION, "ELF file ABI version invalid", "") \\
        D(VERSION, "ELF file version does not match current one", "") \\
        D(MACHINE, \\
          "for another machine", \\
          "cannot open shared object file: No such file or directory") \\
        D(EXECUTABLE, "cannot dynamically load executable", "") \\
        D(RELOCATABLE, \\
          "a relocatable object file (.o), not a shared object", \\
          "only ET_DYN and ET_EXEC can be loaded") \\
        D(CORE_DUMP, \\
          "a core dump, not a shared object", \\
          "only ET_DYN and ET_EXEC can be loaded") \\
        D(TYPE, "only ET_DYN can be loaded", "only ET_DYN and ET_EXEC can be loaded") \\
        D(PHENTSIZE, "ELF file's phentsize not the expected size", "") \\
        /* Segments */ \\
        D(NO_SEGMENTS, "object file has no loadable segments", "") \\
        D(PHNUM, "too many program headers", "") \\
        D(PHDRS_OUTSIDE, "program headers lie outside the file", "cannot read file data") \\
        D(SEGMENT_FILESZ, "a segment's p_filesz is greater than its p_memsz", "") \\
        D(SEGMENT_BEYOND, "file too short: a segment ends after it", "file too short") \\
        D(SEGMENT_ADDRESS, "a segment's address is out of range", "") \\
        D(SEGMENT_WX, "a segment is both writable and executable", "") \\
        D(ALIGNMENT_POWER, "ELF load command alignment not a power of two", "") \\
        D(ALIGNMENT_LARGE, "ELF load command alignment too large", "") \\
        D(ALIGNMENT_OFFSET, "ELF load command address/offset not properly aligned", "") \\
        D(ALIGNMENT_PAGE, "ELF load command address/offset not page-aligned", "") \\
        D(SEGMENT_ORDER, "segments overlap, share a page or are not in ascending order", \\
          "ELF load command address/offset not page-aligned") \\
        D(TLS_SIZE, "PT_TLS has an impossible size or alignment", "") \\
        D(EXECUTABLE_STACK, \\
          "cannot enable executable stack as shared object requires: if its code does " \\
          "not run on the stack, patchelf --clear-execstack FILE takes the demand back", "") \\
        D(NO_DYNAMIC, "object file has no dynamic section", "") \\
        D(CANNOT_MAP, "failed to map segment from shared object", "") \\
        D(CANNOT_PROTECT, "cannot change memory protections", "") \\
        D(CANNOT_MAP_ZEROES, "cannot map zero-fill pages", "") \\
        D(CANNOT_PROTECT_TEXT, "cannot change memory protections for text relocations", "") \\
        D(CANNOT_PROTECT_RELRO, \\
          "cannot apply additional memory protection after relocation", "") \\
        /* The dynamic section */ \\
        D(DYNAMIC_OUTSIDE, "the dynamic section lies outside the segments", "") \\
        D(NO_TABLES, "the dynamic section has no DT_STRTAB or no DT_SYMTAB", "") \\
        D(STRTAB_OUTSIDE, "DT_STRTAB lies outside the segments", "") \\
        D(STRTAB_END, "the string table has no end", "") \\
        D(SYMENT, "DT_SYMENT is not the expected size", "") \\
        D(SYMTAB_OUTSIDE, "DT_SYMTAB lies outside the segments", "") \\
        D(RELRO_OUTSIDE, "PT_GNU_RELRO lies outside the writable segments", "") \\
        D(NEEDED_OUTSIDE, "DT_NEEDED lies outside the string table", "") \\
        D(FILTER_OUTSIDE, "DT_FILTER or DT_AUXILIARY lies outside the string table", "") \\
        D(SONAME_OUTSIDE, "DT_SONAME lies outside the string table", "") \\
        D(RUNPATH_OUTSIDE, "DT_RUNPATH lies outside the string table", "") \\
        D(RPATH_OUTSIDE, "DT_RPATH lies outside the string table", "") \\
        D(TLS_OUTSIDE, "PT_TLS lies outside the segments", "") \\
        D(PIE, "cannot dynamically load position-independent executable", "") \\
        D(NOOPEN, \\
          "shared object cannot be dlopen()ed (DF_1_NOOPEN)", \\
          "shared object cannot be dlopen()ed") \\
        D(INIT_OUTSIDE, "DT_INIT lies outside the executable segments", "") \\
        D(FINI_OUTSIDE, "DT_FINI lies outside the executable segments", "") \\
        D(INIT_ARRAY_OUTSIDE, "DT_INIT_ARRAY lies outside the segments", "") \\
        D(FINI_ARRAY_OUTSIDE, "DT_FINI_ARRAY lies outside the segments", "") \\
        /* Hash tables and versions */ \\
        D(GNU_HASH_OUTSIDE, "DT_GNU_HASH lies outside the segments", "") \\
        D(BLOOM_SIZE, "DT_GNU_HASH: the bloom filter's size is not a power of two", "") \\
        D(GNU_HASH_BEYOND, "DT_GNU_HASH reaches beyond its segment", "") \\
        D(HASH_OUTSIDE, "DT_HASH lies outside the segments", "") \\
        D(HASH_BEYOND, "DT_HASH reaches beyond its segment", "") \\
        D(VERNEED_OUTSIDE, "DT_VERNEED lies outside the segments", "") \\
        D(VERNEED_VERSION, "unsupported version of Verneed record", "") \\
        D(VERNEED_MANY, "DT_VERNEED has too many entries", "") \\
        D(VERNEED_FILE, "DT_VERNEED names a file outside the string table", "") \\
        D(VERNEED_ENTRIES, "DT_VERNEED's entries lie outside the segments", "") \\
        D(VERNEED_NAME, "DT_VERNEED names a version outside the string table", "") \\
        D(VERDEF_OUTSIDE, "DT_VERDEF lies outside the segments", "") \\
        D(VERDEF_VERSION, "unsupported version of Verdef record", "") \\
        D(VERDEF_ENTRIES, "DT_VERDEF's entries lie outside the segments", "") \\
        D(VERDEF_NAME, "DT_VERDEF names a version outside the string table", "") \\
        D(VERSIONS_LARGE, "DT_VERNEEDNUM or DT_VERDEFNUM is too large", "") \\
        D(VERSYM_OUTSIDE, "DT_VERSYM lies outside the segments", "") \\
        /* Relocation */ \\
        D(REL, "DT_REL relocations (this machine has DT_RELA)", "") \\
        D(RELAENT, "DT_RELAENT is not the expected size", "") \\
        D(RELA_OUTSIDE, "DT_RELA lies outside the segments or is not whole", "") \\
        D(PLTREL, "DT_PLTREL is not DT_RELA", "") \\
        D(JMPREL_OUTSIDE, "DT_JMPREL lies outside the segments or is not whole", "") \\
        D(RELRENT, "DT_RELRENT is not the expected size", "") \\
        D(RELR_OUTSIDE, "DT_RELR lies outside the segments or is not whole", "") \\
        D(SYMBOL_INDEX, "a relocation's symbol index is out of range", "") \\
        D(SYMBOL_NAME, "a symbol's name lies outside the string table", "") \\
        D(NARROW_RELATIVE, "a 32-bit relative relocation does not reach", "") \\
        D(NARROW, "a 32-bit relocation overflows", "") \\
        D(COPY_UNDEFINED, "a COPY relocation without a definition", "") \\
        D(COPY_OUTSIDE, "a COPY relocation is out of range", "") \\
        D(PLACE_OUTSIDE, "a relocation's place lies outside the writable segments", "") \\
        D(RESOLVER_OUTSIDE, "an IFUNC resolver lies outside the executable segments", "") \\
        D(RELOCATION_TYPE, "unexpected relocation type", "") \\
        D(NARROW_IFUNC, "a 32-bit or relative reference to an IFUNC", "") \\
        D(RELR_PLACE, "a RELR place lies outside the writable segments", "") \\
        D(RELR_BITMAP, "DT_RELR begins with a bitmap", "") \\
        D(TEXT_RESOLVER, "a text relocation that a resolver decides", "") \\
        D(NOT_TLS, "a thread-local reference to a symbol that is not", "") \\
        D(NO_TLS, "a thread-local reference to an image without PT_TLS", "") \\
        D(TEXT_TLS, "a text relocation of thread-local storage", "") \\
        D(STATIC_TLS_LATE, \\
          "it needs static TLS (initial-exec) of a library of which the storage was " \\
          "placed when it was loaded: load it before that one", "") \\
        D(STATIC_TLS_FILE, \\
          "static TLS needs a file for libc to open, and none could be made: in memory " \\
          "(memfd_create, seen through /proc), in $XDG_RUNTIME_DIR, /dev/shm or /tmp", "") \\
        /* Binding */ \\
        D(UNDEFINED, "undefined symbol", "") \\
        D(UNVERSIONED, \\
          "it has no version information, but its symbol is needed with a version", "") \\
        D(VERSION_MISSING, "a version that is needed is not defined", "") \\
        D(SYMBOL_STOPPED, "the search for a symbol was ended", "") \\
        D(FILES_STOPPED, "the search among the caller's files was ended", "") \\
        D(ARCHIVES_STOPPED, "the search in archives was ended", "") \\
        /* Opening */ \\
        D(HOSTS_CODE, \\
          "the host's loader would run its code: there is one of it in a process", "") \\
        D(NOT_LOADED, "it is not loaded", "") \\
        D(HOSTS_OWN_MISSING, \\
          "there is one of it in a process, the host's own, and the process has none", "") \\
        D(HOSTS_OWN, "there is one of it in a process, the host's own", "") \\
        D(HOSTS_OWN_RELOADED, \\
          "there is one of it in a process, the host's own, which cannot be reloaded", "") \\
        D(HOST_REFUSED, "the host's loader refused", "") \\
        D(HOST_GONE, "a host library does not stay loaded", "") \\
        D(EMPTY_NAME, "an empty name", "") \\
        D(BYTES_NAME, "an image from bytes needs a name", "") \\
        D(MEMBER_NAME, "a member of an archive needs a name, and is not given as bytes, too", "") \\
        D(KEPT_REPLACING, "other threads kept replacing it", "") \\
        D(LOADED_ALREADY, \\
          "it is loaded already, and its references are bound: open a private copy of " \\
          "it", "") \\
        D(SCOPE_GONE, "an image of the scope is not loaded", "") \\
        D(BOUND_GONE, "an image that it is bound to has gone", "") \\
        D(NOT_MAPPED, "only an image that is mapped, and once, can be relocated", "") \\
        D(CONSTRUCTOR_BEFORE, \\
          "a constructor has thrown an exception when it was opened", "") \\
        /* libc's functions */ \\
        D(NOT_OPEN, "shared object not open", "") \\
        D(DLINFO_REQUEST, "unsupported dlinfo request", "") \\
        D(MODE_PARAMETER, "invalid mode parameter", "") \\
        D(DLOPEN_MODE, "invalid mode for dlopen()", "") \\
        D(NAMESPACE, "invalid namespace", "") \\
        D(MODE, "invalid mode", "") \\
        D(DLMOPEN_NAMESPACE, "invalid target namespace in dlmopen()", "") \\
        /* Patches and swaps */ \\
        D(PATCH_ITSELF, "the linker does not patch itself", "") \\
        D(NOT_LINKED, "it is not linked yet: relocate it first", "") \\
        D(PATCH_NAME, "a patch without a name", "") \\
        D(PATCH_RELRO, "the kernel does not let RELRO be opened for a patch", "") \\
        D(NO_PATCH, "the number of no patch", "") \\
        D(UNPATCH_RELRO, "the kernel does not let RELRO be opened to take a patch back", "") \\
        D(SWAP_RELRO, "the kernel does not let RELRO be opened for the new version", "") \\
        D(SWAP_SYMBOL, "the new version lacks a symbol that is in use", "") \\
        D(SWAP_ADDRESS, "it leads to an address of the old version that is no symbol's", "") \\
        D(SWAP_TLS, "it uses thread-local storage of the old version", "") \\
        D(SWAP_PLACE, "no single store changes where it refers to the old version", "") \\
        D(NOT_RELOADABLE, "only a reloadable image can take the place of another", "") \\
        D(KEPT_OPENING, "other threads kept opening libraries, or patching", "") \\
        D(NOT_OURS, "not an image of ours", "") \\
        D(NOT_RETAINED, "it is not retained", "")
    #define DLOPEN_NUMBER(name, ours, libcs) DETAIL_##name,
    enum { DLOPEN_DETAILS(DLOPEN_NUMBER) DETAIL_COUNT };
    /* In rows, not as pointers: these would be relocated. */
    #define DLOPEN_ROOM(name, ours, libcs) char name[sizeof(ours)], name##_libc[sizeof(libcs)];
    #define DLOPEN_TEXT(name, ours, libcs) ours, libcs,
    static const struct dlopen_detail_texts { DLOPEN_DETAILS(DLOPEN_ROOM) }
        dlopen_detail_texts = { DLOPEN_DETAILS(DLOPEN_TEXT) };
    #define DLOPEN_OFFSET(name, ours, libcs) { \\
        offsetof(struct dlopen_detail_texts, name), \\
        offsetof(struct dlopen_detail_texts, name##_libc) },
    _Static_assert(sizeof(dlopen_detail_texts) < 0x10000, "offsets of 16 bits");
    static const uint16_t dlopen_detail_offsets[][2] = { DLOPEN_DETAILS(DLOPEN_OFFSET) };
    #define dlopen_detail(number, column) \\
        ((const char *)&dlopen_detail_texts + dlopen_detail_offsets[number][column])
    """
    enum:
        DETAIL_NONE, DETAIL_NO_MEMORY, DETAIL_NO_HANDLE, DETAIL_REQUEST_SIZE, DETAIL_NO_NAMESPACE
        DETAIL_CANNOT_OPEN, DETAIL_CANNOT_READ, DETAIL_SHRANK, DETAIL_MEMBER_BEYOND,
        DETAIL_MEMBER_SIZE, DETAIL_MEMBER_COMPRESSED, DETAIL_MEMBER_UNALIGNED,
        DETAIL_MEMBER_NOEXEC, DETAIL_EMPTY, DETAIL_SHORT_TEXT, DETAIL_SHORT_ARCHIVE,
        DETAIL_SHORT, DETAIL_ARCHIVE, DETAIL_TEXT, DETAIL_NO_ELF
        DETAIL_CLASS_32, DETAIL_CLASS, DETAIL_DATA, DETAIL_IDENT_VERSION, DETAIL_OS_ABI,
        DETAIL_ABI_VERSION, DETAIL_VERSION, DETAIL_MACHINE, DETAIL_EXECUTABLE, DETAIL_RELOCATABLE,
        DETAIL_CORE_DUMP, DETAIL_TYPE, DETAIL_PHENTSIZE
        DETAIL_NO_SEGMENTS, DETAIL_PHNUM, DETAIL_PHDRS_OUTSIDE, DETAIL_SEGMENT_FILESZ,
        DETAIL_SEGMENT_BEYOND, DETAIL_SEGMENT_ADDRESS, DETAIL_SEGMENT_WX, DETAIL_ALIGNMENT_POWER,
        DETAIL_ALIGNMENT_LARGE, DETAIL_ALIGNMENT_OFFSET, DETAIL_ALIGNMENT_PAGE,
        DETAIL_SEGMENT_ORDER, DETAIL_TLS_SIZE, DETAIL_EXECUTABLE_STACK, DETAIL_NO_DYNAMIC,
        DETAIL_CANNOT_MAP, DETAIL_CANNOT_PROTECT, DETAIL_CANNOT_MAP_ZEROES,
        DETAIL_CANNOT_PROTECT_TEXT, DETAIL_CANNOT_PROTECT_RELRO
        DETAIL_DYNAMIC_OUTSIDE, DETAIL_NO_TABLES, DETAIL_STRTAB_OUTSIDE, DETAIL_STRTAB_END,
        DETAIL_SYMENT, DETAIL_SYMTAB_OUTSIDE, DETAIL_RELRO_OUTSIDE, DETAIL_NEEDED_OUTSIDE,
        DETAIL_FILTER_OUTSIDE, DETAIL_SONAME_OUTSIDE, DETAIL_RUNPATH_OUTSIDE,
        DETAIL_RPATH_OUTSIDE, DETAIL_TLS_OUTSIDE, DETAIL_PIE, DETAIL_NOOPEN, DETAIL_INIT_OUTSIDE,
        DETAIL_FINI_OUTSIDE, DETAIL_INIT_ARRAY_OUTSIDE, DETAIL_FINI_ARRAY_OUTSIDE
        DETAIL_GNU_HASH_OUTSIDE, DETAIL_BLOOM_SIZE, DETAIL_GNU_HASH_BEYOND, DETAIL_HASH_OUTSIDE,
        DETAIL_HASH_BEYOND, DETAIL_VERNEED_OUTSIDE, DETAIL_VERNEED_VERSION, DETAIL_VERNEED_MANY,
        DETAIL_VERNEED_FILE, DETAIL_VERNEED_ENTRIES, DETAIL_VERNEED_NAME, DETAIL_VERDEF_OUTSIDE,
        DETAIL_VERDEF_VERSION, DETAIL_VERDEF_ENTRIES, DETAIL_VERDEF_NAME, DETAIL_VERSIONS_LARGE,
        DETAIL_VERSYM_OUTSIDE
        DETAIL_REL, DETAIL_RELAENT, DETAIL_RELA_OUTSIDE, DETAIL_PLTREL, DETAIL_JMPREL_OUTSIDE,
        DETAIL_RELRENT, DETAIL_RELR_OUTSIDE, DETAIL_SYMBOL_INDEX, DETAIL_SYMBOL_NAME,
        DETAIL_NARROW_RELATIVE, DETAIL_NARROW, DETAIL_COPY_UNDEFINED, DETAIL_COPY_OUTSIDE,
        DETAIL_PLACE_OUTSIDE, DETAIL_RESOLVER_OUTSIDE, DETAIL_RELOCATION_TYPE,
        DETAIL_NARROW_IFUNC, DETAIL_RELR_PLACE, DETAIL_RELR_BITMAP, DETAIL_TEXT_RESOLVER,
        DETAIL_NOT_TLS, DETAIL_NO_TLS, DETAIL_TEXT_TLS, DETAIL_STATIC_TLS_LATE,
        DETAIL_STATIC_TLS_FILE
        DETAIL_UNDEFINED, DETAIL_UNVERSIONED, DETAIL_VERSION_MISSING, DETAIL_SYMBOL_STOPPED,
        DETAIL_FILES_STOPPED, DETAIL_ARCHIVES_STOPPED
        DETAIL_HOSTS_CODE, DETAIL_NOT_LOADED, DETAIL_HOSTS_OWN_MISSING, DETAIL_HOSTS_OWN,
        DETAIL_HOSTS_OWN_RELOADED, DETAIL_HOST_REFUSED, DETAIL_HOST_GONE, DETAIL_EMPTY_NAME,
        DETAIL_BYTES_NAME, DETAIL_MEMBER_NAME, DETAIL_KEPT_REPLACING, DETAIL_LOADED_ALREADY,
        DETAIL_SCOPE_GONE, DETAIL_BOUND_GONE, DETAIL_NOT_MAPPED, DETAIL_CONSTRUCTOR_BEFORE
        DETAIL_NOT_OPEN, DETAIL_DLINFO_REQUEST, DETAIL_MODE_PARAMETER, DETAIL_DLOPEN_MODE,
        DETAIL_NAMESPACE, DETAIL_MODE, DETAIL_DLMOPEN_NAMESPACE
        DETAIL_PATCH_ITSELF, DETAIL_NOT_LINKED, DETAIL_PATCH_NAME, DETAIL_PATCH_RELRO,
        DETAIL_NO_PATCH, DETAIL_UNPATCH_RELRO, DETAIL_SWAP_RELRO, DETAIL_SWAP_SYMBOL,
        DETAIL_SWAP_ADDRESS, DETAIL_SWAP_TLS, DETAIL_SWAP_PLACE, DETAIL_NOT_RELOADABLE,
        DETAIL_KEPT_OPENING, DETAIL_NOT_OURS, DETAIL_NOT_RETAINED
    const char* detail_text "dlopen_detail"(uint32_t number, int column) nogil


cdef enum:                       # columns
    OURS = 0
    LIBCS = 1
