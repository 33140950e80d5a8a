/* dlinfo(3). */
#include "family.h"

static int ask(void *handle, int request, void *result) {
    int answer = dlinfo(handle, request, result);
    if (answer == -1) SAY("dlinfo: %s\n", last_error());
    return answer;
}

static void show_origin(void *handle) {
    char origin[PATH_MAX] = "";
    SAY("%d ", ask(handle, RTLD_DI_ORIGIN, origin));
    SAY("%s\n", origin);
}

static Dl_serinfo *search_paths(void *handle) {
    Dl_serinfo size, *info;
    if (ask(handle, RTLD_DI_SERINFOSIZE, &size)) return NULL;
    info = calloc(1, size.dls_size);
    info->dls_size = size.dls_size;
    info->dls_cnt = size.dls_cnt;
    SAY("%u paths in %zu bytes\n", size.dls_cnt, size.dls_size);
    return ask(handle, RTLD_DI_SERINFO, info) ? NULL : info;
}

static void show_search_paths(void *handle) {
    Dl_serinfo *info = search_paths(handle);
    unsigned i;
    if (!info) return;
    for (i = 0; i < info->dls_cnt; i++) {
        const char *name = info->dls_serpath[i].dls_name;
        SAY("%u %s flags %u\n", i, name, info->dls_serpath[i].dls_flags);
        if (i && name < info->dls_serpath[i - 1].dls_name) SAY("not in order\n");
        if (name + strlen(name) >= (char *)info + info->dls_size) SAY("outside\n");
    }
    if (info->dls_cnt) SAY("%d\n", info->dls_serpath[0].dls_name == (char *)&info->dls_serpath[info->dls_cnt]);
}

CASE(namespace_of_a_library) {
    Lmid_t id = -5;
    SAY("%d %ld\n", ask(must_open("libone.so", RTLD_LAZY), RTLD_DI_LMID, &id), (long)id);
}

CASE(namespace_of_the_program) {
    Lmid_t id = -5;
    SAY("%d %ld\n", ask(dlopen(NULL, RTLD_LAZY), RTLD_DI_LMID, &id), (long)id);
}

CASE(namespace_of_another_one) {
    Lmid_t id = -5;
    void *handle = dlmopen(LM_ID_NEWLM, "libone.so", RTLD_LAZY);
    SAY("%d %d\n", ask(handle, RTLD_DI_LMID, &id), id > 0);
}

CASE(link_map_of_a_library) {
    struct link_map *map = NULL;
    void *handle = must_open("libone.so", RTLD_LAZY);
    SAY("%d\n", ask(handle, RTLD_DI_LINKMAP, &map));
    SAY("%s\n", map->l_name);
    Dl_info info;
    dladdr(must_find(handle, "one"), &info);
    SAY("%d %d\n", (void *)map->l_addr == info.dli_fbase, map->l_ld != NULL);
}

CASE(link_map_of_the_program) {
    struct link_map *map = NULL;
    SAY("%d '%s'\n", ask(dlopen(NULL, RTLD_LAZY), RTLD_DI_LINKMAP, &map), "");
    SAY("'%s' %d\n", map->l_name, map == dlopen(NULL, RTLD_LAZY));
}

CASE(link_map_of_libc) {
    struct link_map *map = NULL;
    SAY("%d\n", ask(must_open("libc.so.6", RTLD_LAZY), RTLD_DI_LINKMAP, &map));
    SAY("%s\n", base_name(map->l_name));
}

CASE(origin_of_a_library) { show_origin(must_open("libone.so", RTLD_LAZY)); }
CASE(origin_of_a_path) { show_origin(must_open(path_of("inner/libinner.so"), RTLD_LAZY)); }
CASE(origin_of_the_program) { show_origin(dlopen(NULL, RTLD_LAZY)); }
CASE(origin_of_a_link) { show_origin(must_open(path_of("liblink.so"), RTLD_LAZY)); }
/* differs: the same folder, without the "/." of the name
   ours: 0 FOLDER */
CASE(origin_of_a_relative_path) {
    chdir(folder());
    show_origin(must_open("./libone.so", RTLD_LAZY));
}
CASE(origin_of_a_path_with_dots) { show_origin(must_open(path_of("inner/../libone.so"), RTLD_LAZY)); }
CASE(origin_of_a_dependency) {
    must_open("libneedsone.so", RTLD_LAZY);
    show_origin(must_open("libone.so", RTLD_LAZY));
}

CASE(search_paths_of_a_library) { show_search_paths(must_open("libone.so", RTLD_LAZY)); }
CASE(search_paths_of_a_library_with_runpath) {
    show_search_paths(must_open("libcallerrunpath.so", RTLD_LAZY));
}
CASE(search_paths_of_a_library_with_rpath) {
    show_search_paths(must_open("libcallerrpath.so", RTLD_LAZY));
}
CASE(search_paths_of_a_library_without_default) {
    show_search_paths(must_open("libcallernodeflib.so", RTLD_LAZY));
}
CASE(search_paths_of_a_dependency) {
    must_open("libneedsone.so", RTLD_LAZY);
    show_search_paths(must_open("libone.so", RTLD_LAZY));
}
CASE(search_paths_of_the_program) { show_search_paths(dlopen(NULL, RTLD_LAZY)); }

/* env: LD_LIBRARY_PATH={folder}/inner:{folder}/nowhere::$ORIGIN/x */
CASE(search_paths_and_library_path) { show_search_paths(must_open("libone.so", RTLD_LAZY)); }

CASE(search_paths_of_a_runpath_with_many_folders) {
    show_search_paths(must_open("libmanypaths.so", RTLD_LAZY));
}

CASE(search_paths_of_rpath_of_the_one_that_needs) {
    must_open("librpathneeds.so", RTLD_LAZY);
    show_search_paths(must_open("libinner.so", RTLD_LAZY | RTLD_NOLOAD));
}

CASE(module_id) {
    size_t none = 99, some = 99;
    SAY("%d\n", ask(must_open("libone.so", RTLD_LAZY), RTLD_DI_TLS_MODID, &none));
    SAY("%d\n", ask(must_open("libtls.so", RTLD_LAZY), RTLD_DI_TLS_MODID, &some));
    SAY("%zu %d\n", none, some != 0);
}

CASE(module_ids_differ) {
    size_t a = 0, b = 0;
    ask(must_open("libtls.so", RTLD_LAZY), RTLD_DI_TLS_MODID, &a);
    ask(must_open("libtlsinitial.so", RTLD_LAZY), RTLD_DI_TLS_MODID, &b);
    SAY("%d\n", a && b && a != b);
}

CASE(block_before_it_is_touched) {
    void *block = (void *)1;
    SAY("%d\n", ask(must_open("libtls.so", RTLD_LAZY), RTLD_DI_TLS_DATA, &block));
    SAY("%d\n", block == NULL);
}

CASE(block_after_it_was_touched) {
    void *block = NULL, *handle = must_open("libtls.so", RTLD_LAZY);
    char *counter = must_find(handle, "counter"), *zeroes = must_find(handle, "zeroes");
    SAY("%d\n", ask(handle, RTLD_DI_TLS_DATA, &block));
    SAY("%d\n", block == (counter < zeroes ? counter : zeroes));
}

CASE(block_of_a_library_without) {
    void *block = (void *)1;
    SAY("%d %d\n", ask(must_open("libone.so", RTLD_LAZY), RTLD_DI_TLS_DATA, &block), block == NULL);
}

CASE(block_of_initial_exec) {
    void *block = NULL, *handle = must_open("libtlsinitial.so", RTLD_LAZY);
    void *early = must_find(handle, "early");
    SAY("%d %d\n", ask(handle, RTLD_DI_TLS_DATA, &block), block == early);
}

/* needs: 2.36 */
CASE(program_headers) {
    const ElfW(Phdr) *headers = NULL;
    void *handle = must_open("libone.so", RTLD_LAZY);
    int i, count = ask(handle, RTLD_DI_PHDR_, &headers), loads = 0, dynamic = 0;
    struct link_map *map = handle;
    for (i = 0; i < count; i++) {
        loads += headers[i].p_type == PT_LOAD;
        dynamic += headers[i].p_type == PT_DYNAMIC && map->l_addr + headers[i].p_vaddr == (uintptr_t)map->l_ld;
    }
    SAY("%d %d %d\n", count > 0, loads > 0, dynamic);
}

/* needs: 2.36 */
CASE(program_headers_of_the_program) {
    const ElfW(Phdr) *headers = NULL;
    SAY("%d\n", ask(dlopen(NULL, RTLD_LAZY), RTLD_DI_PHDR_, &headers) > 0);
    SAY("%d\n", headers[0].p_type);
}

CASE(configaddr_is_not_for_us) {
    void *result = NULL;
    SAY("%d\n", ask(must_open("libone.so", RTLD_LAZY), RTLD_DI_CONFIGADDR, &result));
}

CASE(profiling_is_not_for_us) {
    void *result = NULL;
    SAY("%d\n", ask(must_open("libone.so", RTLD_LAZY), RTLD_DI_PROFILENAME, &result));
    SAY("%d\n", ask(must_open("libone.so", RTLD_LAZY), RTLD_DI_PROFILEOUT, &result));
}

CASE(unknown_requests) {
    void *result = NULL;
    SAY("%d\n", ask(must_open("libone.so", RTLD_LAZY), 0, &result));
    SAY("%d\n", ask(must_open("libone.so", RTLD_LAZY), 99, &result));
    SAY("%d\n", ask(must_open("libone.so", RTLD_LAZY), -1, &result));
    SAY("%d\n", ask(dlopen(NULL, RTLD_LAZY), 99, &result));
}

CASE(search_paths_with_tokens) { show_search_paths(must_open("libtokenpaths.so", RTLD_LAZY)); }

/* differs: libc's dlinfo does not look at what it is given, and crashes
   ours: dlinfo: shared object not open
   ours: -1 */
CASE(a_handle_that_is_none) {
    static char nothing[4096];
    Lmid_t id;
    SAY("%d\n", ask(nothing + 64, RTLD_DI_LMID, &id));
}
