/* The library of unwinding.cc. */
#include <dlfcn.h>
#include <execinfo.h>
#include <link.h>
#include <pthread.h>
#include <unistd.h>
#include <unwind.h>

#include <cstring>
#include <exception>
#include <new>

#include "unwinding.h"

void fail_elsewhere(int value); /* in libdeeper.so; throws Own */

namespace {

struct Local {
  int value;
};

struct Guard {
  Note note;
  const char *name;
  ~Guard() { note(name); }
};

int depth(int n) {
  if (n == 0) throw Local{7};
  try {
    return depth(n - 1);
  } catch (Local &local) {
    local.value++;
    throw;
  }
}

int throw_at(struct dl_phdr_info *info, size_t, void *here) {
  if (std::strstr(info->dlpi_name, "/libsubject.so")) throw Own(info->dlpi_phnum != 0 && here);
  return 0;
}

int exit_at(struct dl_phdr_info *info, size_t, void *) {
  if (std::strstr(info->dlpi_name, "/libsubject.so")) pthread_exit(nullptr);
  return 0;
}

}  // namespace

extern "C" {

int inside() {
  int total = 0;
  try {
    depth(5);
  } catch (const Local &local) {
    total += local.value; /* 12 */
  }
  try {
    throw std::out_of_range("x");
  } catch (const std::logic_error &error) {
    total += error.what()[0]; /* 120 */
  }
  try {
    std::string("abc").at(10);
  } catch (const std::exception &) {
    total += 1000;
  }
  try {
    throw nullptr;
  } catch (int *) {
    total += 10000;
  }
  return total;
}

__attribute__((noinline)) void raise(int kind, Note note) {
  Guard guard{note, "~library"};
  switch (kind) {
    case 0: throw 42;
    case 1: throw "text";
    case 2: throw std::runtime_error("from the library");
    default: throw Own(3);
  }
}

__attribute__((noinline)) void call(Callback callback, Note note) {
  Guard guard{note, "~library"};
  callback();
}

void call_and_rethrow(Callback callback, Note note) {
  Guard guard{note, "~outer"};
  try {
    call(callback, note);
  } catch (const std::runtime_error &) {
    note("rethrown");
    throw;
  }
}

void call_and_translate(Callback callback, Note note) {
  try {
    call(callback, note);
  } catch (const std::exception &) {
    std::throw_with_nested(Own(9));
  }
}

void call_and_swallow(Callback callback, Note note) {
  try {
    call(callback, note);
  } catch (...) {
    note("swallowed");
  }
}

static Note foreign_note;

static void forget(_Unwind_Reason_Code, _Unwind_Exception *exception) {
  foreign_note("forgotten");
  delete exception;
}

void raise_foreign(Note note) {
  Guard guard{note, "~library"};
  _Unwind_Exception *exception = new _Unwind_Exception();
  std::memcpy(&exception->exception_class, "TESTFRGN", 8);
  exception->exception_cleanup = forget;
  foreign_note = note;
  _Unwind_RaiseException(exception);
  note("no handler");
}

void capture(std::exception_ptr *pointer) {
  try {
    throw Own(11);
  } catch (...) {
    *pointer = std::current_exception();
  }
}

int rethrow_inside(std::exception_ptr pointer) {
  try {
    std::rethrow_exception(pointer);
  } catch (const Own &own) {
    return own.value;
  }
}

int across() {
  try {
    fail_elsewhere(5);
  } catch (const Own &own) {
    return own.value;
  }
  return -1;
}

void wait(Callback started, Note note) {
  Guard guard{note, "~library"};
  started();
  for (;;) pause();
}

int trace_inside(void **frames, int size) { return backtrace(frames, size); }

const char *name_of(void *address) {
  Dl_info info;
  return dladdr(address, &info) && info.dli_sname ? info.dli_sname : "(none)";
}

int throw_from_visitor() {
  for (int turn = 0; turn < 2; turn++) {
    try {
      dl_iterate_phdr(throw_at, &turn);
      return -1;
    } catch (const Own &own) {
      if (own.value != 1) return -2;
    }
  }
  return 1;
}

void exit_from_visitor() { dl_iterate_phdr(exit_at, nullptr); }

}
