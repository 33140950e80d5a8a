/* dlopen(3). */
#include "family.h"

CASE(null_is_the_program) {
    void *program = open_or_say(NULL, RTLD_LAZY);
    SAY("%d %d\n", program != NULL, dlsym(program, "puts") == (void *)puts);
    SAY("%d\n", dlclose(program));
}

CASE(null_gives_one_handle) {
    SAY("%d\n", dlopen(NULL, RTLD_LAZY) == dlopen(NULL, RTLD_NOW | RTLD_GLOBAL));
}

CASE(an_empty_name_is_the_program) {
    void *handle = open_or_say("", RTLD_LAZY);
    SAY("%d\n", handle == dlopen(NULL, RTLD_LAZY));
}

CASE(null_with_noload) {
    SAY("%d\n", dlopen(NULL, RTLD_LAZY | RTLD_NOLOAD) == dlopen(NULL, RTLD_LAZY));
}

CASE(neither_lazy_nor_now) {
    open_or_say("libone.so", 0);
    open_or_say("libone.so", RTLD_GLOBAL);
    open_or_say(NULL, 0);
    open_or_say("", 0);
    SAY("%d\n", is_loaded("libone.so"));
}

CASE(noload_alone_is_no_mode) { open_or_say("libone.so", RTLD_NOLOAD); }

CASE(lazy_and_now) { SAY("%d\n", call(must_open("libone.so", RTLD_LAZY | RTLD_NOW), "one")); }

CASE(unknown_flags) {
    open_or_say("libone.so", RTLD_LAZY | 0x10000);
    open_or_say("libone.so", RTLD_LAZY | 0x20);
    open_or_say("libnothing.so", RTLD_LAZY | 0x40);
    open_or_say(NULL, 0x40);
    SAY("%d\n", is_loaded("libone.so"));
}

CASE(all_known_flags) {
    int mode = RTLD_NOW | RTLD_GLOBAL | RTLD_DEEPBIND | RTLD_NODELETE;
    SAY("%d\n", call(must_open("libone.so", mode), "one"));
}

CASE(a_second_open_gives_the_same_handle) {
    SAY("%d\n", must_open("libone.so", RTLD_LAZY) == must_open("libone.so", RTLD_NOW));
}

CASE(by_path_and_by_name) {
    SAY("%d\n", must_open("libone.so", RTLD_LAZY) == must_open(path_of("libone.so"), RTLD_LAZY));
}

CASE(by_path_then_by_name) {
    void *handle = must_open(path_of("libone.so"), RTLD_LAZY);
    SAY("%d\n", handle == must_open("libone.so", RTLD_LAZY));
}

CASE(a_symbolic_link_is_the_same_file) {
    SAY("%d\n", must_open("libone.so", RTLD_LAZY) == must_open("liblink.so", RTLD_LAZY));
}

CASE(a_hard_link_is_the_same_file) {
    SAY("%d\n", must_open("libone.so", RTLD_LAZY) == must_open("libhard.so", RTLD_LAZY));
}

CASE(a_copy_is_another_library) {
    void *one = must_open("libone.so", RTLD_LAZY);
    void *copy = must_open(path_of("libcopy.so"), RTLD_LAZY);
    SAY("%d\n", one != copy);
    *(int *)must_find(one, "number") = 1;
    SAY("%d\n", *(int *)must_find(copy, "number"));
}

/* The copy has the soname of the library, and so answers to its name. */
CASE(a_copy_answers_to_its_soname) {
    void *copy = must_open(path_of("libcopy.so"), RTLD_LAZY);
    SAY("%d\n", copy == must_open("libone.so", RTLD_LAZY));
}

CASE(noload_of_what_is_not_loaded) {
    SAY("%d\n", dlopen("libone.so", RTLD_LAZY | RTLD_NOLOAD) == NULL);
    SAY("%s\n", last_error());
}

CASE(noload_of_what_is_nowhere) {
    SAY("%d\n", dlopen("libnothing.so", RTLD_LAZY | RTLD_NOLOAD) == NULL);
    SAY("%s\n", last_error());
}

CASE(noload_of_a_path_that_is_nowhere) {
    SAY("%d\n", dlopen("/nothing/libnothing.so", RTLD_LAZY | RTLD_NOLOAD) == NULL);
    SAY("%s\n", last_error());
}

CASE(noload_of_a_text_file) {
    SAY("%d\n", dlopen(path_of("text.so"), RTLD_LAZY | RTLD_NOLOAD) == NULL);
    SAY("%s\n", last_error());
}

CASE(noload_counts) {
    void *handle = must_open("libone.so", RTLD_LAZY);
    SAY("%d\n", handle == dlopen("libone.so", RTLD_LAZY | RTLD_NOLOAD));
    SAY("%d %d\n", dlclose(handle), is_loaded("libone.so"));
    SAY("%d %d\n", dlclose(handle), is_loaded("libone.so"));
}

CASE(noload_finds_a_dependency) {
    must_open("libneedsone.so", RTLD_LAZY);
    SAY("%d\n", call(must_open("libone.so", RTLD_LAZY | RTLD_NOLOAD), "one"));
}

CASE(local_is_not_in_the_global_scope) {
    must_open("libone.so", RTLD_LAZY);
    SAY("%d\n", dlsym(RTLD_DEFAULT, "one") != NULL);
}

CASE(global_is_in_the_global_scope) {
    must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    SAY("%d\n", dlsym(RTLD_DEFAULT, "one") != NULL);
    SAY("%d\n", dlsym(dlopen(NULL, RTLD_LAZY), "one") != NULL);
}

CASE(dependencies_of_a_global_library_are_global) {
    must_open("libneedsneedsone.so", RTLD_LAZY | RTLD_GLOBAL);
    SAY("%d %d\n", dlsym(RTLD_DEFAULT, "one_more") != NULL, dlsym(RTLD_DEFAULT, "one") != NULL);
}

CASE(dependencies_of_a_local_library_are_local) {
    must_open("libneedsone.so", RTLD_LAZY);
    SAY("%d %d\n", dlsym(RTLD_DEFAULT, "one_more") != NULL, dlsym(RTLD_DEFAULT, "one") != NULL);
}

CASE(promotion_by_a_second_open) {
    must_open("libneedsone.so", RTLD_LAZY);
    must_open("libneedsone.so", RTLD_LAZY | RTLD_GLOBAL);
    SAY("%d %d\n", dlsym(RTLD_DEFAULT, "one_more") != NULL, dlsym(RTLD_DEFAULT, "one") != NULL);
}

CASE(promotion_by_noload) {
    must_open("libone.so", RTLD_LAZY);
    must_open("libone.so", RTLD_LAZY | RTLD_NOLOAD | RTLD_GLOBAL);
    SAY("%d\n", dlsym(RTLD_DEFAULT, "one") != NULL);
}

CASE(promotion_of_a_dependency_only) {
    must_open("libneedsone.so", RTLD_LAZY);
    must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    SAY("%d %d\n", dlsym(RTLD_DEFAULT, "one_more") != NULL, dlsym(RTLD_DEFAULT, "one") != NULL);
}

CASE(no_demotion) {
    must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    must_open("libone.so", RTLD_LAZY | RTLD_LOCAL);
    SAY("%d\n", dlsym(RTLD_DEFAULT, "one") != NULL);
}

CASE(the_first_global_wins) {
    must_open("libtwo.so", RTLD_LAZY | RTLD_GLOBAL);
    must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    SAY("%s\n", text(RTLD_DEFAULT, "who"));
}

CASE(promotion_appends) {
    must_open("libone.so", RTLD_LAZY);
    must_open("libtwo.so", RTLD_LAZY | RTLD_GLOBAL);
    must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    SAY("%s\n", text(RTLD_DEFAULT, "who"));
}

CASE(a_closed_global_makes_room) {
    void *one = must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    must_open("libtwo.so", RTLD_LAZY | RTLD_GLOBAL);
    dlclose(one);
    SAY("%s\n", text(dlopen(NULL, RTLD_LAZY), "who"));
}

CASE(global_satisfies_a_later_library) {
    must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    SAY("%s\n", text(must_open("libasks.so", RTLD_NOW), "ask_who"));
}

CASE(local_does_not_satisfy_a_later_library) {
    must_open("libone.so", RTLD_LAZY);
    open_or_say("libasks.so", RTLD_NOW);
}

CASE(global_interposes_a_later_library) {
    must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    SAY("%s\n", text(must_open("libself.so", RTLD_NOW), "ask_who"));
}

CASE(a_global_weak_definition_is_as_good_as_another) {
    must_open("libweak.so", RTLD_LAZY | RTLD_GLOBAL);
    SAY("%s\n", text(must_open("libself.so", RTLD_NOW), "ask_who"));
}

/* differs: LD_DYNAMIC_WEAK, of ld.so(8), is for programs of before glibc 2.2 only
   ours: weak
   env: LD_DYNAMIC_WEAK=1 */
CASE(a_global_weak_definition_gives_way) {
    must_open("libweak.so", RTLD_LAZY | RTLD_GLOBAL);
    SAY("%s\n", text(must_open("libself.so", RTLD_NOW), "ask_who"));
}

CASE(deepbind_prefers_its_own) {
    must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    SAY("%s\n", text(must_open("libself.so", RTLD_NOW | RTLD_DEEPBIND), "ask_who"));
}

CASE(deepbind_falls_back_on_the_global_scope) {
    must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    SAY("%s\n", text(must_open("libasks.so", RTLD_NOW | RTLD_DEEPBIND), "ask_who"));
}

CASE(deepbind_holds_for_dependencies) {
    must_open("libtwo.so", RTLD_LAZY | RTLD_GLOBAL);
    SAY("%s\n", text(must_open("libboth.so", RTLD_NOW | RTLD_DEEPBIND), "ask_who"));
}

CASE(deepbind_of_a_second_open_is_too_late) {
    must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    must_open("libself.so", RTLD_LAZY);
    SAY("%s\n", text(must_open("libself.so", RTLD_NOW | RTLD_DEEPBIND), "ask_who"));
}

CASE(symbolic_binds_to_itself) {
    must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    SAY("%s\n", text(must_open("libsymbolic.so", RTLD_NOW), "ask_who"));
}

CASE(protected_binds_to_itself) {
    must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    void *handle = must_open("libprotected.so", RTLD_NOW);
    SAY("%s %s\n", text(handle, "ask_who"), text(handle, "ask_unseen"));
}

CASE(dependencies_are_searched_breadth_first) {
    SAY("%s\n", text(must_open("libboth.so", RTLD_NOW), "ask_who"));
    SAY("%s\n", text(must_open("libboth.so", RTLD_NOW), "who"));
}

CASE(nodelete) {
    void *handle = must_open("libone.so", RTLD_LAZY | RTLD_NODELETE);
    int *number = must_find(handle, "number");
    *number = 5;
    SAY("%d %d\n", dlclose(handle), is_loaded("libone.so"));
    SAY("%d\n", *(int *)must_find(must_open("libone.so", RTLD_LAZY), "number"));
}

CASE(nodelete_by_a_second_open) {
    must_open("libone.so", RTLD_LAZY);
    void *handle = must_open("libone.so", RTLD_LAZY | RTLD_NODELETE);
    dlclose(handle);
    dlclose(handle);
    SAY("%d\n", is_loaded("libone.so"));
}

CASE(nodelete_by_noload) {
    void *handle = must_open("libone.so", RTLD_LAZY);
    must_open("libone.so", RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
    dlclose(handle);
    dlclose(handle);
    SAY("%d\n", is_loaded("libone.so"));
}

CASE(nodelete_by_the_file) {
    void *handle = must_open("libnodelete.so", RTLD_LAZY);
    SAY("%d %d\n", dlclose(handle), is_loaded("libnodelete.so"));
}

CASE(nodelete_keeps_dependencies) {
    void *handle = must_open("libneedsone.so", RTLD_LAZY | RTLD_NODELETE);
    dlclose(handle);
    SAY("%d %d\n", is_loaded("libneedsone.so"), is_loaded("libone.so"));
}

CASE(nodelete_is_not_for_dependents) {
    must_open("libone.so", RTLD_LAZY | RTLD_NODELETE);
    dlclose(must_open("libneedsone.so", RTLD_LAZY));
    SAY("%d %d\n", is_loaded("libneedsone.so"), is_loaded("libone.so"));
}

CASE(a_soname_answers_once_it_is_loaded) {
    SAY("%d\n", dlopen("libanother.so.1", RTLD_LAZY) == NULL);
    void *handle = must_open("libsoname.so", RTLD_LAZY);
    SAY("%d\n", handle == open_or_say("libanother.so.1", RTLD_LAZY));
}

CASE(a_library_without_soname) {
    void *handle = must_open("libnosoname.so", RTLD_LAZY);
    SAY("%d %d\n", call(handle, "unnamed"), handle == must_open("libnosoname.so", RTLD_LAZY));
}

CASE(a_relative_path) {
    SAY("%d\n", chdir(folder()));
    void *handle = must_open("./libone.so", RTLD_LAZY);
    SAY("%d %d\n", call(handle, "one"), handle == must_open(path_of("libone.so"), RTLD_LAZY));
}

/* It answers to the name that it was asked for by. */
CASE(a_relative_path_from_elsewhere) {
    SAY("%d\n", chdir(folder()));
    void *handle = must_open("./libone.so", RTLD_LAZY);
    SAY("%d\n", chdir("/"));
    SAY("%d\n", handle == open_or_say("./libone.so", RTLD_LAZY));
}

CASE(a_name_without_slash_is_not_the_working_directory) {
    SAY("%d\n", symlink(path_of("libone.so"), "libhere1.so"));
    open_or_say("libhere1.so", RTLD_LAZY);
    SAY("%d\n", call(must_open("./libhere1.so", RTLD_LAZY), "one"));
}

static void copy_file(const char *from, const char *to) {
    char buffer[65536];
    int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_EXCL, 0755);
    ssize_t count;
    while ((count = read(in, buffer, sizeof buffer)) > 0)
        if (write(out, buffer, (size_t)count) != count) _exit(97);
    close(in);
    close(out);
}

CASE(a_removed_file_still_answers_to_its_name) {
    copy_file(path_of("libtwo.so"), "libtmp.so");
    void *handle = must_open("./libtmp.so", RTLD_LAZY);
    unlink("libtmp.so");
    SAY("%d %d\n", handle == open_or_say("./libtmp.so", RTLD_LAZY), call(handle, "two"));
}

CASE(a_replaced_file_is_not_looked_at) {
    copy_file(path_of("libtwo.so"), "libtmp.so");
    void *handle = must_open("./libtmp.so", RTLD_LAZY);
    rename("libtmp.so", "libmoved.so");
    copy_file(path_of("libone.so"), "libtmp.so");
    SAY("%d\n", handle == must_open("./libtmp.so", RTLD_LAZY));
    SAY("%d\n", handle == must_open("./libmoved.so", RTLD_LAZY));
    dlclose(handle), dlclose(handle), dlclose(handle);
    SAY("%s\n", text(must_open("./libtmp.so", RTLD_LAZY), "who"));
}

CASE(origin_in_the_name) {
    SAY("%d\n", call(must_open("$ORIGIN/libone.so", RTLD_LAZY), "one"));
    SAY("%d\n", call(must_open("${ORIGIN}/libtwo.so", RTLD_LAZY), "two"));
}

CASE(an_unknown_token_in_the_name) {
    open_or_say("$NOTHING/libone.so", RTLD_LAZY);
    open_or_say("$ORIGINAL/libone.so", RTLD_LAZY);
}

CASE(runpath_of_the_calling_library) {
    void *caller = must_open("libcallerrunpath.so", RTLD_LAZY);
    void *(*from)(const char *, int) = must_find(caller, "caller_dlopen");
    SAY("%d\n", dlopen("libinner.so", RTLD_LAZY) == NULL);
    void *inner = from("libinner.so", RTLD_LAZY);
    SAY("%d\n", inner ? call(inner, "inner") : 0);
}

CASE(rpath_of_the_calling_library) {
    void *caller = must_open("libcallerrpath.so", RTLD_LAZY);
    void *(*from)(const char *, int) = must_find(caller, "caller_dlopen");
    void *inner = from("libinner2.so", RTLD_LAZY);
    SAY("%s\n", inner ? "found" : last_error());
}

CASE(runpath_is_not_for_dependencies) {
    void *caller = must_open("libcallerrunpath.so", RTLD_LAZY);
    void *(*from)(const char *, int) = must_find(caller, "caller_dlopen");
    void *inner = from("libinner2.so", RTLD_LAZY);
    SAY("%s\n", inner ? "found" : last_error());
}

CASE(runpath_of_the_program_is_not_for_libraries) {
    void *caller = must_open("libcallerrunpath.so", RTLD_LAZY);
    void *(*from)(const char *, int) = must_find(caller, "caller_dlopen");
    void *one = from("libtwo.so", RTLD_LAZY);
    SAY("%s\n", one ? "found" : last_error());
}

CASE(a_library_without_paths_asks) {
    void *caller = must_open("libcaller.so", RTLD_LAZY);
    void *(*from)(const char *, int) = must_find(caller, "caller_dlopen");
    SAY("%s\n", from("libtwo.so", RTLD_LAZY) ? "found" : last_error());
    SAY("%s\n", from(path_of("libtwo.so"), RTLD_LAZY) ? "found" : last_error());
    SAY("%s\n", from("libtwo.so", RTLD_LAZY) ? "found" : last_error());
    SAY("%d\n", from("libm.so.6", RTLD_LAZY) != NULL);
}

CASE(nodefaultlib_of_the_calling_library) {
    void *caller = must_open("libcallernodeflib.so", RTLD_LAZY);
    void *(*from)(const char *, int) = must_find(caller, "caller_dlopen");
    SAY("%s\n", from("libm.so.6", RTLD_LAZY) ? "found" : last_error());
}

/* env: LD_LIBRARY_PATH={folder}/nowhere:{folder}/inner */
CASE(library_path) { SAY("%d\n", call(must_open("libinner.so", RTLD_LAZY), "inner")); }

CASE(library_path_is_read_once) {
    setenv("LD_LIBRARY_PATH", path_of("inner"), 1);
    open_or_say("libinner.so", RTLD_LAZY);
}

CASE(libraries_of_the_system) {
    void *m = must_open("libm.so.6", RTLD_LAZY);
    double (*cosine)(double) = must_find(m, "cos");
    SAY("%g\n", cosine(0));
}

CASE(libc_is_there_already) {
    void *libc = must_open("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
    SAY("%d\n", libc == must_open("libc.so.6", RTLD_LAZY));
    SAY("%d\n", dlsym(libc, "puts") == (void *)puts);
    SAY("%d %d\n", dlclose(libc), dlclose(libc));
}

CASE(the_loader_is_there_already) {
    SAY("%d\n", dlopen("ld-linux-x86-64.so.2", RTLD_LAZY) != NULL);
}

CASE(the_programs_own_file) {
    open_or_say("/proc/self/exe", RTLD_LAZY);
    open_or_say(path_of("opening"), RTLD_LAZY);
}

CASE(nodlopen) { open_or_say("libnoopen.so", RTLD_LAZY); }

CASE(a_failed_open_leaves_nothing) {
    open_or_say("libneedslackdata.so", RTLD_LAZY);
    SAY("%d %d\n", is_loaded("libone.so"), is_loaded("liblackdata.so"));
}

CASE(a_failed_open_makes_nothing_global) {
    must_open("libone.so", RTLD_LAZY);
    open_or_say("libneedslackdata.so", RTLD_LAZY | RTLD_GLOBAL);
    SAY("%d\n", dlsym(RTLD_DEFAULT, "one") != NULL);
}

CASE(a_failed_open_may_be_tried_again) {
    open_or_say("libasks.so", RTLD_NOW);
    must_open("libone.so", RTLD_NOW | RTLD_GLOBAL);
    SAY("%s\n", text(must_open("libasks.so", RTLD_NOW), "ask_who"));
}

CASE(a_weak_reference_may_be_undefined) {
    must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    SAY("%d\n", call(must_open("libasks.so", RTLD_NOW), "has_weak"));
}

CASE(a_cycle_of_needs) {
    void *x = must_open("libtrace_x.so", RTLD_NOW);
    SAY("%d\n", is_loaded("libtrace_z.so"));
    SAY("%d\n", is_loaded("libtrace_y.so"));
    dlclose(x);
    SAY("%d\n", is_loaded("libtrace_z.so"));
    SAY("%d\n", is_loaded("libtrace_y.so"));
}

/* From its first open on, the order of what an image needs is its own. */
CASE(a_cycle_of_needs_opened_in_another_order) {
    void *x = must_open("libtrace_x.so", RTLD_NOW);
    SAY("%d\n", is_loaded("libtrace_y.so"));
    SAY("%d\n", is_loaded("libtrace_z.so"));
    dlclose(x);
}

CASE(a_cycle_of_needs_opened_once) { dlclose(must_open("libtrace_x.so", RTLD_NOW)); }

/* errno may be anything after a success; a failure says it in the message only. */
CASE(many_opens_and_closes) {
    int i;
    for (i = 0; i < 300; i++) {
        void *handle = must_open(i % 2 ? "libneedsone.so" : "libboth.so", RTLD_NOW);
        if (dlclose(handle)) SAY("failed\n");
    }
    SAY("%d %d\n", is_loaded("libone.so"), is_loaded("libboth.so"));
}

CASE(every_segment_has_its_rights) {
    char line[512];
    must_open("libdata.so", RTLD_NOW);
    FILE *maps = fopen("/proc/self/maps", "r");
    int writable = 0, executable = 0, both = 0;
    while (fgets(line, sizeof line, maps))
        if (strstr(line, "libdata.so")) {
            char *rights = strchr(line, ' ') + 1;
            writable += rights[1] == 'w';
            executable += rights[2] == 'x';
            both += rights[1] == 'w' && rights[2] == 'x';
        }
    SAY("%d %d %d\n", writable > 0, executable > 0, both);
}

CASE(relro_is_read_only) {
    void *handle = must_open("libdata.so", RTLD_NOW);
    *(int *)must_find(handle, "zeroed") = 1;
    const void **table = ((const void **(*)(void))must_find(handle, "table"))();
    SAY("%d %d\n", table[0] == dlsym(handle, "constant"), table[1] == dlsym(handle, "initialised"));
    *table = NULL; /* .data.rel.ro: the process ends */
    SAY("written\n");
}

/* DF_1_GLOBAL: as if it had been opened RTLD_GLOBAL. */
CASE(df_1_global) {
    must_open("libglobal1.so", RTLD_LAZY);
    SAY("%d\n", dlsym(RTLD_DEFAULT, "f") != NULL);
}

CASE(each_name_is_remembered_until_the_close) {
    void *handle = must_open(path_of("libone.so"), RTLD_LAZY);
    must_open(path_of("liblink.so"), RTLD_LAZY);
    SAY("%d\n", handle == dlopen(path_of("liblink.so"), RTLD_LAZY | RTLD_NOLOAD));
    dlclose(handle), dlclose(handle), dlclose(handle);
    SAY("%d\n", is_loaded(path_of("liblink.so")));
}

/* env: LD_LIBRARY_PATH=/nowhere;{folder}/inner */
CASE(library_path_with_a_semicolon) {
    SAY("%d\n", call(must_open("libinner.so", RTLD_LAZY), "inner"));
}

/* env: LD_LIBRARY_PATH=/nowhere:: */
CASE(library_path_with_the_working_directory) {
    SAY("%d\n", symlink(path_of("inner/libinner.so"), "libinner.so"));
    SAY("%d\n", call(must_open("libinner.so", RTLD_LAZY), "inner"));
}

/* env: LD_LIBRARY_PATH={folder}/inner LD_PRELOAD=libinner.so */
CASE(library_path_finds_what_is_preloaded) {
    SAY("%d\n", call(RTLD_DEFAULT, "inner"));
    SAY("%d\n", must_open("libinner.so", RTLD_LAZY) != NULL);
}

CASE(too_much_static_storage) {
    void *handle = dlopen("libstatictoomuch.so", RTLD_LAZY);
    SAY("%d\n", handle != NULL);
    SAY("%d\n", strstr(last_error(), "cannot allocate memory in static TLS block") != NULL);
    SAY("%d\n", is_loaded("libstatictoomuch.so"));
}

/* differs: glibc before 2.41 makes every stack executable for it
   ours: 0 0 */
CASE(an_executable_stack) {
    void *handle = dlopen("libexecstack.so", RTLD_LAZY);
    SAY("%d %d\n", handle != NULL, is_loaded("libexecstack.so"));
}

CASE(a_long_chain_of_needs) {
    char name[32];
    void *handle = must_open("libchain39.so", RTLD_NOW);
    int i, loaded = 0;
    for (i = 0; i < 40; i++) {
        snprintf(name, sizeof name, "libchain%d.so", i);
        loaded += is_loaded(name);
    }
    SAY("%d %d\n", loaded, call(handle, "chain39"));
    dlclose(handle);
    SAY("%d\n", is_loaded("libchain0.so"));
}

CASE(interposing_is_for_the_start_only) {
    must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    must_open("libinterpose.so", RTLD_LAZY | RTLD_GLOBAL);
    SAY("%s\n", text(must_open("libself.so", RTLD_NOW), "ask_who"));
}
