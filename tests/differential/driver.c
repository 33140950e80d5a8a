/* driver LOADER STEP...: opens one library after another and shows what the process looks like
 * then.  STEP is the library's name; "+MODE:NAME" for another mode than RTLD_NOW | RTLD_LOCAL, with
 * the letters g(lobal), d(eepbind), k(nodelete), o(noload); "-INDEX" to close what the step of that
 * index opened; "@PLACE:PATH" to call, at last, the TLS descriptor that the new image of that real
 * path has at PLACE from its bias; "=NAME" to open a helper before anything else, which has the
 * function tls_address, to call __tls_get_addr.  LOADER is "glibc", or the path of libdlopen.so; with
 * "glibc:PATH" libdlopen.so is loaded but not used, so that both processes hold the same images.
 *
 * On standard output: one line per image that was there before ("host"), one line per image that
 * is new ("image"), each with bias and real path, /proc/self/maps, and for each new image the content
 * of its segments and, with a helper, of this thread's block of its thread-local storage, in a form
 * that needs no knowledge of relocations:
 *     thread POINTER
 *     host BIAS PATH
 *     image BIAS PATH
 *     tls MODULE ADDRESS SIZE\n<SIZE bytes>\n     (after its image: this thread's block; a host's: 0)
 *     memory ADDRESS SIZE\n<SIZE bytes>\n         (after its image)
 *     descriptor PLACE DISTANCE                   (after its image: from the thread pointer)
 *     maps SIZE\n<SIZE bytes>\n
 *     found INDEX PATH                            (where DLOPEN_find says that it would come from)
 *     opened INDEX PATH                           (what DLOPEN_open opened)
 *     error INDEX MESSAGE                         (first, for each step that failed)
 *     end
 * and then, when all that was opened is closed again, the new images that are still mapped:
 *     left PATH
 *     closed
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dlopen.h"
#include "machines.h"

#define MAX_IMAGES 4096

struct seen {
  uint64_t bias;
  const char *path;
  const ElfW(Phdr) *phdr;
  unsigned phnum;
  uint64_t module; /* of its thread-local storage; 0: none */
  int is_new;
};

static struct seen before[MAX_IMAGES], after[MAX_IMAGES];
static FILE *output;
static char program[4096];

static __typeof__(DLOPEN_open) *our_open;
static __typeof__(DLOPEN_close) *our_close;
static __typeof__(DLOPEN_find) *our_find;
static __typeof__(DLOPEN_images) *our_images;
static __typeof__(DLOPEN_info) *our_info;
static __typeof__(DLOPEN_message) *our_message;
static __typeof__(DLOPEN_symbol_find) *our_symbol;
static void *(*tls_address)(const uint64_t index[2]); /* of the helper */

/* The calling convention of TLS descriptors: one register in and out (and the one for the return
   address), every other is kept. */
#if defined(__x86_64__)
uint64_t call_descriptor(const void *descriptor);
__asm__(
    "call_descriptor:\n"
    "  movq %rdi, %rax\n"
    "  subq $8, %rsp\n"
    "  call *(%rax)\n"
    "  addq $8, %rsp\n"
    "  ret\n");
#elif defined(__aarch64__)
static uint64_t call_descriptor(const void *descriptor) {
  register uint64_t x0 __asm__("x0") = (uint64_t)descriptor;
  __asm__ volatile("ldr x30, [x0]\n\tblr x30" : "+r"(x0) : : "x30", "memory");
  return x0;
}
#elif defined(__loongarch__)
static uint64_t call_descriptor(const void *descriptor) {
  register uint64_t a0 __asm__("$a0") = (uint64_t)descriptor;
  __asm__ volatile("ld.d $ra, $a0, 0\n\tjirl $ra, $ra, 0" : "+r"(a0) : : "$ra", "memory");
  return a0;
}
#else /* libc has none */
static uint64_t call_descriptor(const void *descriptor) { return (uint64_t)descriptor; }
#endif

static uint64_t thread_pointer(void) {
#if defined(__x86_64__)
  uint64_t pointer;
  __asm__("movq %%fs:0, %0" : "=r"(pointer));
  return pointer;
#else
  return (uint64_t)__builtin_thread_pointer();
#endif
}

struct list {
  struct seen *images;
  unsigned count;
};

static int collect(struct dl_phdr_info *info, size_t size, void *data) {
  struct list *list = data;
  /* The first one is the program, which has no name there. */
  const char *name = list->count == 0 ? program : info->dlpi_name;
  (void)size;
  if (list->count < MAX_IMAGES)
    list->images[list->count++] =
        (struct seen){info->dlpi_addr,  strdup(name),         info->dlpi_phdr,
                      info->dlpi_phnum, info->dlpi_tls_modid, 0};
  return 0;
}

static unsigned snapshot(struct seen *images) {
  struct list list = {images, 0};
  /* glibc's: this program's own slot for it is rebound once libdlopen.so is there, and the symbol
     is once an image of ours is. */
  static __typeof__(dl_iterate_phdr) *iterate;
  if (!iterate) iterate = dlsym(RTLD_DEFAULT, "dl_iterate_phdr");
  iterate(collect, &list);
  if (our_images) {
    static DLOPEN_image *ours[MAX_IMAGES];
    size_t count = our_images(ours, MAX_IMAGES);
    for (size_t i = 0; i < count && i < MAX_IMAGES; i++) {
      struct DLOPEN_info info = {.size = sizeof info};
      if (our_info(ours[i], &info) == DLOPEN_OK && !info.is_host && list.count < MAX_IMAGES)
        images[list.count++] =
            (struct seen){info.load_bias, strdup(info.path), (const ElfW(Phdr) *)info.phdr,
                          info.phnum,     info.tls_module_id, 0};
    }
  }
  return list.count;
}

/* Segments that relocations can have changed: writable ones, or all with text relocations. */
static void show_memory(const struct seen *image) {
  int textrel = 0;
  for (unsigned i = 0; i < image->phnum; i++)
    if (image->phdr[i].p_type == PT_DYNAMIC)
      for (const ElfW(Dyn) *entry = (void *)(image->bias + image->phdr[i].p_vaddr);
           entry->d_tag != DT_NULL; entry++)
        textrel |= entry->d_tag == DT_TEXTREL ||
                   (entry->d_tag == DT_FLAGS && entry->d_un.d_val & DF_TEXTREL);
  for (unsigned i = 0; i < image->phnum; i++) {
    const ElfW(Phdr) *segment = &image->phdr[i];
    if (segment->p_type != PT_LOAD || !(segment->p_flags & PF_W || textrel)) continue;
    uint64_t address = image->bias + segment->p_vaddr;
    fprintf(output, "memory %lx %lx\n", address, segment->p_filesz);
    fwrite((void *)address, 1, segment->p_filesz, output);
    fputc('\n', output);
  }
}

/* The block is made now if this thread has not touched it. */
static void show_tls(const struct seen *image) {
  if (!image->module || !tls_address) return;
  uint64_t size = 0;
  for (unsigned i = 0; image->is_new && i < image->phnum; i++)
    if (image->phdr[i].p_type == PT_TLS) size = image->phdr[i].p_filesz;
  const void *block = tls_address((uint64_t[]){image->module, (uint64_t)-TLS_DTV_OFFSET});
  fprintf(output, "tls %lx %lx %lx\n", image->module, (uint64_t)block, size);
  fwrite(block, 1, size, output);
  fputc('\n', output);
}

static void show_descriptors(const struct seen *image, char **steps) {
  for (; *steps; steps++) {
    char *path;
    if (**steps != '@') continue;
    uint64_t place = strtoul(*steps + 1, &path, 16);
    if (strcmp(path + 1, image->path) == 0)
      fprintf(output, "descriptor %lx %lx\n", place,
              call_descriptor((void *)(image->bias + place)));
  }
}

/* A descriptor's number may be another file's by now: such a name is left as it is. */
static char *real_path(const char *path) {
  return strncmp(path, "/proc/self/fd/", 14) == 0 ? NULL : realpath(path, NULL);
}

static void show_path(const char *kind, int index, const char *path) {
  char *real = real_path(path);
  fprintf(output, "%s %d %s\n", kind, index, real ? real : path);
  free(real);
}

struct candidate {
  int index, loaded;
};

static void show_found(const char *path, const char *origin, int result, void *data) {
  struct candidate *candidate = data;
  (void)origin;
  candidate->loaded |= result == DLOPEN_REJECTED_LOADED;
  if (result == 0 && !candidate->loaded) show_path("found", candidate->index, path);
}

/* Libraries know where their thread-local storage is from the linker that opened them. */
static int open_helper(const char *name, int use_glibc, struct DLOPEN_error *error) {
  if (use_glibc) {
    void *handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (handle) tls_address = (__typeof__(tls_address))dlsym(handle, "tls_address");
  } else {
    struct DLOPEN_request request = {
        .size = sizeof request, .name = name, .mode = RTLD_NOW | RTLD_LOCAL};
    struct DLOPEN_symbol symbol = {.address = 0};
    DLOPEN_image *image;
    if (our_open(&request, &image, error) == DLOPEN_OK)
      our_symbol(image, "tls_address", NULL, 0, &symbol, error);
    tls_address = (__typeof__(tls_address))symbol.address;
  }
  return tls_address != NULL;
}

static char maps[1 << 20];

static size_t read_maps(void) {
  size_t size = 0;
  ssize_t got;
  int fd = open("/proc/self/maps", O_RDONLY);
  while ((got = read(fd, maps + size, sizeof maps - 1 - size)) > 0) size += got;
  close(fd);
  maps[size] = 0;
  return size;
}

int main(int argc, char **argv) {
  if (argc < 3 || argc - 2 > MAX_IMAGES) return 2;
  if (readlink("/proc/self/exe", program, sizeof program - 1) < 0) return 2;
  /* Libraries print at their leisure: keep our output apart. */
  output = fdopen(dup(1), "w");
  dup2(2, 1);

  const char *linker = argv[1];
  int use_glibc = strncmp(linker, "glibc", 5) == 0;
  if (use_glibc) linker = linker[5] == ':' ? linker + 6 : NULL;
  if (linker) {
    void *handle = dlopen(linker, RTLD_NOW | RTLD_LOCAL);
    if (!handle) return fprintf(stderr, "%s\n", dlerror()), 3;
    __typeof__(DLOPEN_abi) *abi = (__typeof__(abi))dlsym(handle, "DLOPEN_abi");
    if (!abi || abi() != DLOPEN_ABI) return fprintf(stderr, "DLOPEN_abi differs\n"), 3;
    if (!use_glibc) {
      our_open = (__typeof__(our_open))dlsym(handle, "DLOPEN_open");
      our_close = (__typeof__(our_close))dlsym(handle, "DLOPEN_close");
      our_find = (__typeof__(our_find))dlsym(handle, "DLOPEN_find");
      our_images = (__typeof__(our_images))dlsym(handle, "DLOPEN_images");
      our_info = (__typeof__(our_info))dlsym(handle, "DLOPEN_info");
      our_message = (__typeof__(our_message))dlsym(handle, "DLOPEN_message");
      our_symbol = (__typeof__(our_symbol))dlsym(handle, "DLOPEN_symbol_find");
    }
  }

  /* Needed by unwinders: it may come with the first library that is opened. */
  if (!dlopen("libgcc_s.so.1", RTLD_LAZY)) return fprintf(stderr, "%s\n", dlerror()), 3;
  static struct DLOPEN_error error;
  for (char **step = argv + 2; *step; step++)
    if (**step == '=' && !open_helper(*step + 1, use_glibc, &error))
      return fprintf(stderr, "%s is of no use\n", *step + 1), 3;
  unsigned count_before = snapshot(before);
  static void *handles[MAX_IMAGES];
  int steps = argc - 2;
  for (int index = 0; index < steps; index++) {
    dprintf(2, "|"); /* in the libraries' trace: the next step */
    const char *name = argv[index + 2];
    if (name[0] == '@' || name[0] == '=') continue;
    if (name[0] == '-') {
      void **handle = &handles[atoi(name + 1)];
      if (!*handle || (use_glibc ? dlclose(*handle) : our_close(*handle, &error)))
        fprintf(output, "error %d not closed\n", index);
      *handle = NULL;
      continue;
    }
    int mode = RTLD_NOW | RTLD_LOCAL;
    if (name[0] == '+') {
      while (*++name != ':')
        mode |= *name == 'g' ? RTLD_GLOBAL : *name == 'd' ? RTLD_DEEPBIND
              : *name == 'k' ? RTLD_NODELETE : RTLD_NOLOAD;
      name++;
    }
    if (use_glibc) {
      handles[index] = dlopen(name, mode);
      const char *message = handles[index] ? NULL : dlerror();
      if (!handles[index]) fprintf(output, "error %d %s\n", index, message ? message : "");
      continue;
    }
    struct DLOPEN_request request = {.size = sizeof request, .name = name, .mode = mode};
    DLOPEN_image *image;
    struct candidate candidate = {index, 0};
    our_find(name, NULL, show_found, &candidate, &error);
    if (our_open(&request, &image, &error) != DLOPEN_OK) {
      char message[4096];
      our_message(&error, message, sizeof message);
      fprintf(output, "error %d %s\n", index, message);
    } else {
      struct DLOPEN_info info = {.size = sizeof info};
      if (our_info(image, &info) == DLOPEN_OK) show_path("opened", index, info.path);
      handles[index] = image;
    }
  }

  fprintf(output, "thread %lx\n", thread_pointer());
  unsigned count_after = snapshot(after);
  for (unsigned i = 0; i < count_after; i++) {
    int is_new = 1;
    for (unsigned j = 0; j < count_before; j++)
      is_new &= after[i].bias != before[j].bias || strcmp(after[i].path, before[j].path) != 0;
    char *path = real_path(after[i].path);
    if (path) after[i].path = path;
    after[i].is_new = is_new;
    fprintf(output, "%s %lx %s\n", is_new ? "image" : "host", after[i].bias, after[i].path);
    show_tls(&after[i]);
    if (!is_new) continue;
    show_memory(&after[i]);
    show_descriptors(&after[i], argv + 2);
  }
  size_t size = read_maps();
  fprintf(output, "maps %zx\n", size);
  fwrite(maps, 1, size, output);
  fprintf(output, "\nend\n");
  fflush(output);

  while (dprintf(2, "|"), steps-- > 0)
    if (handles[steps] &&
        (use_glibc ? dlclose(handles[steps]) : our_close(handles[steps], &error)))
      return 4;
  read_maps();
  for (unsigned i = 0; i < count_after; i++)
    if (after[i].is_new && strchr(after[i].path, '/') && strstr(maps, after[i].path))
      fprintf(output, "left %s\n", after[i].path);
  fprintf(output, "closed\n");
  fflush(output);
  /* Not exit: libraries that stay may mind. */
  _exit(0);
}
