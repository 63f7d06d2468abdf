"""Removal of directories: at once by a rename, and later of their contents."""

import contextlib
import os
import uuid
from pathlib import Path

from banyan import beneath


class Trash:
    """The directory `<root>/.banyan-trash` of discarded paths; `empty` removes them, also those of an earlier life."""

    def __init__(self, root: Path) -> None:
        self._place = root / ".banyan-trash"

    def take(self, path: str) -> bool:
        """Discard a path; return whether it no longer exists."""
        try:
            self._place.mkdir(mode=0o700, exist_ok=True)
            try:
                os.rename(path, self._place / uuid.uuid4().hex)
            except PermissionError:  # its task has removed our rights to it, or to its parent
                beneath.allow(os.path.dirname(path))
                beneath.allow(path)
                os.rename(path, self._place / uuid.uuid4().hex)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def empty(self) -> None:
        """Remove all discarded paths; safe in several threads at once."""
        with contextlib.suppress(OSError), os.scandir(self._place) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        beneath.remove(entry.path)
                    else:
                        os.unlink(entry.path)
