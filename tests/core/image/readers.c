/* A reader section that begins in a process of one thread and ends in one of two, and sections of
 * both: what is closed meanwhile stays mapped, and goes with the last of them. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

#include "loader.h"

static LOADER_TYPE(DLOPEN_read_enter) *read_enter;
static LOADER_TYPE(DLOPEN_read_leave) *read_leave;
static const char *path;
static void *image;
static pthread_barrier_t barrier;

static int is_mapped(void) {
  char line[4096];
  int found = 0;
  FILE *maps = fopen("/proc/self/maps", "r");
  if (!maps) failed("maps", "not there");
  while (fgets(line, sizeof line, maps)) found |= strstr(line, path) != NULL;
  fclose(maps);
  return found;
}

static void *close_it(void *unused) {
  library_close(image);
  return unused;
}

static void *read_beside(void *unused) {
  uint32_t token = read_enter();
  pthread_barrier_wait(&barrier); /* inside */
  pthread_barrier_wait(&barrier); /* it was closed */
  read_leave(token);
  pthread_barrier_wait(&barrier); /* outside */
  pthread_barrier_wait(&barrier);
  return unused;
}

int main(int count, char **arguments) {
  pthread_t thread;
  uint32_t token;
  if (count < 3) return 2;
  path = arguments[2];
  use_loader(arguments[1]);
  void *linker = dlopen(arguments[1], RTLD_NOW);
  read_enter = (LOADER_TYPE(read_enter))loader_function(linker, "DLOPEN_read_enter");
  read_leave = (LOADER_TYPE(read_leave))loader_function(linker, "DLOPEN_read_leave");

  image = library_open(path);
  token = read_enter();
  pthread_create(&thread, NULL, close_it, NULL);
  pthread_join(thread, NULL);
  printf("%d ", is_mapped());
  read_leave(token);
  printf("%d\n", is_mapped());

  pthread_barrier_init(&barrier, NULL, 2);
  image = library_open(path);
  token = read_enter();
  pthread_create(&thread, NULL, read_beside, NULL);
  pthread_barrier_wait(&barrier);
  library_close(image);
  printf("%d ", is_mapped());
  read_leave(token);
  printf("%d ", is_mapped());
  pthread_barrier_wait(&barrier);
  pthread_barrier_wait(&barrier);
  printf("%d\n", is_mapped());
  pthread_barrier_wait(&barrier);
  pthread_join(thread, NULL);

  image = library_open(path);
  library_close(image);
  printf("%d\n", is_mapped());
  return 0;
}
