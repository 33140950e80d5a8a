/* What fixtures of C write differently by machine. */
#ifndef MACHINES_H
#define MACHINES_H

/* A function whose arguments may be vectors of 32 bytes, and whether this processor has them. */
#if defined(__x86_64__)
#define WIDE_VECTORS __attribute__((target("avx")))
#define HAS_WIDE_VECTORS __builtin_cpu_supports("avx")
#else
#define WIDE_VECTORS
#define HAS_WIDE_VECTORS 1
#endif

/* What libc aligns thread-local storage to that it gives to a library when the program runs. */
#if defined(__x86_64__)
#define STATIC_STORAGE_ALIGNMENT 64
#else
#define STATIC_STORAGE_ALIGNMENT 16
#endif

/* The file name of libc's loader. */
#if defined(__x86_64__)
#define LOADER_NAME "ld-linux-x86-64.so.2"
#elif defined(__aarch64__)
#define LOADER_NAME "ld-linux-aarch64.so.1"
#elif defined(__riscv)
#define LOADER_NAME "ld-linux-riscv64-lp64d.so.1"
#else
#define LOADER_NAME "ld-linux-loongarch-lp64d.so.1"
#endif

/* What a debugger writes where it wants to be told. */
#if defined(__x86_64__)
#define BREAKPOINT "\xcc"
#elif defined(__aarch64__)
#define BREAKPOINT "\x00\x00\x20\xd4"
#elif defined(__riscv)
#define BREAKPOINT "\x02\x90"
#else
#define BREAKPOINT "\x05\x00\x2a\x00"
#endif

/* In assembly: a whole function that returns a number. */
#if defined(__x86_64__)
#define RETURN_NUMBER(number) mov $number, %eax; ret
#elif defined(__aarch64__)
#define RETURN_NUMBER(number) mov w0, number; ret
#elif defined(__riscv)
#define RETURN_NUMBER(number) li a0, number; ret
#elif defined(__loongarch__)
#define RETURN_NUMBER(number) li.w $a0, number; jr $ra
#endif

/* What __tls_get_addr adds to an offset: psABI. */
#if defined(__riscv)
#define TLS_DTV_OFFSET 0x800
#else
#define TLS_DTV_OFFSET 0
#endif

#endif
