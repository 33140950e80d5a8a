"""What is taken for granted of glibc and its loader, and how each thing is checked.

What the ABI and the manual pages promise is not listed. The rest is this. "Unmet" ends the
linker's work with this libc: each call that needs it fails with a text that names the
assumption, and so does a line of the log; nothing of ours has been changed or relies on it by
then. None of the checks makes a call of the kernel.

    assumption                                  checked               if it does not hold
    the functions that we call are there        functions_are_there   unmet
    an image's struct dl_phdr_info is whole     refresh_hosts         unmet
    dlpi_adds and dlpi_subs count the images    refresh_hosts         unmet
    what is loaded later is appended            refresh_hosts         unmet
    the top bit of a module id is free          read_host_image       unmet
    what the process starts with has its        find_static_tls_of_   unmet
      thread-local storage at fixed distances     host
    a handle is the struct link_map             open_host_in          unmet, at the first handle
    __libc_stack_end is where argc is           read_arguments        no arguments are known
    what debuggers read behind a link map is    fits_link_map         they are told nothing
      among Image.further_zeroes
    a donor's two words are relocated           open_donor_of_size    unmet, at the first donor
    the program's l_searchlist, the global      find_global_count     dlsym is asked for each image
      scope, follows its l_phnum                                        that came late, at each open

The habits below are told by looking, where the difference can be seen when it matters. Else by
the version nodes that libc.so.6 defines: they are ABI, and what a distribution has taken over
from a later release does not change them, as it does not change the loader's habits; the text of
a version is for people. A release that added no function to libc has no node (2.37): it is taken
for the one before.

One thing can only be seen from a second thread, and so is tested (tests/core/host) and not
checked: while dl_iterate_phdr calls back, nothing is unloaded. libgcc's unwinder, which keeps
a cache of what it was told there, needs the same.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t
from libc.stdio cimport snprintf

from dlopen.core.base.atomics cimport compare_and_swap_u32, load_u32, store_u32
from dlopen.core.base.log cimport LOG_ERROR, LOG_WARN, log_text, logs
from dlopen.core.base.strings cimport strncmp
from dlopen.core.host.abi cimport HostHabits
from dlopen.core.host.linker cimport NO_LIBC, READY, Linker, Preparation
from dlopen.core.image.image cimport Image, Version


cdef extern from *:
    """
    /* Why this libc cannot be worked with. Written by who claims it, before Preparation.ready says
       NO_LIBC, and never again. */
    static char dlopen_unmet[160];
    static uint32_t dlopen_unmet_claimed;
    static const char dlopen_no_libc[] =
        "libc.so.6 was not found in this process: glibc is needed";
    #define DLOPEN_UNMET_TEXT (dlopen_unmet[0] ? dlopen_unmet : dlopen_no_libc)
    """
    char* unmet_room "dlopen_unmet"
    const char* unmet_text "DLOPEN_UNMET_TEXT"
    enum:
        UNMET_SIZE "sizeof(dlopen_unmet)"
    uint32_t unmet_claimed "dlopen_unmet_claimed"


cdef inline bint is_unmet() noexcept nogil:
    """Some assumption is known not to hold."""
    return load_u32(&unmet_claimed) != 0


cdef inline void say_unmet() noexcept nogil:
    """One line of the log."""
    if logs(LOG_ERROR):
        log_text(LOG_ERROR, unmet_text, b"")


cdef inline void note_unmet(
    Preparation* preparation, const char* what, const char* name
) noexcept nogil:
    """`what` and `name`, one after the other, say what does not hold; the first one found is kept.
    While the linker is being made usable, who does that says it and gives up; later it is the end
    of new opens, and what is open stays as it is."""
    if not compare_and_swap_u32(&unmet_claimed, 0, 1):
        return
    snprintf(unmet_room, UNMET_SIZE, b"this libc is not known to dlopen: %s%s", what, name)
    if compare_and_swap_u32(&preparation.ready, READY, NO_LIBC):
        say_unmet()


cdef inline bint functions_are_there(
    Linker* linker, bint has_libc, const char* missing
) noexcept nogil:
    """`missing`: the first that is called without a look and was not found, or NULL. False with
    `note_unmet`."""
    if not has_libc:
        # A static program, or another libc: the text is there.
        compare_and_swap_u32(&unmet_claimed, 0, 1)
    elif missing != NULL:
        note_unmet(&linker.preparation, b"it does not define ", missing)
    # A thread for which there was no memory may be about to ask (libdlopen.pyx, knows_handle).
    store_u32(&linker.habits.has_functions, has_libc and missing == NULL)
    return linker.habits.has_functions != 0


cdef inline bint fits_link_map(const uint32_t* descriptor) noexcept nogil:
    """libthread_db, which gdb asks for thread-local variables, reads a member of what it takes
    for libc's own link map; libc says where it is: its bits, how many there are, the offset. NULL:
    it does not say, and nobody can read it."""
    cdef const Image* anywhere = <const Image*>4096      # only distances in it are asked for
    cdef size_t zeroes = <size_t>&anywhere.further_zeroes - <size_t>anywhere
    cdef size_t end = zeroes + sizeof(anywhere.further_zeroes)
    return descriptor == NULL or (
        zeroes <= descriptor[2] < end and descriptor[0] // 8 <= end - descriptor[2]
    )


cdef inline void say_habits(const Linker* linker) noexcept nogil:
    """What does not hold, and what is done without; once, when the log has begun."""
    if logs(LOG_WARN) and not linker.habits.fits_link_maps:
        log_text(
            LOG_WARN, b"libc's struct link_map is larger than is known: ",
            b"debuggers are not told of images"
        )
    if logs(LOG_WARN) and linker.process.argv == NULL:
        log_text(
            LOG_WARN, b"the arguments of the program are not at __libc_stack_end: ",
            b"constructors get none"
        )


cdef inline int release_in(const char* node) noexcept nogil:
    """The N of GLIBC_2.N; 0: it is none."""
    cdef int number = 0
    if strncmp(node, b"GLIBC_2.", 8) != 0:
        return 0
    node += 8
    while 0x30 <= node[0] <= 0x39 and number < 1000:
        number = number * 10 + node[0] - 0x30
        node += 1
    return number if node[0] == 0 else 0


cdef inline int newest_release(const Image* libc) noexcept nogil:
    """The N of its last GLIBC_2.N: each release defines the nodes of those before it."""
    cdef const Version* version
    cdef uint32_t i
    cdef int newest = 0
    cdef int release
    for i in range(libc.tables.version_count):
        version = &libc.tables.versions[i]
        if version.name == NULL or version.library != NULL:
            continue
        release = release_in(version.name)
        if release > newest:
            newest = release
    return newest


cdef inline void learn_habits(HostHabits* habits, const Image* libc) noexcept nogil:
    """Of the loader that belongs to this libc.so.6."""
    cdef int newest = newest_release(libc)
    habits.has_debug_chain = newest >= 35
    # The next three came at some time after 2.36.
    habits.searches_platform_folders = newest < 38
    habits.asserts_versions = newest < 38
    habits.overwrites_chain = newest >= 38
    habits.finishes_closed_first = newest >= 39
