/* Names of a library that is loaded already: by which it is the same one, and for how long. */
#include "family.h"

/* Every other name of a file; `how` is link(2) or symlink(2). */
static void give_name(int (*how)(const char *, const char *), const char *from, const char *to) {
    if (how(from, to)) _exit(99);
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

/* The same again by `name`, and whether that is known to be loaded. */
static void show_known(void *handle, const char *name) {
    void *found = dlopen(name, RTLD_LAZY | RTLD_NOLOAD);
    SAY("%d", found == handle);
    if (!found) SAY(" %s", last_error());
    found = dlopen(name, RTLD_LAZY);
    SAY(" %d", found == handle);
    if (!found) SAY(" %s", last_error());
    SAY("\n");
}

static void *open_by(const char *name, void *expected) {
    void *handle = must_open(name, RTLD_LAZY);
    SAY("%d\n", handle == expected);
    return handle;
}

CASE(a_symbolic_link_that_was_removed) {
    void *handle = must_open("libone.so", RTLD_LAZY);
    give_name(symlink, path_of("libone.so"), "libalias.so");
    open_by("./libalias.so", handle);
    unlink("libalias.so");
    show_known(handle, "./libalias.so");
    show_known(handle, "libalias.so");
}

CASE(a_hard_link_that_was_removed) {
    copy_file(path_of("libone.so"), "libfile.so");
    void *handle = must_open("./libfile.so", RTLD_LAZY);
    give_name(link, "libfile.so", "libalias.so");
    open_by("./libalias.so", handle);
    unlink("libalias.so");
    unlink("libfile.so");
    show_known(handle, "./libalias.so");
    show_known(handle, "./libfile.so");
}

CASE(a_link_that_leads_elsewhere_by_now) {
    void *handle = must_open("libone.so", RTLD_LAZY);
    give_name(symlink, path_of("libone.so"), "libalias.so");
    open_by("./libalias.so", handle);
    unlink("libalias.so");
    give_name(symlink, path_of("libtwo.so"), "libalias.so");
    show_known(handle, "./libalias.so");
}

CASE(a_name_that_another_file_was_renamed_to) {
    void *handle = must_open("libone.so", RTLD_LAZY);
    give_name(symlink, path_of("libone.so"), "libalias.so");
    open_by("./libalias.so", handle);
    copy_file(path_of("libtwo.so"), "libother.so");
    SAY("%d\n", rename("libother.so", "libalias.so"));
    show_known(handle, "./libalias.so");
}

CASE(a_name_that_was_only_asked_for) {
    void *handle = must_open("libone.so", RTLD_LAZY);
    give_name(symlink, path_of("libone.so"), "libalias.so");
    SAY("%d\n", dlopen("./libalias.so", RTLD_LAZY | RTLD_NOLOAD) == handle);
    unlink("libalias.so");
    show_known(handle, "./libalias.so");
}

CASE(a_name_of_what_was_never_opened_by_it) {
    void *handle = must_open("libone.so", RTLD_LAZY);
    give_name(symlink, path_of("libone.so"), "libalias.so");
    unlink("libalias.so");
    show_known(handle, "./libalias.so");
}

CASE(names_end_with_the_library) {
    void *handle = must_open("libone.so", RTLD_LAZY);
    give_name(symlink, path_of("libone.so"), "libalias.so");
    open_by("./libalias.so", handle);
    dlclose(handle);
    dlclose(handle);
    unlink("libalias.so");
    SAY("%d\n", is_loaded("./libalias.so"));
    open_or_say("./libalias.so", RTLD_LAZY);
}

CASE(a_name_of_a_dependency) {
    must_open("libneedsone.so", RTLD_LAZY);
    give_name(symlink, path_of("libone.so"), "libalias.so");
    void *handle = must_open("./libalias.so", RTLD_LAZY);
    unlink("libalias.so");
    show_known(handle, "./libalias.so");
    show_known(handle, "libone.so");
}

/* env: LD_LIBRARY_PATH=.:{folder} */
CASE(a_name_that_was_searched_for) {
    void *handle = must_open("libone.so", RTLD_LAZY);
    give_name(symlink, path_of("libone.so"), "libalias.so");
    open_by("libalias.so", handle);
    unlink("libalias.so");
    show_known(handle, "libalias.so");
    show_known(handle, "./libalias.so");
}

/* env: LD_LIBRARY_PATH=.:{folder} */
CASE(a_name_that_a_library_needs) {
    void *handle = must_open("libone.so", RTLD_LAZY);
    give_name(symlink, path_of("libone.so"), "libneededalias.so");
    open_by("libneededalias.so", handle);
    unlink("libneededalias.so");
    SAY("%d\n", call(must_open("libneedsalias.so", RTLD_NOW), "one_by_alias"));
}

/* env: LD_LIBRARY_PATH=.:{folder} */
CASE(a_name_that_only_a_library_needed) {
    void *handle = must_open("libone.so", RTLD_LAZY);
    give_name(symlink, path_of("libone.so"), "libneededalias.so");
    must_open("libneedsalias.so", RTLD_NOW);
    unlink("libneededalias.so");
    show_known(handle, "libneededalias.so");
}

CASE(other_spellings_of_a_path) {
    SAY("%d\n", chdir(folder()));
    void *handle = must_open("libone.so", RTLD_LAZY);
    show_known(handle, ".//libone.so");
    show_known(handle, "inner/../libone.so");
    show_known(handle, "./libone.so/");
    show_known(handle, "./libone.so/.");
    SAY("%d\n", chdir("/"));
    show_known(handle, ".//libone.so");
    show_known(handle, "inner/../libone.so");
}

CASE(a_folder_that_was_renamed) {
    mkdir("before", 0755);
    copy_file(path_of("libtwo.so"), "before/libtwo.so");
    void *handle = must_open("before/libtwo.so", RTLD_LAZY);
    SAY("%d\n", rename("before", "after"));
    show_known(handle, "before/libtwo.so");
    show_known(handle, "after/libtwo.so");
    unlink("after/libtwo.so");
    show_known(handle, "after/libtwo.so");
}

CASE(a_descriptor) {
    int file = open(path_of("libtwo.so"), O_RDONLY);
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", file);
    void *handle = must_open(path_of("libtwo.so"), RTLD_LAZY);
    show_known(handle, name);
    close(file);
    show_known(handle, name);
}

/* What the process was started with is as good.
   emulated: the name of libc that the program knows is none outside the emulator */
CASE(a_name_of_libc) {
    Dl_info info;
    if (!dladdr((void *)puts, &info)) _exit(99);
    void *handle = must_open("libc.so.6", RTLD_LAZY);
    give_name(symlink, info.dli_fname, "libalias.so");
    open_by("./libalias.so", handle);
    unlink("libalias.so");
    show_known(handle, "./libalias.so");
    SAY("%d\n", dlsym(handle, "puts") == (void *)puts);
}

CASE(a_name_of_what_the_program_needs) {
    void *handle = must_open("libstarted.so", RTLD_LAZY);
    give_name(symlink, path_of("libstarted.so"), "libalias.so");
    SAY("%d\n", dlopen("./libalias.so", RTLD_LAZY | RTLD_NOLOAD) == handle);
    unlink("libalias.so");
    show_known(handle, "./libalias.so");
    copy_file(path_of("libtwo.so"), "libalias.so");
    show_known(handle, "./libalias.so");
}

CASE(a_name_in_another_namespace) {
    void *handle = dlmopen(LM_ID_NEWLM, "libone.so", RTLD_LAZY);
    Lmid_t id;
    if (!handle || dlinfo(handle, RTLD_DI_LMID, &id)) _exit(99);
    give_name(symlink, path_of("libone.so"), "libalias.so");
    SAY("%d\n", dlmopen(id, "./libalias.so", RTLD_LAZY | RTLD_NOLOAD) == handle);
    unlink("libalias.so");
    SAY("%d\n", dlmopen(id, "./libalias.so", RTLD_LAZY) == handle);
    SAY("%d\n", dlmopen(id, "./libalias.so", RTLD_LAZY | RTLD_NOLOAD) == handle);
    /* And is a name there only. */
    SAY("%d\n", is_loaded("./libalias.so"));
    open_or_say("./libalias.so", RTLD_LAZY);
}

CASE(many_names) {
    void *handle = must_open("libone.so", RTLD_LAZY);
    char name[32];
    int number, known = 0;
    for (number = 0; number < 100; number++) {
        snprintf(name, sizeof name, "./libalias%d.so", number);
        give_name(symlink, path_of("libone.so"), name);
        known += dlopen(name, RTLD_LAZY) == handle;
        unlink(name);
    }
    while (number--) {
        snprintf(name, sizeof name, "./libalias%d.so", number);
        known += dlopen(name, RTLD_LAZY | RTLD_NOLOAD) == handle;
    }
    SAY("%d\n", known);
}

/* Of each who needs it, its own folder's. */
CASE(origin_in_what_two_libraries_need) {
    SAY("%d\n", call(must_open(path_of("left/libneedsorigin.so"), RTLD_NOW), "which"));
    SAY("%d\n", call(must_open(path_of("right/libneedsorigin.so"), RTLD_NOW), "which"));
}

CASE(origin_in_what_a_library_needs_is_a_path) {
    must_open(path_of("left/libneedsorigin.so"), RTLD_NOW);
    SAY("%d\n", is_loaded(path_of("left/liboriginal.so")));
    SAY("%d\n", is_loaded(path_of("right/liboriginal.so")));
    SAY("%d\n", is_loaded("liboriginal.so"));
}

/* One that pins itself. */
CASE(itself_from_inside) {
    void *caller = must_open("libcaller.so", RTLD_LAZY);
    void *(*from)(const char *, int) = must_find(caller, "caller_dlopen");
    Dl_info info;
    dladdr((void *)from, &info);
    SAY("%d\n", from(info.dli_fname, RTLD_LAZY) == caller);
    SAY("%d\n", from(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE) == caller);
    SAY("%d\n", dlopen(info.dli_fname, RTLD_LAZY) == caller);
}
