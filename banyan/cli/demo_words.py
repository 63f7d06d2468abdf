"""Counts the words of Python's own library, in parts: the programs that the tasks of `banyan demo` run.

It needs nothing but the standard library, so any worker with Python can run it::

    python demo_words.py count PART PARTS    # counts one part and leaves counts-PART.json
    python demo_words.py add PARTS           # adds the parts up into $BANYAN_RESULT
    python demo_words.py grow MIB SECONDS    # fills memory step by step, so that there is a curve to see
"""

import json
import os
import re
import sys
import sysconfig
import time
from collections import Counter
from pathlib import Path

_FOREIGN = {"site-packages", "dist-packages"}
_WORD = re.compile(rb"[A-Za-z_]+")
_STEPS = 10


def sources() -> list[Path]:
    """Return the standard library's own source files, always in the same order."""
    root = Path(sysconfig.get_path("stdlib"))
    return sorted(path for path in root.rglob("*.py") if not _FOREIGN & set(path.relative_to(root).parts))


def words(files: list[Path]) -> Counter[str]:
    """Return the number of times that each word occurs in `files`."""
    counts: Counter[bytes] = Counter()
    for path in files:
        counts.update(_WORD.findall(path.read_bytes()))
    return Counter({word.decode(): count for word, count in counts.items()})


def summary(counts: Counter[str], files: int) -> dict[str, object]:
    """Return the report on a count; equal counts are in the order of the alphabet."""
    common = sorted(counts.items(), key=lambda each: (-each[1], each[0]))[:5]
    return {"files": files, "words": counts.total(), "distinct": len(counts), "common": [list(each) for each in common]}


def count(part: int, parts: int) -> None:
    """Count every `parts`th file from `part` on; the counts stay in the directory, the summary is the result."""
    files = sources()[part::parts]
    counts = words(files)
    Path(f"counts-{part}.json").write_text(json.dumps({"files": len(files), "counts": counts}))
    _result(summary(counts, len(files)))


def add(parts: int) -> None:
    """Add up the counts of the parts."""
    total: Counter[str] = Counter()
    files = 0
    for part in range(parts):
        left = json.loads(Path(f"counts-{part}.json").read_text())
        total.update(left["counts"])
        files += left["files"]
    _result(summary(total, files))


def grow(mebibytes: int, seconds: float) -> None:
    """Hold more and more memory, up to `mebibytes`, over `seconds`."""
    held = []
    for step in range(1, _STEPS + 1):
        held.append(os.urandom(mebibytes * (1 << 20) // _STEPS))
        _write("BANYAN_PROGRESS", {"fraction": step / _STEPS, "message": f"{step} of {_STEPS} steps"})
        time.sleep(seconds / _STEPS)


def _result(value: object) -> None:
    _write("BANYAN_RESULT", value)
    print(json.dumps(value))


def _write(variable: str, value: object) -> None:
    Path(os.environ[variable]).write_text(json.dumps(value))


def main(arguments: list[str]) -> None:
    """Run the program that the first argument names."""
    match arguments:
        case ["count", part, parts]:
            count(int(part), int(parts))
        case ["add", parts]:
            add(int(parts))
        case ["grow", mebibytes, seconds]:
            grow(int(mebibytes), float(seconds))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
