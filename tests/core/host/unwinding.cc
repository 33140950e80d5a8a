/* unwinding LOADER ROUNDS SCENARIO...: exceptions, cancellation and backtraces through the library
 * libsubject.so beside it.  Each scenario runs ROUNDS times and says once what came of it; with more
 * than one round two threads open and close other libraries meanwhile.  With SUBJECT_FROM_BYTES in
 * the environment ours loads it from memory. */
#include <cxxabi.h>
#include <execinfo.h>
#include <pthread.h>
#include <unistd.h>
#include <unwind.h>

#include <atomic>
#include <exception>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>

#include "loader.h"
#include "unwinding.h"

static void *subject;
static std::string log_;

template <typename Function>
static Function *function(const char *name) {
  return reinterpret_cast<Function *>(library_find(subject, name));
}

struct Guard {
  const char *name;
  ~Guard() { log_ += std::string("~") + name + " "; }
};

static void note(const char *word) { log_ += std::string(word) + " "; }

static void throw_from_host() {
  Guard guard{"host"};
  throw std::runtime_error("from the host");
}

/* What the running handler has caught. */
static void describe() {
  try {
    throw;
  } catch (const Own &own) {
    log_ += "Own " + std::to_string(own.value) + " ";
  } catch (const std::exception &error) {
    log_ += std::string(error.what()) + " ";
  } catch (int value) {
    log_ += std::to_string(value) + " ";
  } catch (const char *text) {
    log_ += std::string(text) + " ";
  }
}

static void inside() { log_ += std::to_string(function<int()>("inside")()); }

static void to_host() {
  for (int kind = 0; kind < KINDS; kind++) {
    try {
      Guard guard{"caller"};
      function<void(int, Note)>("raise")(kind, note);
    } catch (...) {
      describe();
    }
  }
}

static void host_library_host() {
  try {
    function<void(Callback, Note)>("call")(throw_from_host, note);
  } catch (...) {
    describe();
  }
}

static void rethrow() {
  try {
    function<void(Callback, Note)>("call_and_rethrow")(throw_from_host, note);
  } catch (...) {
    describe();
  }
}

static void translate() {
  try {
    function<void(Callback, Note)>("call_and_translate")(throw_from_host, note);
  } catch (...) {
    describe();
    try {
      std::rethrow_if_nested(dynamic_cast<const std::exception &>(Own(0)));
    } catch (...) {
      describe();
    }
  }
}

/* Of another language, as far as C++ can see. */
static void forget(_Unwind_Reason_Code, _Unwind_Exception *exception) {
  delete exception;
  note("deleted");
}

static void raise_foreign() {
  _Unwind_Exception *exception = new _Unwind_Exception();
  memcpy(&exception->exception_class, "TESTFRGN", 8);
  exception->exception_cleanup = forget;
  _Unwind_RaiseException(exception);
  failed("foreign", "no handler");
}

static void foreign() {
  function<void(Callback, Note)>("call_and_swallow")(raise_foreign, note);
  try {
    function<void(Callback, Note)>("call")(raise_foreign, note);
  } catch (...) {
    note("caught");
  }
  try {
    function<void(Note)>("raise_foreign")(note);
  } catch (...) {
    note("caught");
  }
}

static void to_another_thread() {
  std::exception_ptr pointer;
  function<void(std::exception_ptr *)>("capture")(&pointer);
  std::thread([&pointer] {
    try {
      std::rethrow_exception(pointer);
    } catch (...) {
      describe();
    }
    log_ += std::to_string(function<int(std::exception_ptr)>("rethrow_inside")(pointer)) + " ";
  }).join();
  pointer = nullptr;
}

static void across_two_libraries() {
  log_ += std::to_string(function<int()>("across")()) + " ";
}

struct Running {
  std::atomic<int> started{0};
};
static Running *running;

static void say_started() { running->started = 1; }

static void *wait_in_library(void *) {
  Guard guard{"thread"};
  function<void(Callback, Note)>("wait")(say_started, note);
  return nullptr;
}

static void cancel() {
  Running mine;
  pthread_t thread;
  void *result = nullptr;
  running = &mine;
  pthread_create(&thread, nullptr, wait_in_library, nullptr);
  while (!mine.started) usleep(100);
  pthread_cancel(thread);
  pthread_join(thread, &result);
  log_ += result == PTHREAD_CANCELED ? "cancelled " : "returned ";
}

static void *exit_in_library(void *) {
  Guard guard{"thread"};
  function<void(Callback, Note)>("call")([] { pthread_exit(&log_); }, note);
  return nullptr;
}

static void thread_exit() {
  pthread_t thread;
  void *result = nullptr;
  pthread_create(&thread, nullptr, exit_in_library, nullptr);
  pthread_join(thread, &result);
  log_ += result == &log_ ? "exited " : "returned ";
}

static void *frames[64];
static int frame_count;

static void take_backtrace() { frame_count = backtrace(frames, 64); }

static void name_frames() {
  for (int i = 0; i < frame_count; i++) {
    const char *name = name_at(frames[i]);
    if (name) log_ += std::string(name) + " ";
    if (name && strcmp(name, "main") == 0) return;
  }
  log_ += "(no main) ";
}

/* The frame of our own function that calls the library may have been merged into others. */
extern "C" __attribute__((noinline)) void trace() {
  function<void(Callback, Note)>("call")(take_backtrace, note);
  name_frames();
  frame_count = function<int(void **, int)>("trace_inside")(frames, 64);
  name_frames();
  log_ += function<const char *(void *)>("name_of")(frames[0]);
}

static void throwing_visitor() {
  log_ += std::to_string(function<int()>("throw_from_visitor")()) + " ";
}

static void visitor_that_ends_the_thread() {
  pthread_t thread;
  pthread_create(
      &thread, nullptr,
      [](void *) -> void * {
        Guard guard{"thread"};
        function<void()>("exit_from_visitor")();
        return nullptr;
      },
      nullptr);
  pthread_join(thread, nullptr);
}

static const std::map<std::string, void (*)()> scenarios = {
    {"inside", inside},
    {"to host", to_host},
    {"host library host", host_library_host},
    {"rethrow", rethrow},
    {"translate", translate},
    {"foreign", foreign},
    {"to another thread", to_another_thread},
    {"across two libraries", across_two_libraries},
    {"cancel", cancel},
    {"thread exit", thread_exit},
    {"trace", trace},
    {"throwing visitor", throwing_visitor},
    {"visitor that ends the thread", visitor_that_ends_the_thread},
};

static std::atomic<bool> stop;

static void open_and_close(const char *name) {
  while (!stop) library_close(library_open(name));
}

static bool is_mapped(const char *text) {
  FILE *maps = fopen("/proc/self/maps", "r");
  char line[8192];
  bool mapped = false;
  while (fgets(line, sizeof line, maps)) mapped = mapped || strstr(line, text);
  fclose(maps);
  return mapped;
}

/* Of the file's content; what it needs is open already. */
static void *open_bytes(const char *name) {
  std::ifstream file(name, std::ios::binary);
  const std::string content{std::istreambuf_iterator<char>(file), {}};
  DLOPEN_request request = {};
  DLOPEN_image *image = nullptr;
  request.size = sizeof request;
  request.name = "memory/libsubject.so";
  request.bytes = content.data();
  request.bytes_size = content.size();
  request.mode = RTLD_NOW;
  if (loader_open(&request, &image, nullptr) != DLOPEN_OK) failed(name, "from bytes");
  return image;
}

int main(int argc, char **argv) {
  if (argc < 4) return 2;
  alarm(120);
  use_loader(argv[1]);
  int rounds = atoi(argv[2]);
  void *deeper = library_open("./libdeeper.so");
  bool from_bytes = loader_open && getenv("SUBJECT_FROM_BYTES");
  subject = from_bytes ? open_bytes("./libsubject.so") : library_open("./libsubject.so");
  std::thread others[2];
  if (rounds > 1) {
    others[0] = std::thread(open_and_close, "./libother.so");
    others[1] = std::thread(open_and_close, "./libplain.so");
  }
  for (int i = 3; i < argc; i++) {
    std::string first;
    for (int round = 0; round < rounds; round++) {
      log_.clear();
      scenarios.at(argv[i])();
      if (round == 0) first = log_;
      if (log_ != first) failed(first.c_str(), log_.c_str());
    }
    dprintf(1, "%s\n", first.c_str());
  }
  stop = true;
  for (std::thread &other : others)
    if (other.joinable()) other.join();
  library_close(subject);
  library_close(deeper);
  if (loader_open && is_mapped("/libsubject.so")) failed("libsubject.so", "is still mapped");
  return 0;
}
