# Its Python, and a program whose plugin is open.
# packages: gdb gcc libc6-dev
# quick
# mask: process.[0-9]+ the number of the process
cat >program.c <<'END'
#include <dlfcn.h>
#include <stdio.h>
int twice(int value) { return value * 2; }
int main(void) { printf("%d %d\n", dlopen("libz.so.1", RTLD_NOW) != NULL, twice(21)); return 3; }
END
env -u LD_PRELOAD cc -g -o program program.c
gdb -nx -q -batch -ex 'break twice' -ex run -ex backtrace -ex 'print value' -ex finish -ex continue \
  -ex 'python import zlib, gdb; print(zlib.crc32(b"hello"), len(gdb.objfiles()) > 1)' \
  ./program 2>/dev/null; echo "$?"
