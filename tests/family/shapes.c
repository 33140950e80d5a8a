/* Libraries as linkers may write them: hash tables, segments, relocations, initial addresses. */
#include "family.h"

/* What every library of this file has: functions that call, data that is relocated. */
static void use(const char *name) {
    void *handle = must_open(name, RTLD_LAZY);
    Dl_info info;
    SAY("%d %s\n", call(handle, "shape"), text(handle, "shape_name"));
    SAY("%d\n", dladdr(must_find(handle, "shape"), &info));
    SAY("%s %s\n", base_name(info.dli_fname), info.dli_sname);
    int *own = must_find(handle, "shape_data");
    int **pointer = must_find(handle, "shape_pointer");
    SAY("%d %d\n", *own, *pointer == own);
    find_or_say(handle, "shape_nothing");
    SAY("%d %d\n", dlclose(handle), is_loaded(name));
}

CASE(plain) { use("libshape.so"); }
CASE(sysv_hash_only) { use("libshape_sysv.so"); }
CASE(both_hashes) { use("libshape_both.so"); }
CASE(packed_relative_relocations) { use("libshape_relr.so"); }
CASE(no_separate_code) { use("libshape_noseparate.so"); }
CASE(large_pages) { use("libshape_large.so"); }
CASE(full_relro) { use("libshape_relro.so"); }
CASE(no_relro) { use("libshape_norelro.so"); }
CASE(a_base_address) { use("libshape_base.so"); }
CASE(stripped) { use("libshape_stripped.so"); }
CASE(symbolic_functions) { use("libshape_symbolic.so"); }
CASE(combined_relocations_off) { use("libshape_nocombreloc.so"); }
CASE(no_start_files) { use("libshape_nostartfiles.so"); }
CASE(text_relocations) { use("libshape_textrel.so"); }
CASE(no_plt) { use("libshape_noplt.so"); }
CASE(many_symbols) {
    void *handle = must_open("libshape_many.so", RTLD_NOW);
    char name[32];
    int i, sum = 0;
    for (i = 0; i < 500; i++) {
        snprintf(name, sizeof name, "many_%d", i);
        sum += call(handle, name) == i;
    }
    SAY("%d\n", sum);
    find_or_say(handle, "many_500");
}

CASE(large_zeroed_data) {
    void *handle = must_open("libshape_zeroes.so", RTLD_NOW);
    char *zeroes = must_find(handle, "zeroes");
    SAY("%d %d\n", zeroes[0], zeroes[(1 << 24) - 1]);
    zeroes[1 << 23] = 1;
    SAY("%d\n", dlclose(handle));
}

CASE(aligned_data) {
    void *handle = must_open("libshape_aligned.so", RTLD_NOW);
    SAY("%d\n", (int)((uintptr_t)must_find(handle, "aligned") % 4096));
    SAY("%d\n", (int)((uintptr_t)must_find(handle, "aligned_storage") % 64));
}

CASE(an_executable_stack_is_not_asked_for) {
    /* No library of the folder does: the stack's rights are as before. */
    char line[512];
    must_open("libshape.so", RTLD_NOW);
    FILE *maps = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, maps))
        if (strstr(line, "[stack]")) SAY("%.4s\n", strchr(line, ' ') + 1);
}

CASE(ifunc_in_data) {
    void *handle = must_open("libshape_ifuncdata.so", RTLD_NOW);
    int (**pointer)(void) = must_find(handle, "pointer_to_ifunc");
    SAY("%d\n", (*pointer)());
    SAY("%d\n", (void *)*pointer == dlsym(handle, "chosen_by_ifunc"));
}

CASE(ifunc_of_another_library) {
    void *handle = must_open("libcallsifunc.so", RTLD_NOW);
    SAY("%d\n", call(handle, "through"));
}

CASE(a_thread_local_of_another_library) {
    void *handle = must_open("libshape_usestls.so", RTLD_NOW);
    int *(*other)(void) = must_find(handle, "address_of_others_counter");
    void *tls = must_open("libtls.so", RTLD_NOLOAD | RTLD_LAZY);
    SAY("%d %d\n", *other(), (void *)other() == dlsym(tls, "counter"));
}

static void *in_thread(void *data) { return (void *)(long)call(data, "next_described"); }

CASE(a_thread_local_with_descriptors) {
    void *handle = must_open("libshape_tlsdesc.so", RTLD_NOW), *other;
    pthread_t thread;
    SAY("%d\n", call(handle, "next_described"));
    pthread_create(&thread, NULL, in_thread, handle);
    pthread_join(thread, &other);
    SAY("%ld %d\n", (long)other, call(handle, "next_described"));
}

CASE(weak_versions) {
    void *handle = must_open("libversions.so", RTLD_NOW);
    int (*newer)(void) = dlvsym(handle, "f", "V_2"), (*older)(void) = dlvsym(handle, "f", "V_1");
    SAY("%d\n", newer != older);
    SAY("%d\n", (void *)newer == dlsym(handle, "f"));
}

CASE(a_needed_path) {
    SAY("%d\n", call(must_open("libshape_neededpath.so", RTLD_NOW), "shape_and_one"));
}
