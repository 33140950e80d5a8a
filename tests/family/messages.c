/* dlerror(3): whose it is, when it is forgotten, and what it says. */
#include "family.h"

CASE(nothing_at_first) { SAY("%d\n", dlerror() == NULL); }

CASE(cleared_when_read) {
    dlopen("libnothing.so", RTLD_LAZY);
    SAY("%d\n", dlerror() != NULL);
    SAY("%d\n", dlerror() == NULL);
}

CASE(forgotten_by_the_next_success) {
    void *handle = must_open("libone.so", RTLD_LAZY);
    dlopen("libnothing.so", RTLD_LAZY);
    SAY("%d\n", dlsym(handle, "one") != NULL);
    SAY("%s\n", last_error());
}

CASE(forgotten_by_an_open) {
    dlopen("libnothing.so", RTLD_LAZY);
    must_open("libone.so", RTLD_LAZY);
    SAY("%s\n", last_error());
}

CASE(forgotten_by_a_close) {
    void *handle = must_open("libone.so", RTLD_LAZY);
    dlsym(handle, "nothing");
    dlclose(handle);
    SAY("%s\n", last_error());
}

CASE(not_forgotten_by_dladdr) {
    Dl_info info;
    dlopen("libnothing.so", RTLD_LAZY);
    dladdr((void *)last_error, &info);
    dladdr(&info, &info);
    SAY("%s\n", last_error());
}

static int stop(struct dl_phdr_info *info, size_t size, void *data) { return 1; }

CASE(not_forgotten_by_dl_iterate_phdr) {
    dlopen("libnothing.so", RTLD_LAZY);
    dl_iterate_phdr(stop, NULL);
    SAY("%s\n", last_error());
}

CASE(forgotten_by_dlinfo) {
    Lmid_t id;
    void *handle = must_open("libone.so", RTLD_LAZY);
    dlopen("libnothing.so", RTLD_LAZY);
    SAY("%d\n", dlinfo(handle, RTLD_DI_LMID, &id));
    SAY("%s\n", last_error());
}

CASE(the_last_error_counts) {
    dlopen("libnothing.so", RTLD_LAZY);
    dlsym(RTLD_DEFAULT, "nothing");
    SAY("%s\n", last_error());
    SAY("%s\n", last_error());
}

CASE(of_names_of_any_length) {
    void *one = must_open("libone.so", RTLD_LAZY);
    char name[3000];
    int lengths[] = {0, 1, 7, 8, 9, 200, 3, 2999, 2, 500};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        memset(name, 'a' + (int)i, sizeof name);
        name[lengths[i]] = 0;
        dlsym(one, name), dlvsym(one, name, "VERSION_1");
        SAY("%s\n", last_error());
        dlsym(one, name);
        SAY("%s\n", last_error());
        dlsym(one, name), dlsym(one, "one");
        SAY("%s\n", last_error());
    }
}

CASE(of_the_hosts_and_ours_in_turn) {
    void *libc = must_open("libc.so.6", RTLD_LAZY), *one = must_open("libone.so", RTLD_LAZY);
    dlsym(libc, "nothing"), dlsym(one, "nothing");
    SAY("%s\n", last_error());
    dlsym(one, "nothing"), dlsym(libc, "nothing");
    SAY("%s\n", last_error());
    dlsym(libc, "nothing"), dlsym(one, "one");
    SAY("%s\n", last_error());
    dlsym(one, "nothing"), dlsym(libc, "puts");
    SAY("%s\n", last_error());
}

static void *fail_in_thread(void *data) {
    SAY("%s\n", last_error());
    dlopen("libother.so", RTLD_LAZY);
    SAY("%s\n", last_error());
    dlopen("libother2.so", RTLD_LAZY);
    return NULL;
}

CASE(each_thread_has_its_own) {
    pthread_t thread;
    dlopen("libnothing.so", RTLD_LAZY);
    pthread_create(&thread, NULL, fail_in_thread, NULL);
    pthread_join(thread, NULL);
    SAY("%s\n", last_error());
    SAY("%s\n", last_error());
}

CASE(a_missing_name) { open_or_say("libnothing.so", RTLD_LAZY); }
CASE(a_missing_path) { open_or_say("/nothing/libnothing.so", RTLD_LAZY); }
CASE(a_missing_relative_path) { open_or_say("./libnothing.so", RTLD_LAZY); }
CASE(a_dangling_link) { open_or_say(path_of("libdangling.so"), RTLD_LAZY); }
CASE(a_loop_of_links) { open_or_say(path_of("libloop.so"), RTLD_LAZY); }
CASE(a_folder) { open_or_say(path_of("folder.so"), RTLD_LAZY); }
CASE(a_path_through_a_file) { open_or_say(path_of("libone.so/libtwo.so"), RTLD_LAZY); }
CASE(a_device) { open_or_say("/dev/null", RTLD_LAZY); }
CASE(a_text_file) { open_or_say(path_of("text.so"), RTLD_LAZY); }
CASE(a_text_file_by_name) { open_or_say("text.so", RTLD_LAZY); }
CASE(a_short_file) { open_or_say(path_of("short.so"), RTLD_LAZY); }
CASE(an_empty_file) { open_or_say(path_of("empty.so"), RTLD_LAZY); }
CASE(a_header_alone) { open_or_say(path_of("header.so"), RTLD_LAZY); }
CASE(another_class) { open_or_say(path_of("class.so"), RTLD_LAZY); }
CASE(another_class_by_name) { open_or_say("class.so", RTLD_LAZY); }
CASE(another_byte_order) { open_or_say(path_of("order.so"), RTLD_LAZY); }
CASE(another_ident_version) { open_or_say(path_of("version.so"), RTLD_LAZY); }
CASE(another_system) { open_or_say(path_of("osabi.so"), RTLD_LAZY); }
CASE(another_machine) { open_or_say(path_of("machine.so"), RTLD_LAZY); }
CASE(another_machine_by_name) { open_or_say("machine.so", RTLD_LAZY); }
CASE(an_object_file) { open_or_say(path_of("type.so"), RTLD_LAZY); }
CASE(another_file_version) { open_or_say(path_of("eversion.so"), RTLD_LAZY); }
CASE(another_program_header_size) { open_or_say(path_of("phentsize.so"), RTLD_LAZY); }
CASE(a_program) { open_or_say(path_of("messages"), RTLD_LAZY); }
CASE(a_missing_dependency) { open_or_say("liblackneeded.so", RTLD_LAZY); }
CASE(a_missing_indirect_dependency) { open_or_say("liblackindirect.so", RTLD_LAZY); }
CASE(a_missing_function_now) { open_or_say("liblackfunction.so", RTLD_NOW); }
CASE(a_missing_function_now_by_path) { open_or_say(path_of("liblackfunction.so"), RTLD_NOW); }
CASE(a_missing_variable) { open_or_say("liblackdata.so", RTLD_LAZY); }
CASE(a_missing_function_of_a_dependency) { open_or_say("libneedslack.so", RTLD_NOW); }
CASE(a_missing_variable_of_a_dependency) { open_or_say("libneedslackdata.so", RTLD_LAZY); }
CASE(the_first_of_missing_versions) { open_or_say("liblackversions.so", RTLD_NOW); }
CASE(missing_versions_of_more_than_one) { open_or_say("libneedslackversions.so", RTLD_NOW); }
CASE(missing_versions_of_what_is_needed) { open_or_say("liblackversions2.so", RTLD_NOW); }
CASE(a_missing_version) { open_or_say("liblackversion.so", RTLD_NOW); }
CASE(a_missing_symbol_of_a_version) { open_or_say("liblacksymbolversion.so", RTLD_NOW); }

CASE(a_very_long_name) {
    char name[6000];
    memset(name, 'x', sizeof name);
    name[0] = '/';
    name[sizeof name - 1] = 0;
    SAY("%d\n", dlopen(name, RTLD_LAZY) == NULL);
    const char *message = last_error();
    SAY("%zu %s\n", strlen(message), message + strlen(message) - 60);
}

CASE(a_long_symbol) {
    char name[3000];
    memset(name, 'y', sizeof name);
    name[sizeof name - 1] = 0;
    SAY("%d\n", dlsym(must_open("libone.so", RTLD_LAZY), name) == NULL);
    const char *message = last_error();
    SAY("%zu %.100s\n", strlen(message), message);
}

CASE(a_name_with_percent_signs) { open_or_say("%s%n.so", RTLD_LAZY); }

CASE(unreadable) {
    /* root reads everything: then it is opened. */
    int file = open("locked.so", O_WRONLY | O_CREAT, 0);
    close(file);
    open_or_say("./locked.so", RTLD_LAZY);
}
