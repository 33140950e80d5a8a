# Programs with AddressSanitizer and ThreadSanitizer, whose runtimes stand before libc.
# packages: gcc libc6-dev
# quick
cat >program.c <<'END'
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
int main(int argc, char **argv) {
  void *z = dlopen("libz.so.1", RTLD_NOW);
  unsigned long (*crc32)(unsigned long, const char *, unsigned) = dlsym(z, "crc32");
  printf("%lu\n", crc32(0, "hello", 5));
  printf("%d\n", dlclose(z));
  fflush(stdout);
  char *array = calloc(3, 1);
  return array[atoi(argv[1])] == 1;
}
END
env -u LD_PRELOAD cc -g -fsanitize=thread -o thread program.c && env -u LD_PRELOAD cc -g -fsanitize=address -o address program.c; echo "$?"
./thread 0; echo "$?"
# Its runtime insists on being the first.
export ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD="$(env -u LD_PRELOAD cc -print-file-name=libasan.so)${LD_PRELOAD:+:$LD_PRELOAD}"
./address 0; echo "$?"
./address 3 2>errors; echo "$?"; LD_PRELOAD= grep -c heap-buffer-overflow errors
