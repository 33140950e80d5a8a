/* replace LIBRARY: opens a library with its malloc replaced, in it alone, and calls its work().
 *
 *   cc replace.c $(pkg-config --cflags --libs dlopen)
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include <dlopen.h>

static int counted;

static void *counting_malloc(size_t size) {
  counted++;
  return malloc(size);
}

int main(int argc, char **argv) {
  static struct DLOPEN_error error;
  struct DLOPEN_replacement replacements[] = {
      {.name = "malloc", .address = (const void *)counting_malloc},
  };
  struct DLOPEN_request request = {
      .size = sizeof request,
      .name = argc > 1 ? argv[1] : "./libexample.so",
      .mode = RTLD_LAZY,
      .replacements = replacements,
      .replacement_count = 1,
  };
  DLOPEN_image *library;
  if (DLOPEN_open(&request, &library, &error) != DLOPEN_OK) {
    char message[512];
    DLOPEN_message(&error, message, sizeof message);
    fprintf(stderr, "%s\n", message);
    return 1;
  }
  struct DLOPEN_symbol work;
  if (DLOPEN_symbol_find(library, "work", NULL, 0, &work, &error) != DLOPEN_OK) return 1;
  printf("work() = %d\n", ((int (*)(void))work.address)());
  printf("malloc was called %d times\n", counted);
  return DLOPEN_close(library, &error);
}
