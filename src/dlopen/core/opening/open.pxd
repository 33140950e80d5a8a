"""An open, step by step: every step is named here, in its order, and told in a file of its own.

Nobody else sees anything of it until it is published; until then any failure takes back all that
was done (opening/transaction.pxd). Of these steps `find_and_map`, `replace_symbols`,
`resolve_for_static_tls`, `resolve_places` and `initialise` run foreign code: no lock of ours is
held while they do.
"""

from libc.string cimport memset

from dlopen.core.base.contract cimport (
    DLOPEN_E_INVALID, DLOPEN_E_STATE, DLOPEN_E_STOPPED, DLOPEN_E_UNSUPPORTED, DLOPEN_KEEP_AS_LIBC,
    Error, Request,
)
from dlopen.core.base.details cimport (
    DETAIL_BYTES_NAME, DETAIL_DLMOPEN_NAMESPACE, DETAIL_EMPTY_NAME, DETAIL_HOST_GONE,
    DETAIL_KEPT_REPLACING, DETAIL_MEMBER_NAME,
)
from dlopen.core.base.errors cimport fail, fail_memory, fail_system
from dlopen.core.base.kernel cimport EINVAL
from dlopen.core.host.linker cimport Linker, Namespace
from dlopen.core.host.namespaces cimport (
    NEW_NAMESPACE, enter_namespace, leave_namespace, new_namespace,
)
from dlopen.core.host.assumptions cimport is_unmet
from dlopen.core.image.image cimport Image
from dlopen.core.opening.catching cimport is_catching
from dlopen.core.opening.claims cimport Wait, await_claim
from dlopen.core.opening.counting cimport count_again
from dlopen.core.opening.initialise cimport initialise
from dlopen.core.opening.link cimport (
    check_versions, make_scopes, place_tls, protect_images, relocate_images, resolve_for_static_tls,
    resolve_places, sort_images,
)
from dlopen.core.opening.publish cimport (
    announce, count_hosts, count_open, expect_unwinders, join_global_scope, publish,
)
from dlopen.core.opening.replacing cimport replace_symbols
from dlopen.core.opening.root cimport find_root, look_again, open_missing_hosts
from dlopen.core.opening.transaction cimport (
    DONE, FAILED, TRY_AGAIN, Outcome, Transaction, begin, end, no_memory, outcome_of,
    whether_again,
)
from dlopen.core.opening.tree cimport load_dependencies
from dlopen.core.symbols.report cimport report_open


cdef inline Outcome find_and_map(Transaction* transaction) noexcept nogil:
    """The root and all that it needs. Once more, if the host had to open some of it."""
    cdef Outcome outcome = DONE
    cdef int _round
    for _round in range(8):
        if transaction.no_memory:
            return no_memory(transaction, transaction.request.name)
        # Find: what is asked for, by name, file or bytes; it is mapped if it is not there.
        if transaction.loaded.count == 0:
            outcome = find_root(transaction)
        # Map: what that needs, and what this needs, breadth first, each looked for in the same way.
        if outcome == DONE and transaction.loaded.count:
            outcome = load_dependencies(transaction)
        if outcome != DONE or transaction.missing_hosts.count == 0:
            return outcome
        # What must be the host's and is missing is opened by its loader, now that all is checked.
        outcome = open_missing_hosts(transaction)
        if outcome != DONE:
            return outcome
        # It is there now, and may have brought what was mapped meanwhile.
        look_again(transaction)
    return outcome_of(transaction, fail(
        transaction.error, DLOPEN_E_UNSUPPORTED, transaction.request.name, DETAIL_HOST_GONE
    ))


cdef inline Outcome link_images(Transaction* transaction) noexcept nogil:
    """The new images, from mapped to ready to run; the same for those that are linked by hand."""
    return (
        # Scope: in which images, and in which order, the symbols of each are looked up.
        make_scopes(transaction)
        # Versions: each that is needed is defined.
        or check_versions(transaction)
        # Order: dependencies first, here and when they are initialised.
        or sort_images(transaction)
        # Relocate: each place gets its value, but for what the next three steps give.
        or relocate_images(transaction)
        # Resolve, before the next step copies it, what resolvers write into static TLS.
        or resolve_for_static_tls(transaction)
        # Place TLS: each has its module id, or its static block, and places that wait are written.
        or place_tls(transaction)
        # Resolve: IFUNC resolvers choose, when every word that they may read is final.
        or resolve_places(transaction)
        # Protect: RELRO is read-only from now on.
        or protect_images(transaction)
    )


cdef inline Outcome publish_images(Transaction* transaction) noexcept nogil:
    """The new images, for all to see."""
    return (
        # Expect: unwinders that come later will find them.
        expect_unwinders(transaction)
        # Count: what they rely on of the host's stays as long as they do.
        or count_hosts(transaction)
        # Publish: in the registry, the scopes and the unwinder's table, all at once.
        or publish(transaction)
        # Announce: to debuggers, and in the log.
        or announce(transaction)
    )


cdef inline Outcome open_root(Transaction* transaction) noexcept nogil:
    """All but the constructors."""
    # Find and map.
    cdef Outcome outcome = find_and_map(transaction)
    if outcome != FAILED or transaction.code != DLOPEN_E_STOPPED:    # not what the caller stopped
        outcome = whether_again(transaction, transaction.request.name, outcome)
    # Replace: who opens it is asked for definitions of his own, before anything is bound.
    outcome = outcome or replace_symbols(transaction)
    # What is new is linked and published; if nothing is, all of it was there already.
    if outcome == DONE and transaction.loaded.count:
        outcome = whether_again(
            transaction, transaction.request.name, link_images(transaction)
        ) or publish_images(transaction)
    return (
        outcome
        # RTLD_GLOBAL: it joins the global scope, with what it needs.
        or join_global_scope(transaction)
        # Count: one more open, for one more close.
        or count_open(transaction)
    )


cdef inline Outcome open_once(
    Linker* linker, const Request* request, const Namespace* space, Wait* wait, Image** root,
    int* code, Error* error
) noexcept nogil:
    """One attempt, as a transaction; TRY_AGAIN if another thread was first, or is about to be."""
    cdef Transaction* transaction = begin(linker, request, error)
    cdef Outcome outcome
    if transaction == NULL:
        code[0] = fail_memory(error, request.name)
        return FAILED
    transaction.space = space
    transaction.wait = wait
    transaction.namespace_id = request.namespace_id
    if request.namespace_id == NEW_NAMESPACE:
        transaction.namespace_id = new_namespace(linker)
    outcome = open_root(transaction)
    root[0] = transaction.root
    code[0] = transaction.code if outcome == FAILED else 0
    end(transaction)
    await_claim(&linker.registry, wait)
    return outcome


cdef inline int open_in_full(
    Linker* linker, const Request* request, Image** result, Error* error
) noexcept nogil:
    """As open_image, of what `count_again` has not counted."""
    cdef Namespace* space = NULL
    cdef Wait wait
    cdef Image* root = NULL
    cdef Outcome outcome = TRY_AGAIN
    cdef int code = 0
    cdef int _round
    if request.bytes == NULL and request.name != NULL and request.name[0] == 0:
        return fail(error, DLOPEN_E_INVALID, request.name, DETAIL_EMPTY_NAME)
    if request.bytes != NULL and request.name == NULL:
        return fail(error, DLOPEN_E_INVALID, b"", DETAIL_BYTES_NAME)
    if request.member != NULL and (request.name == NULL or request.bytes != NULL):
        return fail(error, DLOPEN_E_INVALID, request.name, DETAIL_MEMBER_NAME)
    if not enter_namespace(linker, request.namespace_id, &space):
        return fail_system(error, DLOPEN_E_INVALID, request.name, DETAIL_DLMOPEN_NAMESPACE, -EINVAL)
    if is_unmet():               # the first handle of the host's shows it; the faces say it
        leave_namespace(&linker.registry, space)
        return DLOPEN_E_STATE
    memset(&wait, 0, sizeof(wait))
    for _round in range(1000):
        outcome = open_once(linker, request, space, &wait, &root, &code, error)
        if outcome != TRY_AGAIN:
            break
    if outcome == DONE:
        # Initialise: constructors, dependencies first, each once. Under libc's names an exception
        # goes on, and libc's callers end by it; but not where it would be caught further out, with
        # this open half done for ever.
        code = initialise(
            linker, root, not request.flags & DLOPEN_KEEP_AS_LIBC or is_catching(), error
        )
        result[0] = root
    if outcome != TRY_AGAIN:
        report_open(request.name, code, result, error)
    leave_namespace(&linker.registry, space)
    if outcome == TRY_AGAIN:
        return fail(error, DLOPEN_E_STATE, request.name, DETAIL_KEPT_REPLACING)
    return code


cdef inline int open_image(
    Linker* linker, const Request* request, Image** result, Error* error
) noexcept nogil:
    """Opens what the request says, by name or from bytes: 0 and the image, counted, or the
    error."""
    cdef Image* image = count_again(&linker.registry, request)
    if image == NULL:
        return open_in_full(linker, request, result, error)
    result[0] = image
    return 0
