"""The libraries that the cases open, and how their programs are built.  Compiled once for all."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from family.cases import FOLDER
from support.fixtures import compile_library, compile_program
from support.machines import machine

# Says when it is initialised and finished; NAME is the only thing that is its own.
_TRACE = """
#include <unistd.h>
#define SAY_(text) (void)!write(1, text, sizeof(text) - 1)
__attribute__((constructor)) static void start(void) { SAY_("start " NAME "\\n"); }
__attribute__((destructor)) static void finish(void) { SAY_("finish " NAME "\\n"); }
"""
_HEADER = f'#define FAMILY_NO_MAIN\n#include "{FOLDER}/family.h"\n'


@dataclass(frozen=True)
class Library:
    source: str
    needs: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    soname: str | None = None
    version_script: str = ""


# What opens others finds them beside it.
_RPATH = ("-Wl,--no-as-needed", "-Wl,--enable-new-dtags,-rpath,$ORIGIN")


def _trace(name: str, *needs: str, more: str = "", flags: tuple[str, ...] = ()) -> Library:
    source = f'#define NAME "{name}"\n{_TRACE}{more}'
    return Library(source, tuple(f"libtrace_{other}.so" for other in needs), (*_RPATH, *flags))


def _shape(*flags: str) -> Library:
    return Library(
        """
        #include <unistd.h>
        int shape_data = 5;
        int *shape_pointer = &shape_data;
        static const char *names[] = {"a shape", "another"};
        const char *shape_name(void) { return names[0]; }
        __attribute__((noinline)) int shape_part(void) { return shape_data + *shape_pointer; }
        int shape(void) { return shape_part() + getpagesize(); }
        """,
        flags=flags,
    )


# Each file name is the soname too, and libraries stand after those that they need.
LIBRARIES = {
    "libone.so": Library("""
        int one(void) { return 1; }
        const char *who(void) { return "one"; }
        int number = 11;
        static int hidden_function(void) { return 5; }
        int (*hidden(void))(void) { return hidden_function; }
        int in_bss[100];
    """),
    "libtwo.so": Library("""
        int two(void) { return 2; }
        const char *who(void) { return "two"; }
        int number = 22;
    """),
    # Both by name only: nothing of them is used.
    "libboth.so": Library(
        """
        extern const char *who(void);
        const char *ask_who(void) { return who(); }
        """,
        ("libone.so", "libtwo.so"),
        ("-Wl,--no-as-needed",),
    ),
    "libneedsone.so": Library(
        "int one(void); int one_more(void) { return one() + 1; } int own(void) { return 7; }",
        ("libone.so",),
    ),
    "libneedsneedsone.so": Library(
        "int one_more(void); int two_more(void) { return one_more() + 1; }", ("libneedsone.so",)
    ),
    # Nothing says where `who` comes from.
    "libasks.so": Library("""
        const char *who(void);
        const char *ask_who(void) { return who(); }
        extern int weak_absent(void) __attribute__((weak));
        int has_weak(void) { return weak_absent != 0; }
    """),
    # It asks for its own `who`, which may be interposed.
    "libself.so": Library("""
        const char *who(void) { return "self"; }
        const char *ask_who(void) { return who(); }
    """),
    "libsymbolic.so": Library(
        """
        const char *who(void) { return "symbolic"; }
        const char *ask_who(void) { return who(); }
        """,
        flags=("-Wl,-Bsymbolic",),
    ),
    "libprotected.so": Library("""
        __attribute__((visibility("protected"))) const char *who(void) { return "protected"; }
        __attribute__((visibility("hidden"))) const char *unseen(void) { return "hidden"; }
        const char *ask_who(void) { return who(); }
        const char *ask_unseen(void) { return unseen(); }
    """),
    "libweak.so": Library("""
        __attribute__((weak)) const char *who(void) { return "weak"; }
        const char *ask_who(void) { return who(); }
    """),
    "libnodelete.so": Library("int kept(void) { return 3; }", flags=("-Wl,-z,nodelete",)),
    "libnoopen.so": Library("int refused(void) { return 4; }", flags=("-Wl,-z,nodlopen",)),
    "libglobal1.so": Library("int f(void) { return 1; }", flags=("-Wl,-z,global",)),
    "libsoname.so": Library("int named(void) { return 6; }", soname="libanother.so.1"),
    "libnosoname.so": Library("int unnamed(void) { return 8; }", soname=""),
    "libversions.so": Library(
        """
        __asm__(".symver f_old, f@V_1"); __asm__(".symver f_new, f@@V_2");
        __asm__(".symver g_old, g@V_1");
        int f_old(void) { return 1; }
        int f_new(void) { return 2; }
        int g_old(void) { return 10; }
        int plain(void) { return 20; }
        """,
        version_script="V_1 { global: plain; }; V_2 { local: f_old; f_new; g_old; } V_1;",
    ),
    "libifunc.so": Library("""
        static int chosen(void) { return 33; }
        static int (*resolver(void))(void) { return chosen; }
        int picked(void) __attribute__((ifunc("resolver")));
        int (*address_of_picked(void))(void) { return picked; }
        int call_picked(void) { return picked(); }
    """),
    "libtls.so": Library("""
        __thread int counter = 41;
        __thread char zeroes[64];
        int *address_of_counter(void) { return &counter; }
        int next_counter(void) { return ++counter; }
    """),
    "libtlsinitial.so": Library("""
        __thread int early __attribute__((tls_model("initial-exec"))) = 51;
        int *address_of_early(void) { return &early; }
    """),
    "libunique1.so": Library("""
        __asm__(".data\\n.globl only\\n.type only, @gnu_unique_object\\n.size only, 4\\n"
                "only: .long 1\\n.text");
        extern int only;
        int *address_of_only(void) { return &only; }
    """),
    "libunique2.so": Library("""
        __asm__(".data\\n.globl only\\n.type only, @gnu_unique_object\\n.size only, 4\\n"
                "only: .long 2\\n.text");
        extern int only;
        int *address_of_only(void) { return &only; }
    """),
    "libdata.so": Library("""
        const int constant = 1;
        int initialised = 2;
        int zeroed;
        void *pointer_to_constant = (void *)&constant;
        static const void *const addresses[] = {&constant, &initialised};
        const void *const *table(void) { return addresses; }
    """),
    "libabsolute.so": Library(
        '__asm__(".globl fixed\\n.set fixed, 0x1234\\n.globl nothing\\n.set nothing, 0");'
        "int here(void) { return 1; }"
    ),
    "libstarted.so": Library("int started(void) { return 1; }"),
    # The name of a file that a case makes.
    "libneedsalias.so": Library(
        "int one(void); int one_by_alias(void) { return one(); }", ("libneededalias.so",)
    ),
    # Shapes of the dynamic section.
    "libdynamicsysv.so": Library("int f(void) { return 1; }", flags=("-Wl,--hash-style=sysv",)),
    "libdynamicrelr.so": Library(
        "int target[4]; int *pointers[40] = {[0 ... 39] = target + 1};",
        flags=("-Wl,-z,pack-relative-relocs",),
    ),
    "libdynamictext.so": Library(
        """
        __asm__(".text\\n.globl word\\nword: .quad target\\n"
                ".data\\n.globl target\\ntarget: .quad 1");
        """,
        flags=("-Wl,-z,notext",),
    ),
    "libdynamicnorelro.so": Library("int f(void) { return 1; }", flags=("-Wl,-z,norelro",)),
    "libdynamicbare.so": Library("int f(void) { return 1; }", flags=("-nostdlib",)),
    "libdynamicearly.so": Library(
        _HEADER
        + """
        static int moved(void) {
            int count = 0;
            for (const ElfW(Dyn) *entry = _DYNAMIC; entry->d_tag != DT_NULL; entry++)
                count += entry->d_tag != DT_INIT && entry->d_un.d_val > 0x10000000;
            return count;
        }
        static int few(void) { return moved() * 100; }
        static int many(void) { return moved() * 100 + 1; }
        static int (*resolver(void))(void) { return moved() ? many : few; }
        int picked(void) __attribute__((ifunc("resolver")));
        int in_constructor;
        __attribute__((constructor)) static void start(void) { in_constructor = moved(); }
        """
    ),
    "libdynamicneedsearly.so": Library(
        "int picked(void); int picked_too(void) { return picked(); }", ("libdynamicearly.so",)
    ),
    # Missing things.
    "liblackfunction.so": Library("""
        int absent(void);
        int call_absent(void) { return absent(); }
        int present(void) { return 9; }
    """),
    "liblackdata.so": Library("extern int absent; int get(void) { return absent; }"),
    "liblackneeded.so": Library("int f(void) { return 1; }", ("libgone.so",)),
    "liblackindirect.so": Library("int f(void);int g(void) { return f(); }", ("liblackneeded.so",)),
    "libneedslack.so": Library(
        "int call_absent(void); int g(void) { return call_absent(); }", ("liblackfunction.so",)
    ),
    "libneedslackdata.so": Library(
        "int get(void); int one(void); int g(void) { return get() + one(); }",
        ("libone.so", "liblackdata.so"),
        ("-Wl,--unresolved-symbols=ignore-all",),
    ),
    "liblackversion.so": Library("int f(void);int g(void) { return f(); }", ("libold.so",)),
    "liblacksymbolversion.so": Library("int f(void);int g(void){return f();}", ("libold2.so",)),
    # Three versions of each, all missing; and so has what is needed.
    "liblackversions.so": Library(
        "int a1(void), b1(void), c1(void), a2(void), b2(void), c2(void);"
        "int all(void) { return c2() + a1() + b2() + c1() + a2() + b1(); }",
        ("libmany1.so", "libmany2.so"),
    ),
    "liblackversions2.so": Library(
        "int all(void), b1(void), c2(void); int more(void) { return c2() + b1() + all(); }",
        ("liblackversions.so", "libmany2.so", "libmany1.so"),
    ),
    "libneedslackversions.so": Library(
        "int all(void), more(void); int f(void) { return more() + all(); }",
        ("liblackversions2.so", "liblackversions.so"),
    ),
    "libnow.so": Library(
        "int absent(void); int call_absent(void) { return absent(); }", flags=("-Wl,-z,now",)
    ),
    # Where the callers of the family are.
    "libcaller.so": Library(
        _HEADER
        + """
        void *caller_dlopen(const char *name, int mode) {
            void *handle = dlopen(name, mode);
            return handle;
        }
        int caller_dlclose(void *handle) {
            int code = dlclose(handle);
            return code;
        }
        void *caller_dlmopen(Lmid_t id, const char *name, int mode) {
            void *handle = dlmopen(id, name, mode);
            return handle;
        }
        void *caller_dlsym(void *handle, const char *name) {
            void *address = dlsym(handle, name);
            return address;
        }
        void *caller_dlvsym(void *handle, const char *name, const char *version) {
            void *address = dlvsym(handle, name, version);
            return address;
        }
        const char *who(void) { return "caller"; }
        const char *next_who(void) {
            const char *(*next)(void) = (const char *(*)(void))dlsym(RTLD_NEXT, "who");
            return next ? next() : "nobody";
        }
        """
    ),
    # who: itself, then what is next; `libnextN.so` is a chain of them.
    "libnextlast.so": Library('const char *chain(void) { return "last"; }'),
    "libnextmiddle.so": Library(
        _HEADER
        + """
        const char *chain(void) {
            static char text[64];
            const char *(*next)(void) = (const char *(*)(void))dlsym(RTLD_NEXT, "chain");
            snprintf(text, sizeof text, "middle>%s", next ? next() : "nobody");
            return text;
        }
        """
    ),
    "libnextfirst.so": Library(
        _HEADER
        + """
        const char *chain(void) {
            static char text[64];
            const char *(*next)(void) = (const char *(*)(void))dlsym(RTLD_NEXT, "chain");
            snprintf(text, sizeof text, "first>%s", next ? next() : "nobody");
            return text;
        }
        """,
        ("libnextmiddle.so", "libnextlast.so"),
        ("-Wl,--no-as-needed",),
    ),
    "libwrapsgetpid.so": Library(
        _HEADER
        + """
        pid_t getpid(void) {
            pid_t (*real)(void) = (pid_t (*)(void))dlsym(RTLD_NEXT, "getpid");
            return real ? -real() : 0;
        }
        """
    ),
    # Calls of each kind, bound lazily.
    "libcallee.so": Library("""
        #include <stdarg.h>
        #include <errno.h>
        #include "machines.h"
        typedef __int128 wide;
        struct big { long a[8]; };
        struct two { long a; double b; };
        int plain_callee(int a, int b, int c, int d, int e, int f, int g, int h)
        { return a + 10 * b + 100 * c + d + e + f + g + h; }
        double doubles(double a, double b, double c, double d, double e, double f, double g,
                       double h)
        { return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g + 8 * h; }
        long double extended(long double a, long double b) { return a * b; }
        wide wider(wide a, wide b) { return a * b; }
        struct big returns_big(long a) { struct big b = {{a, 2, 3, 4, 5, 6, 7, a}}; return b; }
        struct two returns_two(long a, double b) { struct two t = {a, b}; return t; }
        double variadic(int count, ...) {
            va_list list; double sum = 0;
            va_start(list, count);
            while (count--) sum += va_arg(list, double);
            va_end(list);
            return sum;
        }
        _Complex double complex_callee(_Complex double a) { return a * a; }
        int sees_errno(void) { return errno; }
        typedef float v8 __attribute__((vector_size(32)));
        WIDE_VECTORS v8 vectors(v8 a, v8 b) { return a + b; }
        int nested(int (*f)(int), int x) { return f(x) + 1; }
    """),
    "libcalls.so": Library(
        """
        #include <errno.h>
        #include "machines.h"
        typedef __int128 wide;
        struct big { long a[8]; };
        struct two { long a; double b; };
        int plain_callee(int, int, int, int, int, int, int, int);
        double doubles(double, double, double, double, double, double, double, double);
        long double extended(long double, long double);
        wide wider(wide, wide);
        struct big returns_big(long);
        struct two returns_two(long, double);
        double variadic(int, ...);
        _Complex double complex_callee(_Complex double);
        int sees_errno(void);
        typedef float v8 __attribute__((vector_size(32)));
        WIDE_VECTORS v8 vectors(v8, v8);
        int nested(int (*)(int), int);
        int call_plain(void) { return plain_callee(1, 2, 3, 4, 5, 6, 7, 8); }
        int call_doubles(void) { return (int)doubles(1, 2, 3, 4, 5, 6, 7, 8); }
        int call_extended(void) { return (int)extended(1.5L, 8.0L); }
        int call_wider(void) { return (int)(wider((wide)1 << 70, 3) >> 70); }
        int call_big(void)
        { struct big b = returns_big(9); return (int)(b.a[0] + b.a[7] + b.a[3]); }
        int call_two(void)
        { struct two t = returns_two(4, 2.5); return (int)(t.a * 10 + t.b * 2); }
        int call_variadic(void) { return (int)variadic(4, 1.0, 2.0, 3.0, 4.0); }
        int call_complex(void)
        { _Complex double c = complex_callee(2.0 + 3.0i);
          return (int)(__real__ c * 100 + __imag__ c); }
        int call_errno(void) { errno = 77; return sees_errno(); }
        WIDE_VECTORS int call_vectors(void) {
            v8 a = {1, 2, 3, 4, 5, 6, 7, 8}, b = {8, 7, 6, 5, 4, 3, 2, 1};
            a = vectors(a, b);
            return (int)(a[0] + a[1] + a[2] + a[3] + a[4] + a[5] + a[6] + a[7]);
        }
        int call_nested(int (*f)(int), int x) { return nested(f, x); }
        int (*address_of_errno_callee(void))(void) { return sees_errno; }
        """,
        ("libcallee.so",),
    ),
    "libcallsifunc.so": Library(
        "int picked(void); int through(void) { return picked(); }", ("libifunc.so",)
    ),
    "libcallsversion.so": Library(
        "int f(void); int through(void) { return f(); }", ("libversions.so",)
    ),
    "libcallslibc.so": Library("""
        #include <stdlib.h>
        #include <string.h>
        #include <unistd.h>
        char *copied(const char *s) { return strdup(s); }
        int own_pid(void) { return getpid(); }
        int parent(void) { return getppid(); }
        int weak_missing(void) __attribute__((weak));
        int calls_weak(void) { return weak_missing ? weak_missing() : -1; }
    """),
    "libcallsinconstructors.so": Library(
        """
        #include <stdio.h>
        int plain_callee(int, int, int, int, int, int, int, int);
        double doubles(double, double, double, double, double, double, double, double);
        __attribute__((constructor)) static void start(void)
        { dprintf(1, "%d\\n", plain_callee(1, 1, 1, 1, 1, 1, 1, 1)); }
        __attribute__((destructor)) static void finish(void)
        { dprintf(1, "%g\\n", doubles(1, 1, 1, 1, 1, 1, 1, 1)); }
        """,
        ("libcallee.so",),
    ),
    "libmanypaths.so": Library(
        "int many;",
        flags=(
            "-Wl,--enable-new-dtags",
            "-Wl,-rpath,/first:$ORIGIN/inner::relative/:/usr/lib/:/a//b///:$ORIGIN/inner:${ORIGIN}",
        ),
    ),
    "libtokenpaths.so": Library(
        "int tokens;",
        flags=("-Wl,--enable-new-dtags", "-Wl,-rpath,/a/$LIB:/b/${PLATFORM}/c:/d$LIBX:/$ORIGIN"),
    ),
    "libauxiliary.so": Library(
        'const char *who(void) { return "filter"; } int only_here(void) { return 3; }',
        flags=("-Wl,-f,libone.so", "-Wl,-rpath,$ORIGIN"),
    ),
    "libauxiliarynone.so": Library(
        'const char *who(void) { return "filter"; } int only_here(void) { return 3; }',
        flags=("-Wl,-f,libnofiltee.so",),
    ),
    "libfilter.so": Library(
        'const char *who(void) { return "filter"; }',
        flags=("-Wl,-F,libone.so", "-Wl,-rpath,$ORIGIN"),
    ),
    "libfilternone.so": Library(
        'const char *who(void) { return "filter"; }', flags=("-Wl,-F,libnofiltee.so",)
    ),
    "libinterpose.so": Library(
        'const char *who(void) { return "interpose"; }', flags=("-Wl,-z,interpose",)
    ),
    "libexecstack.so": Library("int f(void) { return 1; }", flags=("-Wl,-z,execstack",)),
    "libstatictoomuch.so": Library("""
        __thread char much[1 << 20] __attribute__((tls_model("initial-exec")));
        char *address_of_much(void) { return much; }
    """),
    "libchain0.so": Library("int chain0(void) { return 0; }"),
    **{
        f"libchain{i}.so": Library(
            f"int chain{i - 1}(void); int chain{i}(void) {{ return chain{i - 1}() + 1; }}",
            (f"libchain{i - 1}.so",),
        )
        for i in range(1, 40)
    },
    # Order.
    "libtrace_d.so": _trace("d"),
    "libtrace_c.so": _trace("c", "d"),
    "libtrace_b.so": _trace("b", "d"),
    "libtrace_a.so": _trace("a", "b", "c"),
    "libtrace_p.so": _trace("p", more="void p(void) {}"),
    "libtrace_alone.so": _trace("alone"),
    "libtrace_nodelete.so": _trace("nodelete", flags=("-Wl,-z,nodelete",)),
    "libtrace_initfirst.so": _trace("initfirst", flags=("-Wl,-z,initfirst",)),
    "libtrace_f.so": _trace("f", "b", "initfirst"),
    "libtrace_priority.so": _trace(
        "priority",
        more="""
        __attribute__((constructor(101))) static void s1(void) { SAY_("start 101\\n"); }
        __attribute__((constructor(102))) static void s2(void) { SAY_("start 102\\n"); }
        __attribute__((destructor(101))) static void f1(void) { SAY_("finish 101\\n"); }
        __attribute__((destructor(102))) static void f2(void) { SAY_("finish 102\\n"); }
        void old_init(void) { SAY_("DT_INIT\\n"); }
        void old_fini(void) { SAY_("DT_FINI\\n"); }
        """,
        flags=("-Wl,-init,old_init", "-Wl,-fini,old_fini"),
    ),
    "libtrace_args.so": _trace(
        "args",
        more="""
        #include <stdlib.h>
        __attribute__((constructor)) static void with(int argc, char **argv, char **environ) {
            if (argc == 2 && argv[1][0] == 'a' && !argv[2] && environ[0]) SAY_("arguments\\n");
        }
        """,
    ),
    "libtrace_atexit.so": _trace(
        "atexit",
        more="""
        #include <stdlib.h>
        static void bye(void) { SAY_("atexit of the library\\n"); }
        __attribute__((constructor)) static void reg(void) { atexit(bye); }
        """,
    ),
    "libtrace_opens.so": _trace(
        "opens",
        more="""
        #include <dlfcn.h>
        static void *handle;
        __attribute__((constructor)) static void opens(void) {
            SAY_("opening\\n");
            handle = dlopen("libtrace_alone.so", RTLD_NOW);
            if (handle) SAY_("opened\\n");
        }
        __attribute__((destructor)) static void closes(void) {
            SAY_("closing\\n");
            if (handle && dlclose(handle) == 0) SAY_("closed\\n");
        }
        """,
    ),
    "libtrace_opensinfini.so": _trace(
        "opensinfini",
        more="""
        #include <dlfcn.h>
        __attribute__((destructor)) static void opens(void) {
            SAY_("opening\\n");
            if (dlopen("libtrace_alone.so", RTLD_NOW)) SAY_("opened\\n");
        }
        """,
    ),
    "libtrace_opensself.so": _trace(
        "opensself",
        more="""
        #include <dlfcn.h>
        __attribute__((constructor)) static void opens(void) {
            void *handle = dlopen("libtrace_opensself.so", RTLD_NOW | RTLD_NOLOAD);
            if (handle) SAY_("found itself\\n");
            if (handle && dlclose(handle) == 0) SAY_("closed itself\\n");
        }
        """,
    ),
    "libtrace_exits.so": _trace(
        "exits",
        more="""
        #include <stdlib.h>
        __attribute__((constructor)) static void leaves(void) { exit(7); }
        """,
    ),
    "libtrace_exitsinfini.so": _trace(
        "exitsinfini",
        more="""
        #include <stdlib.h>
        __attribute__((destructor)) static void leaves(void) { SAY_("leaving\\n"); exit(9); }
        """,
    ),
    "libtrace_registers.so": _trace(
        "registers",
        more="""
        #include <stdlib.h>
        static void bye(void) { SAY_("atexit of the library\\n"); }
        int registers(void) { return atexit(bye); }
        """,
    ),
    "libtrace_filter.so": _trace("filter", "b", flags=("-Wl,-f,libtrace_alone.so",)),
    "libtrace_needsfilter.so": _trace("needsfilter", "c", "filter"),
    "libtrace_needsexits.so": _trace("needsexits", "exits"),
    "libtrace_lacks.so": _trace(
        "lacks", "b", more="extern int absent; int *g(void) { return &absent; }"
    ),
    # A binding that no DT_NEEDED tells of.
    "libtrace_uses_p.so": _trace("uses_p", more="void p(void); void use(void) { p(); }"),
    "libwrapsdlopen.so": Library(
        _HEADER
        + """
        int wrapped_opens, wrapped_closes;
        void *dlopen(const char *name, int mode) {
            void *(*next)(const char *, int) = dlsym(RTLD_NEXT, "dlopen");
            wrapped_opens++;
            void *handle = next(name, mode);
            return handle;
        }
        int dlclose(void *handle) {
            int (*next)(void *) = (int (*)(void *))dlsym(RTLD_NEXT, "dlclose");
            wrapped_closes++;
            return next(handle);
        }
        """,
        flags=("-Wl,--enable-new-dtags,-rpath,$ORIGIN",),
    ),
    "libwrapsmalloc.so": Library(
        _HEADER
        + """
        int wrapped_mallocs;
        void *malloc(size_t size) {
            static void *(*next)(size_t);
            if (!next) next = (void *(*)(size_t))dlsym(RTLD_NEXT, "malloc");
            wrapped_mallocs++;
            return next(size);
        }
        """
    ),
    "libasksdata.so": Library("""
        extern int number;
        const char *who(void);
        int *address_of_number(void) { return &number; }
        const char *(*address_of_who(void))(void) { return who; }
    """),
    "libcallback.so": Library(
        """
        #include <pthread.h>
        #include <stdio.h>
        int library_cleaned, signals;
        static void clean(void *data) { library_cleaned = 1; }
        int call_back(int (*function)(void *), void *data) { return function(data) + 0 * signals; }
        int call_back_with_cleanup(int (*function)(void *), void *data) {
            int result;
            pthread_cleanup_push(clean, NULL);
            result = function(data);
            pthread_cleanup_pop(0);
            return result;
        }
        int compare_ints(const void *a, const void *b) { return *(int *)a - *(int *)b; }
        void count_signal(int number) { signals++; }
        void print(void) { printf("printed\\n"); }
        """,
        flags=("-O0", "-fexceptions"),
    ),
    # Shapes.
    "libshape.so": _shape(),
    "libshape_sysv.so": _shape("-Wl,--hash-style=sysv"),
    "libshape_both.so": _shape("-Wl,--hash-style=both"),
    "libshape_relr.so": _shape("-Wl,-z,pack-relative-relocs"),
    "libshape_noseparate.so": _shape("-Wl,-z,noseparate-code"),
    "libshape_large.so": _shape("-Wl,-z,max-page-size=0x200000,-z,common-page-size=0x200000"),
    "libshape_relro.so": _shape("-Wl,-z,relro,-z,now"),
    "libshape_norelro.so": _shape("-Wl,-z,norelro"),
    "libshape_base.so": _shape("-Wl,-Ttext-segment=0x7000000000"),
    "libshape_stripped.so": _shape("-s"),
    "libshape_symbolic.so": _shape("-Wl,-Bsymbolic-functions"),
    "libshape_nocombreloc.so": _shape("-Wl,-z,nocombreloc"),
    "libshape_nostartfiles.so": _shape("-nostartfiles"),
    "libshape_textrel.so": _shape(*machine().relocated_text, "-Wl,-z,notext"),
    "libshape_noplt.so": _shape("-fno-plt"),
    "libshape_noframes.so": _shape("-Wl,--no-eh-frame-hdr"),
    "libshape_many.so": Library(
        "".join(f"int many_{i}(void) {{ return {i}; }}" for i in range(500))
    ),
    "libshape_zeroes.so": Library("char zeroes[1 << 24];"),
    "libshape_aligned.so": Library("""
        __attribute__((aligned(4096))) char aligned[10];
        __attribute__((aligned(64))) __thread char aligned_storage[10] = "x";
    """),
    "libshape_ifuncdata.so": Library("""
        static int chosen(void) { return 44; }
        static int (*resolver(void))(void) { return chosen; }
        int chosen_by_ifunc(void) __attribute__((ifunc("resolver")));
        int (*pointer_to_ifunc)(void) = chosen_by_ifunc;
    """),
    "libshape_usestls.so": Library(
        "extern __thread int counter; int *address_of_others_counter(void) { return &counter; }",
        ("libtls.so",),
    ),
    "libshape_tlsdesc.so": Library(
        "__thread int described = 70; int next_described(void) { return ++described; }",
        flags=machine().tls_descriptors,
    ),
    # Moments.
    "libmoment_asks.so": Library(
        _HEADER
        + """
        #include <execinfo.h>
        static int count(struct dl_phdr_info *info, size_t size, void *data) {
            *(int *)data += strcmp(base_name(info->dlpi_name), "libmoment_asks.so") == 0;
            return 0;
        }
        int asked;
        static void *found_base(void *address) {
            Dl_info info;
            return dladdr(address, &info) ? info.dli_fbase : NULL;
        }
        static void ask(const char *when) {
            Dl_info info;
            int seen = 0;
            SAY("%s\\n", when);
            SAY("%s\\n", dladdr(&asked, &info) ? base_name(info.dli_fname) : "nothing");
            SAY("%d\\n", dlsym(RTLD_DEFAULT, "asked") == &asked);
            SAY("%s\\n", dlsym(RTLD_NEXT, "asked") ? "found" : last_error());
            dl_iterate_phdr(count, &seen);
            SAY("%d\\n", seen);
        #ifdef DLFO_STRUCT_HAS_EH_DBASE
            struct dl_find_object found;
            SAY("%d\\n", _dl_find_object((void *)ask, &found));
        #endif
            void *frames[20];
            int i, mine = 0, all = backtrace(frames, 20);
            for (i = 0; i < all; i++)
                mine += dladdr(frames[i], &info) && info.dli_fbase == found_base(&asked);
            SAY("%d\\n", mine);
        }
        __attribute__((constructor)) static void start(void) { ask("start"); }
        __attribute__((destructor)) static void finish(void) { ask("finish"); }
        """
    ),
    "libmoment_slow.so": Library("""
        #include <unistd.h>
        static int ready;
        __attribute__((constructor)) static void start(void) { usleep(100000); ready = 1; }
        int is_ready(void) { return ready; }
    """),
    "libmoment_thread.so": Library(
        _HEADER
        + """
        static int result;
        static void *work(void *data) {
            void *handle = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
            result = handle != NULL && dlsym(RTLD_DEFAULT, "puts") != NULL;
            return NULL;
        }
        static pthread_t thread;
        /* Not joined here: under libc the thread's dlopen waits for this one. */
        __attribute__((constructor)) static void start(void)
        { pthread_create(&thread, NULL, work, NULL); }
        int result_of_thread(void) { pthread_join(thread, NULL); return result; }
        """
    ),
    "libmoment_forks.so": Library(
        _HEADER
        + """
        __attribute__((constructor)) static void start(void) {
            int status;
            if (fork() == 0) {
                SAY("child %d\\n", dlsym(RTLD_DEFAULT, "puts") != NULL);
                _exit(3);
            }
            wait(&status);
            SAY("parent %d\\n", WEXITSTATUS(status));
        }
        """
    ),
    "libmoment_fails.so": Library(
        _HEADER
        + """
        __attribute__((constructor)) static void start(void) {
            SAY("%s\\n", dlopen("libnothing.so", RTLD_LAZY) ? "opened" : "not opened");
        }
        """
    ),
    "libmoment_opensuser.so": Library(
        _HEADER
        + """
        int base_value(void) { return 12; }
        static void *handle;
        __attribute__((constructor)) static void start(void) {
            handle = dlopen("libmoment_user.so", RTLD_NOW);
            SAY("%d\\n", handle ? call(handle, "user_value") : -1);
        }
        __attribute__((destructor)) static void finish(void) { SAY("finish\\n"); }
        """,
        flags=_RPATH,
    ),
    "libmoment_user.so": Library(
        "int base_value(void); int user_value(void) { return base_value() + 1; }",
        ("libmoment_opensuser.so",),
    ),
    "libmoment_nested.so": _trace(
        "nested",
        "opens",
        more=_HEADER
        + """
        __attribute__((constructor)) static void nest(void) {
            void *handle = dlopen("libtrace_a.so", RTLD_NOW);
            SAY("nested %d\\n", handle != NULL);
            dlclose(handle);
            SAY("closed\\n");
        }
        """,
    ),
    "libmoment_object.so": _trace(
        "object",
        more="""
        int __cxa_thread_atexit_impl(void (*)(void *), void *, void *);
        extern void *__dso_handle;
        static __thread int object;
        static void destroy(void *data) { if (data == &object) SAY_("destroyed\\n"); }
        int make_object(void)
        { return __cxa_thread_atexit_impl(destroy, &object, &__dso_handle); }
        """,
    ),
    "libmoment_key.so": _trace(
        "key",
        more="""
        #include <pthread.h>
        static pthread_key_t key;
        static void destroy(void *data) { SAY_("key destroyed\\n"); }
        void *set_key(void *data) {
            pthread_key_create(&key, destroy);
            pthread_setspecific(key, &key);
            return NULL;
        }
        """,
    ),
    "libmoment_atfork.so": _trace(
        "atfork",
        more="""
        #include <pthread.h>
        static void before(void) { SAY_("before fork\\n"); }
        __attribute__((constructor)) static void reg(void) { pthread_atfork(before, 0, 0); }
        """,
    ),
    # For programs that start with them.
    "libtrace_startup.so": _trace(
        "startup",
        more=_HEADER
        + """
        const char *at_startup(void) { return "startup"; }
        void *startup_dlsym(void *handle, const char *name) {
            void *address = dlsym(handle, name);
            return address;
        }
        void *startup_dlopen(const char *name, int mode) {
            void *handle = dlopen(name, mode);
            return handle;
        }
        """,
    ),
    "libtrace_needsstartup.so": _trace("needsstartup", "startup"),
    "libtrace_early.so": _trace(
        "early",
        more=_HEADER
        + """
        static void *handle;
        __attribute__((constructor)) static void early(void) {
            handle = dlopen("libone.so", RTLD_NOW);
            if (handle) SAY("early: %d\\n", call(handle, "one"));
        }
        __attribute__((destructor)) static void late(void) {
            if (handle) SAY("late: %d, dlclose %d\\n", call(handle, "one"), dlclose(handle));
        }
        """,
    ),
}

# Outlive the open that brought them in, each for a reason of its own: all they call is left
# unbound until then.
_SURVIVES = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
int leaf(void);
int leaf_at_end(void);
int more(void) __attribute__((weak));
const char *who(void) { return "survivor"; }
const char *ask_who(void) { return who(); }
int part(void) { return 40; }
int own_part(void) { return part() + 1; }
int leaf_part(void) { return leaf() + 1; }
int libc_part(void) { return abs(-5); }
int more_part(void) { return more(); }
void *survivor_dlsym(void *handle, const char *name) {
    void *address = dlsym(handle, name);
    return address;
}
static void left(int *value) { if (*value == 3) SAY_("left\\n"); }
void pass(void (*function)(void)) {
    __attribute__((cleanup(left))) int value = 3;
    function();
    value = leaf();
}
int at_end(void) { return 50; }
__attribute__((destructor)) static void end(void) {
    if (at_end() + leaf_at_end() == 60) SAY_("both called\\n");
}
"""


def _survivor(reason: str, *flags: str, more: str = "") -> dict[str, Library]:
    """It, who brings it in, and who brings that in."""
    name = f"survivor_{reason}"
    return {
        f"libtrace_{name}.so": _trace(
            name, "leaf", more=_SURVIVES + more, flags=("-fexceptions", "-Wl,-z,lazy", *flags)
        ),
        f"libtrace_brings_{reason}.so": _trace(
            f"brings_{reason}", name, more='const char *who(void) { return "who brought it"; }'
        ),
        f"libtrace_above_{reason}.so": _trace(f"above_{reason}", f"brings_{reason}"),
        f"libtrace_another_{reason}.so": _trace(
            f"another_{reason}", name, more="int more(void) { return 70; }"
        ),
    }


SURVIVORS = {
    "libtrace_deeper.so": _trace("deeper", more="int deeper(void) { return 7; }"),
    "libtrace_leaf.so": _trace(
        "leaf",
        "deeper",
        more="int leaf(void) { return 8; } int leaf_at_end(void) { return 10; }",
    ),
    **_survivor("plain"),
    **_survivor("flag", "-Wl,-z,nodelete"),
    **_survivor(
        "unique",
        more="""
        __asm__(".data\\n.globl only\\n.type only, @gnu_unique_object\\n.size only, 4\\n"
                "only: .long 1\\n.text");
        extern int only;
        int *address_of_only(void) { return &only; }
        """,
    ),
    **_survivor(
        "object",
        more="""
        int __cxa_thread_atexit_impl(void (*)(void *), void *, void *);
        extern void *__dso_handle;
        static __thread int object;
        static void destroy(void *data) {
            if (data == &object && part() + leaf() == 48) SAY_("destroyed\\n");
        }
        int make_object(void)
        { return __cxa_thread_atexit_impl(destroy, &object, &__dso_handle); }
        """,
    ),
    **_survivor(
        "late",
        more="""
        int __cxa_thread_atexit_impl(void (*)(void *), void *, void *);
        extern void *__dso_handle;
        static __thread int object;
        static void destroy(void *data) {
            if (data == &object && part() + leaf() == 48
                && survivor_dlsym(RTLD_DEFAULT, "leaf") && survivor_dlsym(RTLD_NEXT, "leaf"))
                SAY_("destroyed\\n");
        }
        __attribute__((destructor)) static void make_object(void)
        { __cxa_thread_atexit_impl(destroy, &object, &__dso_handle); }
        """,
    ),
    "libtrace_binds.so": _trace(
        "binds", more="int part(void); int bound_part(void) { return part(); }"
    ),
}

# One that needs the other, and the other one: linked twice, first against a stand-in.
_CYCLE = {
    "libtrace_x.so": _trace("x", "y"),
    "libtrace_y.so": _trace("y", "z"),
    "libtrace_z.so": _trace("z", "x"),
}


@dataclass(frozen=True)
class Program:
    flags: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


# What is not here is built from its file, with nothing special.
PROGRAMS = {
    "exporting": Program(flags=("-rdynamic",)),
    "fixed": Program(flags=("-no-pie", "-rdynamic")),
    "started": Program(
        flags=("-rdynamic", "-Wl,--no-as-needed"),
        needs=("libtrace_startup.so", "libtwo.so", "libnextfirst.so", "libtls.so"),
    ),
    "early": Program(flags=("-Wl,--no-as-needed",), needs=("libtrace_early.so",)),
    "copying": Program(flags=("-no-pie", "-fno-pie"), needs=("libtwo.so",)),
    "identity": Program(flags=("-Wl,--no-as-needed",), needs=("libstarted.so",)),
    "allocating": Program(flags=("-rdynamic",)),
}


def _change(source: Path, target: Path, offset: int, value: int) -> None:
    content = bytearray(source.read_bytes())
    content[offset] = value
    target.write_bytes(content)


def _make_bad_files(folder: Path) -> None:
    one = folder / "libone.so"
    (folder / "text.so").write_text("This is not a library, however long it is. " * 20)
    (folder / "short.so").write_bytes(b"\x7fELF")
    (folder / "empty.so").write_bytes(b"")
    (folder / "header.so").write_bytes(one.read_bytes()[:64])
    (folder / "folder.so").mkdir(exist_ok=True)
    _change(one, folder / "class.so", 4, 1)  # ELFCLASS32
    _change(one, folder / "order.so", 5, 2)  # ELFDATA2MSB
    _change(one, folder / "version.so", 6, 2)  # EI_VERSION
    _change(one, folder / "osabi.so", 7, 9)  # ELFOSABI_FREEBSD
    _change(one, folder / "machine.so", 18, 183)  # EM_AARCH64
    _change(one, folder / "type.so", 16, 1)  # ET_REL
    _change(one, folder / "eversion.so", 20, 9)
    _change(one, folder / "phentsize.so", 54, 55)
    shutil.copy(one, folder / "libcopy.so")
    links = {"liblink.so": "libone.so", "libdangling.so": "nowhere", "libloop.so": "libloop.so"}
    for name, target in links.items():
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)
    (folder / "libhard.so").unlink(missing_ok=True)
    (folder / "libhard.so").hardlink_to(one)


def _build_one(folder: Path, name: str, library: Library) -> None:
    flags = library.flags
    if library.version_script:
        script = folder / f"{name}.map"
        script.write_text(library.version_script)
        flags = (*flags, f"-Wl,--version-script={script}")
    compile_library(
        folder,
        name,
        library.source,
        flags=flags,
        libraries=[folder / other for other in library.needs],
        soname=library.soname,
        rpath="$ORIGIN",
    )


def _build_others(folder: Path) -> None:
    """What a table cannot say: replaced after linking, in subfolders, in cycles."""
    compile_library(folder, "libgone.so", "int gone;")
    compile_library(folder, "libneededalias.so", "int one(void) { return 0; }")
    one_function = "int f(void) { return 1; }"
    for name in ("libold.so", "libold2.so"):
        _build_one(folder, name, Library(one_function, version_script="V_1 { global: f; };"))
    for number in ("1", "2"):
        source = "".join(f"int {letter}{number}(void) {{ return 1; }}" for letter in "abc")
        script = "".join(f"V_{one} {{ global: {one}{number}; }};" for one in "abc")
        _build_one(folder, f"libmany{number}.so", Library(source, version_script=script))
    for name, library in _CYCLE.items():
        _build_one(folder, name, Library(library.source))
    for name, library in _CYCLE.items():
        _build_one(folder, name, library)
    for name, library in {**LIBRARIES, **SURVIVORS}.items():
        _build_one(folder, name, library)
    (folder / "libgone.so").unlink()
    (folder / "libneededalias.so").unlink()
    _build_one(folder, "libold.so", Library(one_function, version_script="V_2 { global: f; };"))
    for number in ("1", "2"):
        library = Library("int other(void) { return 1; }", version_script="V { global: other; };")
        _build_one(folder, f"libmany{number}.so", library)
    # h, for it has the version; f is there, but no longer exported.
    source = "int h(void) { return 1; }" + one_function
    script = "V_1 { global: h; local: *; };"
    _build_one(folder, "libold2.so", Library(source, version_script=script))
    # Folders that only a RUNPATH or a RPATH leads to.
    inner = folder / "inner"
    compile_library(inner, "libinner.so", "int inner(void) { return 60; }")
    compile_library(
        inner,
        "libinner2.so",
        "int inner(void) { return 61; }",
        libraries=[inner / "libinner.so"],
        flags=("-Wl,--no-as-needed",),
        rpath="",
    )
    caller = LIBRARIES["libcaller.so"].source
    compile_library(
        folder,
        "libcallerrunpath.so",
        caller,
        flags=("-Wl,--enable-new-dtags,-rpath,$ORIGIN/inner",),
    )
    compile_library(
        folder,
        "libcallerrpath.so",
        caller,
        flags=("-Wl,--disable-new-dtags,-rpath,$ORIGIN/inner:$ORIGIN/nowhere",),
    )
    compile_library(
        folder,
        "libcallernodeflib.so",
        caller,
        flags=("-Wl,-z,nodefaultlib",),
    )

    # The same name of two files.
    for which, name in enumerate(("left", "right")):
        original = compile_library(
            folder / name,
            "liboriginal.so",
            f"int which(void) {{ return {which}; }}",
            soname="$ORIGIN/liboriginal.so",
        )
        compile_library(
            folder / name,
            "libneedsorigin.so",
            "",
            flags=("-Wl,--no-as-needed",),
            libraries=[original],
            rpath="",
        )

    # Linked by its path, which is what DT_NEEDED then says.
    script = f"-Wl,-soname,{folder / 'libneededpath.so'}"
    compile_library(folder, "libneededpath.so", "int by_path(void) { return 1; }", flags=[script])
    compile_library(
        folder,
        "libshape_neededpath.so",
        "int by_path(void); int shape_and_one(void) { return by_path() + 1; }",
        libraries=[folder / "libneededpath.so"],
        rpath="",
    )
    compile_library(
        folder,
        "librpathneeds.so",
        "int needs;",
        libraries=[inner / "libinner.so"],
        flags=("-Wl,--no-as-needed", "-Wl,--disable-new-dtags,-rpath,$ORIGIN/inner"),
        rpath="",
    )


def build(folder: Path) -> None:
    _build_others(folder)
    _make_bad_files(folder)


def build_program(folder: Path, name: str) -> Path:
    program = PROGRAMS.get(name, Program())
    return compile_program(
        folder,
        name,
        FOLDER / f"{name}.c",
        flags=("-Wl,--enable-new-dtags,-rpath,$ORIGIN", *program.flags),
        libraries=[folder / other for other in program.needs],
        rpath="",
    )
