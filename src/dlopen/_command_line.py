"""The command `dlopen`, also `python -m dlopen`.

Exit status: that of the program for `run`, 126 and 127 as env(1) if it cannot be started; else
0, 1 for a library that is not found or not usable, 2 for a wrong command line.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import hashlib
import os
import signal
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import NoReturn
from zipimport import ZipImportError, zipimporter

from dlopen import _archives, _linker, process, watching
from dlopen.image import Image
from dlopen.library import opened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlopen.info import Info
    from dlopen.library import Library
    from dlopen.reloading import Reloaded

LEVELS = ("error", "warn", "info", "debug", "trace")
_SEPARATORS = frozenset(" :")  # of LD_PRELOAD; see ld.so(8)
_VER_FLG_BASE = 1


class Options(argparse.Namespace):
    """What was given, each for its subcommand."""

    act: Callable[[Options], int]
    log: str | None
    log_file: str | None
    command: list[str]
    name: str
    verbose: bool
    keep: list[str]
    module: bool
    source: str | None  # these are zipapp's
    output: str | None
    python: str
    main: str | None
    script: str | None
    requirement: list[str]
    compress: bool
    info: bool
    platform: list[str]
    python_version: str | None
    dlopen_wheel: str | None


class Parser(argparse.ArgumentParser):
    """Errors are one line."""

    def error(self, message: str) -> NoReturn:
        """End with status 2."""
        self.exit(2, f"{self.prog}: {message}\n")


def _alias_folders() -> Iterator[Path]:
    """Folders of this user's own, those that last first.

    They may be on a file system that is mounted noexec: of a symbolic link, its target counts.
    """
    if cache := os.environ.get("XDG_CACHE_HOME"):
        yield Path(cache, "dlopen")
    with contextlib.suppress(RuntimeError):  # no home
        yield Path.home() / ".cache" / "dlopen"
    for folder in (tempfile.gettempdir(), "/var/tmp", "/dev/shm"):
        yield Path(folder, f"dlopen-{os.geteuid()}")


def _make_alias(folder: Path, library: Path) -> Path:
    """A symbolic link to the library, made once; `OSError` where there cannot be one."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    # Who can write there chooses what programs of this user run.
    is_private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o022
    if not is_private or status.st_uid != os.geteuid():
        raise PermissionError(f"{folder} is open to others")
    name = hashlib.sha256(os.fsencode(library)).hexdigest()[:16]
    alias = folder / f"libdlopen-{name}.so"
    if not alias.is_symlink() or alias.readlink() != library:
        new = folder / f".{name}.{os.getpid()}"
        new.unlink(missing_ok=True)
        new.symlink_to(library)
        new.replace(alias)  # at once, for others who start programs now
    if not alias.samefile(library):
        raise FileNotFoundError(f"{alias} does not lead to {library}")
    return alias


def preload_path() -> str:
    """The path of libdlopen.so, as LD_PRELOAD can hold it."""
    library = Path(str(files("dlopen") / "_lib" / "libdlopen.so")).absolute()
    if not _SEPARATORS & set(str(library)):
        return str(library)
    for folder in _alias_folders():
        if not folder.is_absolute() or _SEPARATORS & set(str(folder)):
            continue
        try:
            return str(_make_alias(folder, library))
        except OSError:
            continue
    raise OSError(f"{library}: LD_PRELOAD cannot hold this path, and no folder can hold a link")


def _run(options: Options) -> int:
    environment = dict(os.environ)
    others = environment.get("LD_PRELOAD")
    environment["LD_PRELOAD"] = preload_path() + (f":{others}" if others else "")
    if options.log:
        environment["DLOPEN_LOG"] = options.log
    if options.log_file:
        environment["DLOPEN_LOG_FILE"] = str(Path(options.log_file).absolute())
        environment.setdefault("DLOPEN_LOG", "info")
    # Python ignores it, and a program that is started by exec inherits that.
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    program = options.command[0]
    try:
        os.execvpe(program, options.command, environment)
    except OSError as error:
        print(f"dlopen run: {program}: {error.strerror}", file=sys.stderr)
        return 127 if isinstance(error, FileNotFoundError) else 126


def _preload(_: Options) -> int:
    print(preload_path())
    return 0


def _find(options: Options) -> int:
    found = process.find(options.name)
    if options.verbose:
        for candidate in found.candidates:
            print(f"{candidate.path} ({candidate.origin}): {candidate.reason or 'found'}")
    if found.path is None:
        print(f"dlopen find: {options.name}: not found", file=sys.stderr)
        return 1
    if not options.verbose:
        print(found.path)
    return 0


def _describe(info: Info) -> Iterator[tuple[str, str]]:
    yield "path", info.path
    if info.archive is not None:
        yield "archive", f"{info.archive}, from {info.offset:#x} on"
    yield "machine", info.machine
    for name in ("soname", "interpreter", "rpath", "runpath"):
        if (value := getattr(info, name)) is not None:
            yield name, value
    yield from (("needed", name) for name in info.needed)
    for version in info.versions:
        if version.library is not None:
            yield "needs", f"{version.name} of {version.library}"
        elif not version.flags & _VER_FLG_BASE:  # that is the file's own name
            yield "defines", version.name
    if info.tls is not None:
        yield "tls", f"{info.tls.size} bytes, aligned to {info.tls.align}"
    yield "relro", f"{info.relro_size} bytes"
    if info.has_textrel:
        yield "textrel", "yes"
    yield "symbols", str(info.symbol_count)
    yield "relocations", str(info.relocation_count)
    for segment in info.segments:
        memory = f"{segment.vaddr:#010x} {segment.memsz:#x} bytes"
        file = f"{segment.filesz:#x} of the file at {segment.offset:#x}"
        yield "segment", f"{segment.type:13} {segment.flags} {memory}, {file}"


def _info(options: Options) -> int:
    # A file here comes first, as for every other tool that reads files.
    name = Path(options.name) if Path(options.name).exists() else options.name
    _linker.set_archives(_archives.locate)
    with Image(name) as image:
        for key, value in _describe(image.info):
            print(f"{key:12} {value}")
    return 0


def _say(message: object) -> None:
    print(f"dlopen watch: {message}", file=sys.stderr, flush=True)


def _watch(options: Options) -> int:
    """Run a Python program as the interpreter would, in this process."""
    import runpy  # noqa: PLC0415  (only here)

    try:
        import watchfiles  # noqa: F401, PLC0415  (an extra)
    except ImportError:
        _say("the package watchfiles is not installed: pip install 'dlopen[watch]'")
        return 1

    def begin(library: Library) -> None:
        path = library.info.path

        def say_reloaded(done: Reloaded) -> None:
            _say(f"{path}: version {done.version}, calls held for {done.held * 1000:.1f} ms")

        watching.watch(library, options.keep, on_reload=say_reloaded, on_error=_say)

    opened.append(begin)
    program, *sys.argv[1:] = options.command
    if options.module:
        sys.argv[0] = program
        sys.path.insert(0, "")
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        sys.argv[0] = program
        sys.path.insert(0, str(Path(program).resolve().parent))
        runpy.run_path(program, run_name="__main__")
    return 0


def _zipapp(options: Options) -> int:
    """Pack, or look into what is packed."""
    from dlopen import _zipapp  # noqa: PLC0415  (it imports much)

    source = Path(options.source) if options.source else None
    output = source and source.resolve().with_suffix(".pyz")
    if options.output:
        output = Path(options.output)
    try:
        if options.info:
            if source is None:
                raise _zipapp.PackError("--info: of which archive?")
            for key, value in _zipapp.describe(source):
                print(f"{key:12} {value}")
            return 0
        if output is None:
            raise _zipapp.PackError("--output: where to?")
        wanted = _zipapp.Wanted(
            source,
            output,
            python=options.python,
            main=options.main,
            script=options.script,
            requirements=options.requirement,
            compress=options.compress,
            platforms=options.platform,
            python_version=options.python_version,
            dlopen_wheel=Path(options.dlopen_wheel) if options.dlopen_wheel else None,
        )
        for warning in _zipapp.pack(wanted):
            print(f"dlopen zipapp: warning: {warning}", file=sys.stderr)
    except _zipapp.PackError as error:
        print(f"dlopen zipapp: {error}", file=sys.stderr)
        return 1
    return 0


def _add_zipapp(commands: argparse._SubParsersAction[Parser]) -> None:
    zipapp = commands.add_parser(
        "zipapp",
        help="make one file of an application, with its extension modules and dlopen",
        description="The options are those of the standard library's zipapp, and some more.",
    )
    zipapp.add_argument("source", nargs="?", metavar="SOURCE", help="a folder")
    zipapp.add_argument("-o", "--output", metavar="FILE", help="by default SOURCE.pyz")
    zipapp.add_argument(
        "-p", "--python", default="/usr/bin/env python3", metavar="PYTHON",
        help="for the first line; by default %(default)s",
    )  # fmt: skip
    entry = zipapp.add_mutually_exclusive_group()
    entry.add_argument("-m", "--main", metavar="MODULE:FUNCTION", help="what is called")
    entry.add_argument("--script", metavar="NAME", help="a script that an installed package has")
    zipapp.add_argument(
        "-r", "--requirement", action="append", default=[], metavar="FILE",
        help="pip installs what is in it",
    )  # fmt: skip
    zipapp.add_argument(
        "-c", "--compress", action="store_true", help="all but libraries, which are mapped"
    )
    zipapp.add_argument("--info", action="store_true", help="print what is in the archive SOURCE")
    zipapp.add_argument(
        "--platform", action="append", default=[], help="as pip's: for another machine"
    )
    zipapp.add_argument("--python-version", metavar="3.N", help="as pip's: for another Python")
    zipapp.add_argument("--dlopen-wheel", metavar="FILE", help="dlopen for that machine")
    zipapp.set_defaults(act=_zipapp)


def _can_run(name: str) -> bool:
    """Is this an archive that the interpreter would run?"""
    try:
        return zipimporter(name).find_spec("__main__") is not None
    except ZipImportError:
        return False


def _run_archive(command: list[str]) -> int:
    """Run it as the interpreter would: it stands where the folder of a script stands."""
    import runpy  # noqa: PLC0415  (only here)

    from dlopen import importer  # noqa: PLC0415

    archive = Path(command[0]).absolute()
    if not _can_run(command[0]):
        why = "is no archive with a __main__.py" if archive.exists() else os.strerror(errno.ENOENT)
        print(f"dlopen: {command[0]}: {why}", file=sys.stderr)
        return 2
    importer.install()
    sys.argv[:] = command
    if not sys.flags.safe_path:
        del sys.path[0]  # that of `dlopen`, or where `python -m` is
    sys.path.insert(0, str(archive))
    runpy.run_path(str(archive), run_name="__main__")
    return 0


def _parser() -> Parser:
    parser = Parser(prog="dlopen", description="A dynamic linker: run programs under it, look.")
    parser.add_argument("--version", action="version", version=f"dlopen {_linker.VERSION}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run",
        help="run a program with libdlopen.so preloaded",
        usage="dlopen run [-h] [--log LEVEL] [--log-file FILE] [--] PROGRAM [ARGUMENT ...]",
    )
    run.add_argument("--log", choices=LEVELS, metavar="LEVEL", help=", ".join(LEVELS))
    run.add_argument("--log-file", metavar="FILE", help="not to standard error; implies --log info")
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="PROGRAM [ARGUMENT ...]")
    run.set_defaults(act=_run)

    watch = commands.add_parser(
        "watch",
        help="run a Python program, and reload its libraries when their files change",
        usage="dlopen watch [-h] [--keep VARIABLE ...] [-m] [--] PROGRAM [ARGUMENT ...]",
        description="Of a Python program: all that it opens with reload=True.",
    )
    watch.add_argument(
        "--keep", action="append", default=[], metavar="VARIABLE", help="moved along"
    )
    watch.add_argument("-m", dest="module", action="store_true", help="PROGRAM is a module's name")
    watch.add_argument("command", nargs=argparse.REMAINDER, metavar="PROGRAM [ARGUMENT ...]")
    watch.set_defaults(act=_watch)

    preload = commands.add_parser("preload", help="print the path of libdlopen.so for LD_PRELOAD")
    preload.set_defaults(act=_preload)

    find = commands.add_parser("find", help="print where a library's name leads")
    find.add_argument("name", metavar="NAME", help="a name that is searched as ld.so(8) does")
    find.add_argument("-v", "--verbose", action="store_true", help="all that was tried, and why")
    find.set_defaults(act=_find)

    info = commands.add_parser("info", help="print what a library needs, defines and holds")
    info.add_argument("name", metavar="FILE", help="a file, or a name that is searched")
    info.set_defaults(act=_info)

    _add_zipapp(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command line, by default the process's; return its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # A path, as no command is.
    if given and not given[0].startswith("-") and {*"./"} & {*given[0]}:
        return _run_archive(given)
    # What follows -- is the program's, whatever argparse of this version makes of it.
    is_run = given[:1] in (["run"], ["watch"])
    end = given.index("--") if is_run and "--" in given else len(given)
    options = _parser().parse_args(given[:end], Options())
    if is_run:
        # A -- after the program's name is the program's own.
        options.command += given[end:] if options.command else given[end + 1 :]
        if not options.command:
            print(f"dlopen {given[0]}: which program?", file=sys.stderr)
            return 2
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        return options.act(options)
    except OSError as error:  # LoadError is one
        print(f"dlopen: {error}", file=sys.stderr)
        return 1
