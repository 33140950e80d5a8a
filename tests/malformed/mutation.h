/* Edits of an ELF file, most of them where a linker's tables are. */
#ifndef MUTATION_H
#define MUTATION_H
#include <elf.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static struct region { uint64_t start, size; } regions[32];
static unsigned region_count;
static uint64_t random_state;

static uint64_t random_word(void)        /* splitmix64 */
{
  uint64_t z = random_state += 0x9e3779b97f4a7c15;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
  z = (z ^ z >> 27) * 0x94d049bb133111eb;
  return z ^ z >> 31;
}

static uint64_t below(uint64_t n) { return n ? random_word() % n : 0; }

static void add_region(uint64_t start, uint64_t size, uint64_t file_size)
{
  if (start >= file_size || region_count == sizeof regions / sizeof *regions) return;
  if (size > file_size - start) size = file_size - start;
  regions[region_count++] = (struct region){ start, size };
}

static int by_start(const void *a, const void *b)
{
  uint64_t left = ((const struct region *)a)->start, right = ((const struct region *)b)->start;
  return (left > right) - (left < right);
}

/* Where the linker's tables are, as far as the file tells.  Each but the first ones reaches to the
 * next one, or 16 KiB. */
static void find_regions(const unsigned char *data, uint64_t size)
{
  Elf64_Ehdr header;
  Elf64_Phdr segments[64];
  region_count = 0;
  if (size < sizeof header) return;
  memcpy(&header, data, sizeof header);
  if (header.e_phnum > 64 || header.e_phoff > size ||
      header.e_phnum * sizeof *segments > size - header.e_phoff)
    return;
  memcpy(segments, data + header.e_phoff, header.e_phnum * sizeof *segments);
  add_region(0, sizeof header, size);
  add_region(header.e_phoff, header.e_phnum * sizeof *segments, size);
  unsigned tables = region_count;
  for (int i = 0; i < header.e_phnum; i++) {
    Elf64_Phdr *dynamic = &segments[i];
    if (dynamic->p_type != PT_DYNAMIC || dynamic->p_offset > size ||
        dynamic->p_filesz > size - dynamic->p_offset)
      continue;
    add_region(dynamic->p_offset, dynamic->p_filesz, size);
    tables = region_count;
    for (uint64_t at = 0; at + sizeof (Elf64_Dyn) <= dynamic->p_filesz; at += sizeof (Elf64_Dyn)) {
      Elf64_Dyn entry;
      memcpy(&entry, data + dynamic->p_offset + at, sizeof entry);
      switch (entry.d_tag) {
      case DT_HASH: case DT_GNU_HASH: case DT_STRTAB: case DT_SYMTAB: case DT_RELA: case DT_JMPREL:
      case DT_VERSYM: case DT_VERNEED: case DT_VERDEF: case DT_INIT_ARRAY: case DT_FINI_ARRAY:
      case 36 /* DT_RELR */:
        for (int j = 0; j < header.e_phnum; j++) {
          uint64_t distance = entry.d_un.d_ptr - segments[j].p_vaddr;
          if (segments[j].p_type == PT_LOAD && distance < segments[j].p_filesz)
            add_region(segments[j].p_offset + distance, 16384, size);
        }
      }
    }
  }
  qsort(regions + tables, region_count - tables, sizeof *regions, by_start);
  for (unsigned i = tables; i + 1 < region_count; i++)
    if (regions[i].size > regions[i + 1].start - regions[i].start)
      regions[i].size = regions[i + 1].start - regions[i].start;
}

static uint64_t place(uint64_t size)
{
  if (!region_count || below(4) == 0) return below(size);
  struct region *region = &regions[below(region_count)];
  return region->start + below(region->size);
}

/* In place; the new size is not above the old one. */
static size_t mutate(unsigned char *data, size_t size)
{
  static const uint64_t nasty[] = {
    0, 1, 2, 7, 0x7f, 0x80, 0xff, 0xfff, 0x1000, 0x1001, 0x7fff, 0x8000, 0xffff, 0x7fffffff,
    0x80000000, 0xffffffff, 0x100000000, 0x7fffffffffff, 0x800000000000, 0x3fffffffffffffff,
    0x4000000000000000, 0x7fffffffffffffff, 0x8000000000000000, 0xfffffffffffff000,
    0xfffffffffffffffe, 0xffffffffffffffff };
  uint64_t edits = 1 + (below(4) ? below(3) : below(16));
  while (edits--) {
    uint64_t at = place(size), width = 1u << below(4), word = 0, from;
    if (below(4)) at -= at % width;
    if (at + 64 > size) continue;
    memcpy(&word, data + at, width);
    switch (below(8)) {
    case 0: data[at] ^= (unsigned char)(1u << below(8)); continue;
    case 1: data[at] = (unsigned char)random_word(); continue;
    case 2: word = random_word(); break;
    case 3: word = nasty[below(sizeof nasty / sizeof *nasty)]; break;
    case 4: word = size - 1 + below(3); break;
    case 5: word += below(33) - 16; break;
    case 6:
      from = place(size);
      if (from + 64 <= size) memmove(data + at, data + from, 1 + below(64));
      continue;
    default:
      if (below(8) == 0) size = 64 + below(size - 64);
      else memset(data + at, 0, 1 + below(64));
      continue;
    }
    memcpy(data + at, &word, width);
  }
  return size;
}

#endif
