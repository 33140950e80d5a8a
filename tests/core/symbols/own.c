/* own LIBDLOPEN HOW MODE PATH SYMBOL...: opens PATH, calls each const char *SYMBOL(void) and says
 * what it returns.  HOW is
 *     libc       dlopen(3)
 *     plain      DLOPEN_open of the path
 *     private    the same with DLOPEN_PRIVATE
 *     bytes      from its bytes
 *     files      from files of the caller's: those of its folder, by their base names
 *     hand       DLOPEN_map and DLOPEN_relocate against the program and libc
 * MODE holds letters: n(ow) l(azy) g(lobal) d(eepbind); +PATH, before HOW, is opened RTLD_GLOBAL by
 * libc before that.  `environ` and `stdout` have a COPY in this program where it is not PIE.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dlopen.h"

void *program_environ(void) { return &environ; }
void *program_stdout(void) { return &stdout; }
void *program_find(const char *name) { return dlsym(RTLD_DEFAULT, name); }
int program_getppid(void) { return 7; }

#define FUNCTION(name) __typeof__(name) *our_##name = (__typeof__(name) *)dlsym(library, #name)

static struct DLOPEN_error error;
static void *content;
static size_t content_size;
static const char *folder;

static int read_all(const char *path) {
  FILE *file = fopen(path, "rb");
  if (!file) return 0;
  content = malloc(1 << 20);
  content_size = fread(content, 1, 1 << 20, file);
  fclose(file);
  return 1;
}

static const char *base_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

static int give(const char *path, const void **bytes, size_t *size, void *data) {
  char name[4096];
  (void)data;
  snprintf(name, sizeof name, "%.*s%s", (int)(base_name(folder) - folder), folder, base_name(path));
  if (read_all(name)) *bytes = content, *size = content_size;
  return 0;
}

static void fail(const char *what, void *library) {
  char message[4096];
  FUNCTION(DLOPEN_message);
  our_DLOPEN_message(&error, message, sizeof message);
  dprintf(1, "%s: %s\n", what, message);
  exit(3);
}

int main(int argc, char **argv) {
  void *library = dlopen(argv[1], RTLD_NOW), *handle = NULL;
  int first = 2, mode = 0;
  DLOPEN_image *image = NULL, *scope[2];
  struct DLOPEN_request request = {.size = sizeof request, .caller = main};
  if (!library) return dprintf(1, "%s\n", dlerror()), 2;
  for (; argv[first][0] == '+'; first++)
    if (!dlopen(argv[first] + 1, RTLD_NOW | RTLD_GLOBAL)) return dprintf(1, "%s\n", dlerror()), 2;
  const char *how = argv[first], *letters = argv[first + 1], *path = argv[first + 2];
  FUNCTION(DLOPEN_open);
  FUNCTION(DLOPEN_map);
  FUNCTION(DLOPEN_relocate);
  FUNCTION(DLOPEN_existing);
  FUNCTION(DLOPEN_symbol_find);
  mode |= strchr(letters, 'l') ? RTLD_LAZY : RTLD_NOW;
  if (strchr(letters, 'g')) mode |= RTLD_GLOBAL;
  if (strchr(letters, 'd')) mode |= RTLD_DEEPBIND;
  request.name = path;
  request.mode = (uint32_t)mode;
  folder = path;
  if (!read_all(path)) return 4;
  if (strcmp(how, "libc") == 0) {
    if (!(handle = dlopen(path, mode))) return dprintf(1, "%s\n", dlerror()), 2;
  } else if (strcmp(how, "hand") == 0) {
    if (our_DLOPEN_map(&request, &image, &error)) fail("map", library);
    request.name = NULL;
    request.mode = RTLD_NOW | RTLD_NOLOAD;
    if (our_DLOPEN_open(&request, &scope[0], &error)) fail("program", library);
    if (our_DLOPEN_existing("libc.so.6", &scope[1], &error)) fail("libc", library);
    request.mode = (uint32_t)mode;
    if (our_DLOPEN_relocate(image, &request, scope, 2, &error)) fail("relocate", library);
  } else {
    if (strcmp(how, "private") == 0) request.mode |= DLOPEN_PRIVATE;
    if (strcmp(how, "bytes") == 0) request.bytes = content, request.bytes_size = content_size;
    if (strcmp(how, "files") == 0) request.files = give, request.name = base_name(path);
    if (our_DLOPEN_open(&request, &image, &error)) fail("open", library);
  }
  for (char **symbol = argv + first + 3; *symbol; symbol++) {
    struct DLOPEN_symbol found;
    const char *(*function)(void) = NULL;
    if (handle)
      function = (const char *(*)(void))dlsym(handle, *symbol);
    else if (our_DLOPEN_symbol_find(image, *symbol, NULL, 0, &found, &error) == 0)
      function = (const char *(*)(void))found.address;
    if (!function) return dprintf(1, "no %s\n", *symbol), 5;
    dprintf(1, "%s: %s\n", *symbol, function());
  }
  return 0;
}
