/* dlclose(3): counting, and what stays. */
#include "family.h"

CASE(the_last_close_unloads) {
    void *handle = must_open("libone.so", RTLD_LAZY);
    SAY("%d %d\n", dlclose(handle), is_loaded("libone.so"));
}

CASE(each_open_wants_a_close) {
    void *handle = must_open("libone.so", RTLD_LAZY);
    must_open("libone.so", RTLD_LAZY);
    must_open(path_of("libone.so"), RTLD_NOW | RTLD_GLOBAL);
    SAY("%d %d\n", dlclose(handle), is_loaded("libone.so"));
    SAY("%d %d\n", dlclose(handle), is_loaded("libone.so"));
    SAY("%d %d\n", dlclose(handle), is_loaded("libone.so"));
}

CASE(closing_too_often) {
    void *handle = must_open("libone.so", RTLD_LAZY | RTLD_NODELETE);
    SAY("%d\n", dlclose(handle));
    SAY("%d\n", dlclose(handle) != 0);
    SAY("%s\n", last_error());
}

CASE(closing_a_dependency_too_often) {
    must_open("libneedsone.so", RTLD_LAZY);
    void *one = must_open("libone.so", RTLD_LAZY);
    SAY("%d\n", dlclose(one));
    SAY("%d\n", dlclose(one) != 0);
    SAY("%s\n", last_error());
    SAY("%d\n", call(one, "one"));
}

CASE(the_memory_is_gone) {
    char line[512];
    int found = 0;
    dlclose(must_open("libone.so", RTLD_LAZY));
    FILE *maps = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, maps)) found += strstr(line, "libone.so") != NULL;
    SAY("%d\n", found);
}

CASE(data_is_new_after_a_reload) {
    void *handle = must_open("libone.so", RTLD_LAZY);
    *(int *)must_find(handle, "number") = 1;
    dlclose(handle);
    SAY("%d\n", *(int *)must_find(must_open("libone.so", RTLD_LAZY), "number"));
}

CASE(dependencies_go_with_it) {
    dlclose(must_open("libneedsneedsone.so", RTLD_LAZY));
    SAY("%d %d\n", is_loaded("libneedsone.so"), is_loaded("libone.so"));
}

CASE(a_shared_dependency_stays) {
    void *first = must_open("libneedsone.so", RTLD_LAZY);
    void *second = must_open("libboth.so", RTLD_LAZY);
    dlclose(first);
    SAY("%d %d\n", is_loaded("libneedsone.so"), is_loaded("libone.so"));
    dlclose(second);
    SAY("%d\n", is_loaded("libone.so"));
}

CASE(a_dependency_that_was_opened_stays) {
    void *one = must_open("libone.so", RTLD_LAZY);
    dlclose(must_open("libneedsone.so", RTLD_LAZY));
    SAY("%d\n", is_loaded("libone.so"));
    dlclose(one);
    SAY("%d\n", is_loaded("libone.so"));
}

CASE(a_dependency_that_was_closed_stays) {
    void *one = must_open("libone.so", RTLD_LAZY);
    void *handle = must_open("libneedsone.so", RTLD_LAZY);
    dlclose(one);
    SAY("%d %d\n", is_loaded("libone.so"), call(handle, "one_more"));
    dlclose(handle);
    SAY("%d\n", is_loaded("libone.so"));
}

CASE(what_a_relocation_bound_to_stays) {
    void *one = must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    void *asks = must_open("libasks.so", RTLD_NOW);
    dlclose(one);
    SAY("%d %s\n", is_loaded("libone.so"), text(asks, "ask_who"));
    dlclose(asks);
    SAY("%d\n", is_loaded("libone.so"));
}

CASE(what_a_lazy_call_bound_to_stays) {
    void *one = must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    void *asks = must_open("libasks.so", RTLD_LAZY);
    SAY("%s\n", text(asks, "ask_who"));
    dlclose(one);
    SAY("%d %s\n", is_loaded("libone.so"), text(asks, "ask_who"));
    dlclose(asks);
    SAY("%d\n", is_loaded("libone.so"));
}

CASE(what_no_call_was_bound_to_goes) {
    void *one = must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    must_open("libasks.so", RTLD_LAZY);
    dlclose(one);
    SAY("%d\n", is_loaded("libone.so"));
}

CASE(default_pins_for_the_program) {
    void *one = must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    SAY("%d\n", call(RTLD_DEFAULT, "one"));
    dlclose(one);
    SAY("%d\n", is_loaded("libone.so"));
}

CASE(default_pins_for_the_calling_library) {
    void *one = must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    void *caller = must_open("libcaller.so", RTLD_LAZY);
    void *(*from)(void *, const char *) = must_find(caller, "caller_dlsym");
    SAY("%d\n", from(RTLD_DEFAULT, "one") != NULL);
    dlclose(one);
    SAY("%d\n", is_loaded("libone.so"));
    dlclose(caller);
    SAY("%d\n", is_loaded("libone.so"));
}

CASE(a_handle_does_not_pin) {
    void *one = must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    SAY("%d\n", dlsym(one, "one") != NULL);
    dlclose(one);
    SAY("%d\n", is_loaded("libone.so"));
}

CASE(the_programs_handle_does_not_pin) {
    void *one = must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    SAY("%d\n", dlsym(dlopen(NULL, RTLD_LAZY), "one") != NULL);
    dlclose(one);
    SAY("%d\n", is_loaded("libone.so"));
}

CASE(next_does_not_pin) {
    void *first = must_open("libnextfirst.so", RTLD_LAZY);
    SAY("%s\n", text(first, "chain"));
    dlclose(first);
    SAY("%d %d\n", is_loaded("libnextfirst.so"), is_loaded("libnextlast.so"));
}

CASE(the_owner_of_a_bound_unique_symbol_stays) {
    void *a = must_open("libunique1.so", RTLD_LAZY);
    void *b = must_open("libunique2.so", RTLD_LAZY);
    dlclose(a);
    SAY("%d\n", is_loaded("libunique1.so"));
    dlclose(b);
    SAY("%d %d\n", is_loaded("libunique1.so"), is_loaded("libunique2.so"));
}

CASE(a_unique_symbol_that_dlsym_handed_out) {
    void *a = must_open("libunique1.so", RTLD_LAZY);
    SAY("%d\n", dlsym(a, "only") != NULL);
    dlclose(a);
    SAY("%d\n", is_loaded("libunique1.so"));
}

CASE(a_cycle_goes_as_a_whole) {
    void *x = must_open("libtrace_x.so", RTLD_LAZY), *z = must_open("libtrace_z.so", RTLD_LAZY);
    SAY("%d\n", dlclose(x));
    SAY("%d %d\n", is_loaded("libtrace_x.so"), is_loaded("libtrace_z.so"));
    SAY("%d\n", dlclose(z));
    SAY("%d %d\n", is_loaded("libtrace_x.so"), is_loaded("libtrace_z.so"));
}

CASE(the_program_cannot_go) {
    void *program = dlopen(NULL, RTLD_LAZY);
    SAY("%d\n", dlclose(program));
    SAY("%d\n", dlsym(dlopen(NULL, RTLD_LAZY), "puts") != NULL);
}

CASE(libc_cannot_go) {
    void *libc = must_open("libc.so.6", RTLD_LAZY);
    SAY("%d\n", dlclose(libc));
    SAY("%d\n", is_loaded("libc.so.6"));
}

CASE(a_system_library_goes) {
    void *m = must_open("libm.so.6", RTLD_LAZY);
    SAY("%d %d\n", dlclose(m), is_loaded("libm.so.6"));
}

/* differs: libc's dlclose does not look at what it is given, and crashes
   ours: 1
   ours: shared object not open */
CASE(null_is_no_handle) {
    SAY("%d\n", dlclose(NULL) != 0);
    SAY("%s\n", last_error());
}

CASE(a_library_with_thread_local_storage_goes) {
    void *handle = must_open("libtls.so", RTLD_LAZY);
    SAY("%d\n", call(handle, "next_counter"));
    SAY("%d %d\n", dlclose(handle), is_loaded("libtls.so"));
    SAY("%d\n", call(must_open("libtls.so", RTLD_LAZY), "next_counter"));
}

CASE(a_library_with_initial_exec_storage_goes) {
    void *handle = must_open("libtlsinitial.so", RTLD_LAZY);
    int *(*early)(void) = must_find(handle, "address_of_early");
    *early() = 3;
    SAY("%d %d\n", dlclose(handle), is_loaded("libtlsinitial.so"));
    early = must_find(must_open("libtlsinitial.so", RTLD_LAZY), "address_of_early");
    SAY("%d\n", *early());
}

CASE(the_atexit_of_a_library_is_called_at_its_close) {
    void *handle = must_open("libtrace_atexit.so", RTLD_LAZY);
    SAY("closing\n");
    SAY("%d\n", dlclose(handle));
}

CASE(a_library_that_opened_another) {
    void *handle = must_open("libtrace_opens.so", RTLD_LAZY);
    SAY("%d\n", is_loaded("libtrace_alone.so"));
    SAY("%d\n", dlclose(handle));
    SAY("%d %d\n", is_loaded("libtrace_opens.so"), is_loaded("libtrace_alone.so"));
}

CASE(a_destructor_that_opens) {
    void *handle = must_open("libtrace_opensinfini.so", RTLD_LAZY);
    SAY("%d\n", dlclose(handle));
    SAY("%d %d\n", is_loaded("libtrace_opensinfini.so"), is_loaded("libtrace_alone.so"));
}

CASE(closing_before_the_opener) {
    void *outer = must_open("libneedsone.so", RTLD_LAZY | RTLD_GLOBAL);
    void *inner = must_open("libone.so", RTLD_LAZY);
    dlclose(outer);
    SAY("%d %d\n", is_loaded("libneedsone.so"), call(inner, "one"));
    SAY("%d\n", dlsym(RTLD_DEFAULT, "one") != NULL); /* the dependency was made global */
}
