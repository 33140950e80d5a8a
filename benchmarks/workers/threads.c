/* Many threads at once, by the wall clock; see side.h.
 *
 *   counting THREADS PATH...  opens and closes of what is held open
 *   own THREADS PATH...       each thread opens and closes its own
 *   same THREADS PATH         all of them open one library at the same moment
 *   shared THREADS PATH...    each opens and closes one of them, at random
 *   fork THREADS PATH...      fork(2) beside threads that open and close, each its own
 *
 * A library for "shared" counts the runs of its constructor in constructor_runs of this program.
 */
#include "side.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>

enum { MOST = 64, LOADS = 400, COUNTED = 20000, FORKS = 200 };

_Atomic long constructor_runs;

static struct work work;
static int threads;
static pthread_barrier_t barrier; /* twice: all are there, and they go */
static atomic_int stopped;
static void *same[MOST];

static void cycle(const char *path)
{
  if (loader.close(hold(path, RTLD_NOW))) fail(path, "cannot be closed");
}

static void wait_for_start(void)
{
  pthread_barrier_wait(&barrier);
  pthread_barrier_wait(&barrier);
}

static const char *path_of(long thread) { return work.arguments[1 + thread % (work.count - 1)]; }

static void *count_only(void *argument)
{
  wait_for_start();
  for (long i = 0; i < COUNTED / threads; i++) cycle(path_of((long)argument + i));
  return NULL;
}

static void *load_own(void *argument)
{
  wait_for_start();
  for (long i = 0; i < LOADS / threads; i++) cycle(path_of((long)argument));
  return NULL;
}

static void *load_same(void *argument)
{
  wait_for_start();
  same[(long)argument] = hold(work.arguments[1], RTLD_NOW);
  return NULL;
}

static void *load_shared(void *argument)
{
  unsigned state = (unsigned)(long)argument + 1;
  wait_for_start();
  for (long i = 0; i < 4 * LOADS / threads; i++) cycle(path_of(rand_r(&state) >> 8));
  return NULL;
}

static void *load_until_stopped(void *argument)
{
  wait_for_start();
  while (!atomic_load(&stopped)) cycle(path_of((long)argument));
  return NULL;
}

static pthread_t started[MOST];

/* When they begin: none of them has before. */
static uint64_t start(void *(*run)(void *))
{
  pthread_barrier_init(&barrier, NULL, (unsigned)threads + 1);
  for (long i = 0; i < threads; i++)
    if (pthread_create(&started[i], NULL, run, (void *)i)) fail("pthread_create", "fails");
  pthread_barrier_wait(&barrier);
  uint64_t before = now();
  pthread_barrier_wait(&barrier);
  return before;
}

static void finish(void)
{
  for (int i = 0; i < threads; i++) pthread_join(started[i], NULL);
  pthread_barrier_destroy(&barrier);
}

static double wall(void *(*run)(void *))
{
  uint64_t from = start(run);
  finish();
  return (double)(now() - from);
}

static void round_counting(long request)
{
  (void)request;
  report("operation", wall(count_only) / COUNTED);
}

static void round_own(long request)
{
  (void)request;
  report("load", wall(load_own) / LOADS);
}

static void round_same(long request)
{
  double took[BATCH];
  (void)request;
  for (int i = 0; i < BATCH; i++) {
    took[i] = wall(load_same);
    for (int thread = 0; thread < threads; thread++)
      if (loader.close(same[thread])) fail("close", "fails");
  }
  report("all-open", median_of(took, BATCH));
}

static void round_shared(long request)
{
  (void)request;
  constructor_runs = 0;
  double took = wall(load_shared);
  if (!constructor_runs) fail("shared", "no constructor has run");
  report("operation", took / (4 * LOADS));
  report("constructor-run", took / (double)constructor_runs);
}

static void round_fork(long request)
{
  double took[FORKS];
  (void)request;
  atomic_store(&stopped, 0);
  start(load_until_stopped);
  for (int i = 0; i < FORKS; i++) {
    uint64_t from = now();
    pid_t child = fork();
    if (child == 0) _exit(0);
    took[i] = (double)(now() - from);
    if (child < 0 || waitpid(child, NULL, 0) != child) fail("fork", "fails");
  }
  atomic_store(&stopped, 1);
  finish();
  report("median", share_of(took, FORKS, 0.5));
  report("99th-percentile", share_of(took, FORKS, 0.99));
}

int main(int count, char **arguments)
{
  work = begin(count, arguments);
  if (work.count < 2) fail(work.task, "too few arguments");
  threads = atoi(work.arguments[0]);
  if (threads < 1 || threads > MOST) fail(work.arguments[0], "not a number of threads");
  if (strcmp(work.task, "counting")) {
    cycle(work.arguments[1]);
    need_unloaded(work.arguments[1]);
  }
  if (!strcmp(work.task, "counting")) {
    for (int i = 1; i < work.count; i++) hold(work.arguments[i], RTLD_NOW);
    serve(round_counting);
  } else if (!strcmp(work.task, "own"))
    serve(round_own);
  else if (!strcmp(work.task, "same"))
    serve(round_same);
  else if (!strcmp(work.task, "shared"))
    serve(round_shared);
  else if (!strcmp(work.task, "fork"))
    serve(round_fork);
  fail(work.task, "no such task");
}
