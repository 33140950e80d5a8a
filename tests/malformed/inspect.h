/* What is asked of an image that came through. */
#ifndef INSPECT_H
#define INSPECT_H
#include <stdint.h>
#include <string.h>

#include "dlopen.h"

static volatile uint64_t seen;           /* keeps the reads below from being dropped */

static void read_text(const char *text) { if (text) seen += strlen(text); }

static void visit(const struct DLOPEN_relocation *relocation, void *data)
{
  seen += relocation->place + relocation->kind;
  ++*(uint64_t *)data;
}

static void read_symbol(DLOPEN_image *image, const struct DLOPEN_symbol *symbol)
{
  struct DLOPEN_symbol found;
  DLOPEN_image *owner;
  read_text(symbol->name);
  read_text(symbol->version);
  seen += DLOPEN_symbol_is_export(symbol) + symbol->address + symbol->size;
  DLOPEN_symbol_find(image, symbol->name, NULL, DLOPEN_NO_RESOLVE, &found, NULL);
  DLOPEN_symbol_find(image, symbol->name, symbol->version, DLOPEN_OWN_ONLY | DLOPEN_NO_RESOLVE,
                     &found, NULL);
  if (DLOPEN_address((const void *)(uintptr_t)symbol->address, &owner, &found) == DLOPEN_OK)
    read_text(found.name);
}

static const char *inspect(DLOPEN_image *image)
{
  struct DLOPEN_info info = { .size = sizeof info };
  struct DLOPEN_symbol symbol;
  struct DLOPEN_version version;
  static struct DLOPEN_error error;
  uint64_t visited = 0;
  if (DLOPEN_info(image, &info)) return "DLOPEN_info of a good image fails";
  read_text(info.path), read_text(info.soname), read_text(info.rpath), read_text(info.runpath);
  read_text(info.interpreter), read_text(info.name);
  for (uint32_t i = 0; i <= info.needed_count; i++) read_text(DLOPEN_needed_at(image, i));
  for (uint32_t i = 0; DLOPEN_version_at(image, i, &version) == DLOPEN_OK; i++)
    read_text(version.name), read_text(version.library);
  DLOPEN_relocations(image, visit, &visited);
  if (visited != info.relocation_count) return "relocation_count is not what is visited";
  uint32_t step = 1 + info.symbol_count / 64;
  for (uint32_t i = 0; i < info.symbol_count; i += step) {
    if (DLOPEN_symbol_at(image, i, &symbol)) return "a symbol before the end is refused";
    read_symbol(image, &symbol);
  }
  if (DLOPEN_symbol_at(image, info.symbol_count, &symbol) == DLOPEN_OK)
    return "a symbol past the end";
  if (DLOPEN_symbol_find(image, "none", "none", DLOPEN_OWN_ONLY, &symbol, &error) == DLOPEN_OK)
    return "a symbol that is not there is found";
  return NULL;
}

static int is_nodelete(DLOPEN_image *image, int depth)
{
  struct DLOPEN_info info = { .size = sizeof info };
  DLOPEN_image *needed;
  if (DLOPEN_info(image, &info) || info.is_host) return 0;
  if (info.nodelete) return 1;
  for (uint32_t i = 0; depth && (needed = DLOPEN_dependency_at(image, i)); i++)
    if (is_nodelete(needed, depth - 1)) return 1;
  return 0;
}

#endif
