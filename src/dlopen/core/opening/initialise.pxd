"""Constructors, in dependency order, each once.

An image that is published but not initialised belongs to the thread that has opened it. Another
that needs it waits, unless that one waits for this. No lock is held while they run, and they may
open and close what they like.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from dlopen.core.base.atomics cimport load_flag, load_u32, store_flag, store_u32
from dlopen.core.base.contract cimport (
    DLOPEN_E_CONSTRUCTOR, DLOPEN_STATE_INITIALISING, DLOPEN_STATE_READY, Error,
)
from dlopen.core.base.details cimport DETAIL_CONSTRUCTOR_BEFORE
from dlopen.core.base.environment cimport process_environment
from dlopen.core.base.errors cimport error_needed_by, fail, fail_text
from dlopen.core.base.growable cimport Pointers, Text, pointer_at, text_add, text_free
from dlopen.core.base.kernel cimport kernel_wait, kernel_wake
from dlopen.core.base.lock cimport is_forking, lock_acquire, lock_release
from dlopen.core.base.strings cimport has_prefix
from dlopen.core.elf.constants cimport DF_1_INITFIRST
from dlopen.core.elf.structures cimport Xword
from dlopen.core.host.linker cimport Linker, Process
from dlopen.core.image.image cimport Image, Tables, image_name
from dlopen.core.image.listing cimport image_of_caller
from dlopen.core.image.registry cimport (
    Registry, Waiter, reader_enter, reader_leave, this_thread,
)
from dlopen.core.opening.catching cimport Thrown, call_caught, describe_exception
from dlopen.core.symbols.report cimport report_call


# Initialising --------------------------------------------------------------------


cdef inline bint would_deadlock(
    const Registry* registry, uint64_t me, const Image* image
) noexcept nogil:
    """Under the lock: the thread that initialises `image` waits, perhaps through others,
    for one that this thread initialises."""
    cdef uint64_t thread = image.life.initialiser
    cdef const Waiter* waiter
    cdef int _step
    for _step in range(1000):
        if thread == me:
            return True
        waiter = registry.waiters
        while waiter != NULL and waiter.thread != thread:
            waiter = waiter.next
        # Or it has yet to wake up.
        if waiter == NULL or waiter.image.life.state != DLOPEN_STATE_INITIALISING:
            return False
        thread = waiter.image.life.initialiser
    return True


cdef inline void wait_for(Registry* registry, Image* image, uint32_t* phase) noexcept nogil:
    """Returns when the constructors of `image`, which another thread runs, have ended, unless that
    one waits for this one. The reader section `phase` is left meanwhile; a pin keeps the image."""
    cdef Waiter waiter
    cdef Waiter** link
    cdef bint pass_by
    # In a child whose handler has not run yet nobody would ever wake this thread.
    if load_u32(&image.life.state) != DLOPEN_STATE_INITIALISING or is_forking():
        return
    waiter.thread = this_thread()
    waiter.image = image
    lock_acquire(&registry.lock)
    pass_by = image.life.state != DLOPEN_STATE_INITIALISING \
        or would_deadlock(registry, waiter.thread, image)
    if not pass_by:
        image.life.pins += 1
        waiter.next = registry.waiters
        registry.waiters = &waiter
    lock_release(&registry.lock)
    if pass_by:
        return
    reader_leave(registry, phase[0])
    while load_u32(&image.life.state) == DLOPEN_STATE_INITIALISING:
        kernel_wait(&image.life.state, DLOPEN_STATE_INITIALISING)
    phase[0] = reader_enter(registry)
    lock_acquire(&registry.lock)
    image.life.pins -= 1
    link = &registry.waiters
    while link[0] != &waiter:
        link = &link[0].next
    link[0] = waiter.next
    lock_release(&registry.lock)


cdef struct Construction:        # what `construct` is given
    const Linker* linker
    const Image* image


cdef inline void construct(void* data) noexcept nogil:
    """The caught part of `initialise_one`."""
    cdef const Construction* construction = <const Construction*>data
    run_constructors(&construction.linker.process, construction.image)


cdef inline void name_who_needs(
    Registry* registry, const Image* image, Error* error
) noexcept nogil:
    """Whose DT_NEEDED brought it in."""
    lock_acquire(&registry.lock)
    if image.life.loader != NULL:
        error_needed_by(error, image_name(image.life.loader))
    lock_release(&registry.lock)


cdef inline int fail_constructor(
    Registry* registry, const Image* image, Thrown* exception, Error* error
) noexcept nogil:
    """The exception is given up: with no lock held, its destructor runs."""
    cdef const Image* runtime
    cdef const char* detail = b"a constructor has thrown an exception"
    cdef Text text
    cdef uint32_t phase = reader_enter(registry)
    cdef int code
    # The one that has thrown it: there may be others, in images that are linked with one
    # statically. Only libstdc++'s tables are known; it stays, since the image needs it.
    runtime = image_of_caller(registry, <const void*>exception.cleanup)
    if runtime != NULL and not (
        runtime.host.is_cxx_runtime and has_prefix(runtime.tables.soname, b"libstdc++.so.")
    ):
        runtime = NULL
    memset(&text, 0, sizeof(text))
    text_add(&text, detail)
    describe_exception(runtime, exception, &text)
    if text.data != NULL:        # there may be no memory
        detail = text.data
    code = fail_text(error, DLOPEN_E_CONSTRUCTOR, image_name(image), detail)
    name_who_needs(registry, image, error)
    text_free(&text)
    reader_leave(registry, phase)
    return code


cdef inline int initialise_one(
    Linker* linker, Image* image, bint catches, uint32_t* phase, Error* error
) noexcept nogil:
    """Runs the constructors of an image that this thread has published, if they are due. The reader
    section `phase` is left meanwhile: until it is ready, nothing can take the place of an image."""
    cdef Registry* registry = &linker.registry
    cdef bint awaited
    cdef Construction construction
    cdef void* thrown = NULL
    cdef int code = 0
    if load_u32(&image.life.state) != DLOPEN_STATE_INITIALISING \
            or image.life.initialiser != this_thread() or image.life.fini_due:
        return 0
    store_flag(&image.life.fini_due, True)
    reader_leave(registry, phase[0])
    if catches:
        construction.linker = linker
        construction.image = image
        thrown = call_caught(construct, &construction)
        if thrown != NULL:
            code = fail_constructor(registry, image, <Thrown*>thrown, error)
            store_flag(&image.life.has_failed, True)
    else:
        run_constructors(&linker.process, image)
    phase[0] = reader_enter(registry)
    # Who waits has said so under the same lock, in which it found the old state.
    lock_acquire(&registry.lock)
    store_u32(&image.life.state, DLOPEN_STATE_READY)
    awaited = registry.waiters != NULL
    lock_release(&registry.lock)
    if awaited:
        kernel_wake(&image.life.state, 0x7fffffff)
    return code


cdef inline int initialise(
    Linker* linker, Image* root, bint catches, Error* error
) noexcept nogil:
    """Runs the constructors of what `root` needs and that nobody initialised yet,
    dependencies first; waits for what another thread is initialising. The caller holds a count on
    root; of what that needs, a hot swap may let go what is ready, hence the reader section. The
    first that throws, if it `catches` that, ends it; what has failed once, in another thread too,
    is never a success."""
    cdef Registry* registry = &linker.registry
    cdef const Pointers* order
    cdef size_t i
    cdef Image* image
    cdef bint is_complete = True
    cdef uint32_t phase
    cdef int code = 0
    if root.is_host:
        return 0
    phase = reader_enter(registry)
    # `sorted` is empty where there was no memory for it: then the search list.
    order = &root.needs.sorted if root.needs.sorted.count else &root.scope.search_list.images
    for i in range(order.count):
        image = <Image*>pointer_at(order, i)
        if code == 0 and not image.is_host and image.tables.flags_1 & DF_1_INITFIRST:
            code = initialise_one(linker, image, catches, &phase, error)
    for i in range(order.count):
        image = <Image*>pointer_at(order, i)
        if image.is_host:
            continue
        if code == 0:
            code = initialise_one(linker, image, catches, &phase, error)
        elif load_u32(&image.life.state) == DLOPEN_STATE_INITIALISING \
                and image.life.initialiser == this_thread() and image.life.opened_for == root \
                and not image.life.fini_due:
            give_up_constructors(registry, image)
        wait_for(registry, image, &phase)
        is_complete = is_complete and load_u32(&image.life.state) != DLOPEN_STATE_INITIALISING
        if code == 0 and load_flag(&image.life.has_failed):
            code = fail(error, DLOPEN_E_CONSTRUCTOR, image_name(image), DETAIL_CONSTRUCTOR_BEFORE)
            name_who_needs(registry, image, error)
    if code == 0 and is_complete and not load_u32(&root.life.is_complete):
        store_u32(&root.life.is_complete, 1)
    reader_leave(registry, phase)
    return code


cdef inline void give_up_constructors(Registry* registry, Image* image) noexcept nogil:
    """Those of another image of the same open have failed; nor will its destructors run. If
    this open was made by a constructor of another one's image, that one's are left to it."""
    store_flag(&image.life.has_failed, True)
    lock_acquire(&registry.lock)
    store_u32(&image.life.state, DLOPEN_STATE_READY)
    lock_release(&registry.lock)
    kernel_wake(&image.life.state, 0x7fffffff)


ctypedef void (*Constructor)(int argc, char** argv, char** environ) noexcept nogil


cdef inline void run_constructors(const Process* process, const Image* image) noexcept nogil:
    """DT_INIT, then DT_INIT_ARRAY (gABI), with what the host gives to those of what it opens: the
    program's arguments, and the environment as it is now."""
    cdef const Tables* tables = &image.tables
    cdef const Xword* entries = <const Xword*>(image.bytes_bias + tables.init_array)
    cdef uint64_t i
    if image.no_foreign_code:
        return
    if tables.init != 0:
        report_call(b"init ", image, image.load_bias + tables.init)
        (<Constructor>(image.load_bias + tables.init))(
            process.argc, process.argv, process_environment
        )
    for i in range(tables.init_array_count):
        # 0 and -1 stand for none, as in the arrays of old linkers.
        if entries[i] != 0 and entries[i] != ~<uint64_t>0:
            report_call(b"init ", image, entries[i])
            (<Constructor>entries[i])(process.argc, process.argv, process_environment)
