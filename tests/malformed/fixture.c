/* A library with one of everything that generate.py breaks: versioned exports and needs, an IFUNC
 * and its IRELATIVE, relative relocations in data, constructors, a PLT and a GOT, .bss. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern int optional(void) __attribute__((weak));

static int twice(int x) { return 2 * x; }
static int thrice(int x) { return 3 * x; }
static int (*resolve(void))(int) { return twice; }
int multiply(int x) __attribute__((ifunc("resolve")));
static int hidden_multiply(int x) __attribute__((ifunc("resolve")));

int (*table[])(int) = { twice, thrice, hidden_multiply };
const char *names[] = { "twice", "thrice", "multiply" };
int (*imported)(const char *, ...) = printf;
int counter = 1;
static char buffer[100000];

__attribute__((constructor)) static void begin(void) { counter++; }
__attribute__((destructor)) static void end(void) { counter--; }

int count(void) { return counter; }
int use(const char *text)
{
  strncpy(buffer, text, sizeof buffer - 1);
  if (optional) return optional();
  if (!*text) abort();
  return puts(buffer) + multiply(counter);
}

#ifdef ROOM
const char room[1 << 20] = "for tables that generate.py writes";
char writable_room[1 << 14] = "for those that are relocated";
#endif
