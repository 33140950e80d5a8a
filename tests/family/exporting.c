/* A program that exports its symbols (ld's -E). */
#include "family.h"

const char *who(void) { return "the program"; }
int number = 1000;
int weak_absent(void) { return 1; }
__thread int own_storage = 5;
int absent(void) { return 66; }

CASE(default_finds_the_program) { SAY("%d\n", dlsym(RTLD_DEFAULT, "who") == (void *)who); }

CASE(the_handle_finds_the_program) {
    SAY("%d\n", dlsym(dlopen(NULL, RTLD_LAZY), "who") == (void *)who);
    SAY("%d\n", dlsym(dlopen(NULL, RTLD_LAZY), "main") != NULL);
}

CASE(next_skips_the_program) { SAY("%s\n", dlsym(RTLD_NEXT, "who") ? "found" : last_error()); }

CASE(a_handle_skips_the_program) {
    SAY("%s\n", text(must_open("libone.so", RTLD_NOW), "who"));
}

CASE(the_program_satisfies_a_library) {
    SAY("%s\n", text(must_open("libasks.so", RTLD_NOW), "ask_who"));
}

CASE(the_program_satisfies_a_lazy_call) {
    SAY("%s\n", text(must_open("libasks.so", RTLD_LAZY), "ask_who"));
    SAY("%d\n", call(must_open("liblackfunction.so", RTLD_LAZY), "call_absent"));
}

CASE(the_program_interposes_a_library) {
    SAY("%s\n", text(must_open("libself.so", RTLD_NOW), "ask_who"));
}

CASE(not_a_deepbound_one) {
    SAY("%s\n", text(must_open("libself.so", RTLD_NOW | RTLD_DEEPBIND), "ask_who"));
}

CASE(not_a_symbolic_one) {
    SAY("%s\n", text(must_open("libsymbolic.so", RTLD_NOW), "ask_who"));
}

CASE(not_one_in_a_namespace) {
    void *handle = dlmopen(LM_ID_NEWLM, "libself.so", RTLD_NOW);
    SAY("%s\n", text(handle, "ask_who"));
    SAY("%d\n", dlmopen(LM_ID_NEWLM, "libasks.so", RTLD_NOW) == NULL);
    SAY("%s\n", last_error());
}

CASE(a_weak_reference_is_defined) {
    SAY("%d\n", call(must_open("libasks.so", RTLD_NOW), "has_weak"));
}

CASE(a_thread_local_symbol_of_the_program) {
    own_storage = 6;
    SAY("%d\n", dlsym(RTLD_DEFAULT, "own_storage") == (void *)&own_storage);
}

CASE(dladdr_knows_its_names) {
    Dl_info info;
    SAY("%d\n", dladdr((void *)who, &info) != 0);
    SAY("%s %d\n", info.dli_sname, info.dli_saddr == (void *)who);
    SAY("%d\n", dladdr(&number, &info) != 0);
    SAY("%s\n", info.dli_sname);
}

CASE(default_from_a_library_finds_the_program) {
    void *(*from)(void *, const char *) =
        must_find(must_open("libcaller.so", RTLD_LAZY), "caller_dlsym");
    SAY("%d\n", from(RTLD_DEFAULT, "who") == (void *)who);
    SAY("%s\n", text(must_open("libcaller.so", RTLD_LAZY), "next_who"));
}

/* Interposed functions of libc are the program's in libraries too. */
pid_t getppid(void) { return 4711; }

CASE(the_program_interposes_libc) {
    void *handle = must_open("libcallslibc.so", RTLD_NOW);
    SAY("%d %d\n", call(handle, "parent"), getppid());
    pid_t (*real)(void) = dlsym(RTLD_NEXT, "getppid");
    SAY("%d\n", real() != 4711 && real() > 0);
}
