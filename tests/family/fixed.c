/* A program at a fixed address (ET_EXEC), with copy relocations. */
#include "family.h"

const char *who(void) { return "fixed"; }

CASE(opens) { SAY("%d\n", call(must_open("libone.so", RTLD_NOW), "one")); }

CASE(exports) { SAY("%s\n", text(must_open("libasks.so", RTLD_LAZY), "ask_who")); }

CASE(its_handle) {
    struct link_map *map = dlopen(NULL, RTLD_LAZY);
    SAY("%d '%s' %d\n", map->l_addr == 0, map->l_name, dlsym(map, "who") == (void *)who);
}

CASE(dladdr_of_a_function) {
    Dl_info info;
    SAY("%d\n", dladdr((void *)who, &info) != 0);
    SAY("%s %s %d\n", base_name(info.dli_fname), info.dli_sname, info.dli_saddr == (void *)who);
}

CASE(a_copied_variable) {
    void **library = must_find(must_open("libcallslibc.so", RTLD_NOW), "copied");
    SAY("%d %d\n", library != NULL, dlsym(RTLD_DEFAULT, "environ") == (void *)&environ);
    SAY("%d\n", dlsym(dlopen(NULL, RTLD_LAZY), "stdout") == (void *)&stdout);
}

CASE(the_address_of_a_function_of_libc) {
    /* In a fixed program it may be the PLT's: what dlsym says is the same everywhere. */
    void *libc = must_open("libc.so.6", RTLD_LAZY);
    SAY("%d\n", dlsym(RTLD_DEFAULT, "qsort") == (void *)qsort);
    SAY("%d\n", dlsym(libc, "qsort") == (void *)qsort);
    SAY("%d\n", dlsym(RTLD_NEXT, "qsort") == dlsym(libc, "qsort"));
}

CASE(itself_cannot_be_opened) { open_or_say(path_of("fixed"), RTLD_LAZY); }

static int first(struct dl_phdr_info *info, size_t size, void *data) {
    SAY("'%s' %d\n", info->dlpi_name, info->dlpi_addr == 0);
    return 1;
}

CASE(iterating_begins_with_it) {
    dl_iterate_phdr(first, NULL);
}

CASE(a_missing_function) { call(must_open("liblackfunction.so", RTLD_LAZY), "call_absent"); }
