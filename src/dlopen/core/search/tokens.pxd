"""$ORIGIN, $LIB and $PLATFORM in paths (ld.so(8), "Dynamic string tokens"). In secure execution no
folder with $ORIGIN is used."""

from libc.stddef cimport size_t

from dlopen.core.base.growable cimport Text, text_add, text_add_bytes
from dlopen.core.base.paths cimport add_working_directory
from dlopen.core.base.strings cimport strchr, strlen, strncmp, strrchr
from dlopen.core.host.linker cimport SearchSettings
from dlopen.core.image.image cimport Image
from dlopen.core.image.path cimport image_path


cdef inline size_t element_length(const char* path, const char* separators) noexcept nogil:
    """Up to the next separator, or the end."""
    cdef size_t length = 0
    while path[length] != 0 and strchr(separators, path[length]) == NULL:
        length += 1
    return length


cdef inline size_t token_length(const char* text, const char* name) noexcept nogil:
    """The length of `$name` or `${name}` at the start of text; 0 when it is not there."""
    cdef size_t length = strlen(name)
    cdef char after
    if text[1] == 0x7b:          # '{'
        if strncmp(text + 2, name, length) == 0 and text[2 + length] == 0x7d:
            return length + 3
        return 0
    if strncmp(text + 1, name, length) != 0:
        return 0
    after = text[1 + length]
    if 0x30 <= after <= 0x39 or 0x41 <= after <= 0x5a or 0x61 <= after <= 0x7a or after == 0x5f:
        return 0
    return length + 1


cdef inline bint add_origin(const Image* image, Text* text) noexcept nogil:
    """The folder of an image's file; False when it is not known. Among the caller's files it
    may be relative."""
    cdef const char* path
    cdef const char* slash
    if image == NULL:
        return False
    path = image_path(image)
    if path[0] == 0:
        return False
    if path[0] != 0x2f and not image.is_from_files:
        if image.is_from_bytes or not add_working_directory(text):
            return False
        text_add(text, b"/")
    slash = strrchr(path, 0x2f)
    if slash == NULL and image.is_from_files:
        text_add(text, b".")
    elif slash == NULL:
        return path[0] != 0x2f and text.length != 0
    elif slash == path:
        text_add(text, b"/")
    else:
        text_add_bytes(text, path, <size_t>(slash - path))
    return True


cdef inline bint expand(
    const SearchSettings* settings, const Image* image, const char* source,
    size_t length, Text* text
) noexcept nogil:
    """Appends source with $ORIGIN, $LIB and $PLATFORM expanded; False when the element
    cannot be used: $ORIGIN or $PLATFORM is not known, or it is secure execution."""
    cdef size_t i = 0
    cdef size_t token, plain
    while i < length:
        if source[i] == 0x24:    # '$'
            token = token_length(source + i, b"ORIGIN")
            if token != 0 and i + token <= length:
                if settings.is_secure or not add_origin(image, text):
                    return False
                i += token
                continue
            token = token_length(source + i, b"LIB")
            if token != 0 and i + token <= length:
                text_add_bytes(text, settings.lib.data, settings.lib.length)
                i += token
                continue
            token = token_length(source + i, b"PLATFORM")
            if token != 0 and i + token <= length:
                if settings.platform.length == 0:
                    return False
                text_add_bytes(text, settings.platform.data, settings.platform.length)
                i += token
                continue
        plain = 1
        while i + plain < length and source[i + plain] != 0x24:
            plain += 1
        text_add_bytes(text, source + i, plain)
        i += plain
    return True
