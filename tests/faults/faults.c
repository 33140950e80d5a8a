/* See faults.h: linked into the driver of the C face, preloaded for that of the Python face. */
#define _GNU_SOURCE
#include "faults.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ALLOCATION = -1, REGISTRATION = -2 };   /* core/base/faults.pxd */
enum { FRAMES = 14, BLOCKS = 1 << 16, AREAS = 512 };

static volatile int armed, hit, for_ever;
static volatile long wanted, passed;
static void *failed_in[FRAMES];
static long failed_at;

static struct block { const void *address; long number; void *frames[FRAMES]; } blocks[BLOCKS];
static volatile int blocks_lock;
static long live_blocks, blocks_made, blocks_before;

/* The build has frame pointers; what called it may have none. */
static void find_frames(void **frames) {
  uintptr_t *frame = __builtin_frame_address(0), *end = frame + (1 << 14);
  memset(frames, 0, FRAMES * sizeof *frames);
  for (int i = 0; i < FRAMES; i++) {
    uintptr_t *next = (uintptr_t *)frame[0];
    frames[i] = (void *)frame[1];
    if (next <= frame || next > end || (uintptr_t)next % 8) break;
    frame = next;
  }
}

/* The errno that is plausible for each; 0: it cannot fail, or its failure is not asked for. */
static long reason(long point) {
  switch (point) {
    case ALLOCATION: case SYS_mmap: case SYS_mprotect: case SYS_fstat: case SYS_newfstatat:
    case SYS_readlinkat: case SYS_getcwd: return -ENOMEM;
    case REGISTRATION: return -EAGAIN;
    case SYS_openat: case SYS_memfd_create: case SYS_fcntl: return -EMFILE;
    case SYS_read: case SYS_pread64: return -EIO;
    case SYS_write: return -ENOSPC;
    default: return 0;
  }
}

long dlopen_fault(long point) {
  long error = reason(point);
  if (!armed || !error) return 0;
  long number = __atomic_add_fetch(&passed, 1, __ATOMIC_RELAXED);
  if (!wanted || number < wanted || (number > wanted && !for_ever)) return 0;
  /* Else nobody could read what a process says that ends for want of memory. */
  if (point == SYS_write && number > wanted) return 0;
  if (!hit) {
    failed_at = point;
    find_frames(failed_in);
  }
  hit = 1;
  return error;
}

static struct block *block_at(const void *address) {
  size_t slot = ((uintptr_t)address >> 4) * 0x9e3779b97f4a7c15u >> 48;
  while (blocks[slot].address && blocks[slot].address != address) slot = (slot + 1) % BLOCKS;
  return &blocks[slot];
}

void dlopen_block(const void *address, int live) {
  while (__atomic_exchange_n(&blocks_lock, 1, __ATOMIC_ACQUIRE)) continue;
  struct block *block = block_at(address);
  live_blocks += live ? 1 : -1;
  /* A freed one keeps its slot: most addresses come again. */
  block->address = address;
  block->number = live ? ++blocks_made : 0;
  if (live) find_frames(block->frames);
  __atomic_store_n(&blocks_lock, 0, __ATOMIC_RELEASE);
}

void faults_arm(long number, int stays) {
  passed = hit = 0;
  wanted = number;
  for_ever = stays;
  blocks_before = blocks_made;
  armed = 1;
}

long faults_disarm(void) {
  armed = 0;
  return passed;
}

int faults_hit(void) { return hit; }

static void explain_frames(void *const *frames) {
  for (int i = 0; i < FRAMES && frames[i]; i++) {
    /* By hand: dladdr is libdlopen.so's. */
    char line[512], name[256];
    unsigned long start, end, offset;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps && fgets(line, sizeof line, maps)) {
      name[0] = 0;
      if (sscanf(line, "%lx-%lx %*s %lx %*s %*s %255s", &start, &end, &offset, name) >= 3 &&
          start <= (uintptr_t)frames[i] && (uintptr_t)frames[i] < end)
        dprintf(2, "  %s+0x%lx\n", name, (uintptr_t)frames[i] - start + offset);
    }
    if (maps) fclose(maps);
  }
}

void faults_explain(void) {
  dprintf(2, "point %ld failed in\n", failed_at);
  explain_frames(failed_in);
  for (size_t i = 0; i < BLOCKS; i++)
    if (blocks[i].number > blocks_before) {
      dprintf(2, "live block %p, number %ld\n", blocks[i].address, blocks[i].number);
      explain_frames(blocks[i].frames);
    }
}

static struct area { char name[200]; char permissions[5]; unsigned long size; } areas[AREAS];

static int compare_areas(const void *one, const void *other) {
  return memcmp(one, other, sizeof(struct area));
}

/* The host's own memory grows as it likes, and so do a sanitizer's shadow and heap. */
static int is_noise(const struct area *area) {
#ifdef __SANITIZE_ADDRESS__
  if (!area->name[0] && (area->permissions[1] == 'w' || area->permissions[0] == '-')) return 1;
#endif
  return strcmp(area->name, "[heap]") == 0 || strcmp(area->name, "[stack]") == 0;
}

static size_t add_maps(char *text, size_t size) {
  static char buffer[1 << 18];
  size_t used = 0, count = 0, length = 0;
  long file = syscall(SYS_openat, AT_FDCWD, "/proc/self/maps", O_RDONLY, 0), got;
  while ((got = syscall(SYS_read, file, buffer + used, sizeof buffer - 1 - used)) > 0) used += got;
  syscall(SYS_close, file);
  buffer[used] = 0;
  memset(areas, 0, sizeof areas);
  for (char *line = buffer, *next; *line; line = next) {
    unsigned long start, end;
    struct area area;
    next = strchr(line, '\n') + 1;
    next[-1] = 0;
    memset(&area, 0, sizeof area);
    if (sscanf(line, "%lx-%lx %4s %*s %*s %*s %199[^\n]", &start, &end, area.permissions, area.name) < 3)
      continue;
    if (area.permissions[1] == 'w' && area.permissions[2] == 'x')
      length += snprintf(text + length, size - length, "writable and executable: %s\n", line);
    if (is_noise(&area)) continue;
    /* What stands in for a file in memory where there is none. */
    if (strstr(area.name, "/.dlopen-")) {
      memset(area.name, 0, sizeof area.name);
      strcpy(area.name, "/memfd:dlopen-tls (deleted)");
    }
    size_t i = 0;
    while (i < count && (strcmp(areas[i].name, area.name) || strcmp(areas[i].permissions, area.permissions)))
      i++;
    if (i == count && count < AREAS) areas[count++] = area;
    areas[i].size += end - start;
  }
  qsort(areas, count, sizeof *areas, compare_areas);
  for (size_t i = 0; i < count; i++)
    length += snprintf(text + length, size - length, "%s %s %lu\n", areas[i].name,
                       areas[i].permissions, areas[i].size);
  return length;
}

static size_t add_files(char *text, size_t size) {
  size_t length = 0;
  for (int file = 0; file < 256; file++) {
    char path[32], target[256];
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    ssize_t got = readlink(path, target, sizeof target - 1);
    if (got > 0)
      length += snprintf(text + length, size - length, "descriptor %d: %.*s\n", file, (int)got, target);
  }
  return length;
}

size_t faults_state(char *text, size_t size, int with_blocks) {
  size_t length = add_maps(text, size);
  length += add_files(text + length, size - length);
  if (with_blocks) length += snprintf(text + length, size - length, "blocks %ld\n", live_blocks);
  return length;
}
