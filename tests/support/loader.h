/* Libraries opened by glibc's loader or by libdlopen.so, which is itself dlopened: a test program
 * that uses these runs with either.  What fails ends it. */
#ifndef LOADER_H
#define LOADER_H

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "dlopen.h"

#ifdef __cplusplus
#define LOADER_TYPE decltype
#else
#define LOADER_TYPE __typeof__
#endif

static LOADER_TYPE(DLOPEN_open) *loader_open; /* NULL: glibc's */
static LOADER_TYPE(DLOPEN_close) *loader_close;
static LOADER_TYPE(DLOPEN_symbol_find) *loader_find;
static LOADER_TYPE(DLOPEN_address) *loader_address;
static LOADER_TYPE(DLOPEN_images) *loader_images;
static LOADER_TYPE(DLOPEN_message) *loader_message;

__attribute__((noreturn, unused)) static void failed(const char *what, const char *why) {
  dprintf(1, "failed: %s: %s\n", what, why);
  _exit(1);
}

static void *loader_function(void *linker, const char *name) {
  void *found = dlsym(linker, name);
  if (!found) failed(name, dlerror());
  return found;
}

/* "glibc", or the path of libdlopen.so. */
__attribute__((unused)) static void use_loader(const char *which) {
  if (strcmp(which, "glibc") == 0) return;
  void *linker = dlopen(which, RTLD_NOW | RTLD_LOCAL);
  if (!linker) failed(which, dlerror());
#define LOADER_FUNCTION(variable, name) \
  variable = (LOADER_TYPE(variable))loader_function(linker, name)
  LOADER_FUNCTION(loader_open, "DLOPEN_open");
  LOADER_FUNCTION(loader_close, "DLOPEN_close");
  LOADER_FUNCTION(loader_find, "DLOPEN_symbol_find");
  LOADER_FUNCTION(loader_address, "DLOPEN_address");
  LOADER_FUNCTION(loader_images, "DLOPEN_images");
  LOADER_FUNCTION(loader_message, "DLOPEN_message");
}

__attribute__((unused)) static void *library_open(const char *name) {
  if (!loader_open) {
    void *handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!handle) failed(name, dlerror());
    return handle;
  }
  static __thread struct DLOPEN_error error;
  struct DLOPEN_request request;
  DLOPEN_image *image = NULL;
  memset(&request, 0, sizeof request);
  request.size = sizeof request;
  request.name = name;
  request.mode = RTLD_NOW;
  if (loader_open(&request, &image, &error) != DLOPEN_OK) {
    char message[4096];
    loader_message(&error, message, sizeof message);
    failed(name, message);
  }
  return image;
}

__attribute__((unused)) static void library_close(void *handle) {
  if (loader_open ? loader_close((DLOPEN_image *)handle, NULL) : dlclose(handle))
    failed("close", "an error");
}

__attribute__((unused)) static void *library_find(void *handle, const char *name) {
  if (!loader_open) return loader_function(handle, name);
  struct DLOPEN_symbol symbol;
  if (loader_find((DLOPEN_image *)handle, name, NULL, 0, &symbol, NULL)) failed(name, "not found");
  return (void *)symbol.address;
}

/* The nearest symbol's name, NULL without one. */
__attribute__((unused)) static const char *name_at(const void *address) {
  if (!loader_open) {
    Dl_info info;
    return dladdr(address, &info) ? info.dli_sname : NULL;
  }
  struct DLOPEN_symbol symbol;
  DLOPEN_image *image = NULL;
  return loader_address(address, &image, &symbol) ? NULL : symbol.name;
}

#endif
