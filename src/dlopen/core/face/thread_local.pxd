"""Thread-local storage as images of ours and arch/<machine>.S ask for it: __tls_get_addr of the
psABI, and what it does at the first touch in a thread. Ids that are not ours are the host's."""

from libc.stdint cimport uint64_t

from dlopen.core.arch.machine cimport THIS_MACHINE, make_block_aligned
from dlopen.core.base.kernel cimport kernel_end_process, kernel_write
from dlopen.core.base.strings cimport strlen
from dlopen.core.host.abi cimport HostFunctions, host_block
from dlopen.core.host.linker cimport Linker
from dlopen.core.running.calls cimport EXIT_LOOKUP
from dlopen.core.tls.modules cimport TlsIndex, is_own_module, known_block, make_block


cdef inline void* block_at_first_touch(Linker* linker, uint64_t module) noexcept nogil:
    """The first touch in a thread, or a descriptor of the host's. There is no way to report a
    failure: the process ends, with glibc's words and status."""
    cdef const char* message = b"cannot allocate memory for thread-local data: ABORT\n"
    cdef char* block
    if not is_own_module(module):
        return host_block(&linker.host, module)
    block = make_block(&linker.tls, module)
    if block == NULL:
        kernel_write(2, message, strlen(message))
        kernel_end_process(EXIT_LOOKUP)
    return block


cdef inline void* tls_address(const HostFunctions* host, TlsIndex* index) noexcept nogil:
    """__tls_get_addr."""
    cdef char* block
    if not is_own_module(index.module):
        return host.tls_get_addr(index)
    block = known_block(index.module)
    if block == NULL:
        block = make_block_aligned(index.module)
    return block + (index.offset + THIS_MACHINE.dtv_offset)
