"""Numbers of the gABI, of the GNU extensions and of symbol versioning, under their own names:
elf(5), <elf.h>."""

cdef enum:
    EI_CLASS = 4
    EI_DATA = 5
    EI_VERSION = 6
    EI_OSABI = 7
    EI_ABIVERSION = 8
    ELFCLASS32 = 1
    ELFCLASS64 = 2
    ELFDATA2LSB = 1
    ELFOSABI_SYSV = 0
    ELFOSABI_GNU = 3
    EV_CURRENT = 1

    ET_REL = 1
    ET_EXEC = 2
    ET_DYN = 3
    ET_CORE = 4

    PT_LOAD = 1
    PT_DYNAMIC = 2
    PT_INTERP = 3
    PT_PHDR = 6
    PT_TLS = 7
    PT_GNU_EH_FRAME = 0x6474e550
    PT_GNU_STACK = 0x6474e551
    PT_GNU_RELRO = 0x6474e552
    PT_GNU_PROPERTY = 0x6474e553

    PF_X = 1
    PF_W = 2
    PF_R = 4

    SHT_NOTE = 7
    SHF_ALLOC = 2
    NT_STAPSDT = 3
    NT_GNU_PROPERTY_TYPE_0 = 5

    DT_NULL = 0
    DT_NEEDED = 1
    DT_PLTRELSZ = 2
    DT_PLTGOT = 3
    DT_HASH = 4
    DT_STRTAB = 5
    DT_SYMTAB = 6
    DT_RELA = 7
    DT_RELASZ = 8
    DT_RELAENT = 9
    DT_STRSZ = 10
    DT_SYMENT = 11
    DT_INIT = 12
    DT_FINI = 13
    DT_SONAME = 14
    DT_RPATH = 15
    DT_SYMBOLIC = 16
    DT_REL = 17
    DT_PLTREL = 20
    DT_DEBUG = 21
    DT_TEXTREL = 22
    DT_JMPREL = 23
    DT_INIT_ARRAY = 25
    DT_FINI_ARRAY = 26
    DT_INIT_ARRAYSZ = 27
    DT_FINI_ARRAYSZ = 28
    DT_RUNPATH = 29
    DT_FLAGS = 30
    DT_RELRSZ = 35
    DT_RELR = 36
    DT_RELRENT = 37
    DT_GNU_HASH = 0x6ffffef5
    DT_VERSYM = 0x6ffffff0
    DT_RELACOUNT = 0x6ffffff9
    DT_FLAGS_1 = 0x6ffffffb
    DT_VERDEF = 0x6ffffffc
    DT_VERDEFNUM = 0x6ffffffd
    DT_VERNEED = 0x6ffffffe
    DT_VERNEEDNUM = 0x6fffffff
    DT_AUXILIARY = 0x7ffffffd
    DT_FILTER = 0x7fffffff

    DF_SYMBOLIC = 2
    DF_TEXTREL = 4
    DF_BIND_NOW = 8
    DF_STATIC_TLS = 16
    DF_1_NOW = 1
    DF_1_GLOBAL = 2
    DF_1_NODELETE = 8
    DF_1_INITFIRST = 0x20
    DF_1_NOOPEN = 0x40
    DF_1_NODEFLIB = 0x800
    DF_1_PIE = 0x8000000

    SHN_UNDEF = 0
    SHN_ABS = 0xfff1

    STB_LOCAL = 0
    STB_GLOBAL = 1
    STB_WEAK = 2
    STB_GNU_UNIQUE = 10
    STT_NOTYPE = 0
    STT_OBJECT = 1
    STT_FUNC = 2
    STT_COMMON = 5
    STT_TLS = 6
    STT_GNU_IFUNC = 10
    STV_DEFAULT = 0
    STV_INTERNAL = 1
    STV_HIDDEN = 2
    STV_PROTECTED = 3

    VER_FLG_BASE = 1
    VER_FLG_WEAK = 2
    VER_NDX_LOCAL = 0
    VER_NDX_GLOBAL = 1
    VERSYM_HIDDEN = 0x8000
    VERSYM_INDEX = 0x7fff
