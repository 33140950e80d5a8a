/* panics LOADER: panics inside the Rust library libpanics.so beside it and through frames here,
 * exceptions through its frames.  Says what came of each. */
#include <stdexcept>

#include "loader.h"

typedef void callback();
typedef void note(const char *);

static void *library;
static void say(const char *word) { dprintf(1, "%s ", word); }

struct Guard {
  ~Guard() { say("~host"); }
};

template <typename Function>
static Function *function(const char *name) {
  return reinterpret_cast<Function *>(library_find(library, name));
}

static void fail_in_library() {
  Guard guard;
  function<void(note)>("fail")(say);
}

static void fail_here() {
  Guard guard;
  throw std::runtime_error("caught");
}

int main(int, char **argv) {
  use_loader(argv[1]);
  library = library_open("./libpanics.so");
  function<void()>("be_quiet")();
  dprintf(1, "%d\n", function<int()>("inside")());
  dprintf(1, "%d\n", function<int(callback)>("around")(fail_in_library));
  try {
    function<void(callback, note)>("pass")(fail_here, say);
  } catch (const std::exception &error) {
    say(error.what());
  }
}
