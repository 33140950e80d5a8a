/* dlopen.h: the extended C interface of libdlopen.so.
 *
 * dlopen(3), dlsym(3) and their family are exported under their own names and
 * are declared in <dlfcn.h> and <link.h>; this header declares what libc has no
 * name for.  The Python package uses this interface and nothing else.
 *
 * Conventions.  A function that can fail returns 0 (DLOPEN_OK) or a code and,
 * if `error` is not NULL, fills it.  Strings handed out belong to the image that
 * they came from: they live as long as the caller keeps the image open, or while
 * it is between DLOPEN_read_enter and DLOPEN_read_leave.  A handle that is not
 * (or no longer) valid gives DLOPEN_E_HANDLE, never a crash.  Every function may
 * be called from any thread at any time; none keeps a lock while it runs a
 * constructor, a destructor, a resolver, a callback or the host's own loader.
 *
 * A struct that begins with `size` may get further fields at its end.  Set size to
 * sizeof of it and the rest, where it is not filled, to zeroes: an older client's
 * struct is smaller, and what it has not got counts as zero; a newer client's is
 * larger, and gives DLOPEN_E_INVALID if what this library does not know is not zero.
 *
 * Environment, read once: DLOPEN_LOG=error|warn|info|debug|trace says what the
 * linker does, on standard error or at the end of the file DLOPEN_LOG_FILE.
 */
#ifndef DLOPEN_H
#define DLOPEN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version handshake: DLOPEN_abi() of the library in this process must equal
 * the DLOPEN_ABI that a client was compiled with. */
#define DLOPEN_ABI 2u

/* One image of its own, beside any other of the same file (mode of DLOPEN_open).  It, what is loaded with it, and
 * images from bytes or the caller's files find each other's definitions first, then those that any library would
 * find; but for malloc's family, operator new and delete, and the unique symbols that the process shares.  Not with
 * RTLD_GLOBAL or RTLD_DEEPBIND, which mean what they mean for others. */
#define DLOPEN_PRIVATE 0x400

/* An image: an ELF object that is mapped in this process, ours or the host's.
 * For images of ours the pointer is also the handle that dlopen(3) returns, and
 * begins with a struct link_map. */
typedef struct DLOPEN_image DLOPEN_image;

enum DLOPEN_code {
  DLOPEN_OK = 0,
  /* the operating system said no: error.errnum holds errno */
  DLOPEN_E_OPEN,          /* the file cannot be opened */
  DLOPEN_E_READ,          /* it cannot be read */
  DLOPEN_E_MAP,           /* it cannot be mapped */
  DLOPEN_E_PROTECT,       /* the protection of a mapping cannot be changed */
  DLOPEN_E_MEMORY,        /* no memory for the linker's own records */
  /* the file is not one that can be loaded */
  DLOPEN_E_NOT_FOUND,     /* a searched name was found nowhere: see searched */
  DLOPEN_E_NOT_ELF,       /* no ELF magic; detail says what it is if known */
  DLOPEN_E_FORMAT,        /* malformed: detail says which rule is broken */
  DLOPEN_E_UNSUPPORTED,   /* well-formed, but refused: detail says why */
  /* linking */
  DLOPEN_E_SYMBOL,        /* an undefined symbol */
  DLOPEN_E_VERSION,       /* a needed version is not defined by the library that should have it */
  DLOPEN_E_RELOCATION,    /* a relocation that cannot be applied: detail says why */
  DLOPEN_E_HOST,          /* the host's loader refused: detail holds its message, which names the library */
  /* use */
  DLOPEN_E_HANDLE,        /* not a handle, or closed already */
  DLOPEN_E_INVALID,       /* an argument that cannot be: detail says which */
  DLOPEN_E_NOT_LOADED,    /* RTLD_NOLOAD or DLOPEN_existing: not loaded */
  DLOPEN_E_STATE,         /* not possible in this state: detail says why */
  DLOPEN_E_STOPPED,       /* a DLOPEN_find_symbol, a DLOPEN_read_file or a DLOPEN_locate_member said so */
  DLOPEN_E_CONSTRUCTOR    /* a constructor has thrown an exception: detail says which */
};

/* An error is data; DLOPEN_message renders it.  All strings are in `text`, "" when
 * absent; `searched` is a sequence of searched_count strings, each "path\0", with
 * one errno, or DLOPEN_REJECTED_* number, each in searched_errno (the first
 * DLOPEN_SEARCHED_MAX of them). */
#define DLOPEN_SEARCHED_MAX 64
struct DLOPEN_error {
  int32_t code;
  int32_t errnum;
  uint64_t offset;               /* where in the file, or the place's address; ~0 when none */
  uint64_t value;                /* the offending value; meaning depends on detail */
  const char *library;           /* the file or name that could not be used */
  const char *detail;            /* the rule or reason, plain English */
  const char *symbol;            /* symbol name */
  const char *version;           /* symbol version */
  const char *needed_by;         /* the image that asked for library, "" if the caller did */
  const char *searched;          /* first of the searched paths */
  uint32_t searched_count;
  uint16_t text_used;
  uint16_t detail_number;        /* of detail, in this release; 0 when its text was made for this error */
  int32_t searched_errno[DLOPEN_SEARCHED_MAX];
  char text[16384];
};

/* flags of an open request */
#define DLOPEN_NO_FOREIGN_CODE 1u  /* run neither constructors, destructors nor IFUNC resolvers: for tests and inspection */
#define DLOPEN_KEEP_AS_LIBC 2u     /* what glibc never unloads stays: owners of STB_GNU_UNIQUE symbols that are bound */

#define DLOPEN_REPLACE_IN_TREE 4u   /* replacements reach the dependencies that this open loads, too */

#define DLOPEN_RELOADABLE 16u       /* with bytes: found by its name as a file's image is, and ready for DLOPEN_swap: it shares no unique definitions */

/* What this open loads is read into memory that closed images have left, if it is small (256 KiB in memory), instead
 * of being mapped: faster where many small libraries come and go.  Its file is not in /proc/PID/maps, and its pages
 * are shared with no other process.  What is larger, asks for a greater alignment than a page, or may not be
 * executed once it was written (PR_SET_MDWE, execmem of SELinux) is mapped as ever.  Up to 2 MiB are kept. */
#define DLOPEN_ARENA 32u

/* What a reference is bound to instead of what the scope has: one symbol of one version. */
struct DLOPEN_replacement {
  const char *name;
  const char *version;           /* NULL: of any version, and of none */
  const void *address;
};

/* The same, asked for each symbol that an image refers to, once, before any of its places is bound, with
 * no lock held.  Fills *address (NULL on entry) where it wants to decide; anything but 0 ends the open
 * with DLOPEN_E_STOPPED.  version is NULL for a reference without one. */
typedef int DLOPEN_find_symbol(const char *name, const char *version, const void **address, void *data);

/* Files of the caller's own, asked for before the file system: for the library itself by its name, then for
 * what it and its dependencies need, by each path that the search forms, and by a needed name without a slash
 * as it is after the folders of RPATH and RUNPATH and before those of LD_LIBRARY_PATH.  Paths are plain (no
 * ".", "..", "//") as far as they can be.  Relative ones in an image of these files, and its $ORIGIN, are
 * paths of these files, and of no working directory.  Not asked for: glibc-hwcaps subfolders, names that
 * a loaded image answers to; not taken: libc and the others that there is one of in a process.
 * Fills *bytes and *size where it has the file, which must stay as it is until the call that was given the
 * request returns; leaves *bytes NULL where it has not; anything but 0 ends that call with DLOPEN_E_STOPPED.
 * With no lock held; the same path may be asked for again.  The images are as if from bytes: nobody else
 * finds them, unless they are opened RTLD_GLOBAL. */
typedef int DLOPEN_read_file(const char *path, const void **bytes, size_t *size, void *data);

/* A member: content inside of a file, as an archive has it.  Its image is as one from a file: visible, known by its
 * path and soname, and by its file's device and inode with `offset`.  One that is stored as it is, at a multiple of
 * the page, is mapped from the file; any other, and one that its file system does not let be mapped for execution,
 * is copied into memory, as the log says. */
#define DLOPEN_MEMBER_MAPPED_ONLY 1u     /* an error instead of a copy in memory */
typedef void DLOPEN_done(void *data);
struct DLOPEN_member {
  size_t size;                   /* sizeof (struct DLOPEN_member) */
  const char *archive;           /* path of the file that it is in, as DLOPEN_info gives it; or NULL */
  const char *path;              /* that the image goes by; NULL: the one asked for, in the archive if it is relative */
  const void *bytes;             /* its content where the file does not hold it as it is (compressed); or NULL: stored */
  size_t bytes_size;
  uint64_t offset;               /* where it begins in the file: its identity, with the file's device and inode */
  uint64_t length;               /* of what is stored there */
  int32_t descriptor;            /* of the file; the caller's, open until the call that asked returns */
  uint32_t flags;                /* DLOPEN_MEMBER_MAPPED_ONLY */
  const char *reason;            /* from who is asked and ends the open: why; or NULL */
  DLOPEN_done *done;             /* of an answer, or NULL: called in the same thread when nothing that it points to is */
  void *done_data;               /* used any more, whatever it was */
};

/* The member at a path, which is absolute unless it is one of a request's `members`, and plain: fills *member, which
 * has its size and otherwise zeroes.  0: found; 1: there is none; anything else ends the call that asked with
 * DLOPEN_E_STOPPED.  With no lock held; the same path may be asked for again. */
typedef int DLOPEN_locate_member(const char *path, struct DLOPEN_member *member, void *data);

struct DLOPEN_request {
  size_t size;                   /* sizeof (struct DLOPEN_request) */
  const char *name;              /* a path (with a slash), or a name that is searched; with bytes: the image's name; NULL: the program */
  const void *bytes;             /* the file's content, or NULL */
  size_t bytes_size;
  const void *caller;            /* an address in the image that asks (its RUNPATH and $ORIGIN count); NULL: the program */
  uint32_t mode;                 /* RTLD_* of <dlfcn.h>, DLOPEN_PRIVATE */
  uint32_t flags;                /* DLOPEN_NO_FOREIGN_CODE, DLOPEN_KEEP_AS_LIBC */
  int64_t namespace_id;          /* Lmid_t of dlmopen(3): 0 the program's, -1 a new one; or of DLOPEN_namespace_new */
  const struct DLOPEN_replacement *replacements; /* DLOPEN_E_STATE if the library is loaded already: open a DLOPEN_PRIVATE one */
  size_t replacement_count;
  DLOPEN_find_symbol *find;      /* or NULL; asked where no replacement fits */
  void *find_data;
  DLOPEN_image *replaces;        /* or NULL; an image that DLOPEN_swap will put this one in the place of: not in its scope */
  DLOPEN_read_file *files;       /* or NULL; with RTLD_NOLOAD, and by DLOPEN_relocate, nothing is asked for */
  void *files_data;
  const struct DLOPEN_member *member;    /* or NULL; the library itself: `name` is the path that it goes by, one in the archive if it is relative */
  DLOPEN_locate_member *members; /* or NULL; asked for each path before `files`, in the same words */
  void *members_data;
};

uint32_t DLOPEN_abi(void);

/* Renders one line, as dlerror(3) would; returns its length (without the NUL),
 * as snprintf does. */
size_t DLOPEN_message(const struct DLOPEN_error *error, char *buffer, size_t size);

/* A namespace: images that see only those of their own, and one family of libraries that all share (libc, ld.so,
 * libm, libgcc_s, libstdc++, libpython; where the process has something before these, a preloaded malloc, that).
 * dlmopen(3)'s are there while they have images.  One that DLOPEN_namespace_new makes is there, empty too, until
 * DLOPEN_namespace_end, and then while it has images.  In addition
 * - its search_path (as LD_LIBRARY_PATH; or NULL) holds for all that is searched in it.  It comes after the RPATH
 *   of the libraries in it, and before all that the process has and their RUNPATH;
 * - references are bound to its own images first, then to the family, then to the program;
 * - an image from bytes in it answers to its name and soname there. */
int DLOPEN_namespace_new(const char *search_path, int64_t *namespace_id, struct DLOPEN_error *error);
int DLOPEN_namespace_end(int64_t namespace_id, struct DLOPEN_error *error);

/* The archives of the process: `locate` is asked for each path that leads through a file (ENOTDIR of path_resolution(7)),
 * in an open and in what a search forms, but for glibc-hwcaps subfolders.  NULL takes it away.  Waits for the calls of
 * what was set before that other threads are in, unless this thread is in one itself. */
void DLOPEN_set_archives(DLOPEN_locate_member *locate, void *data);

/* Open, count, initialise.  Each success is undone by one DLOPEN_close. */
int DLOPEN_open(const struct DLOPEN_request *request, DLOPEN_image **image, struct DLOPEN_error *error);

/* Map and check one file, without its dependencies and without relocating it.  It may be for another
 * machine (DLOPEN_info: machine); then, or if it asks for an executable stack, DLOPEN_relocate refuses it.
 * DLOPEN_close unmaps it. */
int DLOPEN_map(const struct DLOPEN_request *request, DLOPEN_image **image, struct DLOPEN_error *error);

/* Relocate and initialise a mapped image, once.  Its references are bound to `find` (or a replacement),
 * then to its own definitions, then to those of the images in `scope` and of no other, in this order (of
 * malloc's family, operator new and delete its own come last); DT_NEEDED counts for nothing.  Of the request, mode
 * and flags, replacements and find count.  When it fails, the image is closed; but with DLOPEN_E_STATE, if it was
 * not one that is mapped only, it is as it was.  If another thread closes it meanwhile, it stays until this is done,
 * and DLOPEN_E_HANDLE says so. */
int DLOPEN_relocate(DLOPEN_image *image, const struct DLOPEN_request *request, DLOPEN_image **scope,
                    size_t scope_count, struct DLOPEN_error *error);

/* An image that is loaded already, by path, soname or base name; counted.  What no search finds (the program, what is
 * DLOPEN_PRIVATE, from bytes, or of another namespace) is found by the path that DLOPEN_info has, the first of several.
 * With a name of NULL it is the image that *image holds, as DLOPEN_images, DLOPEN_address and DLOPEN_dependency_at
 * give it: DLOPEN_E_HANDLE if that has gone, DLOPEN_E_STATE if it is mapped only. */
int DLOPEN_existing(const char *name, DLOPEN_image **image, struct DLOPEN_error *error);

/* An exception that a destructor throws goes on to the caller.  The image is closed; the destructors that are left
 * run, and what can be unmapped is unmapped, at the next close of anything, or at the process's end. */
int DLOPEN_close(DLOPEN_image *image, struct DLOPEN_error *error);

/* Where a name would come from; nothing is loaded.  `visit` is called for each
 * candidate in order, with 0 for the one that would be used, with errno or a
 * DLOPEN_REJECTED_* number for those that would not. */
#define DLOPEN_REJECTED_LOADED (-1)      /* not a candidate: an image loaded already answers to the name */
#define DLOPEN_REJECTED_MACHINE (-2)     /* an ELF file, but for another machine or class */
#define DLOPEN_REJECTED_FILES (-3)       /* the files of the request have none of that path */
#define DLOPEN_REJECTED_HOSTS (-4)       /* in them, but one that must be the host's */
typedef void DLOPEN_visit_candidate(const char *path, const char *origin, int result, void *data);
int DLOPEN_find(const char *name, const void *caller, DLOPEN_visit_candidate *visit, void *data, struct DLOPEN_error *error);

/* Symbols */
struct DLOPEN_symbol {
  const char *name;
  const char *version;           /* "" without version information */
  DLOPEN_image *image;           /* that defines it */
  uint64_t address;              /* where it is now; 0 while unresolved (an IFUNC before resolve); TLS: of the calling thread */
  uint64_t value;                /* st_value */
  uint64_t size;                 /* st_size */
  uint32_t index;                /* in the image's dynamic symbol table */
  uint8_t type;                  /* STT_* */
  uint8_t binding;               /* STB_* */
  uint8_t visibility;            /* STV_* */
  uint8_t is_default;            /* 1: what a reference without version gets (not the hidden bit) */
  uint16_t section;              /* st_shndx */
};
/* flags of DLOPEN_symbol_find */
#define DLOPEN_OWN_ONLY 1u       /* the image's own exports, not its dependencies' */
#define DLOPEN_NO_RESOLVE 2u     /* do not call an IFUNC's resolver: address is then 0 */
int DLOPEN_symbol_find(DLOPEN_image *image, const char *name, const char *version /* or NULL */, uint32_t flags,
                       struct DLOPEN_symbol *symbol, struct DLOPEN_error *error);
/* The dynamic symbol number `index` of an image, exported or not, not resolved;
 * DLOPEN_E_INVALID past the end. */
int DLOPEN_symbol_at(DLOPEN_image *image, uint32_t index, struct DLOPEN_symbol *symbol);
/* 1 if other images can bind to it */
int DLOPEN_symbol_is_export(const struct DLOPEN_symbol *symbol);

/* dladdr(3): the image that holds the address, and the nearest symbol.
 * DLOPEN_E_INVALID if no image holds it, DLOPEN_E_MEMORY if that cannot be found out;
 * symbol->name is NULL if no symbol does. */
int DLOPEN_address(const void *address, DLOPEN_image **image, struct DLOPEN_symbol *symbol);

/* What is known of an image.  Absent strings are NULL. */
enum DLOPEN_state {
  DLOPEN_STATE_MAPPED = 1,       /* by DLOPEN_map, not relocated */
  DLOPEN_STATE_LOADING,          /* being linked: not visible yet */
  DLOPEN_STATE_INITIALISING,     /* its constructors run */
  DLOPEN_STATE_READY,
  DLOPEN_STATE_CLOSING           /* its destructors run or have run */
};
struct DLOPEN_info {
  size_t size;                   /* set by the caller: sizeof (struct DLOPEN_info) */
  const char *path;              /* absolute where it is known; the given name for an image from bytes, the path asked for of one from files; of the program its file's, "" if that is not known */
  const char *name;              /* l_name, as dl_iterate_phdr gives it */
  const char *soname, *rpath, *runpath, *interpreter;
  uint64_t load_bias;            /* run address - p_vaddr */
  uint64_t map_start, map_end;
  uint64_t dynamic;              /* address of the dynamic section, as libc leaves it; mapped only: the file's */
  uint64_t phdr;                 /* address of the program headers (Elf64_Phdr) */
  uint64_t device, inode;        /* 0, 0 when unknown */
  uint64_t flags, flags_1;       /* DT_FLAGS, DT_FLAGS_1 */
  uint64_t tls_size, tls_align, tls_module_id; /* PT_TLS; 0 when none */
  uint32_t phnum;
  uint32_t state;                /* enum DLOPEN_state */
  uint32_t is_host;              /* 1: the host's loader mapped it */
  uint32_t is_global;            /* 1: in the global scope */
  uint32_t is_private;
  uint32_t open_count;           /* opens that were not closed yet */
  uint32_t symbol_count;         /* entries of the dynamic symbol table */
  uint32_t relocation_count;     /* as many as DLOPEN_relocations visits */
  uint32_t needed_count;
  uint32_t dependency_count;     /* direct: one for each DT_NEEDED, in order (of the host's, found by its name); 0 before linking */
  uint32_t version_count;        /* as DLOPEN_version_at counts them */
  uint32_t has_textrel, nodelete;
  int64_t namespace_id;          /* 0: the program's */
  const char *machine;           /* that its code is for: "x86-64", "AArch64", "RISC-V", "LoongArch" */
  uint64_t relro_size;           /* bytes that are made read-only after relocation, whole pages of PT_GNU_RELRO; 0 when none */
  uint64_t arena_size;           /* bytes of the arena that it was read into (DLOPEN_ARENA); 0: it is mapped, or was copied from bytes */
  void *handle;                  /* what the dl* functions of this library take for it; NULL: one of the host's that is not open through here */
  const char *archive;           /* of a member, the path of the file that it is in, if that was given */
  uint64_t offset;               /* of a member, where it begins in that file; 0 of others */
};
int DLOPEN_info(DLOPEN_image *image, struct DLOPEN_info *info);
const char *DLOPEN_needed_at(DLOPEN_image *image, uint32_t index);       /* NULL past the end */
DLOPEN_image *DLOPEN_dependency_at(DLOPEN_image *image, uint32_t index); /* NULL past the end, and where none of the host's has the name */

/* Relocations: RELR first, then DT_RELA, then DT_JMPREL. */
enum DLOPEN_relocation_kind {    /* S: the symbol's address, A: the addend, B: the load bias, P: the place's address */
  DLOPEN_R_NONE, DLOPEN_R_RELATIVE /* B + A */, DLOPEN_R_SYMBOLIC /* S + A */,
  DLOPEN_R_GLOB_DAT, DLOPEN_R_JUMP_SLOT /* S, on some machines S + A */, DLOPEN_R_COPY /* the symbol's content */,
  DLOPEN_R_IRELATIVE /* what the function at B + A returns */,
  DLOPEN_R_DTPMOD, DLOPEN_R_DTPOFF, DLOPEN_R_TPOFF, DLOPEN_R_TLSDESC /* thread-local storage */,
  DLOPEN_R_SIZE /* the symbol's size + A */, DLOPEN_R_PC_RELATIVE /* S + A - P */, DLOPEN_R_UNKNOWN
};                               /* new ones are added at the end */
struct DLOPEN_relocation {
  uint64_t place;                /* address */
  int64_t addend;                /* r_addend; what stood at the place for RELR is not known any more: 0 */
  uint32_t type;                 /* the machine's number; RELR entries have the machine's RELATIVE */
  uint32_t kind;                 /* enum DLOPEN_relocation_kind */
  uint32_t symbol;               /* index in the dynamic symbol table, 0 when none */
  uint32_t width;                /* bytes at the place */
  uint32_t table;                /* 0 RELR, 1 DT_RELA, 2 DT_JMPREL */
};
/* Calls visit for each, in order. */
typedef void DLOPEN_visit_relocation(const struct DLOPEN_relocation *relocation, void *data);
int DLOPEN_relocations(DLOPEN_image *image, DLOPEN_visit_relocation *visit, void *data);

/* Versions: those that the image defines (verdef), then those that it needs (verneed). */
struct DLOPEN_version {
  const char *name;
  const char *library;           /* the file that should define it; NULL for a definition */
  uint32_t hash;
  uint16_t flags;                /* VER_FLG_BASE 1, VER_FLG_WEAK 2 */
  uint16_t index;                /* as in the versym table, without the hidden bit */
};
int DLOPEN_version_at(DLOPEN_image *image, uint32_t index, struct DLOPEN_version *version);

/* All images of the process, the host's in its order, then ours in load order.
 * Writes at most `capacity` and returns how many there are; 0: no memory to find out. */
size_t DLOPEN_images(DLOPEN_image **images, size_t capacity);

/* Readers.  Between enter and leave nothing that was published is unmapped or
 * freed, whoever closes it meanwhile.  They nest.  Give leave what enter returned. */
uint32_t DLOPEN_read_enter(void);
void DLOPEN_read_leave(uint32_t token);

/* Patches.  Every place of the image that a relocation bound to one of the symbols (in the GOT, for the PLT, in
 * data) is bound to the replacement now, each by one aligned store, while other threads may run: an image of ours
 * or of the host's (DLOPEN_existing).  All of them, or none.  Patches of one symbol stack up and can be taken back
 * in any order; with the last one each place gets the very word that stood there.  A library of ours that holds the
 * replacement stays loaded meanwhile, and so does a patched image of the host's.  An address of NULL means, in an
 * image of ours, what the symbol is bound to without any replacement.  A thread may be inside of the
 * replacement for as long as it likes: its code must stay longer than the patch. */
struct DLOPEN_patched {
  uint64_t places;               /* how many; 0: the image does not refer to it, or in no way that can be changed */
  uint64_t original;             /* what they led to without any patch; 0: nothing (a weak symbol) */
};
int DLOPEN_patch(DLOPEN_image *image, const struct DLOPEN_replacement *replacements, size_t count,
                 struct DLOPEN_patched *patched /* [count] */, uint64_t *number, struct DLOPEN_error *error);
/* Takes a patch back; again, or after the image has gone, it does nothing.  When it fails, the patch is in
 * force still. */
int DLOPEN_unpatch(uint64_t number, struct DLOPEN_error *error);

/* Hot swap.  Every place of another image of ours that was bound to `old`, and every place of any image that a patch
 * lets lead to it, is bound to `successor`, to the symbol of the same name and version, as DLOPEN_patch does; the global scope, dependencies and searches by name have the
 * successor in the place of the old one.  Nothing is changed if it fails: a symbol is missing, or a place cannot be
 * changed by one store.  Both stay as they are otherwise: close the old one, with DLOPEN_retain before if threads may
 * still be inside or have its addresses. */
int DLOPEN_swap(DLOPEN_image *old, DLOPEN_image *successor, uint64_t *places, struct DLOPEN_error *error);
/* Once closed, the image stays mapped when its destructors have run, until each DLOPEN_retain was undone by one
 * DLOPEN_release; DLOPEN_E_STATE if there is none to undo. */
int DLOPEN_retain(DLOPEN_image *image, struct DLOPEN_error *error);
int DLOPEN_release(DLOPEN_image *image, struct DLOPEN_error *error);

/* What keeps an image mapped although nobody holds it open: calls visit for each
 * holder; returns how many. */
enum DLOPEN_holder_kind {
  DLOPEN_HELD_OPEN = 1, DLOPEN_HELD_NODELETE, DLOPEN_HELD_DEPENDENCY, DLOPEN_HELD_BINDING, DLOPEN_HELD_INITIALISING,
  DLOPEN_HELD_THREAD_LOCAL,      /* a thread has not yet destroyed a thread_local object of the image */
  DLOPEN_HELD_PATCH,             /* a patch that is in force leads to it */
  DLOPEN_HELD_RETAINED           /* DLOPEN_retain */
};
typedef void DLOPEN_visit_holder(int kind, DLOPEN_image *holder, void *data);
size_t DLOPEN_holders(DLOPEN_image *image, DLOPEN_visit_holder *visit, void *data);

/* A function without effect, returning 0: what a pointer to a closed library's
 * function may be replaced by. */
long DLOPEN_closed_function(void);

#ifdef __cplusplus
}
#endif
#endif
