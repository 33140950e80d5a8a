"""The functions of the host's loader.

They are taken from libc's symbol table, found through the debugger's link map, so that neither
a preloaded wrapper nor our own exports stand before them.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from dlopen.core.elf.constants cimport DT_DEBUG, PT_DYNAMIC, PT_PHDR
from dlopen.core.elf.structures cimport Dyn, Phdr
from dlopen.core.host.abi cimport (
    AT_PHDR, AT_PHNUM, HostCxaThreadAtexit, HostDebug, HostDlFindObject, HostDlIteratePhdr,
    HostDladdr, HostDladdr1, HostDlclose, HostDlerror, HostDlinfo, HostDlmopen, HostDlopen,
    HostDlsym, HostDlvsym, HostErrnoLocation, HostTlsGetAddr, getauxval,
)
from dlopen.core.host.assumptions cimport fits_link_map, functions_are_there, learn_habits
from dlopen.core.host.libraries cimport is_c_library, is_loader
from dlopen.core.host.linker cimport Linker
from dlopen.core.image.dynamic cimport read_for_lookup
from dlopen.core.image.image cimport Image, LinkMap
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


cdef inline bint bind_host_functions(Linker* linker) noexcept nogil:
    """False when libc cannot be found (a static program, or another libc) or has not all that is
    called, which is noted. Asks for no memory: that there is none now is not to be forgotten
    later."""
    cdef const HostDebug* debug = find_host_debug()
    cdef const LinkMap* map = debug.r_map if debug != NULL else NULL
    cdef Image* image = &linker.preparation.scratch
    cdef Phdr dynamic
    cdef bint found = False
    memset(&dynamic, 0, sizeof(dynamic))
    while map != NULL and not (found and linker.host.tls_get_addr != NULL):
        memset(image, 0, sizeof(Image))
        image.is_host = True
        image.load_bias = map.l_addr
        image.bytes_bias = map.l_addr
        dynamic.p_vaddr = <uint64_t>map.l_ld - map.l_addr
        dynamic.p_memsz = 1 << 20          # until DT_NULL
        image.layout.dynamic = &dynamic
        if map.l_ld == NULL or read_for_lookup(image) != 0 or image.tables.soname == NULL:
            pass
        elif is_loader(image.tables.soname):
            linker.host.tls_get_addr = <HostTlsGetAddr>function_in(image, b"__tls_get_addr")
            linker.host.stack_end = <uint64_t*>function_in(image, b"__libc_stack_end")
        elif is_c_library(image.tables.soname):
            linker.host.dl_iterate_phdr = <HostDlIteratePhdr>function_in(image, b"dl_iterate_phdr")
            linker.host.dlopen = <HostDlopen>function_in(image, b"dlopen")
            linker.host.dlclose = <HostDlclose>function_in(image, b"dlclose")
            linker.host.dlsym = <HostDlsym>function_in(image, b"dlsym")
            linker.host.dlvsym = <HostDlvsym>function_in(image, b"dlvsym")
            linker.host.dlinfo = <HostDlinfo>function_in(image, b"dlinfo")
            linker.host.dladdr = <HostDladdr>function_in(image, b"dladdr")
            linker.host.dladdr1 = <HostDladdr1>function_in(image, b"dladdr1")
            linker.host.dlerror = <HostDlerror>function_in(image, b"dlerror")
            linker.host.dlmopen = <HostDlmopen>function_in(image, b"dlmopen")
            linker.host.dl_find_object = <HostDlFindObject>function_in(image, b"_dl_find_object")
            linker.host.cxa_thread_atexit = <HostCxaThreadAtexit>function_in(
                image, b"__cxa_thread_atexit_impl"
            )
            linker.host.errno_location = <HostErrnoLocation>function_in(
                image, b"__errno_location"
            )
            learn_habits(&linker.habits, image)
            linker.habits.fits_link_maps = fits_link_map(
                <const uint32_t*>function_in(image, b"_thread_db_link_map_l_tls_modid")
            ) and fits_link_map(
                <const uint32_t*>function_in(image, b"_thread_db_link_map_l_tls_offset")
            )
            found = True
        map = map.l_next
    return functions_are_there(linker, found)
