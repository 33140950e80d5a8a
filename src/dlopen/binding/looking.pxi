# What is known of images, symbols, relocations and addresses.
from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from dlopen.core.base.contract cimport (
    DLOPEN_E_MEMORY, DLOPEN_E_NOT_FOUND, DLOPEN_E_SYMBOL, DLOPEN_E_VERSION, DLOPEN_HELD_BINDING,
    DLOPEN_HELD_DEPENDENCY, DLOPEN_HELD_INITIALISING, DLOPEN_HELD_NODELETE, DLOPEN_HELD_OPEN,
    DLOPEN_HELD_PATCH, DLOPEN_HELD_RETAINED, DLOPEN_HELD_THREAD_LOCAL, DLOPEN_NO_RESOLVE,
    DLOPEN_OK, DLOPEN_OWN_ONLY, DLOPEN_R_COPY, DLOPEN_R_DTPMOD, DLOPEN_R_DTPOFF,
    DLOPEN_R_GLOB_DAT, DLOPEN_R_IRELATIVE, DLOPEN_R_JUMP_SLOT, DLOPEN_R_NONE,
    DLOPEN_R_PC_RELATIVE, DLOPEN_R_RELATIVE, DLOPEN_R_SIZE, DLOPEN_R_SYMBOLIC, DLOPEN_R_TLSDESC,
    DLOPEN_R_TPOFF, DLOPEN_R_UNKNOWN, DLOPEN_STATE_CLOSING, DLOPEN_STATE_INITIALISING,
    DLOPEN_STATE_LOADING, DLOPEN_STATE_MAPPED, DLOPEN_STATE_READY, DLOPEN_address,
    DLOPEN_dependency_at, DLOPEN_find, DLOPEN_holders, DLOPEN_images, DLOPEN_info,
    DLOPEN_needed_at, DLOPEN_read_enter, DLOPEN_read_leave, DLOPEN_relocations, DLOPEN_symbol_at,
    DLOPEN_symbol_find, DLOPEN_symbol_is_export, DLOPEN_version_at, Info, PublicImage,
    PublicRelocation, PublicSymbol, PublicVersion,
)


cdef dict STATES = {
    DLOPEN_STATE_MAPPED: "mapped", DLOPEN_STATE_LOADING: "loading",
    DLOPEN_STATE_INITIALISING: "initialising", DLOPEN_STATE_READY: "ready",
    DLOPEN_STATE_CLOSING: "closing",
}
cdef dict KINDS = {
    DLOPEN_R_NONE: "NONE", DLOPEN_R_RELATIVE: "RELATIVE", DLOPEN_R_SYMBOLIC: "SYMBOLIC",
    DLOPEN_R_GLOB_DAT: "GLOB_DAT", DLOPEN_R_JUMP_SLOT: "JUMP_SLOT", DLOPEN_R_COPY: "COPY",
    DLOPEN_R_IRELATIVE: "IRELATIVE", DLOPEN_R_DTPMOD: "DTPMOD", DLOPEN_R_DTPOFF: "DTPOFF",
    DLOPEN_R_TPOFF: "TPOFF", DLOPEN_R_TLSDESC: "TLSDESC", DLOPEN_R_SIZE: "SIZE",
    DLOPEN_R_PC_RELATIVE: "PC_RELATIVE", DLOPEN_R_UNKNOWN: "UNKNOWN",
}
cdef dict HOLDERS = {
    DLOPEN_HELD_OPEN: "open", DLOPEN_HELD_NODELETE: "nodelete",
    DLOPEN_HELD_DEPENDENCY: "dependency", DLOPEN_HELD_BINDING: "binding",
    DLOPEN_HELD_INITIALISING: "initialising", DLOPEN_HELD_THREAD_LOCAL: "thread_local",
    DLOPEN_HELD_PATCH: "patch", DLOPEN_HELD_RETAINED: "retained",
}


cdef void put_candidate(
        const char *path, const char *origin, int result, void *data) noexcept nogil:
    put_text(<Stream *>data, path)
    put_text(<Stream *>data, origin)
    put(<Stream *>data, <uint64_t><int64_t>result)


def find(bytes name not None):
    cdef Stream stream
    cdef Failure error = Failure()
    cdef const char *text = name
    cdef int code
    memset(&stream, 0, sizeof(stream))
    candidates = []
    try:
        asked = begin_asking()
        with nogil:
            code = DLOPEN_find(text, NULL, put_candidate, &stream, error.record)
        end_asking(asked, code)
        check_stream(&stream)
        if code not in (DLOPEN_OK, DLOPEN_E_NOT_FOUND):
            raise failure(error.record)
        while stream.cursor < stream.used:
            path = take_text(&stream)
            origin = take_text(&stream)
            result = <int64_t>take(&stream)
            candidates.append((path, origin, REJECTED.get(result, result)))
    finally:
        free(stream.data)
    return candidates


cpdef tuple split_key(key):
    """The symbol name and version of "name", "name@VERSION" or "name@@VERSION"."""
    cdef bytes name, version
    if not isinstance(key, str):
        raise TypeError(f"a symbol's name is a str, not {key!r}")
    name = PyUnicode_EncodeFSDefault(key)
    if b"\0" in name:
        raise ValueError("embedded null byte")
    if b"@" not in name:
        return name, None
    name, _, version = name.partition(b"@")
    return name, version.removeprefix(b"@")


cdef void put_symbol(Stream *stream, const PublicSymbol *symbol) noexcept nogil:
    put_text(stream, symbol.name)
    put_text(stream, symbol.version)
    put(stream, symbol.address)
    put(stream, symbol.value)
    put(stream, symbol.size)
    put(stream, symbol.type)
    put(stream, symbol.binding)

cdef object take_symbol(Stream *stream):
    return (take_text(stream), take_text(stream) or "", take(stream), take(stream), take(stream),
            take(stream), take(stream))


def symbol(uintptr_t image, bytes name not None, bytes version, bint own):
    """One definition, its resolver not called; None if there is none."""
    cdef Stream stream
    cdef Failure error = Failure()
    cdef PublicSymbol found
    cdef const char *text = name
    cdef const char *version_text = NULL
    cdef uint32_t token, flags = DLOPEN_NO_RESOLVE | (DLOPEN_OWN_ONLY if own else 0)
    cdef int code
    memset(&stream, 0, sizeof(stream))
    if version is not None:
        version_text = version
    try:
        with nogil:
            token = DLOPEN_read_enter()
            code = DLOPEN_symbol_find(
                <PublicImage *>image, text, version_text, flags, &found, error.record)
            if code == DLOPEN_OK:
                put_symbol(&stream, &found)
            DLOPEN_read_leave(token)
        check_stream(&stream)
        if code in (DLOPEN_E_SYMBOL, DLOPEN_E_VERSION):
            return None
        if code != DLOPEN_OK:
            raise failure(error.record)
        return take_symbol(&stream)
    finally:
        free(stream.data)


cdef bint find_address(
    uintptr_t image, bytes name, bytes version, bint own, PublicSymbol *found
) except -1:
    """Whether there is a symbol: where, its resolver called if it has one.

    The address may be 0: an absolute symbol of that value, or a resolver that says so.
    Not between DLOPEN_read_enter and _leave: a resolver is foreign code, and may close libraries.
    """
    cdef Failure error = new_failure()
    cdef const char *text = name
    cdef const char *version_text = NULL
    cdef int code
    if version is not None:
        version_text = version
    with nogil:
        code = DLOPEN_symbol_find(
            <PublicImage *>image, text, version_text, DLOPEN_OWN_ONLY if own else 0,
            found, error.record)
    if code in (DLOPEN_E_SYMBOL, DLOPEN_E_VERSION):
        return False
    if code != DLOPEN_OK:
        raise failure(error.record)
    if found.type == STT_TLS and found.address == 0:
        raise exception_for("STATE", 0, f"{decoded(text)} is a thread-local symbol")
    return True


def symbol_address(uintptr_t image, bytes name not None, bytes version, bint own):
    """Where a symbol is, and its type; None if there is none."""
    cdef PublicSymbol found
    if not find_address(image, name, version, own, &found):
        return None
    return found.address, found.type


def exports(uintptr_t image):
    """The keys of all exports, "name" for a default version and "name@VERSION" for others."""
    cdef Stream stream
    cdef PublicSymbol found
    cdef uint32_t token, index = 0
    cdef int code
    cdef Info info
    memset(&stream, 0, sizeof(stream))
    memset(&info, 0, sizeof(info))
    info.size = sizeof(info)
    keys = []
    try:
        with nogil:
            token = DLOPEN_read_enter()
            code = DLOPEN_info(<PublicImage *>image, &info)
            if code == DLOPEN_OK:
                while DLOPEN_symbol_at(<PublicImage *>image, index, &found) == DLOPEN_OK:
                    if DLOPEN_symbol_is_export(&found):
                        put_text(&stream, found.name)
                        if found.is_default:
                            found.version = NULL
                        put_text(&stream, found.version)
                    index += 1
            DLOPEN_read_leave(token)
        check_stream(&stream)
        if code != DLOPEN_OK:
            raise not_an_image()
        while stream.cursor < stream.used:
            name = take_text(&stream)
            version = take_text(&stream)
            keys.append(f"{name}@{version}" if version else name)
    finally:
        free(stream.data)
    return keys


def info(uintptr_t image):
    """Everything that is known of an image but its symbols and relocations."""
    cdef Stream stream
    cdef Info found
    cdef PublicVersion version
    cdef PublicImage *handle = <PublicImage *>image
    cdef Elf64_Phdr *phdr
    cdef uint32_t token, i
    cdef int code
    memset(&stream, 0, sizeof(stream))
    memset(&found, 0, sizeof(found))
    found.size = sizeof(found)
    try:
        with nogil:
            token = DLOPEN_read_enter()
            code = DLOPEN_info(handle, &found)
            if code == DLOPEN_OK:
                put_text(&stream, found.path)
                put_text(&stream, found.name)
                put_text(&stream, found.soname)
                put_text(&stream, found.rpath)
                put_text(&stream, found.runpath)
                put_text(&stream, found.interpreter)
                put_text(&stream, found.machine)
                put_text(&stream, found.archive)
                for i in range(found.needed_count):
                    put_text(&stream, DLOPEN_needed_at(handle, i))
                for i in range(found.dependency_count):
                    put(&stream, <uintptr_t>DLOPEN_dependency_at(handle, i))
                for i in range(found.phnum):
                    phdr = <Elf64_Phdr *><uintptr_t>found.phdr + i
                    put(&stream, phdr.p_type)
                    put(&stream, phdr.p_flags)
                    put(&stream, phdr.p_offset)
                    put(&stream, phdr.p_vaddr)
                    put(&stream, phdr.p_filesz)
                    put(&stream, phdr.p_memsz)
                    put(&stream, phdr.p_align)
                for i in range(found.version_count):
                    memset(&version, 0, sizeof(version))
                    DLOPEN_version_at(handle, i, &version)
                    put_text(&stream, version.name)
                    put_text(&stream, version.library)
                    put(&stream, version.index)
                    put(&stream, version.flags)
                    put(&stream, version.hash)
            DLOPEN_read_leave(token)
        check_stream(&stream)
        if code != DLOPEN_OK:
            raise not_an_image()
        return {
            "path": take_text(&stream),
            "name": take_text(&stream),
            "soname": take_text(&stream),
            "rpath": take_text(&stream),
            "runpath": take_text(&stream),
            "interpreter": take_text(&stream),
            "machine": take_text(&stream),
            "archive": take_text(&stream),
            "needed": tuple([take_text(&stream) for _ in range(found.needed_count)]),
            "dependencies": tuple([take(&stream) for _ in range(found.dependency_count)]),
            "segments": [
                (take(&stream), take(&stream), take(&stream), take(&stream), take(&stream),
                 take(&stream), take(&stream)) for _ in range(found.phnum)],
            "versions": [
                (take_text(&stream) or "", take_text(&stream), take(&stream), take(&stream),
                 take(&stream)) for _ in range(found.version_count)],
            "load_bias": found.load_bias,
            "map_start": found.map_start,
            "map_end": found.map_end,
            "dynamic": found.dynamic,
            "phdr": found.phdr,
            "device": found.device,
            "inode": found.inode,
            "flags": found.flags,
            "flags_1": found.flags_1,
            "tls": (found.tls_size, found.tls_align, found.tls_module_id),
            "relro_size": found.relro_size,
            "arena_size": found.arena_size,
            "handle": <uintptr_t>found.handle,
            "offset": found.offset,
            "state": STATES.get(found.state, "unknown"),
            "is_host": bool(found.is_host),
            "is_global": bool(found.is_global),
            "is_private": bool(found.is_private),
            "open_count": found.open_count,
            "symbol_count": found.symbol_count,
            "relocation_count": found.relocation_count,
            "namespace_id": found.namespace_id,
            "has_textrel": bool(found.has_textrel),
            "nodelete": bool(found.nodelete),
        }
    finally:
        free(stream.data)


# A relocation names its symbol by number: each name is copied once, when it is first met.
cdef struct RelocationReader:
    Stream stream
    PublicImage *image
    uint8_t *seen                       # owned: one for each dynamic symbol
    uint32_t symbol_count

cdef void put_relocation(const PublicRelocation *relocation, void *data) noexcept nogil:
    cdef RelocationReader *reader = <RelocationReader *>data
    cdef Stream *stream = &reader.stream
    cdef PublicSymbol symbol
    cdef uint32_t index = relocation.symbol
    put(stream, relocation.place)
    put(stream, <uint64_t>relocation.addend)
    put(stream, relocation.type)
    put(stream, relocation.kind)
    put(stream, relocation.width)
    put(stream, relocation.table)
    if index >= reader.symbol_count:
        index = 0
    put(stream, index)
    if index and not reader.seen[index]:
        reader.seen[index] = 1
        memset(&symbol, 0, sizeof(symbol))
        DLOPEN_symbol_at(reader.image, index, &symbol)
        put_text(stream, symbol.name)
        put_text(stream, symbol.version)


def relocations(uintptr_t image):
    cdef RelocationReader reader
    cdef Info found
    cdef uint32_t token
    cdef uint64_t place, type, kind, width, table, index
    cdef int64_t addend
    cdef int code
    cdef dict symbols = {0: (None, "")}
    memset(&reader, 0, sizeof(reader))
    memset(&found, 0, sizeof(found))
    found.size = sizeof(found)
    reader.image = <PublicImage *>image
    result = []
    try:
        with nogil:
            token = DLOPEN_read_enter()
            code = DLOPEN_info(reader.image, &found)
            if code == DLOPEN_OK:
                reader.symbol_count = found.symbol_count
                reader.seen = <uint8_t *>malloc(<size_t>found.symbol_count + 1)
                if reader.seen == NULL:
                    reader.stream.failed = True
                else:
                    memset(reader.seen, 0, <size_t>found.symbol_count + 1)
                    code = DLOPEN_relocations(reader.image, put_relocation, &reader)
            DLOPEN_read_leave(token)
        check_stream(&reader.stream)
        if code != DLOPEN_OK:
            raise not_an_image()
        while reader.stream.cursor < reader.stream.used:
            place = take(&reader.stream)
            addend = <int64_t>take(&reader.stream)
            type = take(&reader.stream)
            kind = take(&reader.stream)
            width = take(&reader.stream)
            table = take(&reader.stream)
            index = take(&reader.stream)
            if index not in symbols:
                symbols[index] = (take_text(&reader.stream), take_text(&reader.stream) or "")
            name, version = symbols[index]
            result.append((place, KINDS.get(kind, "UNKNOWN"), type, name, version, addend, width,
                           ("RELR", "RELA", "JMPREL")[table if table < 3 else 1]))
    finally:
        free(reader.stream.data)
        free(reader.seen)
    return result


def images():
    """The addresses of all images of this moment."""
    cdef PublicImage **found = NULL
    cdef size_t capacity = 0, count, i
    result = []
    try:
        while True:
            with nogil:
                count = DLOPEN_images(found, capacity)
            if count == 0:
                raise MemoryError
            if count <= capacity:
                for i in range(count):
                    result.append(<uintptr_t>found[i])
                return result
            capacity = count + 8
            free(found)
            found = <PublicImage **>malloc(capacity * sizeof(found[0]))
            if found == NULL:
                raise MemoryError
    finally:
        free(found)


def images_of(int64_t namespace):
    """Those of one namespace."""
    cdef Info found
    cdef uintptr_t image
    cdef uint32_t token
    cdef int code
    result = []
    memset(&found, 0, sizeof(found))
    found.size = sizeof(found)
    for image in images():
        with nogil:
            token = DLOPEN_read_enter()
            code = DLOPEN_info(<PublicImage *>image, &found)
            DLOPEN_read_leave(token)
        if code == DLOPEN_OK and found.namespace_id == namespace:
            result.append(image)
    return result


def address(uintptr_t address):
    """(image, nearest symbol or None), or None where no image is."""
    cdef Stream stream
    cdef PublicSymbol symbol
    cdef PublicImage *image = NULL
    cdef uint32_t token
    cdef int code
    memset(&stream, 0, sizeof(stream))
    memset(&symbol, 0, sizeof(symbol))
    try:
        with nogil:
            token = DLOPEN_read_enter()
            code = DLOPEN_address(<const void *>address, &image, &symbol)
            if code == DLOPEN_OK and symbol.name != NULL:
                put_symbol(&stream, &symbol)
            DLOPEN_read_leave(token)
        check_stream(&stream)
        if code == DLOPEN_E_MEMORY:
            raise MemoryError
        if code != DLOPEN_OK:
            return None
        return <uintptr_t>image, take_symbol(&stream) if stream.used else None
    finally:
        free(stream.data)


cdef void put_holder(int kind, PublicImage *holder, void *data) noexcept nogil:
    cdef Info found
    put(<Stream *>data, <uint64_t>kind)
    memset(&found, 0, sizeof(found))
    found.size = sizeof(found)
    if holder != NULL and DLOPEN_info(holder, &found) == DLOPEN_OK:
        put_text(<Stream *>data, found.path)
    else:
        put_text(<Stream *>data, NULL)


def holders(uintptr_t image):
    """(kind, path of the holder or None) for all that keeps an image mapped."""
    cdef Stream stream
    cdef uint32_t token
    memset(&stream, 0, sizeof(stream))
    found = []
    try:
        with nogil:
            token = DLOPEN_read_enter()
            DLOPEN_holders(<PublicImage *>image, put_holder, &stream)
            DLOPEN_read_leave(token)
        check_stream(&stream)
        while stream.cursor < stream.used:
            kind = take(&stream)
            found.append((HOLDERS.get(kind, "unknown"), take_text(&stream)))
    finally:
        free(stream.data)
    return found
