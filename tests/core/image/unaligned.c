/* A library with each of the tables that a linker reads; test_unaligned.py moves them into `room`,
 * or, those that are relocated, into `writable_room`. */
#include <stdio.h>
#include <stdlib.h>

const char room[1 << 16] = "for tables";
char writable_room[1 << 16] = "for tables that are relocated";

static int two(void) { return 2; }
static int (*resolve(void))(void) { return two; }
int chosen(void) __attribute__((ifunc("resolve")));

int counter = 40;
int *pointer = &counter;
__thread int own = 300;
int (*functions[])(void) = {two, two, chosen};

int old_value(void) { return 1000; }
int new_value(void) { return 5000; }
__asm__(".symver old_value, value@V1");
__asm__(".symver new_value, value@@V2");

__attribute__((constructor)) static void begin(void) { counter += 2, dprintf(1, "begin\n"); }
__attribute__((destructor)) static void end(void) { dprintf(1, "end %d\n", abs(-counter)); }

int sum(void) {
  int total = *pointer + own + chosen();
  for (int i = 0; i < 3; i++) total += functions[i]();
  return abs(-total);
}
