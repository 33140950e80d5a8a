/* What every program of this folder begins with.  CASE(name) { … } is a program of its own:
   the test runs PROGRAM name, once under libc's loader and once under ours. */
#ifndef FAMILY_H
#define FAMILY_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define RTLD_DI_PHDR_ 11 /* RTLD_DI_PHDR, glibc 2.36 */

/* Not buffered: it is seen whatever ends the process. */
#define SAY(...) dprintf(1, __VA_ARGS__)

struct family_case {
    const char *name;
    void (*run)(void);
};

#define CASE(name_)                                                                       \
    static void case_##name_(void);                                                       \
    static const struct family_case entry_##name_                                         \
        __attribute__((used, section("family_cases"))) = {#name_, case_##name_};          \
    static void case_##name_(void)

extern const struct family_case __start_family_cases[], __stop_family_cases[];

/* The folder of the libraries; NAME in it. */
static inline const char *folder(void) { return getenv("FAMILY_LIBRARIES"); }
static inline const char *path_of(const char *name) {
    static char paths[8][PATH_MAX];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, PATH_MAX, "%s/%s", folder(), name);
    return path;
}

static inline const char *last_error(void) {
    const char *message = dlerror();
    return message ? message : "no error";
}

/* Says what went wrong, if something does. */
static inline void *open_or_say(const char *name, int mode) {
    void *handle = dlopen(name, mode);
    if (!handle) SAY("dlopen: %s\n", last_error());
    return handle;
}

/* For what is not the subject of the case. */
static inline void *must_open(const char *name, int mode) {
    void *handle = dlopen(name, mode);
    if (!handle) {
        SAY("must open %s: %s\n", name, last_error());
        _exit(99);
    }
    return handle;
}

static inline void *must_find(void *handle, const char *name) {
    void *address = dlsym(handle, name);
    if (!address) {
        SAY("must find %s: %s\n", name, last_error());
        _exit(99);
    }
    return address;
}

static inline void *find_or_say(void *handle, const char *name) {
    void *address = dlsym(handle, name);
    if (!address) SAY("dlsym: %s\n", last_error());
    return address;
}

static inline int call(void *handle, const char *name) {
    return ((int (*)(void))must_find(handle, name))();
}

static inline const char *text(void *handle, const char *name) {
    return ((const char *(*)(void))must_find(handle, name))();
}

/* Whether the process has it now. */
static inline int is_loaded(const char *name) {
    void *handle = dlopen(name, RTLD_LAZY | RTLD_NOLOAD);
    if (handle) dlclose(handle);
    else dlerror();
    return handle != NULL;
}

static inline const char *base_name(const char *path) {
    const char *slash = path ? strrchr(path, '/') : NULL;
    return !path ? "null" : slash ? slash + 1 : path;
}

#ifndef FAMILY_NO_MAIN
int main(int argc, char **argv) {
    const struct family_case *one;
    for (one = __start_family_cases; one < __stop_family_cases; one++)
        if (argc > 1 && strcmp(one->name, argv[1]) == 0) {
            one->run();
            return 0;
        }
    return 98;
}
#endif
#endif
