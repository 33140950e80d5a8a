"""What a table of a machine says: in `x86_64`, `aarch64`, `riscv64` and `loongarch64` of this room.

All tables are compiled on every host: an image of any of these machines can be mapped and looked
at. What is no data is compiled for that machine only: what is asked of the processor, behind the
table, by the names of processor.pxd; and its assembly file. Nothing outside this room differs by
machine.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from *:
    """
    #include "dlopen.h"

    /* One type of relocation that a linker leaves to the loader. */
    struct dlopen_relocation_row {
      uint8_t kind;              /* enum DLOPEN_relocation_kind; 0: none of these types */
      uint8_t width;             /* bytes at the place; of a COPY its symbol's size, 0 here */
    };

    /* Without pointers: nothing of it is to be relocated when this library is loaded. */
    struct dlopen_machine {
      /* Of the file format: the psABI. */
      uint16_t number;           /* e_machine */
      char name[12];
      uint32_t flags_mask;       /* bits of e_flags that all images of a process have the same: … */
      uint32_t flags;            /* … the ABI for floating point */
      uint8_t flags_shift;
      char abis[8][20];          /* their names, by those bits, shifted */
      uint64_t last_address;     /* that a process can have */
      /* Types of relocations by their numbers, in two stretches. 0 is NONE everywhere. */
      uint32_t first;            /* of the first stretch */
      struct dlopen_relocation_row rows[40];
      uint32_t second_first;
      struct dlopen_relocation_row second_rows[12];
      uint32_t relative;         /* the type of what DT_RELR says */
      uint32_t relative_wide;    /* another one; 0: there is none */
      uint32_t dtpmod, tpoff;    /* those of a file that is made here: tls/donor.pxd */

      /* Calls. */
      uint8_t slots_have_addend; /* GLOB_DAT and JUMP_SLOT are symbol + addend */
      uint8_t got_resolver;      /* the words of DT_PLTGOT by which the first entry of a PLT … */
      uint8_t got_image;         /* … calls the resolver, and tells it whose PLT it is */
      uint8_t got_reserved;      /* so many words come before those of the calls */
      uint8_t variant_call;      /* st_other: a convention of its own, for which a lazy call does
                                    not keep the registers */

      /* Thread-local storage ("ELF Handling For Thread-Local Storage"). */
      uint8_t tls_variant;       /* 1: blocks lie above the thread pointer; 2: below */
      uint16_t dtv_offset;       /* what __tls_get_addr adds to a DTPOFF */

      /* Of Linux and glibc there. */
      uint8_t moves_dynamic_pointers;     /* libc's loader adds the load bias to those in the
                                             dynamic section (its DL_RO_DYN_SECTION is 0) */
      uint8_t runs_init;         /* DT_INIT; newer ports have DT_INIT_ARRAY only, but run DT_FINI */
      uint16_t cache_flags;      /* of an entry of ld.so.cache: a library for it and this libc */
      char lib[12];              /* the folder of libraries, $LIB, of a libc that is built as it is
                                    written; Debian and others have their own */
      char hwcaps[3][12];        /* folders of glibc-hwcaps, the best first: for the processor's
                                    levels 4 to 2; "": none */
      uint32_t breakpoint;       /* the instruction that debuggers put into code … */
      uint8_t breakpoint_size;   /* … and its bytes */
    };
    """
    enum:
        ROWS "(sizeof ((struct dlopen_machine *) 0)->rows / 2)"
        SECOND_ROWS "(sizeof ((struct dlopen_machine *) 0)->second_rows / 2)"
        ABIS "(sizeof ((struct dlopen_machine *) 0)->abis / 20)"

    ctypedef struct RelocationRow "struct dlopen_relocation_row":
        uint8_t kind
        uint8_t width

    ctypedef struct Machine "struct dlopen_machine":
        uint16_t number
        char name[12]
        uint32_t flags_mask
        uint32_t flags
        uint8_t flags_shift
        char abis[8][20]
        uint64_t last_address
        uint32_t first
        RelocationRow rows[40]
        uint32_t second_first
        RelocationRow second_rows[12]
        uint32_t relative
        uint32_t relative_wide
        uint32_t dtpmod
        uint32_t tpoff
        uint8_t slots_have_addend
        uint8_t got_resolver
        uint8_t got_image
        uint8_t got_reserved
        uint8_t variant_call
        uint8_t tls_variant
        uint16_t dtv_offset
        uint8_t moves_dynamic_pointers
        uint8_t runs_init
        uint16_t cache_flags
        char lib[12]
        char hwcaps[3][12]
        uint32_t breakpoint
        uint8_t breakpoint_size
