/* A program at a fixed address that takes variables and addresses of a library of its start. */
#include "family.h"

extern int number;             /* copied here from libtwo.so */
const char *who(void);         /* its address may be that of this program's PLT */

CASE(a_copied_variable_is_the_programs) {
    void *two = must_open("libtwo.so", RTLD_LAZY);
    number = 5;
    SAY("%d\n", dlsym(RTLD_DEFAULT, "number") == (void *)&number);
    SAY("%d\n", dlsym(two, "number") == (void *)&number);
    SAY("%d\n", *(int *)must_find(RTLD_NEXT, "number"));
}

CASE(an_opened_library_sees_the_copy) {
    void *handle = must_open("libasksdata.so", RTLD_NOW);
    int *(*address)(void) = must_find(handle, "address_of_number");
    SAY("%d\n", address() == &number);
}

CASE(an_opened_library_sees_the_address_of_a_function) {
    void *handle = must_open("libasksdata.so", RTLD_NOW);
    void *(*address)(void) = must_find(handle, "address_of_who");
    SAY("%d\n", address() == (void *)who);
    SAY("%d\n", dlsym(RTLD_DEFAULT, "who") == (void *)who);
    SAY("%s\n", ((const char *(*)(void))address())());
}

CASE(a_call_is_not_the_programs_stub) {
    SAY("%s\n", text(must_open("libasks.so", RTLD_LAZY), "ask_who"));
    SAY("%s\n", text(must_open("libself.so", RTLD_NOW), "ask_who"));
}

CASE(a_namespace_does_not_see_the_copy) {
    void *two = dlmopen(LM_ID_NEWLM, "libtwo.so", RTLD_NOW);
    SAY("%d\n", dlsym(two, "number") != (void *)&number);
}
