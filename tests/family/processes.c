/* Threads, forks and other programs. */
#include "family.h"
#include <sys/mman.h>

static void *open_and_close(void *data) {
    int i;
    long good = 0;
    for (i = 0; i < 100; i++) {
        void *handle = dlopen("libneedsone.so", RTLD_LAZY);
        good += handle && call(handle, "one_more") == 2 && dlclose(handle) == 0;
    }
    return (void *)good;
}

CASE(threads_that_open_and_close) {
    pthread_t threads[4];
    void *good;
    int i;
    for (i = 0; i < 4; i++) pthread_create(&threads[i], NULL, open_and_close, NULL);
    for (i = 0; i < 4; i++) {
        pthread_join(threads[i], &good);
        SAY("%ld\n", (long)good);
    }
    SAY("%d\n", is_loaded("libneedsone.so"));
}

static void *read_counter(void *handle) { return (void *)(long)call(handle, "next_counter"); }

CASE(threads_have_their_own_storage) {
    void *handle = must_open("libtls.so", RTLD_LAZY), *value;
    pthread_t thread;
    int i;
    for (i = 0; i < 3; i++) {
        pthread_create(&thread, NULL, read_counter, handle);
        pthread_join(thread, &value);
        SAY("%ld\n", (long)value);
    }
    SAY("%d\n", call(handle, "next_counter"));
    SAY("%d\n", call(handle, "next_counter"));
}

static int ready[2], go[2];
static void *wait_then_read(void *handle) {
    char byte = 0;
    (void)!write(ready[1], &byte, 1);
    (void)!read(go[0], &byte, 1);
    int *(*early)(void) = must_find(must_open("libtlsinitial.so", RTLD_LAZY), "address_of_early");
    return (void *)(long)*early();
}

CASE(initial_exec_storage_in_a_thread_that_runs_already) {
    pthread_t thread;
    char byte;
    void *value;
    (void)!pipe(ready), (void)!pipe(go);
    pthread_create(&thread, NULL, wait_then_read, NULL);
    (void)!read(ready[0], &byte, 1);
    int *(*early)(void) = must_find(must_open("libtlsinitial.so", RTLD_LAZY), "address_of_early");
    *early() = 1;
    (void)!write(go[1], &byte, 1);
    pthread_join(thread, &value);
    SAY("%ld %d\n", (long)value, *early());
}

CASE(a_child_has_what_was_open) {
    void *handle = must_open("libone.so", RTLD_LAZY);
    if (fork() == 0) {
        SAY("%d %d\n", call(handle, "one"), is_loaded("libone.so"));
        SAY("%d %d\n", dlclose(handle), is_loaded("libone.so"));
        _exit(0);
    }
    wait(NULL);
    SAY("%d\n", is_loaded("libone.so"));
}

CASE(a_child_opens) {
    if (fork() == 0) {
        SAY("%d\n", call(must_open("libneedsone.so", RTLD_LAZY), "one_more"));
        _exit(0);
    }
    wait(NULL);
    SAY("%d\n", is_loaded("libneedsone.so"));
}


CASE(a_message_in_a_child) {
    dlopen("libnothing.so", RTLD_LAZY);
    if (fork() == 0) {
        SAY("%s\n", last_error());
        _exit(0);
    }
    wait(NULL);
    SAY("%s\n", last_error());
}

CASE(vfork_and_exec) {
    must_open("libone.so", RTLD_LAZY);
    pid_t child = vfork();
    int status;
    if (child == 0) {
        execl("/proc/self/exe", "processes", "exec_target", (char *)NULL);
        _exit(1);
    }
    waitpid(child, &status, 0);
    SAY("%d\n", WEXITSTATUS(status));
}

CASE(exec_target) {
    SAY("%d\n", is_loaded("libone.so"));
    SAY("%d\n", call(must_open("libone.so", RTLD_LAZY), "one"));
}

CASE(exec_in_a_child) {
    int status;
    must_open("libtrace_alone.so", RTLD_LAZY);
    if (fork() == 0) {
        execl("/proc/self/exe", "processes", "exec_target", (char *)NULL);
        _exit(1);
    }
    wait(&status);
    SAY("%d\n", WEXITSTATUS(status));
}

static int *(*counter_address)(void);
static pthread_key_t late_key;

static void *touch_once(void *data) {
    counter_address();
    return data;
}

/* Runs at the end of the first thread: its storage is its own until then, whatever others look at. */
static void look_late(void *data) {
    int *mine = counter_address(), i;
    pthread_t thread;
    (void)data;
    *mine = 123;
    for (i = 0; i < 3; i++) {
        pthread_create(&thread, NULL, touch_once, NULL);
        pthread_join(thread, NULL);
    }
    SAY("%d %d\n", counter_address() == mine, *mine);
    _exit(0);
}

CASE(storage_of_a_child_whose_parent_has_ended) {
    int ends[2];
    char byte;
    pid_t parent;
    counter_address = must_find(must_open("libtls.so", RTLD_LAZY), "address_of_counter");
    if (pipe(ends) || fork()) {
        close(ends[1]);
        wait(NULL);                         /* nothing is left of the parent */
        (void)!read(ends[0], &byte, 1);     /* until its child has ended */
        _exit(0);
    }
    parent = getpid();
    counter_address();
    if (fork()) _exit(0);
    while (getppid() == parent || kill(parent, 0) == 0) usleep(1000);
    pthread_key_create(&late_key, look_late);
    pthread_setspecific(late_key, &late_key);
    pthread_exit(NULL);
}

/* emulated: the shell is this machine's */
CASE(another_program) { SAY("%d\n", system("echo a child")); }

static void *work_attewalo(void *data) {
    must_open("libtls.so", RTLD_LAZY);
    pthread_exit(NULL);
}

CASE(a_thread_that_exits_with_a_library_open) {
    pthread_t thread;
    pthread_create(&thread, NULL, work_attewalo, NULL);
    pthread_join(thread, NULL);
    SAY("%d\n", is_loaded("libtls.so"));
}

static void *work_act(void *data) {
    pause();
    return NULL;
}

CASE(a_cancelled_thread) {
    pthread_t thread;
    void *result;
    must_open("libone.so", RTLD_LAZY);
    pthread_create(&thread, NULL, work_act, NULL);
    pthread_cancel(thread);
    pthread_join(thread, &result);
    SAY("%d\n", result == PTHREAD_CANCELED);
}

CASE(the_environment_is_not_changed) {
    const char *value = getenv("LD_LIBRARY_PATH");
    must_open("libone.so", RTLD_LAZY);
    SAY("%d\n", value && strcmp(value, getenv("LD_LIBRARY_PATH")) == 0);
}

CASE(descriptors_are_closed) {
    int before = open("/dev/null", O_RDONLY);
    close(before);
    must_open("libneedsone.so", RTLD_NOW);
    dlopen("libnothing.so", RTLD_NOW);
    dlopen(path_of("text.so"), RTLD_NOW);
    int after = open("/dev/null", O_RDONLY);
    SAY("%d\n", before == after);
}

CASE(no_descriptor_is_left) {
    while (open("/dev/null", O_RDONLY) >= 0) {
    }
    SAY("%s\n", dlopen(path_of("libone.so"), RTLD_NOW) ? "opened" : last_error());
    close(5);
    SAY("%s\n", dlopen(path_of("libone.so"), RTLD_NOW) ? "opened" : last_error());
}

CASE(descriptors_zero_to_two_are_closed) {
    int out = dup(1);
    close(0), close(1), close(2);
    void *handle = dlopen("libone.so", RTLD_NOW);
    dprintf(out, "%d\n", handle ? call(handle, "one") : 0);
}

static volatile sig_atomic_t signals;
static void count_signal(int number) { signals += number != 0; }

CASE(a_signal_during_many_opens) {
    struct sigaction action = {.sa_handler = count_signal}; /* not SA_RESTART */
    int i, good = 0;
    sigaction(SIGALRM, &action, NULL);
    ualarm(200, 200);
    for (i = 0; i < 200 || signals < 20; i++)
        good += dlclose(must_open("libneedsone.so", RTLD_NOW)) == 0;
    SAY("%d\n", good == i);
}
