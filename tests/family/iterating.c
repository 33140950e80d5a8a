/* dl_iterate_phdr(3), _dl_find_object. */
#include "family.h"

struct seen {
    const char *name;
    int calls, found, smallest_size, stop_at, stop_value;
    struct dl_phdr_info info;
};

static int look(struct dl_phdr_info *info, size_t size, void *data) {
    struct seen *seen = data;
    seen->calls++;
    if (seen->smallest_size == 0 || (int)size < seen->smallest_size) seen->smallest_size = (int)size;
    if (seen->name && strcmp(base_name(info->dlpi_name), seen->name) == 0) {
        seen->found++;
        seen->info = *info;
    }
    return seen->calls == seen->stop_at ? seen->stop_value : 0;
}

static struct seen look_for(const char *name) {
    struct seen seen = {.name = name};
    int result = dl_iterate_phdr(look, &seen);
    if (result) SAY("result %d\n", result);
    return seen;
}

CASE(a_library_is_visited_once) {
    must_open("libone.so", RTLD_LAZY);
    must_open(path_of("libone.so"), RTLD_LAZY);
    SAY("%d\n", look_for("libone.so").found);
}

CASE(a_dependency_is_visited) {
    must_open("libneedsone.so", RTLD_LAZY);
    SAY("%d\n", look_for("libone.so").found);
}

static int first(struct dl_phdr_info *info, size_t size, void *data) {
    SAY("'%s'\n", info->dlpi_name);
    return 5;
}

CASE(the_program_is_first) {
    SAY("%d\n", dl_iterate_phdr(first, NULL));
}

CASE(libc_is_visited) { SAY("%d\n", look_for("libc.so.6").found); }

CASE(a_closed_library_is_not_visited) {
    dlclose(must_open("libone.so", RTLD_LAZY));
    SAY("%d\n", look_for("libone.so").found);
}

CASE(one_more_visit_for_one_more_library) {
    must_open("libtwo.so", RTLD_LAZY);
    int before = look_for(NULL).calls;
    void *handle = must_open("libone.so", RTLD_LAZY);
    SAY("%d\n", look_for(NULL).calls - before);
    dlclose(handle);
    SAY("%d\n", look_for(NULL).calls - before);
}

CASE(the_size_is_that_of_the_structure) {
    must_open("libone.so", RTLD_LAZY);
    SAY("%d\n", look_for(NULL).smallest_size == sizeof(struct dl_phdr_info));
}

CASE(a_visitor_stops_it) {
    struct seen seen = {.stop_at = 2, .stop_value = 77};
    must_open("libone.so", RTLD_LAZY);
    SAY("%d %d\n", dl_iterate_phdr(look, &seen), seen.calls);
    seen = (struct seen){.stop_at = 1, .stop_value = -1};
    SAY("%d %d\n", dl_iterate_phdr(look, &seen), seen.calls);
}

CASE(a_visitor_stops_it_at_the_last_library) {
    must_open("libone.so", RTLD_LAZY);
    struct seen seen = {.stop_at = look_for(NULL).calls, .stop_value = 78};
    SAY("%d %d\n", dl_iterate_phdr(look, &seen), seen.calls == seen.stop_at);
}

CASE(address_and_headers) {
    struct link_map *map = must_open("libone.so", RTLD_LAZY);
    struct seen seen = look_for("libone.so");
    int i, loads = 0;
    SAY("%d\n", seen.info.dlpi_addr == map->l_addr);
    for (i = 0; i < seen.info.dlpi_phnum; i++) loads += seen.info.dlpi_phdr[i].p_type == PT_LOAD;
    SAY("%d %d\n", seen.info.dlpi_phnum, loads);
}

CASE(the_headers_are_those_in_memory) {
    struct link_map *map = must_open("libone.so", RTLD_LAZY);
    struct seen seen = look_for("libone.so");
    const ElfW(Ehdr) *header = (const void *)map->l_addr;
    SAY("%d\n", memcmp((const char *)header + header->e_phoff, seen.info.dlpi_phdr,
                       seen.info.dlpi_phnum * sizeof(ElfW(Phdr))));
}

CASE(the_name_is_as_it_was_found) {
    must_open("libone.so", RTLD_LAZY);
    SAY("%s\n", look_for("libone.so").info.dlpi_name);
    chdir(folder());
    must_open("./libtwo.so", RTLD_LAZY);
    SAY("%s\n", look_for("libtwo.so").info.dlpi_name);
}

CASE(adds_move) {
    must_open("libtwo.so", RTLD_LAZY);
    struct seen a = look_for("libc.so.6");
    void *handle = must_open("libneedsone.so", RTLD_LAZY);
    struct seen b = look_for("libc.so.6");
    SAY("%llu %llu\n", b.info.dlpi_adds - a.info.dlpi_adds, b.info.dlpi_subs - a.info.dlpi_subs);
    dlclose(handle);
    struct seen c = look_for("libc.so.6");
    SAY("%llu %llu\n", c.info.dlpi_adds - b.info.dlpi_adds, c.info.dlpi_subs - b.info.dlpi_subs);
}

CASE(a_second_open_does_not_move_them) {
    must_open("libone.so", RTLD_LAZY);
    struct seen a = look_for("libone.so");
    must_open("libone.so", RTLD_LAZY);
    struct seen b = look_for("libone.so");
    SAY("%d %d\n", a.info.dlpi_adds == b.info.dlpi_adds, a.info.dlpi_subs == b.info.dlpi_subs);
}

CASE(the_counters_are_the_same_for_all) {
    must_open("libone.so", RTLD_LAZY);
    struct seen a = look_for("libone.so"), b = look_for("libc.so.6");
    SAY("%d %d\n", a.info.dlpi_adds == b.info.dlpi_adds, a.info.dlpi_subs == b.info.dlpi_subs);
}

CASE(adds_less_subs_is_what_is_there) {
    must_open("libtwo.so", RTLD_LAZY);
    dlclose(must_open("libone.so", RTLD_LAZY));
    struct seen a = look_for("libtwo.so");
    SAY("%d\n", a.info.dlpi_adds - a.info.dlpi_subs == (unsigned long long)a.calls);
}

CASE(thread_local_storage) {
    void *handle = must_open("libtls.so", RTLD_LAZY);
    size_t id = 0;
    dlinfo(handle, RTLD_DI_TLS_MODID, &id);
    struct seen seen = look_for("libtls.so");
    SAY("%d %d\n", seen.info.dlpi_tls_modid == id, seen.info.dlpi_tls_data == NULL);
    must_find(handle, "counter");
    void *block = NULL;
    dlinfo(handle, RTLD_DI_TLS_DATA, &block);
    SAY("%d %d\n", block != NULL, look_for("libtls.so").info.dlpi_tls_data == block);
}

CASE(no_thread_local_storage) {
    must_open("libone.so", RTLD_LAZY);
    struct seen seen = look_for("libone.so");
    SAY("%zu %d\n", seen.info.dlpi_tls_modid, seen.info.dlpi_tls_data == NULL);
}

static int nested(struct dl_phdr_info *info, size_t size, void *data) {
    int *count = data;
    if (strcmp(base_name(info->dlpi_name), "libone.so") == 0) *count += look_for("libone.so").found;
    return 0;
}

CASE(a_visitor_that_iterates) {
    int count = 0;
    must_open("libone.so", RTLD_LAZY);
    dl_iterate_phdr(nested, &count);
    SAY("%d\n", count);
}

static int asks(struct dl_phdr_info *info, size_t size, void *data) {
    Dl_info address;
    if (strcmp(base_name(info->dlpi_name), "libone.so") == 0) {
        SAY("%d\n", dladdr((void *)info->dlpi_addr, &address));
        SAY("%s\n", base_name(address.dli_fname));
        SAY("%d\n", dlsym(data, "one") != NULL);
    }
    return 0;
}

CASE(a_visitor_that_asks) { dl_iterate_phdr(asks, must_open("libone.so", RTLD_LAZY)); }

/* differs: libc visits the caller's namespace only; ours share the unwinder, which finds all
     frames through this
   ours: 1 */
CASE(a_namespace_of_its_own) {
    int before = look_for("libone.so").found;
    dlmopen(LM_ID_NEWLM, "libone.so", RTLD_LAZY);
    SAY("%d\n", look_for("libone.so").found - before);
}

#ifdef DLFO_STRUCT_HAS_EH_DBASE
/* needs: 2.35 */
CASE(find_object_of_a_library) {
    struct dl_find_object found;
    struct link_map *map = must_open("libone.so", RTLD_LAZY);
    char *one = must_find(map, "one");
    SAY("%d\n", _dl_find_object(one, &found));
    SAY("%d %d\n", found.dlfo_link_map == map, (void *)map->l_addr == found.dlfo_map_start);
    SAY("%d\n", one >= (char *)found.dlfo_map_start && one < (char *)found.dlfo_map_end);
    SAY("%llu\n", found.dlfo_flags);
    struct seen seen = look_for("libone.so");
    int i;
    for (i = 0; i < seen.info.dlpi_phnum; i++)
        if (seen.info.dlpi_phdr[i].p_type == PT_GNU_EH_FRAME)
            SAY("%d\n", (char *)map->l_addr + seen.info.dlpi_phdr[i].p_vaddr == (char *)found.dlfo_eh_frame);
}

/* needs: 2.35 */
CASE(find_object_without_unwind_tables) {
    struct dl_find_object found;
    struct link_map *map = must_open("libshape_noframes.so", RTLD_LAZY);
    SAY("%d\n", _dl_find_object(must_find(map, "shape"), &found));
    SAY("%d %d\n", found.dlfo_link_map == map, found.dlfo_eh_frame == NULL);
}

/* needs: 2.35 */
CASE(find_object_of_its_borders) {
    struct dl_find_object found, again;
    void *handle = must_open("libone.so", RTLD_LAZY);
    _dl_find_object(must_find(handle, "one"), &found);
    SAY("%d\n", _dl_find_object(found.dlfo_map_start, &again));
    SAY("%d\n", again.dlfo_link_map == handle);
    SAY("%d\n", _dl_find_object((char *)found.dlfo_map_end - 1, &again));
    SAY("%d\n", again.dlfo_link_map == handle);
}

/* needs: 2.35 */
CASE(find_object_of_the_program) {
    struct dl_find_object found;
    SAY("%d\n", _dl_find_object((void *)look, &found));
    SAY("%d '%s'\n", found.dlfo_link_map == dlopen(NULL, RTLD_LAZY), found.dlfo_link_map->l_name);
}

/* needs: 2.35 */
CASE(find_object_of_libc) {
    struct dl_find_object found;
    SAY("%d\n", _dl_find_object(dlsym(RTLD_DEFAULT, "qsort"), &found));
    SAY("%s\n", base_name(found.dlfo_link_map->l_name));
}

/* needs: 2.35 */
CASE(find_object_of_the_stack) {
    struct dl_find_object found;
    SAY("%d\n", _dl_find_object(&found, &found));
    SAY("%d\n", _dl_find_object(NULL, &found));
}

/* needs: 2.35 */
CASE(find_object_after_a_close) {
    struct dl_find_object found;
    void *handle = must_open("libone.so", RTLD_LAZY);
    void *one = must_find(handle, "one");
    dlclose(handle);
    SAY("%d\n", _dl_find_object(one, &found));
}
#endif

/* By the number that it says of a library, as the runtime of D does for its collector. */
extern void *__tls_get_addr(const size_t module_and_offset[2]);

static int same_block(const char *name) {
    struct seen seen = look_for(name);
    size_t index[2] = {seen.info.dlpi_tls_modid, 0};
    char *block = __tls_get_addr(index);
    const ElfW(Phdr) *segment = seen.info.dlpi_phdr;
    void *handle = must_open(name, RTLD_LAZY | RTLD_NOLOAD);
    while (segment->p_type != PT_TLS) segment++;
    size_t offset = (size_t)((char *)must_find(handle, "counter") - block);
    return offset < segment->p_memsz;
}

static void *same_in_a_thread(void *data) { return same_block(data) ? data : NULL; }

CASE(a_block_by_its_module) {
    pthread_t thread;
    void *same = NULL;
    call(must_open("libtls.so", RTLD_LAZY), "next_counter");
    SAY("%d\n", same_block("libtls.so"));
    pthread_create(&thread, NULL, same_in_a_thread, "libtls.so");
    pthread_join(thread, &same);
    SAY("%d\n", same != NULL);
}
