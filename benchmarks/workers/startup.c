/* startup PROGRAM [NAME=VALUE]...: from the start of a program to its end, with these variables
 * only.  A round is the median of STARTS; see side.h for the protocol.
 */
#define _GNU_SOURCE
#include <spawn.h>
#include <sys/wait.h>

#include "side.h"

enum { STARTS = 25 };

static char **program;

static void round_startup(long request)
{
  double took[STARTS];
  char *arguments[] = { program[0], NULL };
  (void)request;
  for (int i = -1; i < STARTS; i++) {
    uint64_t start = now();
    pid_t child;
    int status;
    if (posix_spawn(&child, program[0], NULL, NULL, arguments, program + 1) ||
        waitpid(child, &status, 0) != child || status)
      fail(program[0], "does not start, or does not end well");
    if (i >= 0) took[i] = (double)(now() - start);
  }
  report("start", median_of(took, STARTS));
}

int main(int count, char **arguments)
{
  if (count < 2) return 2;
  program = arguments + 1;
  serve(round_startup);
}
