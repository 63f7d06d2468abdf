"""Removing directories at once, and what is in them in its own time."""

import contextlib
import os
import uuid
from pathlib import Path

from banyan import beneath


class Trash:
    """What is moved to `<root>/.banyan-trash` is gone for everyone; `empty` removes it, also what was left before."""

    def __init__(self, root: Path) -> None:
        self._place = root / ".banyan-trash"

    def take(self, path: str) -> bool:
        """Whether there is nothing at `path` any more."""
        try:
            self._place.mkdir(mode=0o700, exist_ok=True)
            try:
                os.rename(path, self._place / uuid.uuid4().hex)
            except PermissionError:  # its task has taken our rights to it, or to what it is in
                beneath.allow(os.path.dirname(path))
                beneath.allow(path)
                os.rename(path, self._place / uuid.uuid4().hex)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def empty(self) -> None:
        """Remove all that was taken; safe in several threads at once."""
        with contextlib.suppress(OSError), os.scandir(self._place) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        beneath.remove(entry.path)
                    else:
                        os.unlink(entry.path)
