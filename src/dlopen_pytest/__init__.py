"""The pytest plugin of dlopen: fixtures `load_library` and `patch_library`, mark `own_process`.

pytest imports this at each start, also where nobody uses it.  So nothing else is imported before
it is used: not dlopen, which would load libdlopen.so and cannot be imported everywhere.
"""

from __future__ import annotations

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from dlopen_pytest.loading import LoadLibrary
    from dlopen_pytest.patching import PatchLibrary

# ruff: noqa: PLC0415  (imports that are late on purpose)


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark."""
    config.addinivalue_line(
        "markers",
        "own_process(*, timeout=None): run the test and its fixtures in a forked process; "
        "a crash of it, or more than `timeout` seconds, is a failure.",
    )


def pytest_collection_finish(session: pytest.Session) -> None:
    """Bring in what runs the marked tests, if there are any."""
    plugins = session.config.pluginmanager
    if not plugins.has_plugin("dlopen-own-process") and any(
        item.get_closest_marker("own_process") for item in session.items
    ):
        from dlopen_pytest.own_process import OwnProcess

        plugins.register(OwnProcess(session.config), "dlopen-own-process")


@pytest.fixture
def load_library() -> Iterator[LoadLibrary]:
    """Load shared libraries, each an image of its own; they are closed after the test."""
    from dlopen_pytest.loading import LoadLibrary

    with LoadLibrary() as load:
        yield load


@pytest.fixture
def patch_library(load_library: LoadLibrary) -> Iterator[PatchLibrary]:  # noqa: ARG001
    """Replace what a library calls by a mock, until the end of the test."""
    # With load_library, so that what it has loaded is closed later than patches end.
    from dlopen_pytest.patching import PatchLibrary

    with PatchLibrary() as patch:
        yield patch
