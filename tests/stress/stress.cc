/* stress LIBDLOPEN SEED SECONDS [PLANT]: eight threads do what a program may do with the linker, in
 * an order that SEED decides; threads end and new ones begin.  Twice: after the first turn, which
 * warms up, and after the second all is closed, and the second must leave no more behind than the
 * first.  A thread that makes no step for PATIENCE seconds is a deadlock.  What fails says the seed,
 * with all threads' stacks where there is gdb.  PLANT is a mistake that must be found: crash,
 * deadlock, leak, race.  With EMULATED in the environment neither stacks are shown nor resident
 * memory is judged: both are the emulator's, too. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include "loader.h"
#include "machines.h"

enum { THREADS = 8, SLOTS = 24, PATIENCE = 20 };

extern char **environ;

static uint64_t seed;
static std::string plant;
static const bool emulated = getenv("EMULATED");
static LOADER_TYPE(DLOPEN_info) *loader_info;
static LOADER_TYPE(DLOPEN_map) *loader_map;
static LOADER_TYPE(DLOPEN_relocate) *loader_relocate;
static LOADER_TYPE(DLOPEN_existing) *loader_existing;
static LOADER_TYPE(DLOPEN_read_enter) *loader_enter;
static LOADER_TYPE(DLOPEN_read_leave) *loader_leave;
static LOADER_TYPE(DLOPEN_patch) *loader_patch;
static LOADER_TYPE(DLOPEN_unpatch) *loader_unpatch;
static LOADER_TYPE(DLOPEN_swap) *loader_swap;
static LOADER_TYPE(DLOPEN_retain) *loader_retain;
static LOADER_TYPE(DLOPEN_release) *loader_release;
static LOADER_TYPE(DLOPEN_set_archives) *loader_set_archives;

/* What each thread does: one line of the report each. */
enum Step {
  OPEN, OPEN_GLOBAL, OPEN_PRIVATE, OPEN_NAMESPACE, OPEN_BYTES, OPEN_MEMBER, MAP, RELOCATE, EXISTING, CLOSE,
  RETAIN, LOOK_UP, LOOK_UP_MISSING, THROW, CALL, IMAGES, ADDRESS, PATCH, UNPATCH, SWAP, FORK, STEPS
};
static const char *const step_names[STEPS] = {
  "open", "open RTLD_GLOBAL", "open PRIVATE", "open in a new namespace", "open from bytes", "open in an archive", "map",
  "relocate", "existing", "close", "retain",
  "look up", "look up what is missing", "throw to the program", "call", "images", "address",
  "patch", "take a patch back", "swap", "fork"
};
static const unsigned weights[STEPS] = {20, 4, 10, 6, 10, 10, 4, 8, 6, 45, 8,
                                        20, 10, 15, 60, 10, 15, 15, 10, 4, 1};
static std::atomic<uint64_t> done[STEPS], threads_begun;

/* Each exports `int work(int)`, which does what the library is for and returns its argument. */
static const char *const names[] = {
  "./libplain.so", "./libtree.so", "./libleft.so", "./libthrowing.so", "./liblocal.so",
  "./libwalking.so", "./liblate.so", "./libuser.so"
};
enum { NAMES = sizeof names / sizeof *names, PLAIN = 0, THROWING = 3, LOCAL = 4 };
static std::string contents[NAMES];
/* Those that need nothing beside them. */
static const unsigned alone[] = {PLAIN, THROWING, LOCAL};
/* An archive that has these: mapped from it, and, behind all, copied. */
static const char archive_name[] = "./archive";
enum { ROOM = 0x40000, ALONE = sizeof alone / sizeof *alone };
static int archive;

/* An opened library; whoever has taken it out of its slot may use it or close it. */
struct Held {
  DLOPEN_image *image;
  unsigned name;
  bool only_mapped;
};
static std::atomic<Held *> slots[SLOTS];
/* Patches that are in force, and what some of them lead to. */
static std::atomic<uint64_t> patches[SLOTS];
static DLOPEN_image *instead;
/* What libraries that are relocated by hand are bound to. */
enum { RUNTIME = 5 };
static DLOPEN_image *runtime[RUNTIME];
/* libuser.so needs the image that takes its own place now and then: an old version goes when nobody
 * is inside. */
static const char hot_name[] = "./libhot.so";
static std::string hot_contents;
static std::atomic<DLOPEN_image *> hot;
static pthread_rwlock_t calls = PTHREAD_RWLOCK_INITIALIZER;

static void say_stacks(pid_t process) {
  char number[24];
  snprintf(number, sizeof number, "%d", process);
  const char *const command[] = {"gdb", "-nx", "-batch", "-p", number,
                                 "-ex", "thread apply all backtrace 30", nullptr};
  pid_t child;
  /* Not fork, whose handlers may be what hangs. */
  if (posix_spawnp(&child, "gdb", nullptr, nullptr, const_cast<char **>(command), environ) == 0)
    waitpid(child, nullptr, 0);
}

__attribute__((noreturn)) static void give_up(const char *what, pid_t process) {
  static std::atomic<int> first{1};
  if (!first.exchange(0)) pause();
  dprintf(1, "failed: seed %llu: %s\n", (unsigned long long)seed, what);
  if (plant.empty() && !emulated) say_stacks(process);
  if (process != getpid()) kill(process, SIGKILL);
  _exit(1);
}

static void crashed(int number) {
  alarm(60);
  give_up(strsignal(number), getpid());
}

static void check(bool holds, const char *what) {
  if (!holds) give_up(what, getpid());
}

/* SplitMix64 (Steele, Lea and Flood, 2014). */
struct Random {
  uint64_t state;
  unsigned below(unsigned limit) {
    uint64_t mixed = state += 0x9e3779b97f4a7c15;
    mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9;
    mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111eb;
    return (mixed ^ mixed >> 31) % limit;
  }
};

struct Lane {
  pthread_t thread;
  Random random;
  std::atomic<uint64_t> steps{0};
  std::atomic<bool> ended{false};
};
static Lane lanes[THREADS];
static std::atomic<bool> stop;

__attribute__((noreturn)) static void give_up(const DLOPEN_error &error) {
  char message[4096];
  loader_message(&error, message, sizeof message);
  give_up(message, getpid());
}

static DLOPEN_image *open_hot(DLOPEN_image *replaces) {
  static thread_local DLOPEN_error error;
  DLOPEN_request request = {};
  DLOPEN_image *image;
  request.size = sizeof request;
  request.name = hot_name;
  request.bytes = hot_contents.data();
  request.bytes_size = hot_contents.size();
  request.mode = RTLD_NOW;
  request.flags = DLOPEN_RELOADABLE;
  request.replaces = replaces;
  if (loader_open(&request, &image, &error) != DLOPEN_OK) give_up(error);
  return image;
}

/* By the last part of the path, which may begin with an 'x': of those that are copied. */
static int locate(const char *path, DLOPEN_member *member, void *) {
  const char *base = strrchr(path, '/') + 1;
  bool is_copied = *base == 'x';
  for (unsigned i = 0; i < ALONE; i++)
    if (strcmp(base + is_copied, names[alone[i]] + 2) == 0) {
      member->archive = archive_name;
      member->descriptor = archive;
      member->offset = i * ROOM + (is_copied ? ALONE * ROOM + 100 : 0);
      member->length = contents[alone[i]].size();
      return 0;
    }
  return 1;
}

static void make_archive() {
  archive = open(archive_name, O_RDWR | O_CREAT | O_TRUNC, 0600);
  for (unsigned i = 0; i < 2 * ALONE; i++) {
    const std::string &one = contents[alone[i % ALONE]];
    off_t at = i * ROOM + (i < ALONE ? 0 : 100);
    check(one.size() < ROOM && pwrite(archive, one.data(), one.size(), at) == (ssize_t)one.size(), "archive");
  }
  loader_set_archives(locate, nullptr);
}

static DLOPEN_image *open_member(unsigned name, unsigned number) {
  static thread_local DLOPEN_error error;
  DLOPEN_request request = {};
  DLOPEN_image *image;
  std::string path = std::string(archive_name) + (number % 2 ? "/x" : "/") + (names[name] + 2);
  request.size = sizeof request;
  request.name = path.c_str();
  request.mode = RTLD_NOW | (number % 5 ? 0 : DLOPEN_PRIVATE);
  if (number % 8 == 0) loader_set_archives(locate, nullptr);
  if (loader_open(&request, &image, &error) != DLOPEN_OK) give_up(error);
  return image;
}

static Held *open_held(unsigned name, unsigned mode, const std::string *bytes, bool map,
                       Lmid_t into = LM_ID_BASE) {
  static thread_local DLOPEN_error error;
  static thread_local unsigned opens;
  DLOPEN_request request = {};
  request.size = sizeof request;
  request.name = names[name];
  request.mode = (name % 2 ? RTLD_NOW : RTLD_LAZY) | mode;
  request.flags = opens++ % 2 ? DLOPEN_ARENA : 0;
  request.namespace_id = into;
  if (bytes) {
    request.name = "bytes.so";
    request.bytes = bytes->data();
    request.bytes_size = bytes->size();
  }
  DLOPEN_image *image = nullptr;
  if ((map ? loader_map : loader_open)(&request, &image, &error) != DLOPEN_OK) give_up(error);
  return new Held{image, name, map};
}

static void close_held(Held *held) {
  check(loader_close(held->image, nullptr) == 0, "close");
  delete held;
}

/* Into a slot; what was there is closed, so that there are never more than SLOTS. */
static void keep(Random &random, Held *held) {
  Held *old = slots[random.below(SLOTS)].exchange(held);
  if (old) close_held(old);
}

static Held *take(Random &random) { return slots[random.below(SLOTS)].exchange(nullptr); }

template <typename Function>
static Function *function(const Held *held, const char *name) {
  DLOPEN_symbol symbol;
  check(loader_find(held->image, name, nullptr, 0, &symbol, nullptr) == 0, name);
  return reinterpret_cast<Function *>(symbol.address);
}

static void call(const Held *held, int value) {
  pthread_rwlock_rdlock(&calls);
  check(function<int(int)>(held, "work")(value) == value, names[held->name]);
  pthread_rwlock_unlock(&calls);
}

static int same(int value) { return value; }

static void take_back(uint64_t patch) {
  if (patch) check(loader_unpatch(patch, nullptr) == 0, "unpatch");
}

static void patch(Random &random, const Held *held) {
  static thread_local DLOPEN_error error;
  const Held stays = {instead, PLAIN, false};
  const void *to = random.below(2) ? reinterpret_cast<const void *>(same)
                                   : reinterpret_cast<const void *>(function<int(int)>(&stays, "work"));
  DLOPEN_replacement replacements[] = {
    {"leaf", nullptr, to}, {"left", nullptr, to}, {"right", nullptr, to}, {"hot", nullptr, to}
  };
  DLOPEN_patched patched[4];
  uint64_t number;
  if (loader_patch(held->image, replacements, 4, patched, &number, &error)) give_up(error);
  take_back(patches[random.below(SLOTS)].exchange(number));
}

static void swap() {
  static thread_local DLOPEN_error error;
  DLOPEN_image *old = hot.exchange(nullptr);
  uint64_t places;
  if (!old) return;
  DLOPEN_image *successor = open_hot(old);
  int code = loader_swap(old, successor, &places, &error);
  if (code && code != DLOPEN_E_STATE) give_up(error); /* others kept opening */
  if (code) std::swap(old, successor);
  check(loader_retain(old, nullptr) == 0 && loader_close(old, nullptr) == 0, "retain");
  pthread_rwlock_wrlock(&calls);
  pthread_rwlock_unlock(&calls);
  check(loader_release(old, nullptr) == 0, "release");
  hot = successor;
}

/* The second step after map: for one that needs nothing but the runtime. */
static Held *relocate(Held *held) {
  static thread_local DLOPEN_error error;
  DLOPEN_request request = {};
  request.size = sizeof request;
  request.mode = held->name == LOCAL ? RTLD_LAZY : RTLD_NOW;
  if (loader_relocate(held->image, &request, runtime, RUNTIME, &error) != DLOPEN_OK) give_up(error);
  held->only_mapped = false;
  return held;
}

/* Each retains it for itself, whatever others do with the same image. */
static void retain_and_close(Held *held) {
  DLOPEN_image *image = held->image;
  bool only_mapped = held->only_mapped;
  unsigned name = held->name;
  check(loader_retain(image, nullptr) == 0 && loader_retain(image, nullptr) == 0, "retain");
  close_held(held);
  check(loader_release(image, nullptr) == 0, "release");
  DLOPEN_symbol symbol;
  check(only_mapped || loader_find(image, "work", nullptr, 0, &symbol, nullptr) == 0, names[name]);
  check(loader_release(image, nullptr) == 0, "release again");
}

static void throw_from_program() { throw std::runtime_error("program"); }

static void throw_through(const Held *held, unsigned kind) {
  std::string caught;
  try {
    if (kind)
      function<void()>(held, "raise")();
    else
      function<void(void (*)())>(held, "call_back")(throw_from_program);
  } catch (const std::runtime_error &error) {
    caught = error.what();
  }
  check(caught == (kind ? "library" : "program"), "another exception");
}

static void look_at_images() {
  std::vector<DLOPEN_image *> images(512);
  uint32_t token = loader_enter();
  size_t count = loader_images(images.data(), images.size());
  for (size_t i = 0; i < count && i < images.size(); i++) {
    struct DLOPEN_info info = {};
    info.size = sizeof info;
    DLOPEN_symbol symbol;
    if (loader_info(images[i], &info)) continue;
    loader_find(images[i], "work", nullptr, DLOPEN_OWN_ONLY | DLOPEN_NO_RESOLVE, &symbol, nullptr);
    check(!info.path || strlen(info.path) < 4096, "a path");
  }
  loader_leave(token);
}

/* In a forked child.  Nothing is closed: that unloads what other threads were about to unload, with
 * __cxa_finalize, whose lock libc leaves in the child as another thread held it. */
static void work_in_child() {
  pthread_rwlock_init(&calls, nullptr); /* others had it */
  signal(SIGALRM, SIG_DFL);
  alarm(2 * PATIENCE);
  for (unsigned name : {PLAIN, THROWING, LOCAL}) {
    call(open_held(name, 0, nullptr, false), 5);
    call(open_held(name, DLOPEN_PRIVATE, nullptr, false), 6);
    call(open_held(name, 0, &contents[name], false), 7);
  }
  look_at_images();
}

static void fork_once() {
  pid_t child = fork();
  if (child == 0) {
#ifndef __SANITIZE_THREAD__ /* whose runtime calls dl_iterate_phdr in each new thread: the child may
                             * find libc's lock taken, and nobody is there to release it */
    work_in_child();
#endif
    _exit(0);
  }
  int status = 0;
  for (int turn = 0; waitpid(child, &status, WNOHANG) == 0; turn++) {
    if (turn > PATIENCE * 500) {
#ifdef __SANITIZE_THREAD__ /* whose allocator and mutexes may be another thread's in the child, up
                            * to LLVM 18 at least: make stress judges children, without it */
      kill(child, SIGKILL);
      waitpid(child, nullptr, 0);
      return;
#else
      give_up("a child hangs", child);
#endif
    }
    usleep(1000);
  }
  check(status == 0, "a child failed");
}

static void look_at_address(const Held *held) {
  DLOPEN_symbol symbol;
  DLOPEN_image *image = nullptr;
  void *address = reinterpret_cast<void *>(function<int(int)>(held, "work"));
  check(loader_address(address, &image, &symbol) == 0 && image == held->image &&
            strcmp(symbol.name, "work") == 0,
        "another address");
  check(loader_address(reinterpret_cast<void *>(throw_through), &image, &symbol) == 0, "program");
}

static void with_held(Step step, Random &random) {
  Held *held = take(random);
  if (!held) return;
  if (step == CLOSE) {
    close_held(held);
    return;
  }
  if (step == RETAIN) {
    retain_and_close(held);
    return;
  }
  if (held->only_mapped) {
    /* nothing of it runs */
  } else if (step == CALL) {
    call(held, static_cast<int>(random.below(1000)));
  } else if (step == THROW && held->name == THROWING) {
    throw_through(held, random.below(2));
  } else if (step == ADDRESS) {
    look_at_address(held);
  } else if (step == PATCH) {
    patch(random, held);
  } else if (step == LOOK_UP) {
    function<int(int)>(held, "work");
  } else if (step == LOOK_UP_MISSING) {
    DLOPEN_symbol symbol;
    static thread_local DLOPEN_error error;
    check(loader_find(held->image, "nonesuch", nullptr, 0, &symbol, &error) == DLOPEN_E_SYMBOL,
          "nonesuch");
  }
  keep(random, held);
}

static int unguarded; /* of PLANT */

static void make_step(Random &random) {
  unsigned sum = 0, step = 0;
  for (unsigned weight : weights) sum += weight;
  for (unsigned place = random.below(sum); place >= weights[step]; step++) place -= weights[step];
  unsigned name = random.below(NAMES);
  DLOPEN_image *image;
  switch (step) {
    case OPEN: keep(random, open_held(name, 0, nullptr, false)); break;
    case OPEN_GLOBAL: keep(random, open_held(name, RTLD_GLOBAL, nullptr, false)); break;
    case OPEN_PRIVATE: keep(random, open_held(name, DLOPEN_PRIVATE, nullptr, false)); break;
    case OPEN_NAMESPACE: keep(random, open_held(name, 0, nullptr, false, LM_ID_NEWLM)); break;
    case OPEN_BYTES: {
      name = alone[random.below(ALONE)];
      keep(random, open_held(name, 0, &contents[name], false));
      break;
    }
    case OPEN_MEMBER:
      name = alone[random.below(ALONE)];
      keep(random, new Held{open_member(name, random.below(1000)), name, false});
      break;
    case MAP: keep(random, open_held(name, 0, nullptr, true)); break;
    case RELOCATE:
      keep(random, relocate(open_held(alone[random.below(ALONE)], 0, nullptr, true)));
      break;
    case EXISTING:
      if (loader_existing(names[name], &image, nullptr) == 0)
        keep(random, new Held{image, name, false});
      break;
    case IMAGES: look_at_images(); break;
    case UNPATCH: take_back(patches[random.below(SLOTS)].exchange(0)); break;
    case SWAP: swap(); break;
    case FORK: fork_once(); break;
    default: with_held(static_cast<Step>(step), random);
  }
  done[step]++;
  if (plant == "race") unguarded++;
}

static void *run_lane(void *argument) {
  Lane &lane = *static_cast<Lane *>(argument);
  threads_begun++;
  for (unsigned left = 20 + lane.random.below(200); left && !stop; left--) {
    make_step(lane.random);
    lane.steps++;
    while (plant == "deadlock" && &lane == lanes) pause();
  }
  lane.ended = true;
  return nullptr; /* its thread_local objects end in here */
}

static double now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

/* One turn; ends with all threads joined and all libraries closed. */
static void run_turn(double seconds, Random &random) {
  uint64_t seen[THREADS] = {};
  double changed[THREADS], end = now() + seconds;
  double patience = plant == "deadlock" ? 0.5 : double{PATIENCE};
  unsigned running = THREADS;
  bool joined[THREADS] = {};
  stop = false;
  hot = open_hot(nullptr);
  instead = open_held(PLAIN, DLOPEN_PRIVATE, nullptr, false)->image;
  auto start = [&random](Lane &lane) {
    lane.random.state = static_cast<uint64_t>(random.below(~0U)) << 32 | random.below(~0U);
    lane.ended = false;
    check(pthread_create(&lane.thread, nullptr, run_lane, &lane) == 0, "pthread_create");
  };
  for (unsigned i = 0; i < THREADS; i++) {
    changed[i] = now();
    start(lanes[i]);
  }
  while (running) {
    usleep(500);
    double time = now();
    stop = time > end;
    for (unsigned i = 0; i < THREADS; i++) {
      Lane &lane = lanes[i];
      if (joined[i]) continue;
      if (lane.ended && pthread_tryjoin_np(lane.thread, nullptr) == 0) {
        lane.steps++;
        if (stop) {
          joined[i] = true;
          running--;
        } else {
          start(lane);
        }
      }
      if (lane.steps != seen[i]) {
        seen[i] = lane.steps;
        changed[i] = time;
      } else if (time - changed[i] > patience) {
        give_up("a deadlock", getpid());
      }
    }
  }
  for (std::atomic<Held *> &slot : slots) {
    Held *held = slot.exchange(nullptr);
    if (held && plant == "leak") held = nullptr;
    if (held) close_held(held);
  }
  check(loader_close(instead, nullptr) == 0 && loader_close(hot, nullptr) == 0, "close");
  for (std::atomic<uint64_t> &number : patches) take_back(number.exchange(0));
}

struct Rest {
  unsigned long mappings, mapped, descriptors, resident; /* mapped, resident: KiB */
};

static Rest measure() {
  Rest rest = {};
  malloc_trim(0);
  std::ifstream file("/proc/self/maps");
  for (std::string line; std::getline(file, line); rest.mappings++) {
    unsigned long start = 0, end = 0;
    sscanf(line.c_str(), "%lx-%lx", &start, &end);
    rest.mapped += (end - start) / 1024;
    for (const char *name : names)
      if (line.find(name + 1) != std::string::npos) give_up("a library is still mapped", getpid());
  }
  DIR *folder = opendir("/proc/self/fd");
  while (readdir(folder)) rest.descriptors++;
  closedir(folder);
  unsigned long size, pages;
  std::ifstream("/proc/self/statm") >> size >> pages;
  rest.resident = pages * static_cast<unsigned long>(sysconf(_SC_PAGESIZE)) / 1024;
  return rest;
}

/* Whose they are, when too many are left. */
static void say_mappings() {
  std::ifstream file("/proc/self/maps");
  for (std::string line; std::getline(file, line);) dprintf(1, "%s\n", line.c_str());
}

static void say_rest(const char *when, const Rest &rest) {
  dprintf(1, "%s: %lu mappings of %lu KiB, %lu descriptors, %lu KiB resident\n", when,
          rest.mappings, rest.mapped, rest.descriptors, rest.resident);
}

int main(int argc, char **argv) {
  if (argc < 4) return 2;
  seed = strtoull(argv[2], nullptr, 10);
  double seconds = atof(argv[3]);
  if (argc > 4) plant = argv[4];
  prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY); /* gdb */
  use_loader(argv[1]);
  void *linker = dlopen(argv[1], RTLD_NOW | RTLD_NOLOAD);
  LOADER_FUNCTION(loader_info, "DLOPEN_info");
  LOADER_FUNCTION(loader_map, "DLOPEN_map");
  LOADER_FUNCTION(loader_relocate, "DLOPEN_relocate");
  LOADER_FUNCTION(loader_existing, "DLOPEN_existing");
  LOADER_FUNCTION(loader_enter, "DLOPEN_read_enter");
  LOADER_FUNCTION(loader_leave, "DLOPEN_read_leave");
  LOADER_FUNCTION(loader_patch, "DLOPEN_patch");
  LOADER_FUNCTION(loader_unpatch, "DLOPEN_unpatch");
  LOADER_FUNCTION(loader_swap, "DLOPEN_swap");
  LOADER_FUNCTION(loader_retain, "DLOPEN_retain");
  LOADER_FUNCTION(loader_release, "DLOPEN_release");
  LOADER_FUNCTION(loader_set_archives, "DLOPEN_set_archives");
  for (unsigned i = 0; i < NAMES; i++) {
    std::ifstream file(names[i], std::ios::binary);
    contents[i] = std::string(std::istreambuf_iterator<char>(file), {});
  }
  std::ifstream hot_file(hot_name, std::ios::binary);
  hot_contents = std::string(std::istreambuf_iterator<char>(hot_file), {});
  make_archive();
  for (int number : {SIGSEGV, SIGBUS, SIGILL, SIGABRT, SIGFPE}) signal(number, crashed);
  /* The main thread, which watches, may be blocked itself. */
  signal(SIGALRM, crashed);
  alarm(static_cast<unsigned>(seconds) * 2 + 2 * PATIENCE);
  const char *const runtime_names[] = {"libc.so.6", LOADER_NAME, "libstdc++.so.6",
                                       "libgcc_s.so.1", "libm.so.6"};
  for (unsigned i = 0; i < RUNTIME; i++)
    check(loader_existing(runtime_names[i], &runtime[i], nullptr) == 0, runtime_names[i]);
  mallopt(M_ARENA_MAX, 1); /* or the rest depends on which threads met */
  Random random = {seed};
  run_turn(seconds / 3, random); /* as much at once as ever after */
  Rest before = measure();
  if (plant == "crash") *static_cast<volatile char *>(nullptr) = 1;
  run_turn(seconds * 2 / 3, random);
  Rest after = measure();
  for (unsigned i = 0; i < STEPS; i++)
    dprintf(1, "%s: %llu\n", step_names[i], (unsigned long long)done[i].load());
  dprintf(1, "threads: %llu\n", (unsigned long long)threads_begun.load());
  say_rest("after warming up", before);
  say_rest("after all", after);
  check(after.descriptors == before.descriptors, "descriptors are left open");
#ifndef __SANITIZE_THREAD__ /* which keeps what it saw */
  /* The arena keeps slots, as many as were open at once, up to 2 MiB: each is four mappings as a
     rule, of 20 KiB or more together. */
  bool are_left = after.mappings > before.mappings + 8 + 4 * (2048 / 20);
  if (are_left) say_mappings();
  check(!are_left, "mappings are left");
  check(after.mapped <= before.mapped + 2 * 2048, "mapped memory is left");
  check(emulated || after.resident <= before.resident + 2 * 2048, "memory is left");
#endif
  dprintf(1, "done\n");
  _exit(0);
}
