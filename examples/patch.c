/* patch LIBRARY: counts what its work() allocates, for a while, in the library that is loaded
 * already; then puts everything back.
 *
 *   cc patch.c $(pkg-config --cflags --libs dlopen)
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

static int complain(const struct DLOPEN_error *error) {
  char message[512];
  DLOPEN_message(error, message, sizeof message);
  fprintf(stderr, "%s\n", message);
  return 1;
}

int main(int argc, char **argv) {
  static struct DLOPEN_error error;
  struct DLOPEN_request request = {
      .size = sizeof request,
      .name = argc > 1 ? argv[1] : "./libexample.so",
      .mode = RTLD_LAZY,
  };
  DLOPEN_image *library;
  struct DLOPEN_symbol work;
  if (DLOPEN_open(&request, &library, &error) != DLOPEN_OK) return complain(&error);
  if (DLOPEN_symbol_find(library, "work", NULL, 0, &work, &error) != DLOPEN_OK) return complain(&error);

  struct DLOPEN_replacement replacements[] = {
      {.name = "malloc", .address = (const void *)counting_malloc},
  };
  struct DLOPEN_patched patched[1];
  uint64_t patch;
  if (DLOPEN_patch(library, replacements, 1, patched, &patch, &error) != DLOPEN_OK) return complain(&error);
  ((int (*)(void))work.address)();
  printf("malloc: %d place, called %d times\n", (int)patched[0].places, counted);
  if (DLOPEN_unpatch(patch, &error) != DLOPEN_OK) return complain(&error);
  ((int (*)(void))work.address)();
  printf("afterwards: called %d times\n", counted);
  return DLOPEN_close(library, &error);
}
