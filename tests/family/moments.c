/* The family called from constructors, destructors, exit handlers, visitors and other threads. */
#include "family.h"

static void *kept;

static void ask_at_exit(void) {
    Dl_info info;
    SAY("exit handler: %d\n", call(kept, "one"));
    SAY("%s\n", dladdr(must_find(kept, "one"), &info) ? base_name(info.dli_fname) : "nothing");
    SAY("%s\n", dlsym(kept, "nothing") ? "found" : last_error());
    SAY("%d\n", dlopen("libtwo.so", RTLD_LAZY) != NULL);
}

static int ask_in_destructor;
__attribute__((destructor)) static void finish(void) {
    Dl_info info;
    if (!ask_in_destructor) return;
    SAY("destructor: %d\n", call(kept, "one"));
    SAY("%s\n", dladdr(must_find(kept, "one"), &info) ? base_name(info.dli_fname) : "nothing");
    SAY("%d\n", dlclose(kept));
    SAY("%d\n", is_loaded("libtrace_alone.so"));
}

CASE(an_exit_handler_asks) {
    kept = must_open("libone.so", RTLD_LAZY);
    atexit(ask_at_exit);
}

CASE(a_destructor_of_the_program_asks) {
    kept = must_open("libone.so", RTLD_LAZY);
    must_open("libtrace_alone.so", RTLD_LAZY);
    ask_in_destructor = 1;
}

CASE(a_constructor_asks) {
    SAY("%d\n", dlclose(must_open("libmoment_asks.so", RTLD_LAZY)));
}

CASE(a_constructor_asks_in_a_namespace) {
    void *handle = dlmopen(LM_ID_NEWLM, "libmoment_asks.so", RTLD_LAZY);
    SAY("%d\n", handle ? dlclose(handle) : -1);
}

static void *open_slow(void *data) {
    void *handle = dlopen("libmoment_slow.so", RTLD_LAZY);
    return handle ? (void *)(long)call(handle, "is_ready") : NULL;
}

CASE(a_second_thread_waits_for_the_constructor) {
    pthread_t threads[2];
    void *result;
    int i;
    for (i = 0; i < 2; i++) pthread_create(&threads[i], NULL, open_slow, NULL);
    for (i = 0; i < 2; i++) {
        pthread_join(threads[i], &result);
        SAY("%ld\n", (long)result);
    }
}

CASE(a_constructor_starts_a_thread) {
    void *handle = must_open("libmoment_thread.so", RTLD_LAZY);
    SAY("%d\n", call(handle, "result_of_thread"));
}

CASE(a_constructor_forks) {
    SAY("%d\n", dlclose(must_open("libmoment_forks.so", RTLD_LAZY)));
}

CASE(a_constructor_fails_to_open) {
    must_open("libmoment_fails.so", RTLD_LAZY);
    SAY("%s\n", last_error());
}

CASE(a_constructor_opens_what_needs_it) {
    SAY("%d\n", dlclose(must_open("libmoment_opensuser.so", RTLD_LAZY)));
    SAY("%d\n", is_loaded("libmoment_user.so"));
}

CASE(nested_constructors_in_order) { dlclose(must_open("libmoment_nested.so", RTLD_LAZY)); }

static void *make(void *data) {
    call(data, "make_object");
    SAY("%d\n", dlclose(data));
    SAY("%d\n", is_loaded("libmoment_object.so"));
    return NULL;
}

/* differs: libc unloads it when something else is closed; ours, when its last object has gone
   ours: start object
   ours: 0
   ours: 1
   ours: destroyed
   ours: finish object
   ours: joined */
CASE(a_thread_object_keeps_its_library) {
    void *handle = must_open("libmoment_object.so", RTLD_LAZY);
    pthread_t thread;
    pthread_create(&thread, NULL, make, handle);
    pthread_join(thread, NULL);
    SAY("joined\n");
}

CASE(a_thread_object_of_the_main_thread) {
    call(must_open("libmoment_object.so", RTLD_LAZY), "make_object");
}

CASE(a_key_destructor_of_a_library) {
    void *handle = must_open("libmoment_key.so", RTLD_LAZY);
    pthread_t thread;
    pthread_create(&thread, NULL, must_find(handle, "set_key"), NULL);
    pthread_join(thread, NULL);
}

CASE(an_atfork_handler_of_a_library) {
    void *handle = must_open("libmoment_atfork.so", RTLD_LAZY);
    if (fork() == 0) _exit(0);
    wait(NULL);
    SAY("%d\n", dlclose(handle));
    if (fork() == 0) _exit(0);
    wait(NULL);
}

CASE(a_function_of_a_library_closes_another) {
    void *one = must_open("libone.so", RTLD_LAZY);
    void *caller = must_open("libcaller.so", RTLD_LAZY);
    void *(*from)(const char *, int) = must_find(caller, "caller_dlopen");
    SAY("%d\n", from(path_of("libone.so"), RTLD_LAZY) == one);
    int (*close_it)(void *) = must_find(caller, "caller_dlclose");
    SAY("%d %d\n", close_it(one), is_loaded("libone.so"));
    SAY("%d %d\n", close_it(one), is_loaded("libone.so"));
}

static int count_two(struct dl_phdr_info *info, size_t size, void *data) {
    if (strcmp(base_name(info->dlpi_name), "libtwo.so") == 0) *(int *)data += 1;
    return 0;
}

CASE(a_library_that_is_opened_between_visits) {
    int count = 0;
    dl_iterate_phdr(count_two, &count);
    must_open("libtwo.so", RTLD_LAZY);
    dl_iterate_phdr(count_two, &count);
    SAY("%d\n", count);
}
