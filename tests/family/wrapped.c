/* Other preloaded libraries around the family: wrappers that call what is next. */
#include "family.h"

/* env: LD_PRELOAD=libwrapsdlopen.so LD_LIBRARY_PATH={folder} */
CASE(a_wrapper_of_dlopen) {
    void *handle = must_open("libone.so", RTLD_LAZY);
    SAY("%d\n", call(handle, "one"));
    SAY("%d\n", *(int *)must_find(RTLD_DEFAULT, "wrapped_opens"));
}

/* env: LD_PRELOAD=libwrapsdlopen.so LD_LIBRARY_PATH={folder} */
CASE(a_wrapper_that_fails) {
    open_or_say("libnothing.so", RTLD_LAZY);
    open_or_say("libone.so", 0);
}

/* env: LD_PRELOAD=libwrapsdlopen.so LD_LIBRARY_PATH={folder} */
CASE(a_wrapper_of_dlclose) {
    SAY("%d\n", dlclose(must_open("libone.so", RTLD_LAZY)));
    SAY("%d %d\n", *(int *)must_find(RTLD_DEFAULT, "wrapped_closes"), is_loaded("libone.so"));
}

/* env: LD_PRELOAD=libwrapsgetpid.so:libwrapsdlopen.so LD_LIBRARY_PATH={folder} */
CASE(two_wrappers) {
    void *handle = must_open("libone.so", RTLD_LAZY);
    SAY("%d %d\n", call(handle, "one"), getpid() < 0);
}

/* env: LD_PRELOAD=libone.so LD_LIBRARY_PATH={folder} */
CASE(a_preloaded_library_is_there) {
    void *one = must_open("libone.so", RTLD_LAZY | RTLD_NOLOAD);
    SAY("%d\n", one == must_open(path_of("libone.so"), RTLD_LAZY));
    SAY("%d\n", call(RTLD_DEFAULT, "one"));
    SAY("%s\n", text(must_open("libself.so", RTLD_NOW), "ask_who"));
    dlclose(one), dlclose(one), dlclose(one);
    SAY("%d\n", call(one, "one"));
}

/* env: LD_PRELOAD=libtrace_alone.so LD_LIBRARY_PATH={folder} */
CASE(a_preloaded_library_is_started_and_finished) { SAY("main\n"); }

/* env: LD_PRELOAD=libnextfirst.so LD_LIBRARY_PATH={folder} */
CASE(next_in_a_chain_that_is_preloaded) { SAY("%s\n", text(RTLD_DEFAULT, "chain")); }

/* env: LD_PRELOAD=libtls.so LD_LIBRARY_PATH={folder} */
CASE(storage_of_a_preloaded_library) {
    SAY("%d\n", call(RTLD_DEFAULT, "next_counter"));
    SAY("%d\n", *(int *)must_find(RTLD_DEFAULT, "counter"));
}

/* env: LD_PRELOAD=libone.so LD_LIBRARY_PATH={folder} */
CASE(a_preloaded_library_in_a_namespace) {
    void *handle = dlmopen(LM_ID_NEWLM, "libself.so", RTLD_NOW);
    SAY("%s\n", text(handle, "ask_who"));
}

/* env: LD_PRELOAD=libwrapsmalloc.so LD_LIBRARY_PATH={folder} */
CASE(a_wrapper_of_malloc) {
    void *handle = must_open("libcallslibc.so", RTLD_NOW);
    char *(*copied)(const char *) = must_find(handle, "copied");
    int *count = must_find(RTLD_DEFAULT, "wrapped_mallocs"), before = *count;
    SAY("%s %d\n", copied("abc"), *count > before);
}
