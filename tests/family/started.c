/* A program that is started with libraries: libtrace_startup.so, libtwo.so, libnextfirst.so with
   what it needs, libtls.so. */
#include "family.h"

const char *at_startup(void);
void *startup_dlsym(void *handle, const char *name);
void *startup_dlopen(const char *name, int mode);
const char *chain(void);
extern __thread int counter;

__attribute__((constructor)) static void start(void) { SAY("start the program\n"); }
__attribute__((destructor)) static void finish(void) { SAY("finish the program\n"); }
static void handler(void) { SAY("atexit\n"); }

CASE(nothing_happens) { SAY("%s\n", at_startup()); }

CASE(its_libraries_are_there) {
    void *two = must_open("libtwo.so", RTLD_LAZY | RTLD_NOLOAD);
    SAY("%d %d\n", call(two, "two"), two == must_open(path_of("libtwo.so"), RTLD_LAZY));
}

CASE(its_libraries_stay) {
    void *two = must_open("libtwo.so", RTLD_LAZY);
    SAY("%d\n", dlclose(two));
    SAY("%d\n", is_loaded("libtwo.so"));
    SAY("%d\n", dlclose(two));
    SAY("%d\n", call(two, "two"));
}

CASE(its_libraries_are_global) {
    SAY("%s\n", text(RTLD_DEFAULT, "who"));
    SAY("%s\n", text(must_open("libasks.so", RTLD_NOW), "ask_who"));
    SAY("%s\n", text(must_open("libself.so", RTLD_NOW), "ask_who"));
    SAY("%s\n", text(must_open("libone.so", RTLD_NOW), "who"));
}

CASE(next_from_the_program_searches_them) {
    const char *(*who)(void) = dlsym(RTLD_NEXT, "who");
    SAY("%s\n", who ? who() : last_error());
}

CASE(next_from_a_library_of_the_start) { SAY("%s\n", chain()); }

CASE(default_from_a_library_of_the_start) {
    const char *(*who)(void) = startup_dlsym(RTLD_DEFAULT, "who");
    SAY("%s\n", who());
    SAY("%s\n", startup_dlsym(RTLD_DEFAULT, "nothing") ? "found" : last_error());
    SAY("%s\n", startup_dlsym(RTLD_NEXT, "nothing") ? "found" : last_error());
    SAY("%d\n", startup_dlsym(RTLD_NEXT, "at_startup") != NULL);
}

CASE(opening_from_a_library_of_the_start) {
    void *one = startup_dlopen("libone.so", RTLD_LAZY);
    SAY("%d %d\n", one != NULL, one == must_open("libone.so", RTLD_LAZY));
}

CASE(a_needed_library_is_shared) {
    void *handle = must_open("libtrace_needsstartup.so", RTLD_LAZY);
    SAY("%s\n", text(handle, "at_startup"));
    SAY("%d\n", dlsym(handle, "at_startup") == (void *)at_startup);
    SAY("%d\n", dlclose(handle));
}

CASE(destructors_of_what_needs_them) { must_open("libtrace_needsstartup.so", RTLD_LAZY); }

/* differs: libc finishes what needs nothing of each other in the order in which it was loaded;
     what we opened is finished before all that the process started with, which it may need
   ours: start startup
   ours: start the program
   ours: start alone
   ours: finish the program
   ours: finish alone
   ours: finish startup */
CASE(destructors_of_what_does_not_need_them) { must_open("libtrace_alone.so", RTLD_LAZY); }

/* differs: as the case before; both come after the exit handlers
   ours: start startup
   ours: start the program
   ours: start alone
   ours: atexit
   ours: finish the program
   ours: finish alone
   ours: finish startup */
CASE(exit_handlers_and_destructors) {
    atexit(handler);
    must_open("libtrace_alone.so", RTLD_LAZY);
}

CASE(thread_local_storage_of_the_start) {
    counter = 7;
    SAY("%d\n", dlsym(RTLD_DEFAULT, "counter") == (void *)&counter);
    void *handle = must_open("libtls.so", RTLD_LAZY);
    SAY("%d\n", *(int *)must_find(handle, "counter"));
    void *block = NULL;
    size_t id = 0;
    SAY("%d\n", dlinfo(handle, RTLD_DI_TLS_DATA, &block));
    SAY("%d\n", dlinfo(handle, RTLD_DI_TLS_MODID, &id));
    SAY("%d %d\n", block != NULL, id != 0);
}

CASE(its_own_copy_in_a_namespace) {
    void *two = dlmopen(LM_ID_NEWLM, "libtwo.so", RTLD_LAZY);
    SAY("%d\n", two != must_open("libtwo.so", RTLD_LAZY));
    SAY("%d\n", call(two, "two"));
}

CASE(dladdr_of_a_library_of_the_start) {
    Dl_info info;
    struct link_map *map = NULL;
    SAY("%d\n", dladdr1((void *)at_startup, &info, (void **)&map, RTLD_DL_LINKMAP));
    SAY("%s %s\n", base_name(info.dli_fname), info.dli_sname);
    SAY("%d\n", map == must_open("libtrace_startup.so", RTLD_LAZY));
}

CASE(noload_global_of_a_library_of_the_start) {
    SAY("%d\n", dlopen("libtwo.so", RTLD_LAZY | RTLD_NOLOAD | RTLD_GLOBAL) != NULL);
}

CASE(deepbind_of_a_library_of_the_start) {
    SAY("%d\n", dlopen("libtwo.so", RTLD_NOW | RTLD_DEEPBIND) != NULL);
}

/* env: LD_LIBRARY_PATH={folder}/inner LD_BIND_NOW=1 */
CASE(everything_at_once) { SAY("%s %d\n", chain(), call(must_open("libinner.so", RTLD_LAZY), "inner")); }
