/* Makes this process's libc another one, before anybody has asked libdlopen.so for something: what
 * OTHER_LIBC names holds no longer.  libc's table of symbols is changed in memory, so that who looks
 * a function up there finds none, or the one here. */
#include <elf.h>
#include <gnu/libc-version.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

static int (*true_iterate)(int (*)(struct dl_phdr_info *, size_t, void *), void *);
static int (*true_info)(void *, int, void *);

/* A table of the image: the libc of RISC-V leaves the addresses of a dynamic section as they are. */
static const char *table(const struct link_map *map, const ElfW(Dyn) *entry) {
  ElfW(Addr) address = entry->d_un.d_ptr;
  return (const char *)(address < map->l_addr ? map->l_addr + address : address);
}

/* All of the name, of each version: of no name any more, or at another address. */
static void *change(const char *soname, const char *name, const void *other) {
  void *old = NULL;
  for (struct link_map *map = _r_debug.r_map; map; map = map->l_next) {
    const char *strings = NULL, *base = strrchr(map->l_name, '/');
    ElfW(Sym) *symbol = NULL;
    if (!base || strncmp(base + 1, soname, strlen(soname))) continue;
    for (ElfW(Dyn) *entry = map->l_ld; entry->d_tag; entry++) {
      if (entry->d_tag == DT_STRTAB) strings = table(map, entry);
      if (entry->d_tag == DT_SYMTAB) symbol = (ElfW(Sym) *)table(map, entry);
    }
    /* The names follow their table at once. */
    for (; (const char *)symbol < strings; symbol++) {
      uintptr_t page = (uintptr_t)symbol & ~(uintptr_t)4095;
      if (strcmp(strings + symbol->st_name, name)) continue;
      uintptr_t size = ((uintptr_t)(symbol + 1) - page + 4095) & ~(uintptr_t)4095;
      /* Code may lie in the same pages. */
      if (mprotect((void *)page, size, PROT_READ | PROT_WRITE | PROT_EXEC)) _exit(98);
      old = (void *)(map->l_addr + symbol->st_value);
      if (other)
        symbol->st_value = (uintptr_t)other - map->l_addr;
      else
        symbol->st_name = 0;
    }
  }
  if (!old) _exit(99);
  return old;
}

enum { SHORT = 1, UNCOUNTED, TOP_BIT, PREPENDED };
static int iterates;
struct visit {
  int (*visit)(struct dl_phdr_info *, size_t, void *);
  void *data;
  unsigned seen;
  struct dl_phdr_info last;
};

static int pass(struct dl_phdr_info *info, size_t size, void *data) {
  struct visit *visit = data;
  struct dl_phdr_info copy = *info;
  if (iterates == SHORT) size = offsetof(struct dl_phdr_info, dlpi_adds);
  if (iterates == UNCOUNTED) copy.dlpi_adds = copy.dlpi_subs = 0;
  if (iterates == TOP_BIT && copy.dlpi_tls_modid) copy.dlpi_tls_modid |= 1UL << 63;
  return visit->visit(&copy, size, visit->data);
}

static int keep_last(struct dl_phdr_info *info, size_t size, void *data) {
  (void)size;
  ((struct visit *)data)->last = *info;
  ((struct visit *)data)->seen++;
  return 0;
}

static int pass_but_last(struct dl_phdr_info *info, size_t size, void *data) {
  struct visit *visit = data;
  return info->dlpi_phdr == visit->last.dlpi_phdr ? 0 : visit->visit(info, size, visit->data);
}

static int other_iterate(int (*visit)(struct dl_phdr_info *, size_t, void *), void *data) {
  struct visit mine = {.visit = visit, .data = data};
  static unsigned at_first;
  if (iterates != PREPENDED) return true_iterate(pass, &mine);
  true_iterate(keep_last, &mine);
  if (!at_first) at_first = mine.seen;
  if (mine.seen == at_first) return true_iterate(visit, data);
  int code = visit(&mine.last, sizeof mine.last, data);
  return code ? code : true_iterate(pass_but_last, &mine);
}

static int other_info(void *handle, int request, void *result) {
  int code = true_info(handle, request, result);
  if (request == RTLD_DI_LINKMAP) *(char **)result += 64;
  return code;
}

static const unsigned far_member[] = {64, 1, 4096};

/* What is made for it in memory is not relocated: two words stay 0. */
static void *(*true_open)(const char *, int);
static void *other_open(const char *name, int mode) {
  struct link_map *map = true_open(name, mode);
  if (!map || !name || !strstr(name, "/fd/")) return map;
  for (ElfW(Dyn) *entry = map->l_ld; entry->d_tag; entry++)
    if (entry->d_tag == DT_RELA)
      for (int i = 0; i < 2; i++) {
        ElfW(Rela) *relocation = (ElfW(Rela) *)table(map, entry) + i;
        *(uint64_t *)(map->l_addr + relocation->r_offset) = 0;
      }
  return map;
}

__attribute__((constructor)) static void become_another(int argc, char **argv) {
  const char *wanted = getenv("OTHER_LIBC");
  const char *const iterating[] = {"", "short", "uncounted", "top bit", "prepended"};
  if (!wanted) return;
  /* libc needs its own functions for this. */
  if (argc > 1 && strchr(argv[1], '/') && !dlopen(argv[1], RTLD_NOW)) _exit(96);
  for (int i = 1; i < 5; i++)
    if (!strcmp(wanted, iterating[i])) iterates = i;
  if (!strncmp(wanted, "no ", 3))
    change(strcmp(wanted + 3, "__tls_get_addr") ? "libc.so.6" : "ld-linux", wanted + 3, NULL);
  else if (iterates)
    true_iterate = change("libc.so.6", "dl_iterate_phdr", other_iterate);
  else if (!strcmp(wanted, "donor"))
    true_open = change("libc.so.6", "dlopen", other_open);
  else if (!strcmp(wanted, "handle"))
    true_info = change("libc.so.6", "dlinfo", other_info);
  else if (!strcmp(wanted, "errno"))
    /* A function of libc's own, whose answer is no thread-local storage. */
    change("libc.so.6", "__errno_location", (void *)gnu_get_libc_version);
  else if (!strcmp(wanted, "link map"))
    change("libc.so.6", "_thread_db_link_map_l_tls_modid", far_member);
  else
    _exit(97);
}
