"""Runs steps.c under both linkers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from support.fixtures import compile_library, compile_program, run

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence

SOURCE = Path(__file__).with_name("steps.c")

# A constructor and a destructor that say so.
TRACE = """
#include <stdio.h>
__attribute__((constructor)) static void constructor(void) { dprintf(1, "+%(name)s\\n"); }
__attribute__((destructor)) static void destructor(void) { dprintf(1, "-%(name)s\\n"); }
"""


@dataclass
class Steps:
    """A folder of fixtures and the two linkers to try them with."""

    directory: Path
    libdlopen: Path
    program: Path | None = None

    def library(
        self,
        name: str,
        source: str = "",
        *flags: str,
        needs: Sequence[Path] = (),
        trace: bool = False,
        language: str = "c",
        soname: str | None = None,
        rpath: str = "$ORIGIN",
    ) -> Path:
        """Make lib`name`.so, with `trace` one that says when it comes and goes."""
        if trace:
            source += TRACE % {"name": name}
        return compile_library(
            self.directory,
            f"lib{name}.so",
            source,
            language=language,
            flags=["-Wl,--no-as-needed", *flags],
            libraries=needs,
            soname=soname,
            rpath=rpath,
        )

    def make_program(
        self, source: str = "", *flags: str, needs: Sequence[Path] = (), rpath: str = "$ORIGIN"
    ) -> Path:
        """The program that carries out the steps, with `source` added to it."""
        text = SOURCE.read_text() + source
        self.program = compile_program(
            self.directory,
            "steps",
            text,
            flags=["-Wl,--no-as-needed", *flags],
            libraries=needs,
            rpath=rpath,
        )
        return self.program

    def run(
        self,
        loader: str,
        *steps: str,
        env: Mapping[str, str] | None = None,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        program = self.program or self.make_program()
        return run([program, loader, *steps], cwd=self.directory, env=env, check=check)

    def ours(self, *steps: str, env: Mapping[str, str] | None = None) -> list[str]:
        """What this linker makes of the steps."""
        return self.run(str(self.libdlopen), *steps, env=env).stdout.splitlines()

    def both(self, *steps: str, env: Mapping[str, str] | None = None) -> list[str]:
        """What the steps say, which must be the same under glibc."""
        glibc = self.run("glibc", *steps, env=env).stdout.splitlines()
        ours = self.ours(*steps, env=env)
        assert ours == glibc, f"{glibc} under glibc, {ours} here"
        return glibc

    def refused(self, *steps: str, detail: str) -> None:
        """The last step, an open, is refused here with a message that holds `detail`.

        Nothing of the library stays mapped and none of its code has run.
        """
        name = steps[-1].split(":")[1].rpartition("/")[2]
        done = self.run(str(self.libdlopen), *steps, f"mapped:/{name}")
        assert done.stdout.splitlines()[-2:] == ["not opened", "0"], done
        assert detail in done.stderr, done.stderr
