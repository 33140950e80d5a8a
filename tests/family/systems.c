/* What libc loads by itself, beside what is loaded through the family. */
#include "family.h"
#include <execinfo.h>
#include <iconv.h>
#include <netdb.h>
#include <pwd.h>
#include <setjmp.h>

CASE(name_service) {
    struct passwd *root = getpwuid(0);
    SAY("%s\n", root ? root->pw_name : "nobody");
    must_open("libone.so", RTLD_LAZY);
    root = getpwnam("root");
    SAY("%d\n", root ? (int)root->pw_uid : -1);
}

CASE(conversions) {
    must_open("libone.so", RTLD_LAZY);
    iconv_t to = iconv_open("UTF-16LE", "ISO-8859-15");
    char in[] = "\xa4", out[8], *from = in, *into = out;
    size_t left = 1, room = sizeof out;
    SAY("%d\n", to != (iconv_t)-1);
    SAY("%zu\n", iconv(to, &from, &left, &into, &room));
    SAY("%02x%02x %d\n", (unsigned char)out[1], (unsigned char)out[0], iconv_close(to));
}

CASE(libraries_of_old_names) {
    const char *names[] = {"libpthread.so.0", "libdl.so.2", "librt.so.1", "libm.so.6"};
    unsigned i;
    for (i = 0; i < 4; i++) {
        void *handle = open_or_say(names[i], RTLD_NOW);
        SAY("%s %d\n", names[i], handle && dlclose(handle) == 0);
    }
}

CASE(a_function_through_an_old_name) {
    void *handle = must_open("libpthread.so.0", RTLD_LAZY);
    SAY("%d\n", dlsym(handle, "pthread_create") == (void *)pthread_create);
    handle = must_open("libdl.so.2", RTLD_LAZY);
    SAY("%d\n", dlsym(handle, "dlopen") == (void *)dlopen);
}

static int frames(void *data) {
    void *buffer[32];
    int i, found = 0, count = backtrace(buffer, 32);
    Dl_info info;
    for (i = 0; i < count; i++)
        found += dladdr(buffer[i], &info) && strcmp(base_name(info.dli_fname), "libcallback.so") == 0;
    return found;
}

CASE(a_backtrace_through_a_library) {
    void *handle = must_open("libcallback.so", RTLD_LAZY);
    int (*call_back)(int (*)(void *), void *) = must_find(handle, "call_back");
    SAY("%d\n", call_back(frames, NULL));
}

static int cleaned;
static void clean(void *data) { cleaned = 1; }

static int leave(void *data) { pthread_exit((void *)5); }

static void *work(void *data) {
    int (*call_back)(int (*)(void *), void *) = must_find(data, "call_back_with_cleanup");
    pthread_cleanup_push(clean, NULL);
    call_back(leave, NULL);
    pthread_cleanup_pop(0);
    return NULL;
}

CASE(cancellation_through_a_library) {
    pthread_t thread;
    void *result, *handle = must_open("libcallback.so", RTLD_LAZY);
    pthread_create(&thread, NULL, work, handle);
    pthread_join(thread, &result);
    SAY("%ld %d %d\n", (long)result, cleaned, *(int *)must_find(handle, "library_cleaned"));
}

static jmp_buf out;
static int jump(void *data) { longjmp(out, 6); }

CASE(a_jump_over_a_library) {
    void *handle = must_open("libcallback.so", RTLD_LAZY);
    int (*call_back)(int (*)(void *), void *) = must_find(handle, "call_back");
    int value = setjmp(out);
    if (value == 0) call_back(jump, NULL);
    SAY("%d %d\n", value, dlclose(handle));
}

CASE(sorting_with_a_function_of_a_library) {
    void *handle = must_open("libcallback.so", RTLD_LAZY);
    int values[] = {3, 1, 2};
    qsort(values, 3, sizeof *values, must_find(handle, "compare_ints"));
    SAY("%d %d %d\n", values[0], values[1], values[2]);
}

CASE(a_signal_handler_of_a_library) {
    void *handle = must_open("libcallback.so", RTLD_LAZY);
    signal(SIGUSR2, must_find(handle, "count_signal"));
    raise(SIGUSR2), raise(SIGUSR2);
    SAY("%d\n", *(int *)must_find(handle, "signals"));
}

CASE(standard_streams_of_a_library) {
    void *handle = must_open("libcallback.so", RTLD_LAZY);
    ((void (*)(void))must_find(handle, "print"))();
    fflush(stdout);
    SAY("%d\n", dlsym(handle, "stdout") == dlsym(RTLD_DEFAULT, "stdout"));
}

static int name_frames(void *data) {
    void *buffer[32];
    int i, count = backtrace(buffer, 32), found = 0;
    char **names = backtrace_symbols(buffer, count);
    for (i = 0; i < count; i++) found += strstr(names[i], "libcallback.so") != NULL;
    return found;
}

/* differs: libc's own names of frames come from its own list, which has none of ours
   ours: 0 */
CASE(names_of_frames) {
    int (*call_back)(int (*)(void *), void *) =
        must_find(must_open("libcallback.so", RTLD_LAZY), "call_back");
    SAY("%d\n", call_back(name_frames, NULL));
}
