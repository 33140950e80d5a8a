"""The functions of the host's loader.

They are taken from libc's symbol table, found through the debugger's link map, so that neither
a preloaded wrapper nor our own exports stand before them.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from dlopen.core.arch.processor cimport FEATURES_FUNCTION, NEEDS_FEATURES
from dlopen.core.base.atomics cimport store_pointer
from dlopen.core.base.single_thread cimport is_single_threaded
from dlopen.core.elf.constants cimport DT_DEBUG, PT_DYNAMIC, PT_PHDR
from dlopen.core.elf.structures cimport Dyn, Phdr
from dlopen.core.host.abi cimport AT_PHDR, AT_PHNUM, HostDebug, HostFunctions, getauxval
from dlopen.core.host.assumptions cimport fits_link_map, functions_are_there
from dlopen.core.host.libraries cimport is_c_library, is_loader
from dlopen.core.host.linker cimport Linker
from dlopen.core.image.dynamic cimport read_for_lookup
from dlopen.core.image.image cimport Image, LinkMap, Tables
from dlopen.core.symbols.lookup cimport (
    Definition, Reference, definition_address, lookup_in_image, refer,
)


cdef inline HostDebug* find_host_debug() noexcept nogil:
    """Through DT_DEBUG of the program: the symbol _r_debug may be a stale copy."""
    cdef const Phdr* headers = <const Phdr*>getauxval(AT_PHDR)
    cdef unsigned long count = getauxval(AT_PHNUM)
    cdef unsigned long i
    cdef uint64_t bias = 0
    cdef const Dyn* entry = NULL
    if headers == NULL:
        return NULL
    for i in range(count):
        if headers[i].p_type == PT_PHDR:
            bias = <uint64_t>headers - headers[i].p_vaddr
    for i in range(count):
        if headers[i].p_type == PT_DYNAMIC:
            entry = <const Dyn*>(bias + headers[i].p_vaddr)
    while entry != NULL and entry.d_tag != 0:
        if entry.d_tag == DT_DEBUG and entry.d_val != 0:
            return <HostDebug*>entry.d_val
        entry += 1
    return NULL


cdef inline uint64_t function_in(const Image* image, const char* name) noexcept nogil:
    """The address of what the image defines by this name, in its default version; 0: nothing."""
    cdef Reference reference
    cdef Definition definition
    refer(&reference, name, NULL)
    definition.image = <Image*>image
    definition.symbol = lookup_in_image(image, &reference, &definition.index)
    return definition_address(&definition) if definition.symbol != NULL else 0


cdef inline void take(
    const Image* image, const char* name, void** function, const char** missing
) noexcept nogil:
    """One that is called without a look has `missing`: the first that is not there."""
    function[0] = <void*>function_in(image, name)
    if function[0] == NULL and missing != NULL and missing[0] == NULL:
        missing[0] = name


cdef inline void take_features(const Image* image, HostFunctions* host) noexcept nogil:
    """Some releases have the function in the loader, others in libc."""
    if FEATURES_FUNCTION[0] != 0 and host.processor_features == NULL:
        take(image, FEATURES_FUNCTION, &host.processor_features, NULL)


cdef inline void take_threads(const Image* image) noexcept nogil:
    """Whether there is more than one; of a libc that does not say it there may be."""
    store_pointer(
        &is_single_threaded, <const void*>function_in(image, b"__libc_single_threaded")
    )


cdef inline bint bind_host_functions(Linker* linker) noexcept nogil:
    """False when libc cannot be found (a static program, or another libc) or has not all that is
    called, which is noted. Asks for no memory: that there is none now is not to be forgotten
    later."""
    cdef const HostDebug* debug = find_host_debug()
    cdef const LinkMap* map = debug.r_map if debug != NULL else NULL
    cdef Image* image = &linker.preparation.scratch
    cdef HostFunctions* host = &linker.host
    cdef const char* missing = NULL
    cdef Phdr dynamic
    cdef bint found = False
    memset(&dynamic, 0, sizeof(dynamic))
    while map != NULL and not (found and host.tls_get_addr != NULL):
        memset(&image.tables, 0, sizeof(Tables))
        image.is_host = True
        image.load_bias = map.l_addr
        image.bytes_bias = map.l_addr
        dynamic.p_vaddr = <uint64_t>map.l_ld - map.l_addr
        dynamic.p_memsz = 1 << 20          # until DT_NULL
        image.layout.dynamic = &dynamic
        if map.l_ld == NULL or read_for_lookup(image) != 0 or image.tables.soname == NULL:
            pass
        elif is_loader(image.tables.soname):
            take(image, b"__tls_get_addr", <void**>&host.tls_get_addr, NULL)
            take(image, b"__libc_stack_end", <void**>&host.stack_end, NULL)
            take_features(image, host)
        elif is_c_library(image.tables.soname):
            take(image, b"dl_iterate_phdr", <void**>&host.dl_iterate_phdr, &missing)
            take(image, b"dlopen", <void**>&host.dlopen, &missing)
            take(image, b"dlclose", <void**>&host.dlclose, &missing)
            take(image, b"dlsym", <void**>&host.dlsym, &missing)
            take(image, b"dlvsym", <void**>&host.dlvsym, &missing)
            take(image, b"dlinfo", <void**>&host.dlinfo, &missing)
            take(image, b"dladdr", <void**>&host.dladdr, &missing)
            take(image, b"dladdr1", <void**>&host.dladdr1, &missing)
            take(image, b"dlerror", <void**>&host.dlerror, &missing)
            take(image, b"dlmopen", <void**>&host.dlmopen, &missing)
            take(image, b"_dl_find_object", <void**>&host.dl_find_object, NULL)
            take(image, b"__cxa_thread_atexit_impl", <void**>&host.cxa_thread_atexit, NULL)
            take(image, b"__errno_location", <void**>&host.errno_location, NULL)
            take_threads(image)
            take_features(image, host)
            linker.habits.fits_link_maps = fits_link_map(
                <const uint32_t*>function_in(image, b"_thread_db_link_map_l_tls_modid")
            ) and fits_link_map(
                <const uint32_t*>function_in(image, b"_thread_db_link_map_l_tls_offset")
            )
            found = True
        map = map.l_next
    if missing == NULL and host.tls_get_addr == NULL:
        missing = b"__tls_get_addr"
    if missing == NULL and host.processor_features == NULL and NEEDS_FEATURES:
        missing = FEATURES_FUNCTION
    return functions_are_there(linker, found, missing)
