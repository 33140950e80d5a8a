/* dlsym(3), dlvsym(3). */
#include "family.h"

CASE(a_function) { SAY("%d\n", call(must_open("libone.so", RTLD_LAZY), "one")); }

CASE(a_variable) {
    int *number = must_find(must_open("libone.so", RTLD_LAZY), "number");
    SAY("%d\n", *number);
}

CASE(twice_the_same_address) {
    void *handle = must_open("libone.so", RTLD_LAZY);
    SAY("%d\n", dlsym(handle, "one") == dlsym(handle, "one"));
}

CASE(a_missing_symbol) { find_or_say(must_open("libone.so", RTLD_LAZY), "nothing"); }

CASE(a_missing_symbol_by_path) { find_or_say(must_open(path_of("libone.so"), RTLD_LAZY), "none"); }

CASE(a_missing_symbol_of_the_program) { find_or_say(dlopen(NULL, RTLD_LAZY), "nothing"); }

CASE(a_missing_symbol_of_libc) { find_or_say(must_open("libc.so.6", RTLD_LAZY), "nothing"); }

CASE(a_missing_symbol_of_default) { find_or_say(RTLD_DEFAULT, "nothing"); }

CASE(a_missing_symbol_of_next) { find_or_say(RTLD_NEXT, "nothing"); }

CASE(a_missing_version) {
    void *handle = must_open("libversions.so", RTLD_LAZY);
    if (!dlvsym(handle, "f", "V_9")) SAY("%s\n", last_error());
    if (!dlvsym(handle, "nothing", "V_1")) SAY("%s\n", last_error());
    if (!dlvsym(RTLD_DEFAULT, "puts", "V_1")) SAY("%s\n", last_error());
}

CASE(an_empty_name) { find_or_say(must_open("libone.so", RTLD_LAZY), ""); }

CASE(a_symbol_of_a_dependency) { SAY("%d\n", call(must_open("libneedsone.so", RTLD_LAZY), "one")); }

CASE(a_symbol_of_an_indirect_dependency) {
    SAY("%d\n", call(must_open("libneedsneedsone.so", RTLD_LAZY), "one"));
}

CASE(a_symbol_of_libc_through_a_library) {
    SAY("%d\n", dlsym(must_open("libone.so", RTLD_LAZY), "puts") == (void *)puts);
}

CASE(no_symbol_of_a_dependent) { find_or_say((must_open("libneedsone.so", RTLD_LAZY),
                                               must_open("libone.so", RTLD_LAZY)), "own"); }

CASE(a_handle_does_not_search_the_global_scope) {
    must_open("libtwo.so", RTLD_LAZY | RTLD_GLOBAL);
    find_or_say(must_open("libone.so", RTLD_LAZY), "two");
}

CASE(a_handle_is_not_interposed) {
    must_open("libtwo.so", RTLD_LAZY | RTLD_GLOBAL);
    SAY("%s\n", text(must_open("libone.so", RTLD_LAZY), "who"));
}

CASE(hidden_symbols) {
    void *handle = must_open("libprotected.so", RTLD_LAZY);
    find_or_say(handle, "unseen");
    SAY("%s\n", text(handle, "who"));
}

CASE(static_symbols) { find_or_say(must_open("libone.so", RTLD_LAZY), "hidden_function"); }

CASE(undefined_symbols) { find_or_say(must_open("liblackfunction.so", RTLD_LAZY), "absent"); }

CASE(weak_symbols) { SAY("%s\n", text(must_open("libweak.so", RTLD_LAZY), "who")); }

CASE(a_symbol_in_bss) {
    int *zeroes = must_find(must_open("libone.so", RTLD_LAZY), "in_bss");
    SAY("%d %d\n", zeroes[0], zeroes[99]);
}

CASE(absolute_symbols) {
    void *handle = must_open("libabsolute.so", RTLD_LAZY);
    SAY("%lx\n", (unsigned long)dlsym(handle, "fixed"));
    SAY("%lx %s\n", (unsigned long)dlsym(handle, "nothing"), last_error());
}

CASE(symbols_of_data) {
    void *handle = must_open("libdata.so", RTLD_LAZY);
    SAY("%d %d\n", *(int *)must_find(handle, "constant"), *(int *)must_find(handle, "initialised"));
    SAY("%d\n", *(void **)must_find(handle, "pointer_to_constant") == dlsym(handle, "constant"));
}

CASE(the_default_version) {
    void *handle = must_open("libversions.so", RTLD_LAZY);
    SAY("%d %d\n", call(handle, "f"), call(handle, "plain"));
}

CASE(each_version) {
    void *handle = must_open("libversions.so", RTLD_LAZY);
    int (*old)(void) = dlvsym(handle, "f", "V_1");
    int (*new)(void) = dlvsym(handle, "f", "V_2");
    SAY("%d %d\n", old ? old() : 0, new ? new() : 0);
}

CASE(a_symbol_that_has_an_old_version_only) {
    void *handle = must_open("libversions.so", RTLD_LAZY);
    int (*by_version)(void) = dlvsym(handle, "g", "V_1");
    SAY("%d\n", by_version ? by_version() : 0);
    find_or_say(handle, "g");
}

CASE(a_version_of_a_library_without_versions) {
    int (*one)(void) = dlvsym(must_open("libone.so", RTLD_LAZY), "one", "V_1");
    SAY("%d %s\n", one ? one() : 0, last_error());
}

CASE(a_version_of_libc) {
    SAY("%d\n", dlvsym(RTLD_DEFAULT, "puts", "GLIBC_2.2.5") == (void *)puts);
    void *libc = must_open("libc.so.6", RTLD_LAZY);
    SAY("%d\n", dlvsym(libc, "memcpy", "GLIBC_2.2.5") != dlvsym(libc, "memcpy", "GLIBC_2.14"));
    SAY("%d\n", dlvsym(libc, "puts", "GLIBC_2.99") == NULL);
    SAY("%s\n", last_error());
}

CASE(a_version_through_a_library) {
    void *handle = must_open("libcallsversion.so", RTLD_LAZY);
    int (*old)(void) = dlvsym(handle, "f", "V_1");
    SAY("%d %d\n", old ? old() : 0, call(handle, "through"));
}

CASE(an_ifunc_is_resolved) {
    void *handle = must_open("libifunc.so", RTLD_LAZY);
    SAY("%d\n", call(handle, "picked"));
    void *(*inside)(void) = must_find(handle, "address_of_picked");
    SAY("%d\n", inside() == dlsym(handle, "picked"));
}

CASE(an_ifunc_of_libc) {
    size_t (*length)(const char *) = must_find(must_open("libc.so.6", RTLD_LAZY), "strlen");
    SAY("%zu\n", length("four"));
}

CASE(a_thread_local_symbol) {
    void *handle = must_open("libtls.so", RTLD_LAZY);
    int *counter = must_find(handle, "counter");
    int *(*inside)(void) = must_find(handle, "address_of_counter");
    SAY("%d %d\n", *counter, counter == inside());
}

static void *find_counter(void *handle) {
    int *counter = must_find(handle, "counter");
    SAY("%d\n", (*counter)++);
    return counter;
}

CASE(a_thread_local_symbol_of_each_thread) {
    void *handle = must_open("libtls.so", RTLD_LAZY), *other;
    pthread_t thread;
    void *mine = find_counter(handle);
    pthread_create(&thread, NULL, find_counter, handle);
    pthread_join(thread, &other);
    SAY("%d %d\n", mine != other, *(int *)must_find(handle, "counter"));
}

CASE(an_initial_exec_symbol) {
    void *handle = must_open("libtlsinitial.so", RTLD_LAZY);
    int *early = must_find(handle, "early");
    int *(*inside)(void) = must_find(handle, "address_of_early");
    SAY("%d %d\n", *early, early == inside());
}

CASE(a_thread_local_symbol_of_libc) {
    SAY("%d\n", dlsym(RTLD_DEFAULT, "errno") == NULL);
    SAY("%d\n", dlsym(RTLD_DEFAULT, "__libc_single_threaded") != NULL);
}

CASE(default_finds_the_program_first) {
    SAY("%d\n", dlsym(RTLD_DEFAULT, "main") == NULL); /* it exports nothing */
    SAY("%d\n", dlsym(RTLD_DEFAULT, "puts") == (void *)puts);
}

CASE(default_from_a_library_searches_its_own_scope) {
    void *caller = must_open("libcaller.so", RTLD_LAZY);
    void *(*from)(void *, const char *) = must_find(caller, "caller_dlsym");
    SAY("%d %d\n", from(RTLD_DEFAULT, "caller_dlopen") != NULL,
        dlsym(RTLD_DEFAULT, "caller_dlopen") != NULL);
}

CASE(default_from_a_library_prefers_the_global_scope) {
    must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    void *caller = must_open("libcaller.so", RTLD_LAZY);
    void *(*from)(void *, const char *) = must_find(caller, "caller_dlsym");
    const char *(*who)(void) = from(RTLD_DEFAULT, "who");
    SAY("%s\n", who());
}

CASE(default_from_a_deepbound_library_prefers_its_own) {
    must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    void *caller = must_open("libcaller.so", RTLD_LAZY | RTLD_DEEPBIND);
    void *(*from)(void *, const char *) = must_find(caller, "caller_dlsym");
    const char *(*who)(void) = from(RTLD_DEFAULT, "who");
    SAY("%s\n", who());
}

CASE(next_from_the_program) {
    SAY("%d\n", dlsym(RTLD_NEXT, "puts") == (void *)puts);
    must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    SAY("%s\n", dlsym(RTLD_NEXT, "one") ? "found" : last_error());
}

CASE(next_from_a_library) {
    SAY("%s\n", text(must_open("libnextfirst.so", RTLD_LAZY), "chain"));
}

CASE(next_from_a_library_that_was_a_dependency_first) {
    must_open("libnextfirst.so", RTLD_LAZY);
    SAY("%s\n", text(must_open("libnextmiddle.so", RTLD_LAZY), "chain"));
}

CASE(next_from_a_library_that_was_opened_first) {
    must_open("libnextmiddle.so", RTLD_LAZY);
    SAY("%s\n", text(must_open("libnextfirst.so", RTLD_LAZY), "chain"));
}

CASE(next_is_not_the_global_scope) {
    must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    SAY("%s\n", text(must_open("libcaller.so", RTLD_LAZY), "next_who"));
}

CASE(next_of_a_global_library) {
    void *caller = must_open("libcaller.so", RTLD_LAZY | RTLD_GLOBAL);
    must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    SAY("%s\n", text(caller, "next_who"));
}

CASE(next_finds_libc) {
    void *handle = must_open("libwrapsgetpid.so", RTLD_LAZY);
    SAY("%d\n", call(handle, "getpid") == -getpid());
}

/* env: LD_PRELOAD=libwrapsgetpid.so LD_LIBRARY_PATH={folder} */
CASE(next_from_a_preloaded_library) {
    pid_t pid = getpid();
    SAY("%d\n", pid < 0);
    SAY("%d\n", dlsym(RTLD_DEFAULT, "getpid") == (void *)getpid);
    pid_t (*real)(void) = dlsym(must_open("libc.so.6", RTLD_LAZY), "getpid");
    SAY("%d\n", real() == -pid);
}

/* env: LD_PRELOAD=libwrapsgetpid.so LD_LIBRARY_PATH={folder} */
CASE(a_preloaded_library_interposes_an_opened_one) {
    void *handle = must_open("libcallslibc.so", RTLD_NOW);
    SAY("%d %d\n", dlsym(handle, "getpid") != (void *)getpid, call(handle, "own_pid") < 0);
}

CASE(the_programs_handle_searches_the_global_scope) {
    void *program = dlopen(NULL, RTLD_LAZY);
    SAY("%d\n", dlsym(program, "one") != NULL);
    must_open("libone.so", RTLD_LAZY | RTLD_GLOBAL);
    SAY("%d\n", dlsym(program, "one") != NULL);
}

CASE(a_unique_symbol) {
    void *a = must_open("libunique1.so", RTLD_LAZY);
    void *b = must_open("libunique2.so", RTLD_LAZY);
    SAY("%d\n", dlsym(a, "only") == dlsym(b, "only"));
    SAY("%d\n", *(int *)must_find(b, "only"));
    SAY("%d\n", dlsym(RTLD_DEFAULT, "only") != NULL);
}

CASE(names_of_the_family) {
    const char *names[] = {"dlopen", "dlmopen", "dlsym", "dlvsym", "dlclose", "dlerror", "dladdr",
                           "dladdr1", "dlinfo", "dl_iterate_phdr"};
    void *functions[] = {dlopen, dlmopen, dlsym, dlvsym, dlclose, dlerror, dladdr, dladdr1, dlinfo,
                         dl_iterate_phdr};
    void *libc = must_open("libc.so.6", RTLD_LAZY);
    unsigned i;
    for (i = 0; i < sizeof names / sizeof *names; i++)
        SAY("%s %d %d\n", names[i], dlsym(RTLD_DEFAULT, names[i]) == functions[i],
            dlsym(libc, names[i]) == functions[i]);
}

CASE(versions_of_the_family) {
    SAY("%d\n", dlvsym(RTLD_DEFAULT, "dlopen", "GLIBC_2.34") == (void *)dlopen);
    SAY("%d\n", dlvsym(RTLD_DEFAULT, "dlsym", "GLIBC_2.2.5") != NULL);
    SAY("%d\n", dlvsym(RTLD_DEFAULT, "dlsym", "GLIBC_9") != NULL);
}

CASE(a_function_of_the_family_by_dlsym_works) {
    void *(*open_it)(const char *, int) = must_find(RTLD_DEFAULT, "dlopen");
    void *(*find)(void *, const char *) = must_find(must_open("libc.so.6", RTLD_LAZY), "dlsym");
    void *handle = open_it("libone.so", RTLD_LAZY);
    int (*one)(void) = find(handle, "one");
    SAY("%d %d\n", one(), handle == dlopen("libone.so", RTLD_LAZY | RTLD_NOLOAD));
}

CASE(the_vdso_is_in_no_scope) {
    SAY("%d\n", dlsym(RTLD_DEFAULT, "__vdso_gettimeofday") != NULL);
}

/* differs: this is what the preload is for
   ours: libdlopen.so libdlopen.so libdlopen.so */
CASE(whose_the_family_is) {
    Dl_info open_, find, iterate;
    dladdr((void *)dlopen, &open_), dladdr((void *)dlsym, &find);
    dladdr((void *)dl_iterate_phdr, &iterate);
    SAY("%s %s %s\n", base_name(open_.dli_fname), base_name(find.dli_fname),
        base_name(iterate.dli_fname));
}

CASE(next_with_a_version) {
    SAY("%d\n", dlvsym(RTLD_NEXT, "puts", "GLIBC_2.2.5") == (void *)puts);
    if (!dlvsym(RTLD_NEXT, "puts", "GLIBC_2.99")) SAY("%s\n", last_error());
}

CASE(default_with_a_version_from_a_library) {
    must_open("libversions.so", RTLD_LAZY | RTLD_GLOBAL);
    void *(*from)(void *, const char *, const char *) =
        must_find(must_open("libcaller.so", RTLD_LAZY), "caller_dlvsym");
    int (*old)(void) = from(RTLD_DEFAULT, "f", "V_1");
    SAY("%d\n", old ? old() : 0);
    if (!from(RTLD_DEFAULT, "f", "V_7")) SAY("%s\n", last_error());
}

CASE(the_programs_handle_with_a_version) {
    SAY("%d\n", dlvsym(dlopen(NULL, RTLD_LAZY), "puts", "GLIBC_2.2.5") == (void *)puts);
    if (!dlvsym(dlopen(NULL, RTLD_LAZY), "puts", "V_1")) SAY("%s\n", last_error());
}

CASE(a_version_of_a_global_library) {
    must_open("libversions.so", RTLD_LAZY | RTLD_GLOBAL);
    SAY("%d\n", call(RTLD_DEFAULT, "f"));
    int (*old)(void) = dlvsym(dlopen(NULL, RTLD_LAZY), "f", "V_1");
    SAY("%d\n", old ? old() : 0);
}

CASE(versions_as_symbols) {
    find_or_say(must_open("libversions.so", RTLD_LAZY), "V_1");
    find_or_say(must_open("libversions.so", RTLD_LAZY), "f@V_1");
}

/* differs: libc's dlsym does not look at what it is given, and crashes
   ours: shared object not open
   ours: shared object not open */
CASE(a_handle_that_is_none) {
    static char nothing[4096];
    if (!dlsym(nothing, "puts")) SAY("%s\n", last_error());
    if (!dlvsym((void *)1, "puts", "GLIBC_2.2.5")) SAY("%s\n", last_error());
}

CASE(an_auxiliary_filter) {
    void *handle = must_open("libauxiliary.so", RTLD_NOW);
    SAY("%s %d\n", text(handle, "who"), call(handle, "only_here"));
    SAY("%d\n", is_loaded("libone.so"));
}

CASE(an_auxiliary_filter_without_filtee) {
    void *handle = must_open("libauxiliarynone.so", RTLD_NOW);
    SAY("%s %d\n", text(handle, "who"), call(handle, "only_here"));
}

CASE(a_filter) {
    void *handle = must_open("libfilter.so", RTLD_NOW);
    SAY("%s\n", text(handle, "who"));
    SAY("%d\n", is_loaded("libone.so"));
}

CASE(a_filter_without_filtee) { open_or_say("libfilternone.so", RTLD_NOW); }
