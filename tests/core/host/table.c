/* table LOADER CASE: libc's symbol table once LOADER has opened a C library, ./libpass.so; and an
 * unwinder that glibc brings in after that, to throw through it.  LIBRARY, ./libthrough.so, holds
 * the throw: see late.c. */
#define _GNU_SOURCE
#include <link.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "loader.h"
#include "sandbox.h"

typedef void callback(void);
typedef void pass(callback *);
typedef int through(pass *);

enum { PAGE = 4096, PAGES = 2048 };

static ElfW(Addr) libc_start, libc_end;

static int find_libc(struct dl_phdr_info *info, size_t size, void *unused) {
  (void)size, (void)unused;
  if (!strstr(info->dlpi_name, "/libc.so.6")) return 0;
  libc_start = info->dlpi_addr;
  for (int i = 0; i < info->dlpi_phnum; i++)
    if (info->dlpi_phdr[i].p_type == PT_LOAD)
      libc_end = libc_start + info->dlpi_phdr[i].p_vaddr + info->dlpi_phdr[i].p_memsz;
  return 1;
}

static long no_writing(long number, const long *arguments) {
  (void)number;
  ElfW(Addr) start = (ElfW(Addr))arguments[0];
  int is_libcs = libc_start <= start && start < libc_end && arguments[2] & 2;
  return is_libcs ? -EACCES : SANDBOX_PASS;
}

/* The permissions of its pages, 'x', 'w', or 'r' for what can only be read; '-' for none. */
static void say_mappings(char *pages) {
  FILE *maps = fopen("/proc/self/maps", "r");
  char line[4096], permissions[8];
  unsigned long start, end;
  while (fgets(line, sizeof line, maps)) {
    if (!strstr(line, "/libc.so.6")) continue;
    if (sscanf(line, "%lx-%lx %7s", &start, &end, permissions) != 3) continue;
    int kind = strchr(permissions, 'x') ? 'x' : strchr(permissions, 'w') ? 'w' : permissions[0];
    memset(pages + (start - libc_start) / PAGE, kind, (end - start) / PAGE);
  }
  fclose(maps);
}

/* Where its tables lie with its code some pages of them can only be read from now on. */
static void check_mappings(const char *before, const char *after) {
  int changed = 0;
  for (size_t i = 0; i < PAGES; i++) {
    if (before[i] == after[i]) continue;
    if (before[0] != 'x' || before[i] != 'x' || after[i] != 'r') failed("libc", "mapped otherwise");
    changed++;
  }
  if (changed > 32) failed("libc", "much can no longer be executed");
}

static int is_mapped(const char *text) {
  FILE *maps = fopen("/proc/self/maps", "r");
  char line[8192];
  int mapped = 0;
  while (fgets(line, sizeof line, maps)) mapped |= strstr(line, text) != NULL;
  fclose(maps);
  return mapped;
}

static through *open_through(long namespace) {
  void *handle = namespace == LM_ID_BASE ? dlopen("./libthrough.so", RTLD_NOW)
                                         : dlmopen(namespace, "./libthrough.so", RTLD_NOW);
  if (!handle) failed("libthrough.so", dlerror());
  return (through *)dlsym(handle, "through");
}

static void pass_here(callback *call) { call(); }

/* The name that each of the two is found by, and whose it is. */
static void say_names(void *handle) {
  const char *names[] = {"_dl_find_object", "dl_iterate_phdr"};
  for (int i = 0; i < 2; i++) {
    Dl_info info;
    void *address = dlsym(handle, names[i]);
    if (!address || !dladdr(address, &info)) failed(names[i], "not found");
    int is_libcs = strstr(info.dli_fname, "/libc.so.6") != NULL;
    printf("%s of %s\n", info.dli_sname, is_libcs ? "libc" : "another");
  }
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  const char *what = argv[2];
  char before[PAGES] = "", after[PAGES] = "";
  const long protect[] = {SYS_mprotect};
  alarm(120);
  dl_iterate_phdr(find_libc, NULL);
  use_loader(argv[1]);
  if ((libc_end - libc_start) / PAGE >= PAGES) failed("libc", "too large");
  say_mappings(before);
  if (strcmp(what, "no gain of execution") == 0 && prctl(65 /* PR_SET_MDWE */, 1, 0, 0, 0)) return 77;
  if (strcmp(what, "refused") == 0) sandbox_trap(no_writing, protect, 1);
  pass *pass_on = (pass *)library_find(library_open("./libpass.so"), "pass");
  say_mappings(after);
  check_mappings(before, after);
  printf("libgcc_s is %s\n", is_mapped("/libgcc_s") ? "there" : "not there");
  if (strcmp(what, "names") == 0) {
    say_names(RTLD_DEFAULT);
    return 0;
  }
  if (strcmp(what, "namespace") == 0) { /* which has a libc of its own */
    through *there = open_through(LM_ID_NEWLM);
    printf("%d\n", there(pass_here));
    return 0;
  }
  if (strcmp(what, "child") == 0) {
    int status;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) _exit(open_through(LM_ID_BASE)(pass_on));
    waitpid(child, &status, 0);
    printf("%d\n", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
    return 0;
  }
  through *there = open_through(LM_ID_BASE);
  printf("%d\n", there(pass_on));
  return 0;
}
