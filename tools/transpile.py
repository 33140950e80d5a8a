"""Cython to C for the build: what Cython only hints at is an error here."""

import argparse
import subprocess
import sys

# Without these, division and indexing raise, and so drag Python into the core.
CORE = ("cdivision=True", "boundscheck=False", "wraparound=False", "initializedcheck=False")


def main() -> int:
    """Run Cython; return its exit status, or 1 for a performance hint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-I", dest="include", required=True, help="root of the cimports")
    parser.add_argument("--core", action="store_true", help="a source without Python objects")
    parser.add_argument("--line-directives", action="store_true", help="for debuggers")
    parser.add_argument("source")
    parser.add_argument("output", help="the C file; OUTPUT.dep lists what was read")
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "cython", "-3", "-Werror", "-Wextra", "-M"]
    # A loop's counter need not be read, and a result is handed out through `&value`.
    command += ["-X", "warn.unused=False", "-X", "warn.maybe_uninitialized=False"]
    command += ["--line-directives"] if arguments.line_directives else []
    command += [part for item in CORE for part in ("-X", item)] if arguments.core else []
    command += ["-I", arguments.include, arguments.source, "-o", arguments.output]
    result = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    sys.stderr.write(result.stdout)
    # A missing noexcept takes the GIL after each call; -Werror lets that pass.
    if "performance hint" in result.stdout:
        sys.stderr.write(f"{arguments.source}: performance hints are errors\n")
        return 1
    return result.returncode


if __name__ == "__main__":
    sys.exit(main())
