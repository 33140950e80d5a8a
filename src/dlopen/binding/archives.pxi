# The directory of a zip archive. See APPNOTE.TXT of PKWARE, 4.3.12.
from cpython.bytes cimport PyBytes_AsString, PyBytes_Size
from cpython.unicode cimport PyUnicode_DecodeLatin1
from libc.string cimport memcmp


cdef inline size_t little_endian_of_two(const unsigned char *at) noexcept nogil:
    return at[0] | (<size_t>at[1] << 8U)


def names_in_directory(bytes raw):
    """Where the record of each name begins, the folders that names begin with, and how many records
    there are; None where there is something else than records.

    Of a name that is not ASCII each character is a byte. A folder has no slash at its end, and
    those above it need not be there.
    """
    cdef const unsigned char *data = <const unsigned char *>PyBytes_AsString(raw)
    cdef size_t size = <size_t>PyBytes_Size(raw)
    cdef size_t position = 0
    cdef size_t end, name_size, folder_size
    cdef const char *name
    cdef const char *folder = NULL      # of the record before, which is mostly in the same one
    cdef size_t last_size = 0
    cdef size_t count = 0
    cdef dict names = {}
    cdef set folders = set()
    while size - position >= 46U:
        if memcmp(data + position, b"PK\1\2", 4) != 0:
            return None
        name_size = little_endian_of_two(data + position + 28)
        end = position + 46U + name_size + little_endian_of_two(data + position + 30)
        end += little_endian_of_two(data + position + 32)
        if end > size:
            return None
        name = <const char *>data + position + 46
        names[PyUnicode_DecodeLatin1(name, <Py_ssize_t>name_size, NULL)] = position
        folder_size = name_size
        while folder_size > 0 and name[folder_size - 1U] != 0x2f:
            folder_size -= 1U
        if folder_size > 0:
            folder_size -= 1U           # the slash
            if folder_size != last_size or memcmp(name, folder, folder_size) != 0:
                folders.add(PyUnicode_DecodeLatin1(name, <Py_ssize_t>folder_size, NULL))
                folder = name
                last_size = folder_size
        position = end
        count += 1U
    return (names, folders, count) if position == size else None
