"""The mark `own_process`: a test in a forked process.

Forked, and not a new pytest: the test is the one that was collected, with its parameters, the
options of this session, and the fixtures of wider scope that are set up already (a compiled
library, a server).  The child sends its reports, as they are made, through a file; here they are
logged as if the test had run in this process.  A process that ends too early leaves a report out.

The child takes down what it has set up itself, and nothing that was set up before.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import pickle
import signal
import sys
import time
import traceback
import warnings
from tempfile import TemporaryFile

import pytest
from _pytest.runner import runtestprotocol
from _pytest.skipping import evaluate_xfail_marks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any, Literal, NoReturn, TypeAlias

    Phase: TypeAlias = Literal["setup", "call", "teardown"]

_GRACE = 2.0  # seconds for a traceback after SIGABRT
_CALLERS = "_pytest", "pytest", "pluggy", "xdist", "execnet", "dlopen_pytest"
_END_OF_SESSION = pytest.exit.Exception, KeyboardInterrupt


class OwnProcess:
    """The hooks.  A session has one, once a marked test was collected."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._set_up: set[pytest.FixtureDef[Any]] = set()
        self._to_parent: IO[bytes] | None = None  # in a child

    @pytest.hookimpl(tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> None:
        """Note that it is set up."""
        self._set_up.add(fixturedef)

    def pytest_fixture_post_finalizer(self, fixturedef: pytest.FixtureDef[Any]) -> None:
        """Note that it is not any more."""
        self._set_up.discard(fixturedef)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Literal[True] | None:
        """Run a marked test."""
        mark = item.get_closest_marker("own_process")
        if mark is None:
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        wrong = ""
        timeout = None
        try:
            timeout = own_process(*mark.args, **mark.kwargs)
        except (TypeError, ValueError) as error:
            wrong = f"mark own_process: {error}"
        reports = [_failure(item, "setup", wrong)] if wrong else self._run(item, timeout)
        teardown = reports.pop() if reports[-1].when == "teardown" else None
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        # What was set up here, and no later test needs.
        if item.session.shouldfail or item.session.shouldstop:
            nextitem = None
        call = pytest.CallInfo.from_call(
            lambda: item.session._setupstate.teardown_exact(nextitem), "teardown", _END_OF_SESSION
        )
        if not teardown or (call.excinfo and teardown.passed):
            teardown = pytest.TestReport.from_item_and_call(item, call)
        item.ihook.pytest_runtest_logreport(report=teardown)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def _run(self, item: pytest.Item, timeout: float | None) -> list[pytest.TestReport]:
        if any(name.startswith("tmp") for name in getattr(item, "fixturenames", ())):
            # One for the session; each child would make its own, and leave it.
            item.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
        if self._config.getoption("usepdb", False):
            timeout = None
        libc = ctypes.CDLL(None)
        # What is in a buffer now would be written by both processes.
        libc.fflush(None)
        sys.stdout.flush()
        sys.stderr.flush()
        start = time.time()
        with TemporaryFile() as records, TemporaryFile() as crash:
            with warnings.catch_warnings():
                # Of other threads (Python 3.12): the documentation says what that means.
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
            if not pid:
                self._be_child(item, records, crash, libc)
            end = _await_end(pid, timeout)
            records.seek(0)
            reports, error = self._received(records)
            phase = _phase(item, reports)
            if not phase:
                if not end:
                    return reports
                phase = "teardown"
                reports.pop()
            crash.seek(0)
            trace = _only_of_test(crash.read().decode(errors="replace"))
            end = end or "its process ended with status 0"
        failed = _failure(item, phase, error or f"{end} in the {phase}{trace}")
        failed.sections += _captured(item.config, phase)
        failed.start, failed.stop = start, time.time()
        failed.duration = failed.stop - start - sum(report.duration for report in reports)
        return [*reports, failed]

    def _be_child(
        self, item: pytest.Item, records: IO[bytes], crash: IO[bytes], libc: ctypes.CDLL
    ) -> NoReturn:
        self._to_parent = records
        status = 1
        try:
            faulthandler.enable(crash)
            # Unbuffered (2 is _IONBF): what C prints before it crashes is seen.
            libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), None, 2, 0)
            self._leave_to_parent(item)
            with warnings.catch_warnings(record=True) as caught:
                runtestprotocol(item, nextitem=None)
            for one in caught:
                kind = one.category
                where = one.filename, one.lineno
                self._send(warning=[str(one.message), kind.__module__, kind.__name__, *where])
            status = 0
        except pytest.exit.Exception as error:
            self._send(exit=[error.msg, error.returncode])
        except BaseException:  # noqa: BLE001  (all that can happen to it)
            self._send(error=traceback.format_exc())
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def _leave_to_parent(self, item: pytest.Item) -> None:
        """Let the child neither take down what was set up before, nor log its reports."""
        state = item.session._setupstate
        for finalizers, _ in state.stack.values():
            finalizers.clear()
        for fixturedef in self._set_up:
            fixturedef._finalizers.clear()
        logreport = self._config.hook.pytest_runtest_logreport
        for implementation in logreport.get_hookimpls():
            if implementation.plugin is not self:
                logreport._remove_plugin(implementation.plugin)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Send it, in a child."""
        if self._to_parent:
            hook, config = self._config.hook, self._config
            # A test with subtests that failed becomes a failure here; their count is not there.
            hook.pytest_report_teststatus(report=report, config=config)
            self._send(report=hook.pytest_report_to_serializable(config=config, report=report))

    def _send(self, **record: Any) -> None:
        assert self._to_parent
        pickle.dump(_plain(record), self._to_parent)
        self._to_parent.flush()

    def _received(self, records: IO[bytes]) -> tuple[list[pytest.TestReport], str]:
        """The reports of a child, and an error of pytest's in it."""
        reports = []
        error = ""
        while True:
            try:
                record = pickle.load(records)
            except (EOFError, pickle.UnpicklingError):  # it was killed while it wrote
                break
            ((kind, value),) = record.items()
            if kind == "report":
                hook = self._config.hook
                reports.append(
                    hook.pytest_report_from_serializable(config=self._config, data=value)
                )
            elif kind == "warning":
                _warn_again(*value)
            elif kind == "exit":
                pytest.exit(*value)
            else:
                error = value
        return reports, error


def own_process(*, timeout: float | None = None) -> float | None:
    """The arguments of the mark: seconds, for the test with its fixtures."""
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout must be more than 0 seconds, not {timeout!r}")
    return timeout


def _plain(value: Any) -> Any:
    """What the other process can read: objects may be of classes that it cannot import."""
    if isinstance(value, dict):
        return {_plain(key): _plain(one) for key, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    return value if type(value) in (str, int, float, bool, type(None)) else str(value)


def _await_end(pid: int, timeout: float | None) -> str:
    """How a child has ended; "" for status 0.  It is killed when it has no time left."""
    try:
        code = _wait(pid, timeout)
        if code is None:
            _abort(pid)
            return f"killed after {timeout:g} s"
    except pytest.fail.Exception as failed:  # raised by a signal handler, as pytest-timeout does
        _abort(pid)
        return str(failed)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    if code >= 0:
        return f"its process ended with status {code}" if code else ""
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"killed by {name} ({signal.strsignal(-code)})"


def _abort(pid: int) -> None:
    os.kill(pid, signal.SIGABRT)  # faulthandler says where it is
    if _wait(pid, _GRACE) is None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _wait(pid: int, timeout: float | None) -> int | None:
    """The exit code of a child, negative for a signal; None if it still runs."""
    if timeout is None:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    deadline = time.monotonic() + timeout
    pause = 0.001
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        time.sleep(min(pause, left))
        pause = min(pause * 2, 0.05)


def _phase(item: pytest.Item, reports: list[pytest.TestReport]) -> Phase | None:
    """What the child was in when it ended; None: it has reported all."""
    # Those of subtests are of classes of their own.
    own = [report for report in reports if type(report) is pytest.TestReport]
    outcomes = {report.when: report.passed for report in own}
    if "teardown" in outcomes:
        return None
    if "setup" not in outcomes:
        return "setup"
    if "call" in outcomes or not outcomes["setup"] or item.config.getoption("setuponly", False):
        return "teardown"
    return "call"


def _only_of_test(crash: str) -> str:
    """What faulthandler wrote, without the frames that called the test."""
    of_pytest = [f"{os.sep}{name}{os.sep}" for name in _CALLERS] + ["<frozen runpy>"]
    lines = [
        line
        for line in crash.splitlines()
        if not line.startswith("  File ") or not any(part in line for part in of_pytest)
    ]
    return "\n\n" + "\n".join(lines) if lines else ""


def _captured(config: pytest.Config, phase: str) -> list[tuple[str, str]]:
    """What the child wrote, and had no time to report: pytest captures in a file of both."""
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    if not capture or not capture.is_globally_capturing():
        return []
    streams = zip(("stdout", "stderr"), capture.read_global_capture(), strict=True)
    return [(f"Captured {name} {phase}", text) for name, text in streams if text]


def _failure(item: pytest.Item, phase: Phase, message: str) -> pytest.TestReport:
    call = pytest.CallInfo.from_call(lambda: pytest.fail(message, pytrace=False), phase)
    report = pytest.TestReport.from_item_and_call(item, call)
    expected = evaluate_xfail_marks(item)
    if expected and expected.raises is None and not item.config.getoption("runxfail", False):
        report.outcome = "skipped"
        report.wasxfail = expected.reason
    return report


def _warn_again(text: str, module: str, name: str, filename: str, line: int) -> None:
    """Warn here, so that pytest reports what a child was warned of."""
    category: Any = getattr(sys.modules.get(module), name, UserWarning)
    with warnings.catch_warnings():
        warnings.simplefilter("always")  # the filters were asked there
        try:
            warning = category(text)
        except Exception:  # noqa: BLE001  (one that takes other arguments)
            warning = UserWarning(f"{name}: {text}")
        warnings.warn_explicit(warning, type(warning), filename, line)
