/* The host's own exceptions, beside images of libdlopen.so and without them, in two processes by
 * turns.
 *
 *   throws LIBDLOPEN ROUNDS PATH...
 *
 * Output: "throw WITHOUT WITH" a round, nanoseconds for one that passes four frames.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "dlopen.h"

enum { THROWS = 2000 };

static volatile int depth = 4;

__attribute__((noinline)) static void pass(int n)
{
  if (n == 0) throw n;
  pass(n - 1);
  depth = depth;
}

static double measure(void)
{
  struct timespec start, end;
  clock_gettime(CLOCK_MONOTONIC, &start);
  for (int i = 0; i < THROWS; i++) {
    try {
      pass(depth);
    } catch (int) {
    }
  }
  clock_gettime(CLOCK_MONOTONIC, &end);
  return ((double)(end.tv_sec - start.tv_sec) * 1e9 + (double)(end.tv_nsec - start.tv_nsec)) /
         THROWS;
}

static void fail(const char *what, const char *reason)
{
  fprintf(stderr, "%s: %s\n", what, reason);
  exit(1);
}

/* The process without libdlopen.so: one measure for each byte. */
static void serve(int requests, int answers)
{
  char request;
  while (read(requests, &request, 1) == 1) {
    double took = measure();
    if (write(answers, &took, sizeof took) != sizeof took) break;
  }
  _exit(0);
}

static double ask(int requests, int answers)
{
  double took;
  if (write(requests, "", 1) != 1 || read(answers, &took, sizeof took) != sizeof took)
    fail("the other process", "has ended");
  return took;
}

int main(int count, char **arguments)
{
  int requests[2], answers[2];
  if (count < 4) return 2;
  if (pipe(requests) || pipe(answers)) return 1;
  pid_t other = fork();
  if (other == 0) {
    close(requests[1]);
    serve(requests[0], answers[1]);
  }
  void *linker = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
  if (!linker) fail(arguments[1], dlerror());
  auto open = (decltype(&DLOPEN_open))dlsym(linker, "DLOPEN_open");
  auto message = (decltype(&DLOPEN_message))dlsym(linker, "DLOPEN_message");
  static struct DLOPEN_error error;
  for (int i = 3; i < count; i++) {
    struct DLOPEN_request request;
    DLOPEN_image *image;
    memset(&request, 0, sizeof request);
    request.size = sizeof request;
    request.name = arguments[i];
    request.mode = RTLD_NOW;
    if (open(&request, &image, &error) != DLOPEN_OK) {
      char text[1024];
      message(&error, text, sizeof text);
      fail(arguments[i], text);
    }
  }
  long rounds = atol(arguments[2]);
  for (long round = -2; round < rounds; round++) {
    double took[2];
    for (int turn = 0; turn < 2; turn++) {
      int side = turn ^ (int)(round & 1);
      took[side] = side ? measure() : ask(requests[1], answers[0]);
    }
    if (round >= 0) printf("throw %.1f %.1f\n", took[0], took[1]);
  }
  close(requests[1]);
  waitpid(other, NULL, 0);
}
