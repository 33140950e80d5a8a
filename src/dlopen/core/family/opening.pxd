"""dlopen(3) and its family, as programs and images of ours call them.

What libc's own loader has opened is asked of libc's functions, by their handles; all
else is ours. A handle that is neither's gives an error. `caller` is an address in who
calls: its namespace, its RUNPATH and its scope count.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from dlopen.core.base.atomics cimport load_flag, load_u32
from dlopen.core.base.contract cimport (
    DLOPEN_E_INVALID, DLOPEN_E_NOT_LOADED, DLOPEN_KEEP_AS_LIBC, Error, Request,
)
from dlopen.core.base.details cimport (
    DETAIL_DLMOPEN_NAMESPACE, DETAIL_DLOPEN_MODE, DETAIL_MODE, DETAIL_MODE_PARAMETER,
    DETAIL_NAMESPACE,
)
from dlopen.core.base.errors cimport fail, fail_system
from dlopen.core.base.kernel cimport EINVAL
from dlopen.core.closing.close cimport close_in_full, closed_if_failed
from dlopen.core.family.errors cimport (
    HOST_NAMESPACES, LM_ID_BASE, LM_ID_CALLER, LM_ID_NEWLM, bad_handle, clear_message, drop_error,
    host_was_asked, keep_message, new_error, pending_message,
)
from dlopen.core.host.abi cimport (
    RTLD_DEEPBIND, RTLD_GLOBAL, RTLD_LAZY, RTLD_NODELETE, RTLD_NOLOAD, RTLD_NOW,
)
from dlopen.core.host.counts cimport host_knows
from dlopen.core.host.host_lock cimport close_host, enter_host, leave_host
from dlopen.core.host.linker cimport Linker
from dlopen.core.image.image cimport Image, image_asked_name, image_handle
from dlopen.core.image.listing cimport image_at, is_image
from dlopen.core.image.registry cimport (
    Registry, Snapshot, current_snapshot, reader_enter, reader_leave,
)
from dlopen.core.opening.counting cimport count_again, uncount
from dlopen.core.opening.open cimport open_in_full


# Handles ------------------------------------------------------------------------------------


cdef inline Image* image_of_handle(const Registry* registry, const void* handle) noexcept nogil:
    """Ours, or what is known of the host's; NULL for neither."""
    cdef const Snapshot* snapshot = current_snapshot(registry)
    cdef size_t i
    if is_image(registry, handle) and not (<const Image*>handle).is_host:
        return <Image*>handle
    for i in range(snapshot.host_count):
        if handle != NULL and snapshot.hosts[i].host.handle == handle:
            return snapshot.hosts[i]
    return NULL


# Opening and closing ------------------------------------------------------------------------


cdef inline void* open_for_caller(
    Linker* linker, int64_t namespace_id, const char* name, int mode, const void* caller
) noexcept nogil:
    """An open with libc's rules, into a namespace of ours or the program's; the handle, or NULL
    with a message."""
    cdef Request request
    cdef Error* error
    cdef Image* image
    cdef int code
    memset(&request, 0, sizeof(request))
    request.size = sizeof(request)
    request.name = name if name != NULL and name[0] != 0 else NULL
    request.caller = caller
    request.mode = <uint32_t>mode
    request.flags = DLOPEN_KEEP_AS_LIBC
    request.namespace_id = namespace_id
    image = count_again(&linker.registry, &request)
    if image != NULL:
        return image
    error = new_error()
    if mode & ~(
        RTLD_LAZY | RTLD_NOW | RTLD_NOLOAD | RTLD_DEEPBIND | RTLD_GLOBAL | RTLD_NODELETE
    ):
        code = fail(error, DLOPEN_E_INVALID, b"", DETAIL_MODE_PARAMETER)
    elif not mode & (RTLD_LAZY | RTLD_NOW):
        code = fail_system(error, DLOPEN_E_INVALID, name, DETAIL_DLOPEN_MODE, -EINVAL)
    else:
        code = closed_if_failed(
            linker, open_in_full(linker, &request, &image, error), &image
        )
    if code == 0:
        drop_error(error)
        return image_handle(image)
    if code == DLOPEN_E_NOT_LOADED:
        drop_error(error)    # RTLD_NOLOAD only asks
    else:
        keep_message(linker, error)
    return NULL


cdef inline int64_t namespace_of_caller(Registry* registry, const void* caller) noexcept nogil:
    """That of the image whose code calls; the program's for any other code."""
    cdef uint32_t phase = reader_enter(registry)
    cdef Image* image = image_at(registry, <uint64_t>caller)
    cdef int64_t namespace_id = image.namespace_id if image != NULL else 0
    reader_leave(registry, phase)
    return namespace_id


cdef inline void* family_dlopen(
    Linker* linker, const char* name, int mode, const void* caller
) noexcept nogil:
    """dlopen(3)."""
    cdef int64_t namespace_id = namespace_of_caller(&linker.registry, caller)
    clear_message(&linker.host)
    return open_for_caller(linker, namespace_id, name, mode, caller)


cdef inline void* family_dlmopen(
    Linker* linker, int64_t namespace_id, const char* name, int mode, const void* caller
) noexcept nogil:
    """dlmopen(3): ids of libc's own namespaces are passed on."""
    cdef Error* error
    cdef void* handle
    clear_message(&linker.host)
    if namespace_id == LM_ID_CALLER:
        namespace_id = namespace_of_caller(&linker.registry, caller)
    if namespace_id > 0 and namespace_id < HOST_NAMESPACES:
        (&host_was_asked)[0] = True
        enter_host(&linker.host_use)
        handle = linker.host.dlmopen(namespace_id, name, mode)
        leave_host(&linker.host_use)
        return handle
    error = new_error()
    if namespace_id != LM_ID_BASE and name == NULL:
        fail_system(error, DLOPEN_E_INVALID, b"", DETAIL_NAMESPACE, -EINVAL)
    elif namespace_id != LM_ID_BASE and mode & RTLD_GLOBAL:
        fail_system(error, DLOPEN_E_INVALID, b"", DETAIL_MODE, -EINVAL)
    elif namespace_id < LM_ID_NEWLM:
        fail_system(error, DLOPEN_E_INVALID, name, DETAIL_DLMOPEN_NAMESPACE, -EINVAL)
    else:
        drop_error(error)
        return open_for_caller(linker, namespace_id, name, mode, caller)
    keep_message(linker, error)
    return NULL


cdef inline int family_dlclose(Linker* linker, void* handle) noexcept nogil:
    """dlclose(3): 0, or -1 with a message."""
    cdef uint32_t phase
    cdef Image* image
    cdef bint is_open
    cdef bint stays = False
    clear_message(&linker.host)
    if uncount(&linker.registry, <Image*>handle):
        return 0
    phase = reader_enter(&linker.registry)
    image = image_of_handle(&linker.registry, handle)
    if image != NULL and image.is_host and load_u32(&image.life.open_count) == 0:
        image = NULL             # not opened through us
    elif image != NULL and not image.is_host:
        is_open = load_u32(&image.life.open_count) != 0
        stays = load_flag(&image.life.nodelete) and not is_open
        if not is_open and not stays:
            bad_handle(linker, image_asked_name(image))
    reader_leave(&linker.registry, phase)
    if stays:
        return 0                 # libc does not count what cannot go
    if image != NULL:
        if close_in_full(linker, image, NULL) == 0:
            return 0
        if pending_message == NULL:
            bad_handle(linker, b"")
        return -1
    if handle == NULL or not host_knows(linker, handle):
        bad_handle(linker, b"")
        return -1
    (&host_was_asked)[0] = True
    return close_host(linker, handle)
