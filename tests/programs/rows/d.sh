# Libraries in D, of two compilers, loaded with their runtimes by a program in C and one in D.
# packages: gdc ldc gcc libc6-dev
# quick
cat >use.c <<'END'
#include <dlfcn.h>
#include <stdio.h>
static const char *const names[] = {"start", "constructed", "squares", "catches",
                                    "collects", "thread", "stop"};
int main(int argc, char **argv) {
  void *handle = dlopen(argv[1], RTLD_LAZY);
  if (!handle) return puts(dlerror()), 1;
  for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
    int (*function)(int) = (int (*)(int))dlsym(handle, names[i]);
    printf("%s %d\n", names[i], function(5));
  }
  return printf("closed %d\n", dlclose(handle)), 0;
}
END
cat >use.d <<'END'
import core.runtime, core.sys.posix.dlfcn, std.stdio;
void main(string[] arguments)
{
    auto handle = Runtime.loadLibrary(arguments[1]);
    foreach (name; ["constructed", "squares", "catches", "collects", "thread"])
        writeln(name, " ", (cast(int function(int)) dlsym(handle, (name ~ "\0").ptr))(5));
    writeln("unloaded ", Runtime.unloadLibrary(handle));
}
END
source=${0%/*}/../../support/library.d
gcc use.c -o use && ./use /nowhere/libnone.so; echo "$?"
gdc -shared -fPIC -shared-libphobos -o libgdc.so "$source"; echo "$?"
ldc2 -shared -relocation-model=pic -link-defaultlib-shared -of=libldc.so "$source"; echo "$?"
gdc -fPIC -shared-libphobos -o use-gdc use.d; echo "$?"
ldc2 -relocation-model=pic -link-defaultlib-shared -of=use-ldc use.d; echo "$?"
for compiler in gdc ldc; do
  ./use "./lib$compiler.so"; echo "$?"
  "./use-$compiler" "$PWD/lib$compiler.so"; echo "$?"
done
