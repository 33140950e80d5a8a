/* Arguments in registers through a call that is bound lazily, or may not be: arguments.S. */
#include <stdint.h>
#include <string.h>
#include <sys/auxv.h>

void give(const uint64_t *in);
extern uint64_t received[2048];

/* Of the words that were received: 0, or 1000 and the number of the first that is another. */
int check(void) {
  static int round;
  static uint64_t in[2048];
  int i;
  round++;
  for (i = 0; i < 2048; i++) in[i] = 0x0101010101010101 * (uint64_t)(i + round) + i;
  memset(received, 0, sizeof received);
  give(in);
  for (i = 0; i < 2048; i++)
    if (received[i] && received[i] != in[i]) return i + 1000;
  return 0;
}

int words(void) {
  int i, count = 0;
  for (i = 0; i < 2048; i++) count += received[i] != 0;
  return count;
}

int hwcap(void) { return (int)getauxval(AT_HWCAP); }
