/* Exceptions that pass four frames, beside so many copies of a library, in nanoseconds; see side.h.
 *
 *   host FOLDER COUNT          thrown and caught in the program
 *   image FOLDER COUNT PATH    thrown and caught in the library PATH, by its throw_many
 */
#include "side.h"

enum { THROWS = 1000 };

static volatile int depth = 4;

__attribute__((noinline)) static void pass(int n)
{
  if (n == 0) throw n;
  pass(n - 1);
  depth = depth;
}

static void throw_in_host(int count)
{
  for (int i = 0; i < count; i++) {
    try {
      pass(depth);
    } catch (int) {
    }
  }
}

static void (*throw_many)(int) = throw_in_host;

static void round_throws(long)
{
  double took[BATCH];
  for (int i = 0; i < BATCH; i++) {
    uint64_t start = now();
    throw_many(THROWS / BATCH);
    took[i] = (double)(now() - start) / (THROWS / BATCH);
  }
  report("throw", median_of(took, BATCH));
}

int main(int count, char **arguments)
{
  struct work work = begin(count, arguments);
  if (work.count < 2) fail(work.task, "too few arguments");
  hold_copies(work.arguments[0], atol(work.arguments[1]), RTLD_NOW);
  if (!strcmp(work.task, "image")) {
    need(loader.symbol != NULL, "dlsym");
    TAKE(throw_many, loader.symbol(hold(work.arguments[2], RTLD_NOW), "throw_many"));
    if (!throw_many) fail(work.arguments[2], "has no throw_many");
  }
  serve(round_throws);
}
