/* two_steps LIBRARY: maps a library from memory, looks at it, then links it by hand: against libc and
 * nothing else, with a say in each symbol.
 *
 *   cc two_steps.c $(pkg-config --cflags --libs dlopen)
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <dlopen.h>

static struct DLOPEN_error error;

static int failed(const char *step) {
  char message[512];
  DLOPEN_message(&error, message, sizeof message);
  fprintf(stderr, "%s: %s\n", step, message);
  return 1;
}

static int quiet_puts(const char *text) { return (int)strlen(text); }

static int choose(const char *name, const char *version, const void **address, void *data) {
  int *asked = data;
  ++*asked;
  if (strcmp(name, "puts") == 0) *address = (const void *)quiet_puts;
  if (strcmp(name, "system") == 0) return 1; /* not with us */
  (void)version;
  return 0;
}

int main(int argc, char **argv) {
  FILE *file = fopen(argc > 1 ? argv[1] : "./libexample.so", "rb");
  if (!file) return perror("open"), 1;
  char *bytes = malloc(1 << 20);
  size_t size = fread(bytes, 1, 1 << 20, file);
  fclose(file);

  int asked = 0;
  struct DLOPEN_request request = {
      .size = sizeof request, .name = "from memory", .bytes = bytes, .bytes_size = size,
      .mode = RTLD_NOW, .find = choose, .find_data = &asked};
  DLOPEN_image *image, *libc;
  if (DLOPEN_map(&request, &image, &error)) return failed("map");
  free(bytes); /* the image has its own copy */
  for (unsigned i = 0; DLOPEN_needed_at(image, i); i++)
    printf("it needs %s\n", DLOPEN_needed_at(image, i));

  if (DLOPEN_existing("libc.so.6", &libc, &error)) return failed("libc");
  if (DLOPEN_relocate(image, &request, &libc, 1, &error)) return failed("relocate");
  struct DLOPEN_symbol work;
  if (DLOPEN_symbol_find(image, "work", NULL, 0, &work, &error)) return failed("work");
  printf("work() = %d\n", ((int (*)(void))work.address)());
  printf("we were asked: %s\n", asked ? "yes" : "no");
  DLOPEN_close(image, &error);
  DLOPEN_close(libc, &error);
  return 0;
}
