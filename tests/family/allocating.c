/* A program that defines malloc and looks for libc's with dlsym, as wrappers do. */
#include "family.h"

static char room[1 << 16];
static size_t used;
static int calls, inside;
static void *(*real_malloc)(size_t);
static void (*real_free)(void *);

void *malloc(size_t size) {
    calls++;
    if (!real_malloc && !inside) {
        inside = 1;
        real_malloc = dlsym(RTLD_NEXT, "malloc");
        real_free = dlsym(RTLD_NEXT, "free");
        inside = 0;
    }
    if (!real_malloc) {
        void *block = room + used;
        used += (size + 15) & ~15ul;
        return block;
    }
    return real_malloc(size);
}

void free(void *block) {
    if ((char *)block >= room && (char *)block < room + sizeof room) return;
    if (block && real_free) real_free(block);
}

CASE(it_finds_libcs) {
    void *block = malloc(10);
    SAY("%d %d\n", block != NULL, real_malloc != NULL && real_malloc != malloc);
    free(block);
}

CASE(libraries_use_it) {
    char *(*copied)(const char *) = must_find(must_open("libcallslibc.so", RTLD_NOW), "copied");
    int before = calls;
    char *copy = copied("abc"); /* strdup, in libc, calls malloc */
    SAY("%s %d\n", copy, calls > before);
    SAY("%d\n", dlsym(RTLD_DEFAULT, "malloc") == (void *)malloc);
    SAY("%d\n", dlsym(must_open("libc.so.6", RTLD_LAZY), "malloc") == (void *)real_malloc);
}

CASE(opening_and_closing) {
    int i;
    for (i = 0; i < 10; i++) dlclose(must_open("libneedsneedsone.so", RTLD_NOW));
    dlopen("libnothing.so", RTLD_LAZY);
    SAY("%s\n", last_error());
}

static void *work(void *data) { return must_open("libone.so", RTLD_LAZY); }

CASE(in_threads) {
    pthread_t threads[4];
    void *handles[4];
    int i;
    for (i = 0; i < 4; i++) pthread_create(&threads[i], NULL, work, NULL);
    for (i = 0; i < 4; i++) pthread_join(threads[i], &handles[i]);
    SAY("%d %d\n", handles[0] == handles[1], handles[2] == handles[3]);
}
