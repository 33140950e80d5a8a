"""The machine of this process, which is the one that this library was built for, and that of a
file. Where images run, `THIS_MACHINE` is meant: the compiler knows its table. Where they are read,
it is `Image.machine`."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport snprintf

from dlopen.core.arch.aarch64 cimport aarch64
from dlopen.core.arch.loongarch64 cimport loongarch64
from dlopen.core.arch.riscv64 cimport riscv64
from dlopen.core.arch.table cimport (
    ABIS, ROWS, SECOND_ROWS, Machine, RelocationRow,
)
from dlopen.core.arch.x86_64 cimport x86_64
from dlopen.core.base.contract cimport (
    DLOPEN_E_UNSUPPORTED, DLOPEN_R_NONE, DLOPEN_R_UNKNOWN, Error,
)
from dlopen.core.base.details cimport DETAIL_MACHINE
from dlopen.core.base.errors cimport fail_text
from dlopen.core.elf.structures cimport Ehdr


cdef extern from *:
    """
    /* Defined in arch/<machine>.S. TLS descriptors call the first three, with a calling
       convention of their own: never to be called from here. */
    #define DLOPEN_ASSEMBLY __attribute__((visibility("hidden")))
    DLOPEN_ASSEMBLY extern const char dlopen_tlsdesc_static[];
    DLOPEN_ASSEMBLY extern const char dlopen_tlsdesc_undefined[];
    DLOPEN_ASSEMBLY extern const char dlopen_tlsdesc_dynamic[];
    /* Jumped to by a PLT's first entry. */
    DLOPEN_ASSEMBLY extern const char dlopen_lazy_call[];
    DLOPEN_ASSEMBLY uint64_t dlopen_thread_pointer(void);
    DLOPEN_ASSEMBLY void *dlopen_make_block_aligned(uint64_t module);
    /* Of a variable that is one thread's: a signal handler of its comes before or after, which
       takes one instruction, and not the processor's lock. */
    #ifndef dlopen_exchange_in_thread
    static inline void *dlopen_exchange_in_thread(void **p, void *v) {
        void *before;
        __atomic_signal_fence(__ATOMIC_SEQ_CST);         /* what `v` leads to is there */
        before = __atomic_exchange_n(p, v, __ATOMIC_RELAXED);
        __atomic_signal_fence(__ATOMIC_SEQ_CST);
        return before;
    }
    #endif
    #define dlopen_exchange_of_thread(p, v) dlopen_exchange_in_thread((void **)(p), (void *)(v))
    /* A fence, where one of the compiler's read-modify-writes (sequentially consistent) comes just
       before. That alone need not be one: where it is a load and a store, as on AArch64 before LSE,
       what follows may be read before the store is seen. */
    #ifndef DLOPEN_EXCHANGE_IS_FENCE
    #define DLOPEN_EXCHANGE_IS_FENCE 0
    #endif
    static inline void dlopen_fence_after_exchange(void) {
        if (DLOPEN_EXCHANGE_IS_FENCE) __atomic_signal_fence(__ATOMIC_SEQ_CST);
        else __atomic_thread_fence(__ATOMIC_SEQ_CST);
    }
    """
    const Machine* THIS_MACHINE "DLOPEN_THIS_MACHINE"
    const char* tlsdesc_static "dlopen_tlsdesc_static"
    const char* tlsdesc_undefined "dlopen_tlsdesc_undefined"
    const char* tlsdesc_dynamic "dlopen_tlsdesc_dynamic"
    const char* lazy_call "dlopen_lazy_call"
    uint64_t thread_pointer "dlopen_thread_pointer"() noexcept nogil
    # dlopen_make_block, from a stack that may not be aligned.
    char* make_block_aligned "dlopen_make_block_aligned"(uint64_t module) noexcept nogil
    void* exchange_of_thread "dlopen_exchange_of_thread"(
        void* address, const void* value
    ) noexcept nogil
    void fence_after_exchange "dlopen_fence_after_exchange"() noexcept nogil


cdef inline const Machine* machine_of(uint16_t number) noexcept nogil:
    """Its table, by e_machine; NULL: none of those that are known here."""
    if number == x86_64.number:
        return &x86_64
    if number == aarch64.number:
        return &aarch64
    if number == riscv64.number:
        return &riscv64
    if number == loongarch64.number:
        return &loongarch64
    return NULL


cdef inline const RelocationRow* find_row(
    const Machine* machine, uint32_t number
) noexcept nogil:
    """NULL where the table ends; it has gaps."""
    if number - machine.first < ROWS:
        return &machine.rows[number - machine.first]
    if machine.second_first != 0 and number - machine.second_first < SECOND_ROWS:
        return &machine.second_rows[number - machine.second_first]
    return NULL


cdef inline uint32_t relocation_kind(const Machine* machine, uint32_t number) noexcept nogil:
    """enum DLOPEN_relocation_kind."""
    cdef const RelocationRow* row = find_row(machine, number)
    cdef uint32_t kind = row.kind if row != NULL else <uint32_t>DLOPEN_R_NONE
    return kind if kind != DLOPEN_R_NONE or number == 0 else <uint32_t>DLOPEN_R_UNKNOWN


cdef inline uint32_t relocation_width(const Machine* machine, uint32_t number) noexcept nogil:
    """Bytes at the place; 0 where the type does not say or is not known."""
    cdef const RelocationRow* row = find_row(machine, number)
    return row.width if row != NULL else 0


cdef inline bint is_relative(const Machine* machine, uint32_t number) noexcept nogil:
    """As its kind says; quicker."""
    return number == machine.relative \
        or (machine.relative_wide != 0 and number == machine.relative_wide)


cdef inline bint runs_here(const Ehdr* header) noexcept nogil:
    """An image of this header and those of this process can call each other."""
    return header.e_machine == THIS_MACHINE.number \
        and header.e_flags & THIS_MACHINE.flags_mask == THIS_MACHINE.flags


cdef inline const char* abi_of(uint32_t flags) noexcept nogil:
    """Of this machine, by e_flags."""
    cdef uint32_t number = (flags & THIS_MACHINE.flags_mask) >> THIS_MACHINE.flags_shift
    if number >= ABIS or THIS_MACHINE.abis[number][0] == 0:
        return b"one that is not known here"
    return &THIS_MACHINE.abis[number][0]


cdef inline int fail_for_machine(
    Error* error, const char* name, uint16_t number, uint32_t flags
) noexcept nogil:
    """A file of this e_machine and these e_flags, which does not run here."""
    cdef const Machine* machine = machine_of(number)
    cdef char text[160]
    if machine == THIS_MACHINE:
        snprintf(
            &text[0], sizeof(text), b"for another machine: its ABI (e_flags 0x%x) is %s, and that "
            b"of this process is %s", <unsigned int>flags, abi_of(flags),
            abi_of(THIS_MACHINE.flags)
        )
    elif machine != NULL:
        snprintf(
            &text[0], sizeof(text), b"for another machine: it is for %s, and this process is %s",
            &machine.name[0], &THIS_MACHINE.name[0]
        )
    else:
        snprintf(
            &text[0], sizeof(text), b"for another machine: it is for one that is not known here "
            b"(e_machine %u), and this process is %s", <unsigned int>number,
            &THIS_MACHINE.name[0]
        )
    fail_text(error, DLOPEN_E_UNSUPPORTED, name, &text[0])
    if error != NULL:
        error.detail_number = DETAIL_MACHINE     # for libc's words
        error.offset = 48 if machine == THIS_MACHINE else 18
        error.value = flags if machine == THIS_MACHINE else number
    return DLOPEN_E_UNSUPPORTED


cdef inline bint holds_breakpoint(const void* code) noexcept nogil:
    """A debugger has put one there."""
    cdef const volatile uint8_t* byte = <const volatile uint8_t*>code
    cdef size_t i
    for i in range(THIS_MACHINE.breakpoint_size):
        if byte[i] != (THIS_MACHINE.breakpoint >> 8 * i & 255U):
            return False
    return True
