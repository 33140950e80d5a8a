"""What the log says of images: one function for each kind of line.

A `report_` function looks itself whether its level is on, so that a hook is one call; where every
nanosecond counts, the caller looks and calls a `log_` function.
"""

from libc.stdint cimport int32_t, uint32_t, uint64_t

from dlopen.core.base.atomics cimport load_u32
from dlopen.core.base.contract cimport Error
from dlopen.core.base.details cimport DETAIL_MEMBER_COMPRESSED, DETAIL_MEMBER_UNALIGNED
from dlopen.core.base.growable cimport Pointers
from dlopen.core.base.log cimport (
    LOG_DEBUG, LOG_INFO, LOG_TRACE, LOG_WARN, Line, add, add_address, add_number,
    add_system_error, begin_line, end_line, log_failure, log_text, logs,
)
from dlopen.core.elf.constants cimport STB_LOCAL, STT_GNU_IFUNC, STT_TLS, STV_HIDDEN, STV_INTERNAL
from dlopen.core.elf.structures cimport Sym, symbol_binding, symbol_type, symbol_visibility
from dlopen.core.image.image cimport Image, Version, image_name
from dlopen.core.symbols.lookup cimport Definition, definition_address, symbol_name, symbol_version
from dlopen.core.symbols.scopes cimport is_in_set


# Opening and closing --------------------------------------------------------------


cdef inline void add_count(Line* line, const Image* image) noexcept nogil:
    """And ends the line."""
    add(line, b": open count ")
    add_number(line, load_u32(&image.life.open_count), 10)
    end_line(line)


cdef inline void report_open(
    const char* name, int code, Image** image, const Error* error
) noexcept nogil:
    """The end of an open, however it ended."""
    cdef Line line
    if code:
        log_failure(name, code, error)
    elif logs(LOG_INFO):
        begin_line(&line, LOG_INFO)
        add(&line, b"open ")
        add(&line, image_name(image[0]))
        add_count(&line, image[0])


cdef inline void report_close(const Image* image) noexcept nogil:
    cdef Line line
    if logs(LOG_INFO):
        begin_line(&line, LOG_INFO)
        add(&line, b"close ")
        add(&line, image_name(image))
        add_count(&line, image)


cdef inline void log_image(uint32_t level, const char* what, const Image* image) noexcept nogil:
    """What happened to it, where it is, who needed it."""
    cdef Line line
    begin_line(&line, level)
    add(&line, what)
    add(&line, image_name(image))
    add(&line, b": load bias ")
    add_address(&line, image.load_bias)
    if image.life.loader != NULL:
        add(&line, b" (needed by ")
        add(&line, image_name(image.life.loader))
        add(&line, b")")
    end_line(&line)


cdef inline void report_mapped(const Image* image) noexcept nogil:
    if logs(LOG_DEBUG):
        log_image(LOG_DEBUG, b"map ", image)


cdef inline void report_copied(const Image* image, uint32_t why) noexcept nogil:
    """A member of an archive that was not mapped."""
    cdef Line line
    if logs(LOG_INFO):
        begin_line(&line, LOG_INFO)
        add(&line, b"copy into memory ")
        add(&line, image_name(image))
        if why == DETAIL_MEMBER_COMPRESSED:
            add(&line, b": the archive has it compressed")
        elif why == DETAIL_MEMBER_UNALIGNED:
            add(&line, b": the archive has it at no multiple of the page size")
        else:
            add(&line, b": the archive's file system does not let code be mapped")
        end_line(&line)


cdef inline void report_loaded(const Pointers* images) noexcept nogil:
    cdef size_t i
    if logs(LOG_INFO):
        for i in range(images.count):
            log_image(LOG_INFO, b"load ", <const Image*>images.items[i])


cdef inline void report_unload(const Image* image) noexcept nogil:
    if logs(LOG_INFO):
        log_text(LOG_INFO, b"unload ", image_name(image))


cdef inline void report_host_open(const char* path) noexcept nogil:
    if logs(LOG_INFO):
        log_text(LOG_INFO, b"by the system's loader: load ", path)


cdef inline void report_call(const char* what, const Image* image, uint64_t address) noexcept nogil:
    """Before it: it may not come back."""
    cdef Line line
    if logs(LOG_DEBUG):
        begin_line(&line, LOG_DEBUG)
        add(&line, what)
        add(&line, image_name(image))
        add(&line, b": ")
        add_address(&line, address)
        end_line(&line)


# The search -----------------------------------------------------------------------


cdef inline void report_search(
    const char* name, const char* origin, const Image* image, const char* list
) noexcept nogil:
    """A list of folders is tried."""
    cdef Line line
    if logs(LOG_DEBUG):
        begin_line(&line, LOG_DEBUG)
        add(&line, b"search ")
        add(&line, name)
        add(&line, b": ")
        add(&line, origin)
        if image != NULL:
            add(&line, b" of ")
            add(&line, image_name(image))
        add(&line, b": ")
        add(&line, list)
        end_line(&line)


cdef inline void report_candidate(
    const char* name, const char* path, const char* origin, int32_t result
) noexcept nogil:
    cdef Line line
    if logs(LOG_DEBUG):
        begin_line(&line, LOG_DEBUG)
        add(&line, b"search ")
        add(&line, name)
        add(&line, b": try ")
        add(&line, path)
        add(&line, b" (")
        add(&line, origin)
        add(&line, b"): ")
        if result == 0:
            add(&line, b"found")
        add_system_error(&line, result)
        end_line(&line)


# Scopes and versions --------------------------------------------------------------


cdef inline void add_names(Line* line, const Pointers* images) noexcept nogil:
    cdef size_t i
    for i in range(images.count):
        add(line, b" ")
        add(line, image_name(<const Image*>images.items[i]))


cdef inline void report_scope(const Image* image, const Pointers* globals) noexcept nogil:
    """In the order of a look-up: symbols/scopes.pxd."""
    cdef Line line
    cdef size_t i
    if not logs(LOG_DEBUG):
        return
    begin_line(&line, LOG_DEBUG)
    add(&line, b"scope of ")
    add(&line, image_name(image))
    add(&line, b":")
    if image.scope.is_own_first:
        for i in range(image.scope.lists[0].images.count):
            if is_in_set(image, <const Image*>image.scope.lists[0].images.items[i]):
                add(&line, b" ")
                add(&line, image_name(<const Image*>image.scope.lists[0].images.items[i]))
        add(&line, b" |")
    if not image.scope.deepbind:
        add_names(&line, globals)
        add(&line, b" |")
    add_names(&line, &image.scope.lists[0].images)
    if image.scope.deepbind:
        add(&line, b" |")
        add_names(&line, globals)
    end_line(&line)


cdef inline void report_version(
    const Image* image, const Version* needed, const Image* library
) noexcept nogil:
    """A version that `image` needs. Not defined, it is let pass only where nothing defines
    versions: what is missing otherwise ends the open."""
    cdef bint is_known = library != NULL and library.tables.has_verdef
    cdef uint32_t level = LOG_DEBUG if is_known else LOG_WARN
    cdef Line line
    if not logs(level):
        return
    begin_line(&line, level)
    add(&line, b"version ")
    add(&line, needed.name)
    add(&line, b" of ")
    add(&line, needed.library)
    add(&line, b" (needed by ")
    add(&line, image_name(image))
    add(&line, b"): ")
    if is_known:
        add(&line, image_name(library))
    elif library != NULL:
        add(&line, image_name(library))
        add(&line, b" has no version information")
    else:
        add(&line, b"no library of that name is loaded")
    end_line(&line)


# Relocation -----------------------------------------------------------------------


cdef inline void report_textrel(const Image* image) noexcept nogil:
    if logs(LOG_WARN):
        log_text(LOG_WARN, b"text relocations: its pages cannot be shared: ", image_name(image))


cdef inline void report_relocation(const Image* image) noexcept nogil:
    cdef Line line
    if logs(LOG_DEBUG):
        begin_line(&line, LOG_DEBUG)
        add(&line, b"relocate ")
        add(&line, image_name(image))
        add(&line, b": RELR ")
        add_number(&line, image.tables.relr_count, 10)
        add(&line, b", RELA ")
        add_number(&line, image.tables.rela_count, 10)
        add(&line, b", JMPREL ")
        add_number(&line, image.tables.jmprel_count, 10)
        end_line(&line)


cdef inline void log_binding(
    const Image* image, uint32_t index, const Definition* definition, uint64_t own
) noexcept nogil:
    """Of a symbol that was looked up; `own`: our function, which stands for libc's."""
    cdef const Sym* symbol = &image.tables.symtab[index]
    cdef const Version* version = symbol_version(image, index)
    cdef Line line
    if index == 0 or symbol_binding(symbol) == STB_LOCAL \
            or symbol_visibility(symbol) == STV_HIDDEN \
            or symbol_visibility(symbol) == STV_INTERNAL:
        return
    begin_line(&line, LOG_TRACE)
    add(&line, b"bind ")
    add(&line, image_name(image))
    add(&line, b": ")
    add(&line, symbol_name(image, symbol))
    if version != NULL:
        add(&line, b"@")
        add(&line, version.name)
    add(&line, b" -> ")
    if definition.image == NULL:
        add(&line, b"nothing (weak)")
    elif own != 0:
        add(&line, b"libdlopen.so ")
        add_address(&line, own)
    else:
        add(&line, image_name(definition.image))
        if symbol_type(definition.symbol) == STT_TLS:
            add(&line, b" thread-local + ")
            add_address(&line, definition.symbol.st_value)
        else:
            if symbol_type(definition.symbol) == STT_GNU_IFUNC:
                add(&line, b" IFUNC")
            add(&line, b" ")
            add_address(&line, definition_address(definition))
    end_line(&line)


cdef inline void log_lookup(
    const Image* asked, const char* name, const char* version, const Image* definer,
    uint64_t address
) noexcept nogil:
    """As dlsym: `asked` is the handle's, or NULL for the caller's scope."""
    cdef Line line
    begin_line(&line, LOG_TRACE)
    add(&line, b"find ")
    if asked != NULL:
        add(&line, image_name(asked))
        add(&line, b": ")
    add(&line, name)
    if version != NULL:
        add(&line, b"@")
        add(&line, version)
    add(&line, b" -> ")
    if definer == NULL:
        add(&line, b"nothing")
    else:
        add(&line, image_name(definer))
        add(&line, b" ")
        add_address(&line, address)
    end_line(&line)


cdef inline void report_resolver(
    const Image* image, uint64_t place, uint64_t resolver
) noexcept nogil:
    cdef Line line
    if logs(LOG_TRACE):
        begin_line(&line, LOG_TRACE)
        add(&line, b"IFUNC of ")
        add(&line, image_name(image))
        add(&line, b": place ")
        add_address(&line, image.load_bias + place)
        add(&line, b", resolver ")
        add_address(&line, resolver)
        end_line(&line)
