/* Structs of clients that are older and newer than the library. */
#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "dlopen.h"

static struct DLOPEN_error error;
static int failures;

static void expect(const char *what, int found, int wanted) {
  if (found == wanted) return;
  printf("%s: %d, not %d: %s\n", what, found, wanted, error.detail);
  failures++;
}

/* What the first release had: up to `flags`, and up to `nodelete`. */
#define FIRST_REQUEST offsetof(struct DLOPEN_request, namespace_id)
#define FIRST_INFO offsetof(struct DLOPEN_info, namespace_id)

struct newer_request { struct DLOPEN_request known; char further[72]; };
struct newer_info { struct DLOPEN_info known; char further[72]; };

static const char *library;

static int open_sized(struct newer_request *request, size_t size) {
  DLOPEN_image *image = NULL;
  request->known.size = size;
  int code = DLOPEN_open(&request->known, &image, &error);
  if (code == 0) code = DLOPEN_close(image, &error);
  return code;
}

static int no_symbol(const char *name, const char *version, const void **address, void *data) {
  return 1;
}

static void requests(void) {
  struct newer_request request;
  memset(&request, 0, sizeof request);
  request.known.name = library;
  request.known.mode = RTLD_NOW;
  expect("the same", open_sized(&request, sizeof request.known), 0);
  expect("a newer client's", open_sized(&request, sizeof request), 0);
  request.further[71] = 1;
  expect("its last byte is set", open_sized(&request, sizeof request), DLOPEN_E_INVALID);
  expect("the last byte is beyond", open_sized(&request, sizeof request - 1), 0);
  request.further[0] = 1;
  expect("the first is set", open_sized(&request, sizeof request.known + 1), DLOPEN_E_INVALID);
  expect("not looked at", open_sized(&request, sizeof request.known), 0);

  /* What lies beyond an older client's struct is not read. */
  request.known.find = no_symbol;
  expect("a find", open_sized(&request, sizeof request.known), DLOPEN_E_STOPPED);
  expect("a find, beyond", open_sized(&request, offsetof(struct DLOPEN_request, find)), 0);
  memset((char *)&request + FIRST_REQUEST, 0xff, sizeof request - FIRST_REQUEST);
  expect("the first release's", open_sized(&request, FIRST_REQUEST), 0);
  expect("less than that", open_sized(&request, FIRST_REQUEST - 1), DLOPEN_E_INVALID);
  expect("forgotten", open_sized(&request, 0), DLOPEN_E_INVALID);
  expect("no size", open_sized(&request, (size_t)-1), DLOPEN_E_INVALID);

  DLOPEN_image *image = NULL;
  request.known.size = FIRST_REQUEST;
  expect("map", DLOPEN_map(&request.known, &image, &error), 0);
  expect("relocate", DLOPEN_relocate(image, &request.known, NULL, 0, &error), DLOPEN_E_SYMBOL);
}

static void infos(void) {
  struct newer_info info, whole;
  DLOPEN_image *image = NULL;
  struct DLOPEN_request request = {.size = sizeof request, .name = library, .mode = RTLD_NOW};
  expect("open", DLOPEN_open(&request, &image, &error), 0);
  memset(&whole, 0, sizeof whole);
  whole.known.size = sizeof whole.known;
  expect("the same", DLOPEN_info(image, &whole.known), 0);
  for (size_t size = FIRST_INFO - 1; size <= sizeof info; size++) {
    memset(&info, 0, sizeof info);
    if (size < sizeof info.known) memset((char *)&info + size, 0x55, sizeof info - size);
    info.known.size = size;
    expect("info", DLOPEN_info(image, &info.known), size < FIRST_INFO ? DLOPEN_E_INVALID : 0);
    if (size < FIRST_INFO) continue;
    size_t known = size < sizeof info.known ? size : sizeof info.known;
    expect("size stays", info.known.size == size, 1);
    expect("the same values", memcmp(&info.known.path, &whole.known.path, known - 8), 0);
    for (size_t i = known; i < sizeof info; i++)
      expect("beyond", ((char *)&info)[i], size < sizeof info.known ? 0x55 : 0);
  }
  memset(&info, 0, sizeof info);
  info.known.size = sizeof info;
  info.further[3] = 1;
  expect("info, a newer field", DLOPEN_info(image, &info.known), DLOPEN_E_INVALID);
  expect("nothing was written", info.known.path == NULL, 1);
  expect("close", DLOPEN_close(image, &error), 0);
}

int main(int argc, char **argv) {
  library = argv[1];
  requests();
  infos();
  if (failures == 0) puts("as they should be");
  return failures != 0;
}
