"""An image whose bytes lie elsewhere than where it will run: mapped, checked, relocated, changed."""

from libc.stddef cimport size_t
from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memset

from dlopen.core.arch.machine cimport THIS_MACHINE
from dlopen.core.base.allocator cimport allocate
from dlopen.core.base.contract cimport Error
from dlopen.core.base.errors cimport error_clear
from dlopen.core.base.growable cimport pointers_add
from dlopen.core.elf.layout cimport check_header, check_layout
from dlopen.core.elf.structures cimport Ehdr, Phdr
from dlopen.core.host.rebind cimport load_place, open_place, store_place
from dlopen.core.image.dynamic cimport move_dynamic_pointers, read_dynamic
from dlopen.core.image.image cimport Image, SearchList, bytes_end, bytes_start
from dlopen.core.memory.file cimport File, file_from_bytes
from dlopen.core.memory.mapping cimport map_segments, protect_relro
from dlopen.core.memory.memory cimport memory_release
from dlopen.core.relocation.batch cimport Batch
from dlopen.core.relocation.relocate cimport relocate_image
from dlopen.core.symbols.scopes cimport Scopes


cdef Image image
cdef Error error
cdef File file
cdef Batch batch
cdef Scopes scopes
cdef SearchList alone
cdef SearchList *scope[2]
cdef uint64_t place


cdef int map_it(const char* bytes, uint64_t size, uint64_t distance) noexcept nogil:
    cdef const Ehdr* header = <const Ehdr*>bytes
    cdef int code = check_header(header, size, b"it", &error)
    if code:
        return code
    image.machine = THIS_MACHINE
    image.layout.last_address = THIS_MACHINE.last_address
    file_from_bytes(&file, bytes, size)
    image.layout.phnum = header.e_phnum
    image.layout.page = 4096
    image.layout.headers_offset = header.e_phoff
    image.layout.phdrs = <Phdr*>allocate(header.e_phnum * sizeof(Phdr))
    memcpy(image.layout.phdrs, bytes + header.e_phoff, header.e_phnum * sizeof(Phdr))
    code = check_layout(&image.layout, size, b"it", &error)
    if code == 0:
        code = map_segments(
            &image.layout, &file, &place, NULL, &image.slot, &image.bytes_bias, b"it", &error
        )
    # Nothing is there.
    image.load_bias = image.bytes_bias + distance
    image.map_start = image.load_bias + image.layout.start
    image.map_end = image.load_bias + image.layout.end
    return code


cdef public int unit_link(const char* bytes, uint64_t size, uint64_t distance) noexcept nogil:
    """A code; the image finds only itself."""
    cdef int code
    error_clear(&error)
    pointers_add(&image.names, <void*>b"it")
    code = map_it(bytes, size, distance)
    if code == 0:
        code = read_dynamic(&image, &error)
    if code:
        return code
    pointers_add(&alone.images, &image)
    scope[0] = &alone
    image.scope.lists = &scope[0]
    memset(&batch, 0, sizeof(batch))
    scopes.error = &error
    batch.scopes = &scopes
    batch.error = &error
    code = relocate_image(&batch, &image)
    if code == 0:
        move_dynamic_pointers(&image)
        code = protect_relro(&image.layout, image.bytes_bias, NULL, b"it", &error)
    return code


cdef public const char* unit_detail() noexcept nogil:
    return error.detail


cdef public uint64_t unit_load_bias() noexcept nogil:
    return image.load_bias


cdef public void unit_read(uint64_t place, void* buffer, size_t size) noexcept nogil:
    """`place` as the file has it."""
    memcpy(buffer, <const void*>(image.bytes_bias + place), size)


cdef public uint64_t unit_exchange(uint64_t place, uint64_t value) noexcept nogil:
    """As a patch does, in RELRO too; what stood there, by the address where it will run."""
    cdef uint64_t before = load_place(&image, place)
    if not open_place(&image, place):
        return 0
    store_place(&image, place, value)
    return before


cdef public void unit_unmap() noexcept nogil:
    memory_release(bytes_start(&image), bytes_end(&image) - bytes_start(&image))
