/* startup ROUNDS FOLDER EMPTY OURS PROGRAM: what LD_PRELOAD of a library adds to the start and end
 * of a program, beside a library of the same size that does nothing.
 *
 * EMPTY and OURS are names in FOLDER, found through LD_LIBRARY_PATH, which may hold a space.  A
 * round is the median of STARTS starts without, with EMPTY and with OURS preloaded, in turning
 * order.  Output: "added EMPTY OURS" a round, in nanoseconds.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

enum { PLAIN, EMPTY, OURS, SIDES, STARTS = 51 };

static char folder[4096], preload[SIDES][4096];

static int64_t start(char *program, int side) {
  char *arguments[] = {program, NULL};
  char *environment[] = {folder, side == PLAIN ? NULL : preload[side], NULL};
  struct timespec before, after;
  pid_t child;
  int status;
  clock_gettime(CLOCK_MONOTONIC, &before);
  if (posix_spawn(&child, program, NULL, NULL, arguments, environment) ||
      waitpid(child, &status, 0) != child || status) {
    fprintf(stderr, "%s failed with %s\n", program, side == PLAIN ? "no preload" : preload[side]);
    exit(1);
  }
  clock_gettime(CLOCK_MONOTONIC, &after);
  return (after.tv_sec - before.tv_sec) * INT64_C(1000000000) + after.tv_nsec - before.tv_nsec;
}

static int compare(const void *one, const void *other) {
  int64_t a = *(const int64_t *)one, b = *(const int64_t *)other;
  return (a > b) - (a < b);
}

static int64_t median(int64_t *values) {
  qsort(values, STARTS, sizeof *values, compare);
  return values[STARTS / 2];
}

int main(int argc, char **argv) {
  if (argc != 6) return 2;
  snprintf(folder, sizeof folder, "LD_LIBRARY_PATH=%s", argv[2]);
  snprintf(preload[EMPTY], sizeof *preload, "LD_PRELOAD=%s", argv[3]);
  snprintf(preload[OURS], sizeof *preload, "LD_PRELOAD=%s", argv[4]);
  long rounds = strtol(argv[1], NULL, 10);
  for (long round = 0; round < rounds; round++) {
    int64_t empty[STARTS], ours[STARTS];
    for (int i = 0; i < STARTS; i++) {
      int64_t took[SIDES];
      for (int turn = 0; turn < SIDES; turn++)
        took[(turn + i) % SIDES] = start(argv[5], (turn + i) % SIDES);
      empty[i] = took[EMPTY] - took[PLAIN];
      ours[i] = took[OURS] - took[PLAIN];
    }
    printf("added %" PRId64 " %" PRId64 "\n", median(empty), median(ours));
  }
  return 0;
}
