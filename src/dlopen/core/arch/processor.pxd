"""The processor: how libc names it where it searches, how much of its state is to be saved, and
what a resolver of an IFUNC is told of it.

The loader has asked it already, and tells what may be used (<sys/platform/x86.h>, getauxval(3)):
under a hypervisor each CPUID costs microseconds.

A machine says it behind its table. What most have in common is here: a macro of a function's name
says that the machine has its own.
"""

from libc.stdint cimport uint32_t, uint64_t

from dlopen.core.arch.machine cimport THIS_MACHINE    # their parts come before this


cdef extern from *:
    """
    #include <sys/auxv.h>

    enum { DLOPEN_PLATFORM_PARTS = 4 };

    #ifndef DLOPEN_FEATURES_FUNCTION
    #define DLOPEN_FEATURES_FUNCTION ""
    #endif
    #ifndef DLOPEN_NEEDS_FEATURES
    #define DLOPEN_NEEDS_FEATURES 0
    #endif
    #ifndef dlopen_isa_level
    static int dlopen_isa_level(void *function) { (void)function; return 0; }
    #endif
    #ifndef dlopen_platform
    static const char *dlopen_platform(void *function) {
        const char *platform = (const char *)getauxval(AT_PLATFORM);
        (void)function;
        return platform ? platform : "";
    }
    #endif
    #ifndef dlopen_platform_parts
    static int dlopen_platform_parts(void *function, const char **parts, uint64_t *hwcap) {
        (void)function;
        (void)parts;
        *hwcap = 0;
        return 0;
    }
    #endif
    #ifndef dlopen_code_protection
    #define DLOPEN_CODE_PROPERTY 0U
    static int dlopen_code_protection(uint32_t bits) { (void)bits; return 0; }
    #endif
    #ifndef dlopen_prepare_processor
    static void dlopen_prepare_processor(void *function) { (void)function; }
    #endif
    """
    enum:
        PLATFORM_PARTS "DLOPEN_PLATFORM_PARTS"
    # A function of libc's that the others are given; "": none. NEEDS_FEATURES: they cannot be
    # called without.
    const char* FEATURES_FUNCTION "DLOPEN_FEATURES_FUNCTION"
    bint NEEDS_FEATURES "DLOPEN_NEEDS_FEATURES"
    # Of Machine.hwcaps, those up to this level are folders for this processor.
    int isa_level "dlopen_isa_level"(void* features) noexcept nogil
    # What $PLATFORM stands for; "": nothing is known.
    const char* platform_name "dlopen_platform"(void* features) noexcept nogil
    # Folders whose subsets glibc searched before 2.37, each with its slash, the least first; how
    # many, PLATFORM_PARTS at most. `hwcap`: the bits that an entry of ld.so.cache may ask for.
    int platform_parts "dlopen_platform_parts"(
        void* features, const char** parts, uint64_t* hwcap
    ) noexcept nogil
    # The property of a file (elf/properties.pxd) that its pages of code may be protected for, and
    # how (PROT_…, beside PROT_EXEC) if it has these bits. 0: there is no such.
    uint32_t CODE_PROPERTY "DLOPEN_CODE_PROPERTY"
    int code_protection "dlopen_code_protection"(uint32_t bits) noexcept nogil
    # What its assembly and its resolvers are told; before the first of them runs.
    void prepare_processor "dlopen_prepare_processor"(void* features) noexcept nogil
    # Of an IFUNC: foreign code, which says where the function is.
    uint64_t call_resolver "dlopen_call_resolver"(uint64_t resolver) noexcept nogil
