"""`own_process`: what happens to the process is the outcome of one test."""

from __future__ import annotations

import re
import sys
import textwrap
import time
from xml.etree import ElementTree as ET

import pytest

from support.fixtures import compile_library

pytest_plugins = ["pytester"]

HEAD = """
import ctypes, os, signal, sys, threading, time, warnings
import pytest
own_process = pytest.mark.own_process
pids = []
def crash():
    ctypes.string_at(0)
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder in which no setting of ours holds."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # it would unbuffer C's stdout, too
    pytester.makeini("[pytest]\naddopts = --strict-markers -p no:cacheprovider\n")
    return pytester


def run(project: pytest.Pytester, code: str, *arguments: str, **outcomes: int) -> str:
    """Run a test file; it has to end with these outcomes.  Returns what pytest writes."""
    project.makepyfile(HEAD + textwrap.dedent(code))
    result = project.runpytest_subprocess("-rA", *arguments, timeout=60)
    result.assert_outcomes(**outcomes)
    assert result.ret == (1 if {"failed", "errors"} & outcomes.keys() else 0)
    return result.stdout.str()


def test_it_is_a_process_of_its_own(project: pytest.Pytester) -> None:
    code = """
    parent = os.getpid()

    @own_process
    def test_there():
        pids.append(os.getpid())
        assert os.getpid() != parent == os.getppid()

    def test_here():
        assert os.getpid() == parent and not pids

    class TestClass:
        pytestmark = own_process
        def test_method(self):
            assert os.getpid() != parent

    @own_process
    @pytest.mark.xfail(reason="known crash")
    def test_crash_is_expected():
        crash()

    @own_process
    @pytest.mark.xfail(raises=LookupError)
    def test_crash_is_not_expected():
        crash()
    """
    assert "known crash" in run(project, code, passed=3, xfailed=1, failed=1)


def test_outcomes_are_those_of_any_test(project: pytest.Pytester) -> None:
    """The same file with and without the mark gives the same report."""
    code = """
    import unittest

    if "MARKED" in os.environ:
        pytestmark = own_process

    def test_passes(record_property):
        record_property("a", own_process)
        print("of the test")

    def test_fails():
        print("before it fails")
        sys.stderr.write("to stderr")
        assert 1 + 1 == 3

    def test_skips():
        pytest.skip("not today")

    @pytest.mark.skip(reason="never")
    def test_never():
        crash()

    @pytest.mark.xfail(reason="known")
    def test_xfails():
        assert False

    @pytest.mark.xfail(run=False)
    def test_does_not_run():
        crash()

    @pytest.mark.xfail(strict=True)
    def test_does_not_xfail():
        pass

    @pytest.mark.parametrize("value", [1, 2, 3])
    def test_parameters(value):
        assert value != 2

    class TestCase(unittest.TestCase):
        @classmethod
        def setUpClass(cls):
            cls.value = 3

        def test_method(self):
            self.assertEqual(self.value, 4)

    @pytest.fixture
    def broken():
        raise LookupError("of the fixture")

    @pytest.fixture
    def breaks_later():
        print("set up")
        yield
        raise LookupError("of the end")

    def test_setup(broken):
        pass

    def test_teardown(breaks_later):
        pass

    def test_exits():
        sys.exit(3)

    def test_warns():
        warnings.warn("of the test", UserWarning)
    """
    project.makepyfile(HEAD + textwrap.dedent(code))

    def report(name: str) -> tuple[str, str]:
        arguments = [f"--junitxml={name}", "-o", "junit_family=xunit1", "-rA"]
        result = project.runpytest_subprocess(*arguments, timeout=60)
        tree = ET.parse(project.path / name)
        for element in tree.iter():
            for volatile in ("time", "timestamp", "hostname"):
                element.attrib.pop(volatile, None)
        text = ET.tostring(tree.getroot(), encoding="unicode")
        lines = [line.strip("=") for line in result.stdout.lines if ".xml" not in line]
        return text, re.sub(r" in [\d.]+s ", "", "\n".join(lines))

    expected = report("plain.xml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MARKED", "1")
        marked = report("marked.xml")
    assert "of the end" in expected[0]
    assert marked[0] == expected[0]
    assert marked[1] == expected[1]


def test_an_end_of_the_process_is_a_failure(project: pytest.Pytester) -> None:
    source = r"""
    #include <stdio.h>
    #include <stdlib.h>
    void dies(void) { printf("from C, before the end"); abort(); }
    void quits(int status) { exit(status); }
    __attribute__((destructor)) static void crashes(void) { *(volatile int *)8 = 1; }
    """
    compile_library(project.path, "libdies.so", source)
    code = """
    pytestmark = own_process

    def test_segfault():
        print("from Python, before the crash")
        sys.stderr.write("to stderr")
        crash()

    def test_abort(load_library):
        load_library("./libdies.so").dies()

    def test_exit():
        os._exit(0)

    def test_exit_from_c():
        os._exit(7)

    def test_kill():
        os.kill(os.getpid(), signal.SIGKILL)

    @pytest.fixture
    def crashes():
        crash()

    @pytest.fixture
    def crashes_later():
        yield
        crash()

    def test_setup(crashes):
        pass

    def test_teardown(crashes_later):
        pass

    def test_destructor(load_library):
        load_library("./libdies.so")

    def test_after_all():
        pass
    """
    output = run(project, code, failed=5, passed=3, errors=3)
    for line in (
        "test_segfault - Failed: killed by SIGSEGV* in the call",
        "test_abort - Failed: killed by SIGABRT* in the call",
        "test_exit - Failed: its process ended with status 0 in the call",
        "test_exit_from_c - Failed: its process ended with status 7 in the call",
        "test_kill - Failed: killed by SIGKILL* in the call",
        "test_setup - Failed: killed by SIGSEGV* in the setup",
        "test_teardown - Failed: killed by SIGSEGV* in the teardown",
        "test_destructor - Failed: killed by SIGSEGV* in the teardown",
    ):
        pytest.LineMatcher(output.splitlines()).fnmatch_lines([f"* *::{line}"])
    for text in ("from Python, before the crash", "to stderr", "from C, before the end"):
        assert output.count(text) == 1, text
    assert "Fatal Python error: Segmentation fault" in output
    assert " in crash\n" in output
    assert "pluggy" not in output.partition("short test summary")[0].partition("= FAILURES")[2]


def test_no_output_of_before_is_written_twice(project: pytest.Pytester) -> None:
    source = "#include <stdio.h>\nvoid says(const char *text) { fputs(text, stdout); }"
    compile_library(project.path, "libsays.so", source)
    code = """
    lib = ctypes.CDLL("./libsays.so")

    def test_buffers():
        lib.says(b"C-before ")
        sys.stdout.write("Python-before ")

    @own_process
    def test_writes():
        lib.says(b"C-inside ")
        sys.stdout.write("Python-inside ")
    """
    output = run(project, code, "-s", passed=2)
    assert [
        output.count(f"{who}-{when} ") for who in ("C", "Python") for when in ("before", "inside")
    ] == [1] * 4


def test_timeout(project: pytest.Pytester) -> None:
    code = """
    @own_process(timeout=0.5)
    def test_hangs_in_c():
        print("before it hangs")
        ctypes.PyDLL(None).pause()      # with the GIL

    @own_process(timeout=0.5)
    def test_cannot_be_aborted():
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGABRT})
        time.sleep(60)

    @own_process(timeout=30)
    def test_in_time():
        pass
    """
    start = time.monotonic()
    output = run(project, code, failed=2, passed=1)
    assert time.monotonic() - start < 20
    assert output.count("Failed: killed after 0.5 s in the call") == 2
    assert " in test_hangs_in_c\n" in output
    assert output.count("before it hangs") == 1


def test_a_timeout_of_others(project: pytest.Pytester) -> None:
    """pytest-timeout fails a test from a signal handler, here."""
    project.makeconftest(
        """
        import signal, pytest
        def handler(number, frame):
            pytest.fail("Timeout of another")

        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_protocol(item):
            signal.signal(signal.SIGALRM, handler)
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            yield
            signal.setitimer(signal.ITIMER_REAL, 0)
            return True
        """
    )
    code = """
    @own_process
    def test_hangs():
        time.sleep(60)
    """
    output = run(project, code, failed=1)
    assert "Failed: Timeout of another in the call" in output
    assert " in test_hangs\n" in output


def test_fixtures_of_wider_scope(project: pytest.Pytester) -> None:
    """Each is taken down once, by the process that has set it up."""
    code = """
    log = open("log", "a", buffering=1)

    def fixture(scope):
        @pytest.fixture(scope=scope)
        def value():
            print("up", scope, os.getpid() == parent, file=log)
            yield [0]
            print("down", scope, os.getpid() == parent, file=log)
        return value

    parent = os.getpid()
    before, inside, module = fixture("session"), fixture("session"), fixture("module")

    @pytest.fixture(scope="session", params="ab")
    def letter(request):
        yield request.param
        print("down", request.param, os.getpid() == parent, file=log)

    @pytest.fixture(scope="class")
    def of_class():
        yield
        print("down", "class", os.getpid() == parent, file=log)

    @pytest.mark.usefixtures("of_class")
    class TestFirst:
        def test_here(self, request, before, module):
            request.session.addfinalizer(lambda: print("end", os.getpid() == parent, file=log))
            before[0] = 1

        @own_process
        def test_there(self, before, module, inside):
            assert before == [1]
            before[0] = 2
            inside[0] = 3

    @own_process
    def test_again(inside):
        assert inside == [0]

    def test_not_there(before):
        assert before == [1]

    def test_letter_here(letter):
        pass

    @own_process
    @pytest.mark.parametrize("letter", ["c"], indirect=True)
    def test_letter_there(letter):
        assert letter == "c"
    """
    run(project, code, passed=7)
    assert (project.path / "log").read_text().splitlines() == [
        "up session True",
        "up module True",
        "up session False",
        "down session False",
        "down class True",
        "up session False",
        "down session False",
        "down a True",  # since the next test needs another
        "down c False",
        "down module True",
        "down b True",
        "end True",
        "down session True",
    ]


def test_teardown_here_that_fails_is_reported(project: pytest.Pytester) -> None:
    code = """
    @pytest.fixture(scope="class")
    def of_class():
        yield
        raise LookupError("of the class")

    class TestFirst:
        def test_here(self, of_class):
            pass

        @own_process
        def test_there(self, of_class):
            pass

    def test_next():
        pass
    """
    output = run(project, code, passed=3, errors=1)
    assert "LookupError: of the class" in output
    assert "ERROR" in output


def test_warnings_and_files(project: pytest.Pytester) -> None:
    code = """
    @own_process
    def test_warns():
        warnings.warn("of the child", UserWarning)

    @own_process
    @pytest.mark.filterwarnings("error")
    def test_raises():
        with pytest.raises(UserWarning):
            warnings.warn("an error", UserWarning)

    @own_process
    @pytest.mark.parametrize("i", range(3))
    def test_folder(tmp_path, i):
        (tmp_path / "file").write_text("x")
        assert tmp_path.parent.parent.name.startswith("pytest-of")
        open("folders", "a").write(f"{tmp_path.parent}\\n")

    @own_process
    def test_captures(capfd):
        os.write(1, b"to the descriptor")
        assert capfd.readouterr().out == "to the descriptor"
    """
    project.makepyfile(HEAD + textwrap.dedent(code))
    # Without --basetemp, which pytester adds: the folder of the session is made when it is needed.
    result = project.run(sys.executable, "-m", "pytest", timeout=60)
    result.assert_outcomes(passed=6, warnings=1)
    result.stdout.fnmatch_lines(["*test_warnings*.py:*: UserWarning: of the child*"])
    assert len(set((project.path / "folders").read_text().splitlines())) == 1


def test_subtests(project: pytest.Pytester) -> None:
    code = """
    pytestmark = own_process

    def test_one_fails(subtests):
        for i in range(4):
            with subtests.test(i=i):
                assert i != 2

    def test_one_crashes(subtests):
        for i in range(4):
            with subtests.test(i=i):
                assert i != 1
                if i == 2:
                    crash()
    """
    output = run(project, code, failed=4)
    assert "contains 1 failed subtest" in output
    assert "test_one_crashes - Failed: killed by SIGSEGV (Segmentation fault) in the call" in output


def test_arguments_of_the_mark(project: pytest.Pytester) -> None:
    code = """
    @own_process(10)
    def test_positional():
        pass

    @own_process(time=10)
    def test_other():
        pass

    @own_process(timeout=0)
    def test_zero():
        pass
    """
    output = run(project, code, errors=3)
    assert output.count("Failed: mark own_process: ") == 3
    assert "timeout must be more than 0 seconds, not 0" in output


def test_exit_and_maxfail_end_the_session(project: pytest.Pytester) -> None:
    code = """
    pytestmark = own_process
    def test_exits():
        pytest.exit("enough", returncode=9)
    def test_not_run():
        pass
    """
    project.makepyfile(HEAD + textwrap.dedent(code))
    result = project.runpytest_subprocess(timeout=60)
    assert result.ret == 9
    result.stdout.fnmatch_lines(["*Exit: enough*"])
    result.assert_outcomes()
    code = """
    pytestmark = own_process
    def test_crashes():
        crash()
    def test_not_run():
        pass
    """
    run(project, code, "-x", failed=1)


def test_threads_of_before_do_no_harm(project: pytest.Pytester) -> None:
    code = """
    def test_starts_one():
        event = threading.Event()
        pids.append(event)
        threading.Thread(target=event.wait).start()

    @own_process(timeout=20)
    def test_forks():
        assert threading.active_count() == 1

    def test_ends_it():
        pids[0].set()
    """
    run(project, code, "-W", "error", passed=3)


def test_patches_of_a_child_stay_there(project: pytest.Pytester) -> None:
    source = "#include <time.h>\nlong now(void) { return time(0); }"
    compile_library(project.path, "libnow.so", source, flags=["-fno-builtin"])
    code = """
    import dlopen
    lib = dlopen.Library("./libnow.so")

    @own_process
    def test_patched(patch_library):
        patch_library(lib, "time", ctypes.c_long, ctypes.c_void_p, return_value=4)
        assert lib.now() == 4
        crash()

    def test_not_patched():
        assert abs(lib.now() - time.time()) < 2
    """
    run(project, code, passed=1, failed=1)
