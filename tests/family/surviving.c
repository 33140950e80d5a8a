/* What outlives the open that brought it in keeps a scope: itself and what it needs. For each
   reason to live on: its calls, its look-ups, its needs, its destructor, a later open of it. */
#include "family.h"

struct survivor {
    int (*own_part)(void), (*leaf_part)(void), (*libc_part)(void), (*more_part)(void);
    const char *(*ask_who)(void);
    void *(*find)(void *, const char *);
    void (*pass)(void (*)(void));
};

static struct survivor survivor_of(void *handle) {
    struct survivor s;
    s.own_part = (int (*)(void))must_find(handle, "own_part");
    s.leaf_part = (int (*)(void))must_find(handle, "leaf_part");
    s.libc_part = (int (*)(void))must_find(handle, "libc_part");
    s.more_part = (int (*)(void))must_find(handle, "more_part");
    s.ask_who = (const char *(*)(void))must_find(handle, "ask_who");
    s.find = (void *(*)(void *, const char *))must_find(handle, "survivor_dlsym");
    s.pass = (void (*)(void (*)(void)))must_find(handle, "pass");
    return s;
}

static void end_thread(void) { pthread_exit(NULL); }
static void *through(void *survivor) {
    ((struct survivor *)survivor)->pass(end_thread);
    return NULL;
}

static void find_from(struct survivor s, void *handle, const char *name) {
    SAY("%s %s\n", name, s.find(handle, name) ? "found" : "not found");
    dlerror();
}

/* Nothing of it was called before. */
static void use(struct survivor s) {
    Dl_info info;
    pthread_t thread;
    memset(&info, 0, sizeof info);
    SAY("own %d\n", s.own_part());
    SAY("leaf %d\n", s.leaf_part());
    SAY("libc %d\n", s.libc_part());
    SAY("who %s\n", s.ask_who());
    find_from(s, RTLD_DEFAULT, "part");
    find_from(s, RTLD_DEFAULT, "leaf");
    find_from(s, RTLD_DEFAULT, "who");
    find_from(s, RTLD_DEFAULT, "more");
    find_from(s, RTLD_DEFAULT, "abs");
    find_from(s, RTLD_NEXT, "leaf");
    find_from(s, RTLD_NEXT, "part");
    SAY("address %d %s %s\n", dladdr((void *)s.own_part, &info) != 0, base_name(info.dli_fname),
        info.dli_sname ? info.dli_sname : "null");
    SAY("needs %d %d\n", is_loaded("libtrace_leaf.so"), is_loaded("libtrace_deeper.so"));
    pthread_create(&thread, NULL, through, &s);
    pthread_join(thread, NULL);
}

static void *bring(const char *reason, const char *how, int mode) {
    char name[64];
    snprintf(name, sizeof name, "libtrace_%s_%s.so", how, reason);
    return must_open(name, mode);
}

static struct survivor left_by(const char *reason, const char *how, int mode) {
    void *handle = bring(reason, how, mode);
    struct survivor s = survivor_of(handle);
    SAY("close %d\n", dlclose(handle));
    return s;
}

/* Opened beside, with what is to pin it, and closed with the one that brought it in. */
static struct survivor left_by_nodelete(int mode) {
    void *handle = bring("plain", "brings", mode);
    void *own = must_open("libtrace_survivor_plain.so", RTLD_LAZY | RTLD_NODELETE);
    struct survivor s = survivor_of(handle);
    SAY("close %d %d\n", dlclose(handle), dlclose(own));
    return s;
}

CASE(the_flag) { use(left_by("flag", "brings", RTLD_LAZY)); }
CASE(the_flag_with_deepbind) { use(left_by("flag", "brings", RTLD_LAZY | RTLD_DEEPBIND)); }
CASE(the_flag_of_one_made_global) { use(left_by("flag", "brings", RTLD_LAZY | RTLD_GLOBAL)); }
CASE(the_flag_two_above) { use(left_by("flag", "above", RTLD_LAZY)); }
CASE(a_unique_symbol) { use(left_by("unique", "brings", RTLD_LAZY)); }
CASE(opened_nodelete) { use(left_by_nodelete(RTLD_LAZY)); }
CASE(opened_nodelete_with_deepbind) { use(left_by_nodelete(RTLD_LAZY | RTLD_DEEPBIND)); }

CASE(a_relocation_of_another) {
    void *handle = bring("plain", "brings", RTLD_LAZY | RTLD_GLOBAL);
    void *binds = must_open("libtrace_binds.so", RTLD_NOW);
    struct survivor s = survivor_of(handle);
    SAY("close %d\n", dlclose(handle));
    SAY("bound %d\n", call(binds, "bound_part"));
    use(s);
}

CASE(a_lazy_call_of_another) {
    void *handle = bring("plain", "brings", RTLD_LAZY | RTLD_GLOBAL);
    void *binds = must_open("libtrace_binds.so", RTLD_LAZY);
    struct survivor s = survivor_of(handle);
    SAY("bound %d\n", call(binds, "bound_part"));
    SAY("close %d\n", dlclose(handle));
    use(s);
}

CASE(handed_out_by_default) {
    void *handle = bring("plain", "brings", RTLD_LAZY | RTLD_GLOBAL);
    struct survivor s = survivor_of(handle);
    SAY("%d\n", dlsym(RTLD_DEFAULT, "own_part") != NULL);
    SAY("close %d\n", dlclose(handle));
    use(s);
}

CASE(needed_by_another) {
    void *handle = bring("plain", "brings", RTLD_LAZY);
    void *other = bring("plain", "another", RTLD_LAZY);
    struct survivor s = survivor_of(handle);
    SAY("close %d\n", dlclose(handle));
    use(s);
    SAY("more %d\n", s.more_part());
    SAY("close %d\n", dlclose(other));
}

CASE(opened_beside) {
    void *handle = bring("plain", "brings", RTLD_LAZY);
    void *own = must_open("libtrace_survivor_plain.so", RTLD_LAZY);
    struct survivor s = survivor_of(handle);
    SAY("close %d\n", dlclose(handle));
    use(s);
    SAY("close %d\n", dlclose(own));
}

static void *make_and_use(void *nothing) {
    void *handle = bring("object", "brings", RTLD_LAZY);
    struct survivor s = survivor_of(handle);
    int (*make_object)(void) = (int (*)(void))must_find(handle, "make_object");
    (void)nothing;
    SAY("made %d\n", make_object());
    SAY("close %d\n", dlclose(handle));
    use(s);
    return NULL;
}

CASE(an_object_of_a_thread) { make_and_use(NULL); }

CASE(an_object_of_a_thread_that_ends) {
    pthread_t thread;
    pthread_create(&thread, NULL, make_and_use, NULL);
    pthread_join(thread, NULL);
    /* libc unloads it at the next dlclose, we when the object was destroyed. */
    dlclose(must_open("libone.so", RTLD_LAZY));
    SAY("left %d\n", is_loaded("libtrace_survivor_object.so"));
}

static void *close_late(void *nothing) {
    void *handle = bring("late", "above", RTLD_LAZY);
    int i;
    (void)nothing;
    SAY("close %d\n", dlclose(handle));
    /* In the memory that those which are gone have left. */
    for (i = 0; i < 20; i++) must_open(path_of(i % 2 ? "libone.so" : "libboth.so"), RTLD_LAZY);
    SAY("thread ends\n");
    return NULL;
}

/* differs: libc unmaps it under the object that its destructor has made, and crashes
   ours: start deeper
   ours: start leaf
   ours: start survivor_late
   ours: start brings_late
   ours: start above_late
   ours: finish above_late
   ours: finish brings_late
   ours: both called
   ours: finish survivor_late
   ours: finish leaf
   ours: finish deeper
   ours: close 0
   ours: thread ends
   ours: destroyed
   ours: left 0 0 */
CASE(an_object_that_its_destructor_has_made) {
    pthread_t thread;
    pthread_create(&thread, NULL, close_late, NULL);
    pthread_join(thread, NULL);
    SAY("left %d %d\n", is_loaded("libtrace_survivor_late.so"), is_loaded("libtrace_leaf.so"));
}

CASE(nothing_is_called_but_its_destructor) { left_by("flag", "brings", RTLD_LAZY); }
CASE(its_destructor_after_two_above) { left_by("flag", "above", RTLD_LAZY); }
CASE(its_destructor_of_a_unique_symbol) { left_by("unique", "brings", RTLD_LAZY); }

CASE(under_another_root) {
    struct survivor s = left_by("flag", "brings", RTLD_LAZY);
    void *other = bring("flag", "another", RTLD_LAZY);
    SAY("more %d\n", s.more_part());
    use(s);
    SAY("close %d\n", dlclose(other));
    find_from(s, RTLD_DEFAULT, "part");
}

CASE(under_another_root_that_went_again) {
    struct survivor s = left_by("flag", "brings", RTLD_LAZY);
    dlclose(bring("flag", "another", RTLD_LAZY));
    use(s);
}

/* `who` of the survivor itself, not of the root that is there now. */
CASE(both_scopes_in_order) {
    struct survivor s = left_by("flag", "brings", RTLD_LAZY);
    bring("flag", "above", RTLD_LAZY);
    SAY("%s\n", s.ask_who());
    find_from(s, RTLD_DEFAULT, "who");
    find_from(s, RTLD_DEFAULT, "more");
}

/* And that of the first root where the second has gone. */
CASE(the_scope_of_the_root_that_stays) {
    void *other = bring("flag", "another", RTLD_LAZY);
    void *handle = bring("flag", "brings", RTLD_LAZY);
    struct survivor s = survivor_of(handle);
    SAY("close %d\n", dlclose(other));
    SAY("%s\n", s.ask_who());
    find_from(s, RTLD_DEFAULT, "more");
    SAY("close %d\n", dlclose(handle));
    use(s);
}

static int ended;

static void *look_up(void *survivor) {
    struct survivor *s = survivor;
    intptr_t missed = 0;
    while (!__atomic_load_n(&ended, __ATOMIC_ACQUIRE))
        missed += !s->find(RTLD_DEFAULT, "part") + !s->find(RTLD_DEFAULT, "leaf")
            + !s->find(RTLD_NEXT, "leaf");
    return (void *)missed;
}

CASE(while_roots_come_and_go) {
    struct survivor s = left_by("flag", "brings", RTLD_LAZY);
    pthread_t threads[2];
    void *missed[2];
    int i, out = dup(1);
    dup2(open("/dev/null", O_WRONLY), 1); /* what constructors say */
    for (i = 0; i < 2; i++) pthread_create(&threads[i], NULL, look_up, &s);
    for (i = 0; i < 200; i++) {
        void *above = bring("flag", "above", RTLD_LAZY), *other = bring("flag", "another", RTLD_LAZY);
        dlclose(i % 2 ? above : other);
        dlclose(i % 2 ? other : above);
    }
    __atomic_store_n(&ended, 1, __ATOMIC_RELEASE);
    for (i = 0; i < 2; i++) pthread_join(threads[i], &missed[i]);
    dup2(out, 1);
    SAY("missed %d %d\n", (int)(intptr_t)missed[0], (int)(intptr_t)missed[1]);
}

CASE(opened_by_itself_later) {
    struct survivor s = left_by("flag", "brings", RTLD_LAZY);
    void *own = must_open("libtrace_survivor_flag.so", RTLD_LAZY);
    SAY("%d %d\n", dlsym(own, "part") != NULL, dlsym(own, "leaf") != NULL);
    use(s);
    SAY("close %d\n", dlclose(own));
    find_from(s, RTLD_DEFAULT, "leaf");
}

CASE(made_global_later) {
    struct survivor s = left_by("flag", "brings", RTLD_LAZY);
    must_open("libtrace_survivor_flag.so", RTLD_LAZY | RTLD_GLOBAL);
    SAY("%d %d\n", dlsym(RTLD_DEFAULT, "part") != NULL, dlsym(RTLD_DEFAULT, "leaf") != NULL);
    use(s);
}

/* differs: libc gives it what it needs itself, and not what that needs
   ours: start deeper
   ours: start leaf
   ours: start survivor_flag
   ours: start brings_flag
   ours: finish brings_flag
   ours: close 0
   ours: deeper found
   ours: both called
   ours: finish survivor_flag
   ours: finish leaf
   ours: finish deeper */
CASE(what_its_needs_need) {
    struct survivor s = left_by("flag", "brings", RTLD_LAZY);
    find_from(s, RTLD_DEFAULT, "deeper");
}

CASE(in_a_namespace) {
    void *handle = dlmopen(LM_ID_NEWLM, path_of("libtrace_brings_flag.so"), RTLD_LAZY);
    void *kept = NULL;
    Lmid_t id = 0;
    struct survivor s;
    if (!handle || dlinfo(handle, RTLD_DI_LMID, &id)) _exit(99);
    kept = dlmopen(id, path_of("libone.so"), RTLD_LAZY);
    s = survivor_of(handle);
    SAY("close %d\n", dlclose(handle));
    SAY("own %d leaf %d %s\n", s.own_part(), s.leaf_part(), s.ask_who());
    find_from(s, RTLD_DEFAULT, "part");
    find_from(s, RTLD_DEFAULT, "leaf");
    SAY("%d\n", kept != NULL);
}
