"""What dl_iterate_phdr tells of our images, side by side: a whole iteration is made for each throw
where the unwinder knows no better way.

Written under Registry.lock, read in a reader section without it. An entry is written before
`used`, which shows it, and only its `image` changes then, to NULL: what has gone leaves its place
empty. So one open and close after the other uses the table up. It is made anew with twice the room
when it is full, or mostly empty, which copies about one entry for each image that comes or goes,
however many there are; the old one is retired.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint64_t

from dlopen.core.base.allocator cimport allocate
from dlopen.core.base.atomics cimport load_pointer, load_u64, store_pointer, store_u64
from dlopen.core.elf.structures cimport Phdr
from dlopen.core.image.image cimport Image, Retired, image_asked_name
from dlopen.core.image.retirement cimport Retirement, retire


cdef enum:
    SMALLEST_SHOWN = 64          # entries


cdef struct ShownEntry:
    Image* image                 # atomic; NULL: it has gone
    uint64_t load_bias
    const char* name
    const Phdr* phdrs
    uint64_t phnum
    uint64_t module_id


cdef struct ShownTable:
    Retired retired              # first: `reclaim_alone` tells a block by that
    size_t room                  # entries
    uint64_t used                # atomic: those that were ever shown
    ShownEntry entries[0]


cdef struct Shown:
    ShownTable* table            # owned; read with load_pointer
    size_t count                 # of images that are in it


cdef inline bint renew_shown(Shown* shown, Retirement* retirement, size_t more) noexcept nogil:
    """Under the lock: without what has gone. False without memory."""
    cdef ShownTable* old = shown.table
    cdef ShownTable* table
    cdef size_t room = 2 * (shown.count + more)
    cdef size_t i
    cdef size_t used = 0
    if room < SMALLEST_SHOWN:
        room = SMALLEST_SHOWN
    table = <ShownTable*>allocate(sizeof(ShownTable) + room * sizeof(ShownEntry))
    if table == NULL:
        return False
    table.room = room
    for i in range(old.used if old != NULL else 0):
        if old.entries[i].image != NULL:
            table.entries[used] = old.entries[i]
            used += 1
            old.entries[i].image.listing.shown_at = used
    table.used = used
    store_pointer(&shown.table, table)
    if old != NULL:
        old.retired.block = old
        retire(retirement, &old.retired)
    return True


cdef inline bint reserve_shown(Shown* shown, Retirement* retirement, size_t more) noexcept nogil:
    """Under the lock: so many can be shown now. False without memory."""
    return shown.table != NULL and shown.table.used + more <= shown.table.room \
        or renew_shown(shown, retirement, more)


cdef inline void show_image(Shown* shown, Image* image) noexcept nogil:
    """Under the lock: it is linked; there is room."""
    cdef ShownTable* table = shown.table
    cdef ShownEntry* entry = &table.entries[table.used]
    entry.image = image
    entry.load_bias = image.load_bias
    entry.name = image_asked_name(image)
    entry.phdrs = image.layout.phdrs
    entry.phnum = image.layout.phnum
    entry.module_id = image.thread_local.module_id
    shown.count += 1
    image.listing.shown_at = table.used + 1
    store_u64(&table.used, table.used + 1)


cdef inline void hide_shown(Shown* shown, Retirement* retirement, Image* image) noexcept nogil:
    """Under the lock, if it was shown. Needs no memory."""
    if image.listing.shown_at == 0:
        return
    store_pointer(&shown.table.entries[image.listing.shown_at - 1].image, NULL)
    image.listing.shown_at = 0
    shown.count -= 1
    if shown.table.used > SMALLEST_SHOWN and shown.table.used > 4 * shown.count:
        renew_shown(shown, retirement, 0)    # without memory it stays as it is


# For readers -----------------------------------------------------------------------------


cdef inline const ShownTable* current_shown(const Shown* shown) noexcept nogil:
    """NULL: no image was ever shown."""
    return <const ShownTable*>load_pointer(&shown.table)


cdef inline size_t shown_count(const ShownTable* table) noexcept nogil:
    """Of entries, those of what has gone included."""
    return load_u64(&table.used)


cdef inline const Image* shown_image(const ShownEntry* entry) noexcept nogil:
    """NULL: it has gone."""
    return <const Image*>load_pointer(&entry.image)
