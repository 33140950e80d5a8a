/* swap LIBRARY NEW_VERSION: a library that another one needs is exchanged while both are loaded.
 *
 *   cc swap.c $(pkg-config --cflags --libs dlopen)
 *
 * LIBRARY is opened, then libuser.so beside it, which needs it; its work() is called before and after.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <dlopen.h>

static struct DLOPEN_error error;

static int complain(void) {
  char message[512];
  DLOPEN_message(&error, message, sizeof message);
  fprintf(stderr, "%s\n", message);
  return 1;
}

/* From memory, so that its file may be overwritten; under the first one's name. */
static DLOPEN_image *open_version(const char *file, const char *name, DLOPEN_image *replaces) {
  static char content[1 << 20];
  FILE *stream = fopen(file, "rb");
  if (!stream) return NULL;
  size_t size = fread(content, 1, sizeof content, stream);
  fclose(stream);
  struct DLOPEN_request request = {
      .size = sizeof request,
      .name = name,
      .bytes = content,
      .bytes_size = size,
      .mode = RTLD_NOW,
      .flags = DLOPEN_RELOADABLE,
      .replaces = replaces,
  };
  DLOPEN_image *image = NULL;
  return DLOPEN_open(&request, &image, &error) == DLOPEN_OK ? image : NULL;
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  DLOPEN_image *old = open_version(argv[1], argv[1], NULL);
  if (!old) return complain();
  struct DLOPEN_request request = {.size = sizeof request, .name = "./libuser.so", .mode = RTLD_LAZY};
  DLOPEN_image *user;
  struct DLOPEN_symbol work;
  if (DLOPEN_open(&request, &user, &error) != DLOPEN_OK) return complain();
  if (DLOPEN_symbol_find(user, "work", NULL, 0, &work, &error) != DLOPEN_OK) return complain();
  printf("before: %d\n", ((int (*)(void))work.address)());

  DLOPEN_image *successor = open_version(argv[2], argv[1], old);
  if (!successor) return complain();
  uint64_t places;
  if (DLOPEN_swap(old, successor, &places, &error) != DLOPEN_OK) return complain();
  printf("bound anew: %d\n", (int)places);
  printf("after: %d\n", ((int (*)(void))work.address)());
  /* No thread is inside of the old version: it need not be retained. */
  if (DLOPEN_close(old, &error) != DLOPEN_OK) return complain();
  DLOPEN_close(user, NULL);
  return DLOPEN_close(successor, &error);
}
