/* The dynamic section in memory, as those find it who walk l_ld or PT_DYNAMIC. */
#include "family.h"

static const ElfW(Dyn) *section_of(void *handle) {
    struct link_map *map = NULL;
    dlinfo(handle, RTLD_DI_LINKMAP, &map);
    return map->l_ld;
}

static uintptr_t bias_of(void *handle) {
    struct link_map *map = NULL;
    dlinfo(handle, RTLD_DI_LINKMAP, &map);
    return map->l_addr;
}

/* Each value; as a distance where it is an address of this process. */
static void show_section(void *handle) {
    const ElfW(Dyn) *entry = section_of(handle);
    uintptr_t bias = bias_of(handle);
    for (; entry->d_tag != DT_NULL; entry++) {
        uintptr_t value = entry->d_un.d_val;
        int moved = value - bias < 0x10000000;
        SAY("%#lx %s%#lx\n", (long)entry->d_tag, moved ? "bias+" : "", moved ? value - bias : value);
    }
}

CASE(of_a_library) { show_section(must_open("libone.so", RTLD_LAZY)); }
CASE(of_a_library_with_versions) { show_section(must_open("libversions.so", RTLD_LAZY)); }
CASE(of_a_library_bound_now) { show_section(must_open("libneedsone.so", RTLD_NOW)); }
CASE(of_a_dependency) {
    must_open("libneedsone.so", RTLD_LAZY);
    show_section(must_open("libone.so", RTLD_LAZY | RTLD_NOLOAD));
}
CASE(of_a_library_of_another_namespace) {
    show_section(dlmopen(LM_ID_NEWLM, "libneedsone.so", RTLD_LAZY));
}
CASE(of_a_library_with_the_older_hash) { show_section(must_open("libdynamicsysv.so", RTLD_LAZY)); }
CASE(of_a_library_with_relr) { show_section(must_open("libdynamicrelr.so", RTLD_LAZY)); }
CASE(of_a_library_with_text_relocations) {
    show_section(must_open("libdynamictext.so", RTLD_LAZY));
}
CASE(of_a_library_without_relro) { show_section(must_open("libdynamicnorelro.so", RTLD_LAZY)); }

/* What a resolver and a constructor of the library itself have seen. */
CASE(before_the_first_code) {
    void *handle = must_open("libdynamicearly.so", RTLD_NOW);
    SAY("%d %d\n", call(handle, "picked"), *(int *)must_find(handle, "in_constructor"));
}
CASE(before_the_first_code_of_a_library_that_needs_it) {
    void *handle = must_open("libdynamicneedsearly.so", RTLD_NOW);
    SAY("%d\n", call(handle, "picked_too"));
}

/* Through the table itself: what the runtimes of D and hookers of the GOT do. */
CASE(names_by_the_section_alone) {
    const ElfW(Dyn) *entry, *first = section_of(must_open("libboth.so", RTLD_NOW));
    const char *strings = NULL;
    for (entry = first; entry->d_tag != DT_NULL; entry++)
        if (entry->d_tag == DT_STRTAB) strings = (const char *)entry->d_un.d_ptr;
    for (entry = first; entry->d_tag != DT_NULL; entry++)
        if (entry->d_tag == DT_NEEDED) SAY("%s\n", strings + entry->d_un.d_val);
}

static char content[1 << 20];
static size_t content_size;

static ElfW(Phdr) *header_of(const char *name, unsigned type) {
    int file = open(path_of(name), O_RDONLY);
    ElfW(Ehdr) *header = (void *)content;
    ElfW(Phdr) *one = (void *)(content + sizeof *header);
    content_size = (size_t)read(file, content, sizeof content);
    close(file);
    while (one->p_type != type) one++;
    return one;
}

static ElfW(Dyn) *entry_of(const ElfW(Phdr) *dynamic, long tag) {
    ElfW(Dyn) *entry = (void *)(content + dynamic->p_offset);
    while (entry->d_tag != tag) entry++;
    return entry;
}

static void *open_changed(void) {
    int file = open("libchanged.so", O_WRONLY | O_CREAT | O_EXCL, 0755);
    if (write(file, content, content_size) != (ssize_t)content_size) _exit(99);
    close(file);
    must_open("libone.so", RTLD_LAZY); /* which some need, and not beside them */
    return must_open("./libchanged.so", RTLD_NOW);
}

/* The linker leaves room behind the end. */
static void double_tag(long tag) {
    ElfW(Phdr) *dynamic = header_of("libneedsone.so", PT_DYNAMIC);
    ElfW(Dyn) *end = entry_of(dynamic, DT_NULL);
    if ((char *)(end + 2) > content + dynamic->p_offset + dynamic->p_filesz) _exit(99);
    *end = *entry_of(dynamic, tag);
    show_section(open_changed());
}

CASE(of_a_tag_twice_the_last_counts) { double_tag(DT_STRTAB); }
CASE(of_the_pltgot_twice) { double_tag(DT_PLTGOT); }
CASE(of_an_unknown_tag) {
    ElfW(Phdr) *dynamic = header_of("libneedsone.so", PT_DYNAMIC);
    ElfW(Dyn) *end = entry_of(dynamic, DT_NULL);
    end->d_tag = DT_LOOS + 5;
    end->d_un.d_val = 0x100;
    show_section(open_changed());
}
/* A table at 0 is none. */
CASE(of_no_relocations) {
    static const long tags[] = {DT_RELA, DT_RELASZ, DT_RELAENT};
    ElfW(Dyn) *end = entry_of(header_of("libdynamicbare.so", PT_DYNAMIC), DT_NULL);
    for (unsigned i = 0; i < 3; i++) {
        end[i].d_tag = tags[i];
        end[i].d_un.d_val = tags[i] == DT_RELAENT ? sizeof(ElfW(Rela)) : 0;
    }
    if (end[3].d_tag != DT_NULL) _exit(99);
    show_section(open_changed());
}
CASE(of_a_section_that_is_not_to_be_written) {
    header_of("libone.so", PT_DYNAMIC)->p_flags = PF_R;
    show_section(open_changed());
}

CASE(of_a_library_that_is_closed_and_opened_again) {
    void *handle = must_open("libone.so", RTLD_LAZY);
    dlclose(handle);
    show_section(must_open("libone.so", RTLD_LAZY));
}
