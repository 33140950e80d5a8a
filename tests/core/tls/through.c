/* What a TLS descriptor preserves on machines other than x86-64: through.S. */
#include <stdint.h>
#include <string.h>

__thread char variable[70000] = {1};
void through(const uint64_t *in, uint64_t *out, uint64_t *distance);

/* 0: as it should be; else which of the registers is not, or -1. */
int check(void) {
  static __thread int round;
  uint64_t in[256], out[256], distance;
  int i;
  round++;
  for (i = 0; i < 256; i++) out[i] = in[i] = 0x0101010101010101 * (uint64_t)(i + round) + i;
  through(in, out, &distance);
  for (i = 0; i < 256; i++)
    if (out[i] != in[i]) return i + 1000;
  return ((char *)__builtin_thread_pointer() + distance)[0] == 1 ? 0 : -1;
}
