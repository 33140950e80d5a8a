"""A whole run of an application, from its start to its end; the protocol is that of side.h.

    application.py FOLDER|- PROGRAM [ARGUMENT …]

The folder, where the program unpacks itself, is removed before each run: the first start.
"""

import os
import shutil
import sys
import time

folder, *command = sys.argv[1:]
print("ready", flush=True)
for _ in sys.stdin:
    if folder != "-":
        shutil.rmtree(folder, ignore_errors=True)
    begin = time.perf_counter_ns()
    child = os.posix_spawn(command[0], command, os.environ)
    _, status, usage = os.wait4(child, 0)
    end = time.perf_counter_ns()
    if status:
        sys.exit(f"{command[0]} ended with {os.waitstatus_to_exitcode(status)}")
    cpu = round((usage.ru_utime + usage.ru_stime) * 1e9)
    print("start", cpu, "start-wall", end - begin, flush=True)
