"""Of each process that has this folder and archives in PYTHONPATH, children too."""

import sys

if any(entry.endswith((".whl", ".zip")) for entry in sys.path):
    import dlopen.importer

    dlopen.importer.install()
