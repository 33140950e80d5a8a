/* The order of constructors and destructors (gABI, "Initialization and Termination Functions"). */
#include "family.h"

static void first_handler(void) { SAY("atexit first\n"); }
static void second_handler(void) { SAY("atexit second\n"); }
__attribute__((destructor)) static void finish(void) { SAY("finish the program\n"); }

CASE(dependencies_first) {
    void *a = must_open("libtrace_a.so", RTLD_LAZY);
    SAY("opened\n");
    dlclose(a);
}

CASE(at_exit) { must_open("libtrace_a.so", RTLD_LAZY); }

CASE(at_underscore_exit) {
    must_open("libtrace_a.so", RTLD_LAZY);
    _exit(3);
}

CASE(at_quick_exit) {
    must_open("libtrace_a.so", RTLD_LAZY);
    quick_exit(4);
}

CASE(at_abort) {
    must_open("libtrace_a.so", RTLD_LAZY);
    abort();
}

CASE(what_is_there_is_not_initialised_again) {
    must_open("libtrace_d.so", RTLD_LAZY);
    must_open("libtrace_b.so", RTLD_LAZY);
    must_open("libtrace_a.so", RTLD_LAZY);
}

CASE(opened_in_turn_finished_in_turn) {
    must_open("libtrace_p.so", RTLD_LAZY);
    must_open("libtrace_alone.so", RTLD_LAZY);
    must_open("libtrace_d.so", RTLD_LAZY);
}

CASE(closed_in_turn) {
    void *p = must_open("libtrace_p.so", RTLD_LAZY), *alone = must_open("libtrace_alone.so", RTLD_LAZY);
    dlclose(p);
    dlclose(alone);
}

CASE(a_cycle) { dlclose(must_open("libtrace_x.so", RTLD_LAZY)); }
CASE(a_cycle_from_its_middle) { dlclose(must_open("libtrace_y.so", RTLD_LAZY)); }
CASE(a_cycle_from_its_end) { dlclose(must_open("libtrace_z.so", RTLD_LAZY)); }
CASE(a_cycle_at_exit) { must_open("libtrace_x.so", RTLD_LAZY); }
CASE(a_cycle_from_its_middle_at_exit) { must_open("libtrace_y.so", RTLD_LAZY); }

CASE(a_cycle_closed_after_its_middle) {
    void *y = must_open("libtrace_y.so", RTLD_LAZY), *x = must_open("libtrace_x.so", RTLD_LAZY);
    dlclose(y);
    SAY("closed y\n");
    dlclose(x);
}

CASE(two_cycles_closed) {
    void *d = must_open("libtrace_d.so", RTLD_LAZY), *z = must_open("libtrace_z.so", RTLD_LAZY);
    void *a = must_open("libtrace_a.so", RTLD_LAZY), *y = must_open("libtrace_y.so", RTLD_LAZY);
    dlclose(d);
    dlclose(y);
    SAY("closed d and y\n");
    dlclose(a);
    SAY("closed a\n");
    dlclose(z);
}

CASE(a_cycle_closed_in_a_namespace) {
    dlclose(dlmopen(LM_ID_NEWLM, "libtrace_x.so", RTLD_LAZY));
    SAY("closed\n");
}

CASE(a_cycle_closed_in_a_namespace_after_its_middle) {
    Lmid_t namespace;
    void *y = dlmopen(LM_ID_NEWLM, "libtrace_y.so", RTLD_LAZY);
    SAY("%d\n", dlinfo(y, RTLD_DI_LMID, &namespace));
    void *x = dlmopen(namespace, "libtrace_x.so", RTLD_LAZY);
    dlclose(y);
    SAY("closed y\n");
    dlclose(x);
    SAY("closed x\n");
}

CASE(against_atexit_before) {
    atexit(first_handler);
    must_open("libtrace_alone.so", RTLD_LAZY);
}

CASE(against_atexit_after) {
    must_open("libtrace_alone.so", RTLD_LAZY);
    atexit(first_handler);
    atexit(second_handler);
}

CASE(atexit_of_a_library) {
    atexit(first_handler);
    must_open("libtrace_atexit.so", RTLD_LAZY);
    atexit(second_handler);
}

static void close_it(void) {
    SAY("closing\n");
    dlclose(must_open("libtrace_alone.so", RTLD_LAZY | RTLD_NOLOAD));
    dlclose(must_open("libtrace_alone.so", RTLD_LAZY | RTLD_NOLOAD));
    SAY("closed %d\n", is_loaded("libtrace_alone.so"));
}

CASE(an_exit_handler_that_closes) {
    must_open("libtrace_alone.so", RTLD_LAZY);
    atexit(close_it);
}

static void open_it(void) { SAY("%d\n", dlopen("libtrace_alone.so", RTLD_LAZY) != NULL); }

CASE(an_exit_handler_that_opens) { atexit(open_it); }

CASE(within_one_library) { dlclose(must_open("libtrace_priority.so", RTLD_LAZY)); }

CASE(within_one_library_at_exit) { must_open("libtrace_priority.so", RTLD_LAZY); }

CASE(arguments_of_constructors) { must_open("libtrace_args.so", RTLD_LAZY); }

CASE(df_1_initfirst) { dlclose(must_open("libtrace_f.so", RTLD_LAZY)); }

CASE(nodelete_is_finished_at_exit) {
    dlclose(must_open("libtrace_nodelete.so", RTLD_LAZY));
    SAY("closed\n");
}

CASE(a_constructor_that_opens) { dlclose(must_open("libtrace_opens.so", RTLD_LAZY)); }

CASE(a_constructor_that_opens_at_exit) { must_open("libtrace_opens.so", RTLD_LAZY); }

CASE(a_destructor_that_opens_at_exit) { must_open("libtrace_opensinfini.so", RTLD_LAZY); }

CASE(a_constructor_that_opens_itself) { dlclose(must_open("libtrace_opensself.so", RTLD_LAZY)); }

CASE(a_constructor_that_exits) {
    atexit(first_handler);
    must_open("libtrace_needsexits.so", RTLD_LAZY);
    SAY("never\n");
}

CASE(a_failed_open_runs_nothing) {
    open_or_say("libtrace_lacks.so", RTLD_LAZY);
    SAY("%d\n", is_loaded("libtrace_b.so"));
}

CASE(a_binding_counts_at_exit) {
    must_open("libtrace_p.so", RTLD_LAZY | RTLD_GLOBAL);
    must_open("libtrace_uses_p.so", RTLD_NOW);
}

CASE(a_lazy_binding_counts_at_exit) {
    must_open("libtrace_uses_p.so", RTLD_LAZY);
    void *uses = must_open("libtrace_uses_p.so", RTLD_LAZY);
    must_open("libtrace_p.so", RTLD_LAZY | RTLD_GLOBAL);
    ((void (*)(void))must_find(uses, "use"))();
}

CASE(closing_ends_a_binding) {
    void *p = must_open("libtrace_p.so", RTLD_LAZY | RTLD_GLOBAL);
    void *uses = must_open("libtrace_uses_p.so", RTLD_NOW);
    dlclose(p);
    SAY("closed p\n");
    dlclose(uses);
    SAY("closed the user\n");
}

CASE(a_shared_dependency_is_finished_last) {
    void *b = must_open("libtrace_b.so", RTLD_LAZY), *c = must_open("libtrace_c.so", RTLD_LAZY);
    dlclose(b);
    SAY("closed b\n");
    dlclose(c);
    SAY("closed c\n");
}

CASE(promotion_does_not_initialise_again) {
    must_open("libtrace_d.so", RTLD_LAZY);
    must_open("libtrace_d.so", RTLD_NOW | RTLD_GLOBAL);
}

/* differs: libc finishes other namespaces before the program's own destructors; ours come, with
     all that we opened, when libc finishes libdlopen.so, which is after the program
   ours: start d
   ours: start d
   ours: start b
   ours: 1
   ours: finish the program
   ours: finish b
   ours: finish d
   ours: finish d */
CASE(a_namespace_has_its_own) {
    must_open("libtrace_d.so", RTLD_LAZY);
    SAY("%d\n", dlmopen(LM_ID_NEWLM, "libtrace_b.so", RTLD_LAZY) != NULL);
}

static void *open_in_thread(void *data) { return dlopen("libtrace_a.so", RTLD_LAZY); }

CASE(opened_by_a_thread) {
    pthread_t thread;
    void *handle;
    pthread_create(&thread, NULL, open_in_thread, NULL);
    pthread_join(thread, &handle);
    SAY("%d\n", handle == dlopen("libtrace_a.so", RTLD_LAZY));
}

CASE(exit_in_a_child) {
    int status;
    must_open("libtrace_alone.so", RTLD_LAZY);
    if (fork() == 0) exit(5);
    wait(&status);
    SAY("%d\n", WEXITSTATUS(status));
}

CASE(main_thread_leaves_first) {
    must_open("libtrace_alone.so", RTLD_LAZY);
    pthread_exit(NULL);
}

static void *exit_in_thread(void *data) { exit(6); }

CASE(exit_in_a_thread) {
    pthread_t thread;
    must_open("libtrace_a.so", RTLD_LAZY);
    pthread_create(&thread, NULL, exit_in_thread, NULL);
    pthread_join(thread, NULL);
}

CASE(a_destructor_that_exits) {
    must_open("libtrace_b.so", RTLD_LAZY);
    dlclose(must_open("libtrace_exitsinfini.so", RTLD_LAZY));
    SAY("never\n");
}

CASE(a_destructor_that_exits_at_exit) {
    must_open("libtrace_b.so", RTLD_LAZY);
    must_open("libtrace_exitsinfini.so", RTLD_LAZY);
}

CASE(atexit_in_a_function_of_a_library) {
    void *handle = must_open("libtrace_registers.so", RTLD_LAZY);
    call(handle, "registers");
    atexit(first_handler);
    call(handle, "registers");
}

CASE(atexit_in_a_function_of_a_library_that_is_closed) {
    void *handle = must_open("libtrace_registers.so", RTLD_LAZY);
    call(handle, "registers");
    call(handle, "registers");
    dlclose(handle);
    SAY("closed\n");
}

CASE(a_diamond_at_exit_after_partial_closes) {
    void *b = must_open("libtrace_b.so", RTLD_LAZY), *a = must_open("libtrace_a.so", RTLD_LAZY);
    dlclose(b);
    SAY("closed b\n");
    (void)a;
}

CASE(opened_out_of_order_at_exit) {
    must_open("libtrace_d.so", RTLD_LAZY);
    must_open("libtrace_alone.so", RTLD_LAZY);
    must_open("libtrace_b.so", RTLD_LAZY);
    must_open("libtrace_p.so", RTLD_LAZY);
    must_open("libtrace_c.so", RTLD_LAZY);
}

CASE(reopened_at_exit) {
    void *alone = must_open("libtrace_alone.so", RTLD_LAZY);
    must_open("libtrace_p.so", RTLD_LAZY);
    dlclose(alone);
    must_open("libtrace_alone.so", RTLD_LAZY);
}

CASE(two_cycles_at_exit) {
    must_open("libtrace_y.so", RTLD_LAZY);
    must_open("libtrace_a.so", RTLD_LAZY);
    must_open("libtrace_x.so", RTLD_LAZY);
}

CASE(bindings_against_needs_at_exit) {
    must_open("libtrace_p.so", RTLD_LAZY | RTLD_GLOBAL);
    must_open("libtrace_a.so", RTLD_LAZY);
    must_open("libtrace_uses_p.so", RTLD_NOW);
    must_open("libtrace_y.so", RTLD_LAZY);
}

CASE(a_filter) { dlclose(must_open("libtrace_filter.so", RTLD_LAZY)); }

CASE(a_filter_at_exit) { must_open("libtrace_filter.so", RTLD_LAZY); }

CASE(a_filter_that_is_needed) {
    dlclose(must_open("libtrace_needsfilter.so", RTLD_LAZY));
    SAY("%d\n", is_loaded("libtrace_alone.so"));
}
