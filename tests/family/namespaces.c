/* dlmopen(3). */
#include "family.h"

static void *open_in(Lmid_t id, const char *name, int mode) {
    void *handle = dlmopen(id, name, mode);
    if (!handle) SAY("dlmopen: %s\n", last_error());
    return handle;
}

static Lmid_t namespace_of(void *handle) {
    Lmid_t id = -100;
    if (dlinfo(handle, RTLD_DI_LMID, &id)) SAY("dlinfo: %s\n", last_error());
    return id;
}

CASE(base_is_the_programs) {
    void *handle = open_in(LM_ID_BASE, "libone.so", RTLD_LAZY);
    SAY("%d %ld\n", handle == must_open("libone.so", RTLD_LAZY), (long)namespace_of(handle));
}

CASE(base_and_null) {
    SAY("%d\n", open_in(LM_ID_BASE, NULL, RTLD_LAZY) == dlopen(NULL, RTLD_LAZY));
}

CASE(base_may_be_global) {
    open_in(LM_ID_BASE, "libone.so", RTLD_LAZY | RTLD_GLOBAL);
    SAY("%d\n", dlsym(RTLD_DEFAULT, "one") != NULL);
}

CASE(a_new_namespace_has_its_own_copy) {
    void *mine = must_open("libone.so", RTLD_LAZY);
    void *other = open_in(LM_ID_NEWLM, "libone.so", RTLD_LAZY);
    SAY("%d %d\n", mine != other, namespace_of(other) > 0);
    *(int *)must_find(mine, "number") = 1;
    SAY("%d\n", *(int *)must_find(other, "number"));
}

CASE(two_new_namespaces_differ) {
    void *a = open_in(LM_ID_NEWLM, "libone.so", RTLD_LAZY);
    void *b = open_in(LM_ID_NEWLM, "libone.so", RTLD_LAZY);
    SAY("%d %d\n", a != b, namespace_of(a) != namespace_of(b));
}

CASE(a_namespace_is_opened_into_again) {
    void *a = open_in(LM_ID_NEWLM, "libone.so", RTLD_LAZY);
    void *b = open_in(namespace_of(a), "libtwo.so", RTLD_LAZY);
    void *c = open_in(namespace_of(a), "libone.so", RTLD_LAZY);
    SAY("%d %d\n", namespace_of(a) == namespace_of(b), a == c);
}

CASE(a_dependency_is_of_the_namespace) {
    void *mine = must_open("libone.so", RTLD_LAZY);
    void *other = open_in(LM_ID_NEWLM, "libneedsone.so", RTLD_LAZY);
    void *theirs = open_in(namespace_of(other), "libone.so", RTLD_LAZY | RTLD_NOLOAD);
    SAY("%d %d\n", theirs != NULL, theirs != mine);
    SAY("%d\n", call(other, "one_more"));
}

CASE(global_is_not_for_other_namespaces) {
    must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    open_in(LM_ID_NEWLM, "libasks.so", RTLD_NOW);
}

CASE(a_namespace_is_not_seen_from_the_program) {
    void *other = open_in(LM_ID_NEWLM, "libone.so", RTLD_LAZY);
    SAY("%d %d\n", other != NULL, is_loaded("libone.so"));
    SAY("%d\n", dlsym(RTLD_DEFAULT, "one") != NULL);
}

CASE(null_and_a_new_namespace) { open_in(LM_ID_NEWLM, NULL, RTLD_LAZY); }

CASE(null_and_an_own_namespace) {
    void *a = open_in(LM_ID_NEWLM, "libone.so", RTLD_LAZY);
    open_in(namespace_of(a), NULL, RTLD_LAZY);
}

CASE(global_in_a_new_namespace) { open_in(LM_ID_NEWLM, "libone.so", RTLD_LAZY | RTLD_GLOBAL); }

CASE(invalid_ids) {
    open_in(-2, "libone.so", RTLD_LAZY);
    open_in(9, "libone.so", RTLD_LAZY);
    open_in(1000, "libone.so", RTLD_LAZY);
}

CASE(neither_lazy_nor_now) { open_in(LM_ID_NEWLM, "libone.so", 0); }

CASE(a_missing_file) { open_in(LM_ID_NEWLM, "libnothing.so", RTLD_LAZY); }

CASE(noload_in_a_new_namespace) {
    SAY("%d\n", dlmopen(LM_ID_NEWLM, "libone.so", RTLD_LAZY | RTLD_NOLOAD) == NULL);
    SAY("%s\n", last_error());
}

CASE(closing_ends_a_namespace) {
    void *a = open_in(LM_ID_NEWLM, "libone.so", RTLD_LAZY);
    Lmid_t id = namespace_of(a);
    SAY("%d\n", dlclose(a));
    open_in(id, "libtwo.so", RTLD_LAZY);
}

CASE(closing_runs_destructors) {
    void *a = open_in(LM_ID_NEWLM, "libtrace_alone.so", RTLD_LAZY);
    void *b = must_open("libtrace_alone.so", RTLD_LAZY);
    SAY("%d\n", dlclose(a));
    SAY("%d\n", dlclose(b));
}

CASE(destructors_at_exit) { open_in(LM_ID_NEWLM, "libtrace_a.so", RTLD_LAZY); }

CASE(many_one_after_another) {
    int i, good = 0;
    for (i = 0; i < 40; i++) {
        void *a = open_in(LM_ID_NEWLM, "libone.so", RTLD_LAZY);
        good += a && call(a, "one") == 1 && dlclose(a) == 0;
    }
    SAY("%d\n", good);
}

/* differs: libc has sixteen namespaces, ours are not counted
   ours: 40 */
CASE(more_than_libc_has) {
    int i, good = 0;
    for (i = 0; i < 40; i++) {
        void *a = dlmopen(LM_ID_NEWLM, "libone.so", RTLD_LAZY);
        good += a && call(a, "one") == 1;
    }
    SAY("%d\n", good);
}

CASE(a_library_opens_into_its_own_namespace) {
    void *caller = open_in(LM_ID_NEWLM, path_of("libcaller.so"), RTLD_NOW);
    void *(*from)(const char *, int) = must_find(caller, "caller_dlopen");
    void *one = from(path_of("libone.so"), RTLD_LAZY);
    SAY("%d\n", one && namespace_of(one) == namespace_of(caller));
    SAY("%d\n", is_loaded("libone.so"));
}

CASE(default_of_a_library_in_a_namespace) {
    must_open("libone.so", RTLD_NOW | RTLD_GLOBAL);
    void *caller = open_in(LM_ID_NEWLM, path_of("libcaller.so"), RTLD_NOW);
    void *(*from)(void *, const char *) = must_find(caller, "caller_dlsym");
    SAY("%d %d\n", from(RTLD_DEFAULT, "one") != NULL, from(RTLD_DEFAULT, "who") != NULL);
    SAY("%d\n", from(RTLD_DEFAULT, "malloc") != NULL);
}

/* differs: one libc in a process: malloc and errno are the process's in every namespace
   ours: 1 */
CASE(libc_of_a_namespace) {
    void *a = open_in(LM_ID_NEWLM, "libcallslibc.so", RTLD_NOW);
    SAY("%d\n", dlsym(a, "malloc") == (void *)malloc);
}

CASE(thread_local_storage_of_a_namespace) {
    void *a = open_in(LM_ID_NEWLM, "libtls.so", RTLD_NOW);
    void *b = must_open("libtls.so", RTLD_NOW);
    SAY("%d\n", call(a, "next_counter"));
    SAY("%d\n", call(a, "next_counter"));
    SAY("%d\n", call(b, "next_counter"));
}

/* differs: libc crashes: its namespaces have no global scope
   ours: 1
   ours: 1 0 */
CASE(global_within_a_namespace) {
    void *caller = open_in(LM_ID_NEWLM, path_of("libcaller.so"), RTLD_NOW);
    void *(*from)(const char *, int) = must_find(caller, "caller_dlopen");
    void *one = from(path_of("libone.so"), RTLD_NOW | RTLD_GLOBAL);
    SAY("%d\n", one != NULL);
    void *(*find)(void *, const char *) = must_find(caller, "caller_dlsym");
    SAY("%d %d\n", find(RTLD_DEFAULT, "one") != NULL, dlsym(RTLD_DEFAULT, "one") != NULL);
}

CASE(a_unique_symbol_of_a_namespace) {
    void *a = open_in(LM_ID_NEWLM, "libunique1.so", RTLD_NOW);
    void *b = must_open("libunique2.so", RTLD_NOW);
    int *(*in_a)(void) = must_find(a, "address_of_only");
    int *(*in_b)(void) = must_find(b, "address_of_only");
    SAY("%d %d\n", *in_a(), *in_b());
}

CASE(an_empty_name) {
    SAY("%d\n", open_in(LM_ID_BASE, "", RTLD_LAZY) == dlopen(NULL, RTLD_LAZY));
}

CASE(the_callers_namespace) {
    /* __LM_ID_CALLER, which dlopen passes in libc. */
    SAY("%d\n", open_in(-2, "libone.so", RTLD_LAZY) == must_open("libone.so", RTLD_LAZY));
    void *caller = open_in(LM_ID_NEWLM, path_of("libcaller.so"), RTLD_NOW);
    void *(*from)(Lmid_t, const char *, int) = must_find(caller, "caller_dlmopen");
    void *one = from(-2, path_of("libone.so"), RTLD_LAZY);
    SAY("%d\n", one && namespace_of(one) == namespace_of(caller));
    void *base = from(LM_ID_BASE, path_of("libone.so"), RTLD_LAZY);
    SAY("%d\n", base == must_open("libone.so", RTLD_LAZY));
}

CASE(dladdr_in_a_namespace) {
    Dl_info info;
    struct link_map *map = NULL;
    void *one = open_in(LM_ID_NEWLM, "libone.so", RTLD_LAZY);
    SAY("%d\n", dladdr1(must_find(one, "one"), &info, (void **)&map, RTLD_DL_LINKMAP));
    SAY("%s %s %d\n", base_name(info.dli_fname), info.dli_sname, map == one);
}

CASE(information_in_a_namespace) {
    char origin[PATH_MAX];
    void *one = open_in(LM_ID_NEWLM, "libone.so", RTLD_LAZY);
    Dl_serinfo size;
    SAY("%d\n", dlinfo(one, RTLD_DI_ORIGIN, origin));
    SAY("%s\n", origin);
    SAY("%d\n", dlinfo(one, RTLD_DI_SERINFOSIZE, &size));
    SAY("%d\n", (int)size.dls_cnt > 3);
}

CASE(promotion_into_the_base_is_not_of_a_namespace) {
    void *a = open_in(LM_ID_NEWLM, "libone.so", RTLD_LAZY);
    must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    SAY("%d\n", dlsym(RTLD_DEFAULT, "one") != dlsym(a, "one"));
}

CASE(nodelete_in_a_namespace) {
    void *a = open_in(LM_ID_NEWLM, "libnodelete.so", RTLD_LAZY);
    Lmid_t id = namespace_of(a);
    SAY("%d\n", dlclose(a));
    SAY("%d\n", dlmopen(id, "libnodelete.so", RTLD_LAZY | RTLD_NOLOAD) != NULL);
}

CASE(lazy_in_a_namespace) {
    void *a = open_in(LM_ID_NEWLM, "libcalls.so", RTLD_LAZY);
    SAY("%d %d\n", call(a, "call_doubles"), call(a, "call_errno"));
    a = open_in(LM_ID_NEWLM, "liblackfunction.so", RTLD_LAZY);
    call(a, "call_absent");
}

CASE(a_lazy_call_in_a_namespace) {
    must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    SAY("%s\n", text(open_in(LM_ID_NEWLM, "libself.so", RTLD_LAZY), "ask_who"));
}
