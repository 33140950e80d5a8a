/* dladdr(3), dladdr1. */
#include "family.h"

static void show(const void *address) {
    Dl_info info = {"unset", (void *)1, "unset", (void *)1};
    int found = dladdr(address, &info);
    if (!found) {
        SAY("not found\n");
        return;
    }
    SAY("%s %s base %d", base_name(info.dli_fname), info.dli_sname ? info.dli_sname : "null",
        info.dli_fbase != NULL);
    if (info.dli_saddr) SAY(" offset %ld", (long)((char *)address - (char *)info.dli_saddr));
    SAY("\n");
}

CASE(a_function) { show(must_find(must_open("libone.so", RTLD_LAZY), "one")); }

CASE(inside_a_function) { show((char *)must_find(must_open("libone.so", RTLD_LAZY), "one") + 2); }

CASE(a_variable) { show(must_find(must_open("libone.so", RTLD_LAZY), "number")); }

CASE(inside_bss) { show((int *)must_find(must_open("libone.so", RTLD_LAZY), "in_bss") + 50); }

CASE(a_static_function) {
    void *(*hidden)(void) = must_find(must_open("libone.so", RTLD_LAZY), "hidden");
    show(hidden());
}

CASE(the_elf_header) {
    Dl_info info;
    dladdr(must_find(must_open("libone.so", RTLD_LAZY), "one"), &info);
    SAY("%.4s\n", (char *)info.dli_fbase + 1);
    show(info.dli_fbase);
}

CASE(the_dynamic_section) {
    struct link_map *map = must_open("libone.so", RTLD_LAZY);
    show(map->l_ld);
}

CASE(the_file_name_is_as_it_was_opened) {
    Dl_info info;
    chdir(folder());
    void *handle = must_open("./libone.so", RTLD_LAZY);
    dladdr(must_find(handle, "one"), &info);
    SAY("%s\n", info.dli_fname);
}

CASE(the_file_name_of_a_searched_name) {
    Dl_info info;
    dladdr(must_find(must_open("libone.so", RTLD_LAZY), "one"), &info);
    SAY("%s\n", info.dli_fname);
}

CASE(the_file_name_of_a_link) {
    Dl_info info;
    dladdr(must_find(must_open(path_of("liblink.so"), RTLD_LAZY), "one"), &info);
    SAY("%s\n", info.dli_fname);
}

CASE(the_program) {
    Dl_info info;
    SAY("%d\n", dladdr((void *)show, &info) != 0);
    SAY("%s %d\n", base_name(info.dli_fname), info.dli_fbase != NULL);
}

CASE(libc) {
    Dl_info info;
    SAY("%d\n", dladdr(dlsym(must_open("libc.so.6", RTLD_LAZY), "qsort"), &info) != 0);
    SAY("%s %s\n", base_name(info.dli_fname), info.dli_sname);
}

CASE(the_stack) { int here; show(&here); }
CASE(the_heap) { show(malloc(100)); }
CASE(null) { show(NULL); }
CASE(the_end_of_memory) { show((void *)-1); }

CASE(behind_the_last_page) {
    struct link_map *map = must_open("libone.so", RTLD_LAZY);
    show((char *)map->l_addr + (1 << 24));
}

CASE(after_a_close) {
    void *handle = must_open("libone.so", RTLD_LAZY);
    void *one = must_find(handle, "one");
    dlclose(handle);
    show(one);
}

CASE(an_ifunc) {
    void *handle = must_open("libifunc.so", RTLD_LAZY);
    Dl_info info;
    SAY("%d %s\n", dladdr(must_find(handle, "picked"), &info), base_name(info.dli_fname));
}

CASE(the_object_of_a_thread) {
    void *handle = must_open("libtls.so", RTLD_LAZY);
    show(must_find(handle, "counter"));
}

CASE(an_interposed_name) {
    must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    show(must_find(must_open("libtwo.so", RTLD_LAZY), "who"));
}

CASE(versions_of_one_name) {
    void *handle = must_open("libversions.so", RTLD_LAZY);
    show(dlvsym(handle, "f", "V_1"));
    show(dlvsym(handle, "f", "V_2"));
}

CASE(the_link_map) {
    Dl_info info;
    struct link_map *map = NULL;
    void *handle = must_open("libone.so", RTLD_LAZY);
    SAY("%d\n", dladdr1(must_find(handle, "one"), &info, (void **)&map, RTLD_DL_LINKMAP));
    SAY("%d %s %d\n", map == handle, base_name(map->l_name), (void *)map->l_addr == info.dli_fbase);
}

CASE(the_link_map_of_the_program) {
    Dl_info info;
    struct link_map *map = NULL;
    SAY("%d\n", dladdr1((void *)show, &info, (void **)&map, RTLD_DL_LINKMAP));
    SAY("%d '%s'\n", map == dlopen(NULL, RTLD_LAZY), map->l_name);
}

CASE(the_symbol) {
    Dl_info info;
    const ElfW(Sym) *symbol = NULL;
    void *handle = must_open("libone.so", RTLD_LAZY);
    SAY("%d\n", dladdr1(must_find(handle, "in_bss"), &info, (void **)&symbol, RTLD_DL_SYMENT));
    SAY("%ld %d\n", (long)symbol->st_size, ELF64_ST_TYPE(symbol->st_info));
}

CASE(no_symbol) {
    Dl_info info;
    const ElfW(Sym) *symbol = (void *)1;
    struct link_map *map = must_open("libone.so", RTLD_LAZY);
    SAY("%d\n", dladdr1((void *)map->l_ld, &info, (void **)&symbol, RTLD_DL_SYMENT));
    SAY("%d\n", info.dli_sname == NULL ? symbol == NULL : -1);
}

CASE(flags_of_zero) {
    Dl_info info;
    void *extra = (void *)1;
    void *handle = must_open("libone.so", RTLD_LAZY);
    SAY("%d\n", dladdr1(must_find(handle, "one"), &info, &extra, 0));
    SAY("%s %d\n", info.dli_sname, extra == (void *)1);
}

CASE(nowhere_with_flags) {
    Dl_info info;
    void *extra = (void *)1;
    int here;
    SAY("%d\n", dladdr1(&here, &info, &extra, RTLD_DL_LINKMAP));
}

CASE(walking_the_link_maps) {
    /* From the program's on, as a debugger would; the vDSO and what is preloaded differ. */
    must_open("libone.so", RTLD_LAZY);
    struct link_map *map = dlopen(NULL, RTLD_LAZY);
    int libc = 0, loops = 0;
    SAY("%d '%s'\n", map->l_prev == NULL, map->l_name);
    for (; map && loops < 1000; map = map->l_next, loops++) {
        libc += strcmp(base_name(map->l_name), "libc.so.6") == 0;
        if (map->l_next && map->l_next->l_prev != map) SAY("broken\n");
    }
    SAY("%d\n", libc);
}

CASE(a_handle_is_a_link_map) {
    struct link_map *map = must_open("libone.so", RTLD_LAZY);
    SAY("%s %d\n", map->l_name, map->l_addr != 0);
    const ElfW(Dyn) *entry;
    int soname = 0;
    for (entry = map->l_ld; entry->d_tag != DT_NULL; entry++) soname += entry->d_tag == DT_SONAME;
    SAY("%d\n", soname);
}

CASE(the_neighbours_of_a_handle) {
    must_open("libone.so", RTLD_LAZY);
    struct link_map *two = must_open("libtwo.so", RTLD_LAZY), *map;
    int before = 0, after = 0;
    for (map = two->l_prev; map; map = map->l_prev) before += !strcmp(base_name(map->l_name), "libone.so");
    must_open("libself.so", RTLD_LAZY);
    for (map = two->l_next; map; map = map->l_next) after += !strcmp(base_name(map->l_name), "libself.so");
    SAY("%d %d\n", before, after);
}
