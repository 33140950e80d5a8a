/* A program whose library calls the family in its constructor, before main, and at the end. */
#include "family.h"

CASE(before_main_and_after) { SAY("main\n"); }

CASE(main_uses_the_same) {
    SAY("%d\n", is_loaded("libone.so"));
    SAY("%d\n", call(must_open("libone.so", RTLD_LAZY), "one"));
}

CASE(a_library_that_was_opened_before_main_can_be_closed) {
    dlclose(must_open("libone.so", RTLD_LAZY));
    SAY("%d\n", is_loaded("libone.so"));
}
