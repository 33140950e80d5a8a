/* What programs about patches and swaps share.  What fails ends them. */
#ifndef EXCHANGES_H
#define EXCHANGES_H

#include "loader.h"

static LOADER_TYPE(DLOPEN_patch) *our_patch;
static LOADER_TYPE(DLOPEN_unpatch) *our_unpatch;
static LOADER_TYPE(DLOPEN_swap) *our_swap;
static LOADER_TYPE(DLOPEN_existing) *our_existing;
static LOADER_TYPE(DLOPEN_retain) *our_retain;
static LOADER_TYPE(DLOPEN_release) *our_release;
static struct DLOPEN_error error;
static struct DLOPEN_patched patched[4];
static uint64_t patch;

static void check(int holds, const char *what) {
  char message[4096] = "";
  if (holds) return;
  loader_message(&error, message, sizeof message);
  failed(what, message);
}

static int try_open(const char *name, unsigned mode, DLOPEN_image **image,
                    DLOPEN_find_symbol *find) {
  struct DLOPEN_request request;
  memset(&request, 0, sizeof request);
  request.size = sizeof request;
  request.name = name;
  request.mode = mode;
  request.find = find;
  return loader_open(&request, image, &error);
}

static DLOPEN_image *open_one(const char *name, unsigned mode) {
  DLOPEN_image *image;
  check(try_open(name, mode, &image, NULL) == 0, name);
  return image;
}

/* The file's bytes, under the name of the library whose place the image is to take. */
static DLOPEN_image *open_version(const char *file, const char *name, DLOPEN_image *replaces) {
  static char bytes[1 << 20];
  struct DLOPEN_request request;
  DLOPEN_image *image;
  FILE *stream = fopen(file, "rb");
  memset(&request, 0, sizeof request);
  request.size = sizeof request;
  request.bytes = bytes;
  request.bytes_size = fread(bytes, 1, sizeof bytes, stream);
  fclose(stream);
  request.name = name;
  request.mode = RTLD_LAZY;
  request.flags = DLOPEN_RELOADABLE;
  request.replaces = replaces;
  check(loader_open(&request, &image, &error) == 0, file);
  return image;
}

static int call(DLOPEN_image *image, const char *name) {
  return ((int (*)(void))library_find(image, name))();
}

static int is_loaded(const char *name) {
  static DLOPEN_image *images[256];
  struct DLOPEN_symbol symbol;
  int found = 0;
  size_t count = loader_images(images, 256);
  for (size_t i = 0; i < count; i++)
    found += loader_find(images[i], name, NULL, DLOPEN_OWN_ONLY | DLOPEN_NO_RESOLVE, &symbol,
                         NULL) == 0;
  return found;
}

/* The handle of libdlopen.so. */
static void *use_exchanges(const char *libdlopen) {
  use_loader(libdlopen);
  void *linker = dlopen(libdlopen, RTLD_NOW | RTLD_NOLOAD);
  LOADER_FUNCTION(our_patch, "DLOPEN_patch");
  LOADER_FUNCTION(our_unpatch, "DLOPEN_unpatch");
  LOADER_FUNCTION(our_swap, "DLOPEN_swap");
  LOADER_FUNCTION(our_existing, "DLOPEN_existing");
  LOADER_FUNCTION(our_retain, "DLOPEN_retain");
  LOADER_FUNCTION(our_release, "DLOPEN_release");
  return linker;
}

#endif
