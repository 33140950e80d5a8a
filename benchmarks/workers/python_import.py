"""The import of a module, in CPU time; the protocol is that of side.h.

The argument is its name.  Nothing else is imported here: it would be there when the module asks
for it.
"""

import sys
import time

print("ready", flush=True)
for _ in sys.stdin:
    start = time.process_time_ns()
    __import__(sys.argv[1])
    print("import", time.process_time_ns() - start, flush=True)
