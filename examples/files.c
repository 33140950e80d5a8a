/* files LIBRARY NEEDED…: opens a library from memory with what it needs, which need lie in no folder that
 * is searched, and calls its work().
 *
 *   cc files.c $(pkg-config --cflags --libs dlopen)
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <dlopen.h>

struct content {
  const char *path, *name;
  void *bytes;
  size_t size;
};

static int read_file(struct content *content) {
  FILE *file = fopen(content->path, "rb");
  if (!file) return 1;
  fseek(file, 0, SEEK_END);
  content->size = (size_t)ftell(file);
  rewind(file);
  content->bytes = malloc(content->size + 1);
  size_t got = content->bytes ? fread(content->bytes, 1, content->size, file) : 0;
  fclose(file);
  return got != content->size;
}

/* By name: a needed name is asked for as it is, among others. */
static int find_file(const char *path, const void **bytes, size_t *size, void *data) {
  printf("asked for %s\n", path);
  for (struct content *content = data; content->path; content++) {
    if (strcmp(content->name, path) != 0) continue;
    if (!content->bytes && read_file(content)) return 1;
    *bytes = content->bytes;
    *size = content->size;
  }
  return 0;
}

int main(int argc, char **argv) {
  static struct DLOPEN_error error;
  struct content *contents = calloc((size_t)argc + 1, sizeof *contents);
  if (argc < 2 || !contents) return 2;
  for (int i = 1; i < argc; i++) {
    const char *slash = strrchr(argv[i], '/');
    contents[i - 1].path = argv[i];
    contents[i - 1].name = slash ? slash + 1 : argv[i];
  }
  struct DLOPEN_request request = {
      .size = sizeof request,
      .name = contents[0].name,
      .mode = RTLD_NOW,
      .files = find_file,
      .files_data = contents,
  };
  DLOPEN_image *library = NULL;
  int code = DLOPEN_open(&request, &library, &error);
  for (int i = 0; i < argc; i++) free(contents[i].bytes); /* they are copied */
  free(contents);
  if (code != DLOPEN_OK) {
    char message[512];
    DLOPEN_message(&error, message, sizeof message);
    fprintf(stderr, "%s\n", message);
    return 1;
  }
  struct DLOPEN_symbol work;
  if (DLOPEN_symbol_find(library, "work", NULL, 0, &work, &error) != DLOPEN_OK) return 1;
  printf("work() = %d\n", ((int (*)(void))work.address)());
  return DLOPEN_close(library, &error);
}
