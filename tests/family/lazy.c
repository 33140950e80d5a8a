/* Lazy binding: RTLD_LAZY, LD_BIND_NOW (ld.so(8)), DF_BIND_NOW (gABI). */
#include "family.h"
#include "machines.h"

static void *calls(void) { return must_open("libcalls.so", RTLD_LAZY); }

CASE(integers) { SAY("%d\n", call(calls(), "call_plain")); }
CASE(doubles) { SAY("%d\n", call(calls(), "call_doubles")); }
CASE(long_doubles) { SAY("%d\n", call(calls(), "call_extended")); }
CASE(integers_of_128_bits) { SAY("%d\n", call(calls(), "call_wider")); }
CASE(a_structure_in_memory) { SAY("%d\n", call(calls(), "call_big")); }
CASE(a_structure_in_registers) { SAY("%d\n", call(calls(), "call_two")); }
CASE(variadic) { SAY("%d\n", call(calls(), "call_variadic")); }
CASE(complex) { SAY("%d\n", call(calls(), "call_complex")); }
CASE(vectors) { SAY("%d\n", HAS_WIDE_VECTORS ? call(calls(), "call_vectors") : 0); }
CASE(errno_is_preserved) { SAY("%d\n", call(calls(), "call_errno")); }

CASE(a_second_call) {
    void *handle = calls();
    SAY("%d\n", call(handle, "call_plain"));
    SAY("%d\n", call(handle, "call_plain"));
}

static int add_forty(int x) { return 40 + x; }

CASE(a_function_is_passed_through) {
    void *handle = calls();
    int (*through)(int (*)(int), int) = must_find(handle, "call_nested");
    SAY("%d\n", through(add_forty, 1));
}

CASE(an_address_taken_is_the_function) {
    void *handle = calls();
    void *(*address)(void) = must_find(handle, "address_of_errno_callee");
    SAY("%d\n", address() == dlsym(handle, "sees_errno"));
}

CASE(an_ifunc) { SAY("%d\n", call(must_open("libcallsifunc.so", RTLD_LAZY), "through")); }
CASE(a_version) { SAY("%d\n", call(must_open("libcallsversion.so", RTLD_LAZY), "through")); }

CASE(a_function_of_libc) {
    void *handle = must_open("libcallslibc.so", RTLD_LAZY);
    char *(*copied)(const char *) = must_find(handle, "copied");
    SAY("%s\n", copied("abc"));
}

CASE(a_weak_function_that_is_missing) {
    SAY("%d\n", call(must_open("libcallslibc.so", RTLD_LAZY), "calls_weak"));
}

CASE(a_missing_function_that_is_not_called) {
    SAY("%d\n", call(must_open("liblackfunction.so", RTLD_LAZY), "present"));
}

CASE(a_missing_function_that_is_called) {
    void *handle = must_open("liblackfunction.so", RTLD_LAZY);
    SAY("calling\n");
    call(handle, "call_absent");
    SAY("back\n");
}

CASE(a_missing_function_by_path) {
    call(must_open(path_of("liblackfunction.so"), RTLD_LAZY), "call_absent");
}

static void at_exit(void) { SAY("atexit\n"); }

CASE(a_missing_function_runs_no_exit_handler) {
    atexit(at_exit);
    must_open("libtrace_alone.so", RTLD_LAZY);
    call(must_open("liblackfunction.so", RTLD_LAZY), "call_absent");
}

CASE(a_missing_function_in_a_thread) {
    pthread_t thread;
    void *(*lacking)(void *) = must_find(must_open("liblackfunction.so", RTLD_LAZY), "call_absent");
    pthread_create(&thread, NULL, lacking, NULL);
    pthread_join(thread, NULL);
    SAY("back\n");
}

CASE(a_missing_function_in_a_child) {
    void *handle = must_open("liblackfunction.so", RTLD_LAZY);
    int status = 0;
    if (fork() == 0) call(handle, "call_absent");
    wait(&status);
    SAY("%d %d\n", WIFEXITED(status), WEXITSTATUS(status));
}

CASE(a_missing_function_of_a_version) {
    void *handle = must_open("liblacksymbolversion.so", RTLD_LAZY);
    call(handle, "g");
}

CASE(a_function_that_comes_later) {
    void *asks = must_open("libasks.so", RTLD_LAZY);
    must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    SAY("%s\n", text(asks, "ask_who"));
}

CASE(the_first_call_decides) {
    void *asks = must_open("libasks.so", RTLD_LAZY);
    void *two = must_open("libtwo.so", RTLD_LAZY | RTLD_GLOBAL);
    must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    SAY("%s\n", text(asks, "ask_who"));
    dlclose(two);
    SAY("%s\n", text(asks, "ask_who"));
}

CASE(a_call_is_interposed_late) {
    void *self = must_open("libself.so", RTLD_LAZY);
    must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    SAY("%s\n", text(self, "ask_who"));
}

CASE(now_binds_at_once) {
    void *self = must_open("libself.so", RTLD_NOW);
    must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    SAY("%s\n", text(self, "ask_who"));
}

/* env: LD_BIND_NOW=1 */
CASE(bind_now_binds_at_once) {
    void *self = must_open("libself.so", RTLD_LAZY);
    must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    SAY("%s\n", text(self, "ask_who"));
}

/* env: LD_BIND_NOW=1 */
CASE(bind_now_and_a_missing_function) { open_or_say("liblackfunction.so", RTLD_LAZY); }

/* ld.so(8): set to a nonempty string.
   env: LD_BIND_NOW= */
CASE(an_empty_bind_now) {
    SAY("%d\n", call(must_open("liblackfunction.so", RTLD_LAZY), "present"));
}

/* env: LD_BIND_NOT=1 */
CASE(bind_not_binds_each_time) {
    void *self = must_open("libself.so", RTLD_LAZY);
    SAY("%s\n", text(self, "ask_who"));
    must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    SAY("%s\n", text(self, "ask_who"));
}

CASE(df_bind_now) { open_or_say("libnow.so", RTLD_LAZY); }

CASE(a_second_open_now_binds) {
    void *self = must_open("libself.so", RTLD_LAZY);
    must_open("libself.so", RTLD_NOW);
    must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    SAY("%s\n", text(self, "ask_who"));
}

CASE(a_second_open_now_of_a_library_that_lacks) {
    must_open("liblackfunction.so", RTLD_LAZY);
    SAY("%d\n", dlopen("liblackfunction.so", RTLD_NOW) != NULL);
    SAY("%s\n", last_error());
}

CASE(a_dependency_of_a_lazy_library_is_lazy) {
    SAY("%d\n", dlsym(must_open("libneedslack.so", RTLD_LAZY), "present") != NULL);
}

CASE(deepbind_and_lazy) {
    must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    SAY("%s\n", text(must_open("libself.so", RTLD_LAZY | RTLD_DEEPBIND), "ask_who"));
}

static void *handle_of_calls;
static pthread_barrier_t barrier;

static void *call_all(void *data) {
    static const char *names[] = {"call_plain", "call_doubles", "call_extended", "call_wider",
                                  "call_big", "call_two", "call_variadic", "call_complex"};
    long sum = 0;
    unsigned i;
    pthread_barrier_wait(&barrier);
    for (i = 0; i < sizeof names / sizeof *names; i++) sum += call(handle_of_calls, names[i]);
    return (void *)sum;
}

CASE(several_threads) {
    pthread_t threads[8];
    void *result;
    int i;
    handle_of_calls = calls();
    pthread_barrier_init(&barrier, NULL, 8);
    for (i = 0; i < 8; i++) pthread_create(&threads[i], NULL, call_all, NULL);
    for (i = 0; i < 8; i++) {
        pthread_join(threads[i], &result);
        SAY("%ld\n", (long)result);
    }
}

static void on_signal(int number) {
    errno = 5;
    SAY("%d\n", call(handle_of_calls, "call_doubles"));
}

CASE(a_signal_handler) {
    handle_of_calls = calls();
    must_find(handle_of_calls, "call_doubles");
    signal(SIGUSR1, on_signal);
    raise(SIGUSR1);
    SAY("%d\n", call(handle_of_calls, "call_doubles"));
}

static void *small_stack(void *data) {
    return (void *)(long)call(handle_of_calls, "call_doubles");
}

CASE(a_small_stack) {
    pthread_attr_t attributes;
    pthread_t thread;
    void *result;
    handle_of_calls = calls();
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, PTHREAD_STACK_MIN + 16384);
    SAY("%d\n", pthread_create(&thread, &attributes, small_stack, NULL));
    pthread_join(thread, &result);
    SAY("%ld\n", (long)result);
}

CASE(calls_in_constructors_and_destructors) {
    SAY("%d\n", dlclose(must_open("libcallsinconstructors.so", RTLD_LAZY)));
}

CASE(calls_in_destructors_at_exit) { must_open("libcallsinconstructors.so", RTLD_LAZY); }

CASE(a_call_in_a_child) {
    void *handle = calls();
    if (fork() == 0) {
        SAY("%d\n", call(handle, "call_doubles"));
        _exit(0);
    }
    wait(NULL);
    SAY("%d\n", call(handle, "call_doubles"));
}
