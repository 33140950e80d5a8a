# The linker's plugin for link-time optimisation; the program throws.
# packages: g++
# quick
cat >program.cc <<'END'
#include <cstdio>
#include <stdexcept>
int check(int value);
int main(int argc, char **) {
  try { return check(argc); } catch (const std::exception &error) { std::puts(error.what()); return 3; }
}
END
cat >check.cc <<'END'
#include <stdexcept>
int check(int value) { if (value) throw std::out_of_range("thrown"); return 0; }
END
g++ -O1 -flto -c program.cc && g++ -O1 -flto -c check.cc && g++ -O1 -flto program.o check.o -o program; echo "$?"
gcc-nm program.o | grep -c main
gcc-ar rc libcheck.a check.o && g++ -O1 -flto program.o -L. -lcheck -o again && ./again; echo "$?"
./program; echo "$?"
