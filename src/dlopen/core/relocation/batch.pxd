"""What the images of one open are relocated with, and what is left for later.

The images of one open form a batch. Everything that needs no foreign code comes first,
for all of them; then the IFUNC resolvers run, in dependency order, when every word that
they may read is final: IRELATIVE last, as the psABI wants, and across images too.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from dlopen.core.base.contract cimport DLOPEN_E_RELOCATION, Error
from dlopen.core.base.errors cimport fail_at
from dlopen.core.image.image cimport Image, image_name
from dlopen.core.symbols.lookup cimport Definition
from dlopen.core.symbols.scopes cimport Scopes


# Tells where the storage of an image of the host's is, for initial-exec references.
ctypedef bint (*AskForStaticTls)(void* context, const Definition* definition) noexcept nogil

# An image that another one binds to stays from now on; 0, or a DLOPEN_E_* if it is just going.
ctypedef int (*KeepBound)(void* context, Image* image) noexcept nogil


cdef struct Deferred:            # a place whose value an IFUNC resolver gives
    Deferred* next
    Image* image
    uint64_t place               # p_vaddr terms
    uint64_t resolver            # run address
    int64_t addend


cdef struct DeferredTls:         # a place that waits for where its module's storage will be
    DeferredTls* next
    Image* image
    Image* owner                 # an image of the batch
    uint64_t place
    uint64_t offset              # in the owner's PT_TLS
    uint32_t kind


cdef struct Batch:
    const Scopes* scopes         # of all of them
    AskForStaticTls ask_for_static_tls
    KeepBound keep_bound
    void* context                # of both
    bint no_foreign_code
    bint lazy                    # RTLD_LAZY: functions are bound when they are called first
    bint is_resolved             # the resolvers have run
    Deferred* first_deferred
    Deferred* last_deferred
    DeferredTls* deferred_tls
    Error* error


cdef struct Place:               # the range free of tables that the last place lay in
    uint64_t start, end


cdef struct Cache:               # the last symbol that was resolved
    uint32_t symbol
    bint for_call
    bint valid
    Definition definition
    uint64_t address             # of that, or of what stands for it; of an IFUNC, its resolver's
    bint is_address              # no resolver gives it
    Image* bound                 # the last image that was recorded


cdef inline int bad_relocation(
    Batch* batch, const Image* image, uint32_t reason, uint64_t place, uint64_t value
) noexcept nogil:
    """The error of a relocation that cannot be done at this place."""
    return fail_at(batch.error, DLOPEN_E_RELOCATION, image_name(image), reason, place, value)
