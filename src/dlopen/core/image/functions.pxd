"""What of an image runs when it comes and goes: DT_INIT, DT_FINI and their arrays.

The arrays are checked here, their entries are not: these are relocated first, and but for 0 and -1,
which stand for none, called as they are.
"""

from libc.stdint cimport uint64_t

from dlopen.core.base.contract cimport Error
from dlopen.core.base.details cimport (
    DETAIL_FINI_ARRAY_OUTSIDE, DETAIL_FINI_OUTSIDE, DETAIL_INIT_ARRAY_OUTSIDE,
    DETAIL_INIT_OUTSIDE,
)
from dlopen.core.elf.constants cimport (
    DT_FINI, DT_FINI_ARRAY, DT_FINI_ARRAYSZ, DT_INIT, DT_INIT_ARRAY, DT_INIT_ARRAYSZ,
)
from dlopen.core.image.checked cimport is_code, malformed
from dlopen.core.image.image cimport Image, Tables, bytes_at


cdef inline int read_functions(
    Image* image, const uint64_t* values, const bint* present, Error* error
) noexcept nogil:
    """Constructors and destructors, from the values of the dynamic section; an error where they lie
    outside."""
    cdef Tables* tables = &image.tables
    if image.machine.runs_init and present[DT_INIT] and values[DT_INIT] != 0:
        if not is_code(image, values[DT_INIT]):
            return malformed(image, error, DETAIL_INIT_OUTSIDE, values[DT_INIT])
        tables.init = values[DT_INIT]
    if present[DT_FINI] and values[DT_FINI] != 0:
        if not is_code(image, values[DT_FINI]):
            return malformed(image, error, DETAIL_FINI_OUTSIDE, values[DT_FINI])
        tables.fini = values[DT_FINI]
    if present[DT_INIT_ARRAY]:
        tables.init_array = values[DT_INIT_ARRAY]
        tables.init_array_count = values[DT_INIT_ARRAYSZ] // 8
        if tables.init_array_count != 0 \
                and bytes_at(image, tables.init_array, tables.init_array_count * 8) == NULL:
            return malformed(image, error, DETAIL_INIT_ARRAY_OUTSIDE, tables.init_array)
    if present[DT_FINI_ARRAY]:
        tables.fini_array = values[DT_FINI_ARRAY]
        tables.fini_array_count = values[DT_FINI_ARRAYSZ] // 8
        if tables.fini_array_count != 0 \
                and bytes_at(image, tables.fini_array, tables.fini_array_count * 8) == NULL:
            return malformed(image, error, DETAIL_FINI_ARRAY_OUTSIDE, tables.fini_array)
    return 0
