"""Members of archives for `importlib.resources`, which imports this when it is asked."""

from __future__ import annotations

from importlib.resources.abc import TraversableResources

from dlopen._archive_paths import ArchivePath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlopen._archives import Archive


class Reader(TraversableResources):
    """Of a package, or of the folder that a module is in."""

    def __init__(self, archive: Archive, folder: str) -> None:
        self._folder = ArchivePath(archive, folder)

    def files(self) -> ArchivePath:
        """The folder."""
        return self._folder
