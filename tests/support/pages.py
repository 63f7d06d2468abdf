"""Pages of the documentation as somebody follows them: their code blocks, in order, as one script.

A comment above a block says what is to be done with it, if it is not simply run:

- `<!-- file: PATH -->`: it is the content of this file, which the reader writes.
- `<!-- terminal: WORDS -->`: it goes on in another terminal; what follows waits until it has said these words. The one
  before is ended first, and the last at the end of the page.
- `<!-- prints -->`: it is what the block before has printed, but for ids, numbers, dates and paths; `..` is anything.
- `<!-- exits: CODE -->`: it is run, and this is the exit code of its last command.
- `<!-- settings: server|worker -->`: it is a part of the settings file of this program.
- `<!-- ci: NAME -->`: `.ci/run` runs it.
- `<!-- not run: REASON -->`: it cannot be run here, or is not there to be run.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if not path.parent.name.startswith("_")),
)
RUN = frozenset({"sh", "python"})
"""Languages of blocks that are run if nothing else is said."""
_BLOCK = re.compile(
    r"^(?:<!-- ([a-z ]+)(?:: (.*?))? -->\n)?```(\{?[a-z-]*\}?)(?: [^\n]*)?\n(.*?)^```$", re.DOTALL | re.MULTILINE
)
_ACTS = frozenset({"file", "terminal", "prints", "exits", "settings", "ci", "not run"})
_ALIKE = (
    (r"\b[0-9a-f]{24}\b", "ID"),
    (r"(?<![\w/])/[\w./-]+", "PATH"),
    (r"\d+(?:\.\d+)?", "N"),
    (r"[─━]+", "─"),
    (r"[ \t]+", " "),
)

PREAMBLE = """
set -e -o pipefail
end_terminal() {
    if [ -n "$TERMINAL" ]; then
        kill -TERM -- "-$TERMINAL" 2> "$OUT/ignored" || true
        while kill -0 -- "-$TERMINAL" 2> "$OUT/ignored"; do sleep 0.1; done
        TERMINAL=
    fi
}
trap end_terminal EXIT
trap 'exit 1' TERM
terminal() {
    end_terminal
    setsid bash -e "$OUT/$1.sh" > "$OUT/$1" 2>&1 &
    TERMINAL=$!
    for _ in $(seq 1200); do
        if grep -q -- "$2" "$OUT/$1"; then return 0; fi
        kill -0 "$TERMINAL" || return 1
        sleep 0.1
    done
    return 1
}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One block of code: its number on the page, the line where it begins, and what its comment says."""

    number: int
    line: int
    language: str
    text: str
    act: str
    words: str

    @property
    def is_run(self) -> bool:
        """True if the block's text is run as a program."""
        return self.act in ("run", "terminal", "exits")


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, but for those that are directives of the documentation."""
    text = page.read_text()
    found = []
    code_blocks = (match for match in _BLOCK.finditer(text) if not match[3].startswith("{"))
    for number, match in enumerate(code_blocks, 1):
        act, words, language, code = match[1], match[2], match[3], match[4]
        if act not in _ACTS:
            act, words = ("run", "") if language in RUN else ("", "")
        line = text[: match.start(3)].count("\n") + 1
        found.append(Block(number=number, line=line, language=language, text=code, act=act, words=words or ""))
    return found


def script(found: list[Block]) -> str:
    """A script that does what a reader does with these blocks, and writes what each prints to `$OUT/NUMBER`."""
    return PREAMBLE + "".join(f"\n# line {block.line}\n{''.join(_steps(block))}" for block in found)


def _steps(block: Block) -> Iterator[str]:
    if block.act == "file":
        name = shlex.quote(block.words)
        yield f'mkdir -p "$(dirname {name})"\n{_written(block.text, name)}'
    elif block.act == "terminal":
        yield _written(block.text, f'"$OUT/{block.number}.sh"')
        yield f"terminal {block.number} {shlex.quote(block.words)}\n"
    elif block.is_run:
        yield f'exec > "$OUT/{block.number}" 2>&1\n'
        program = block.text if block.language == "sh" else f"python3 - <<'END_OF_BLOCK'\n{block.text}END_OF_BLOCK\n"
        if block.act == "exits":
            program = f"set +e\n{program}STATUS=$?\nset -e\n[ $STATUS = {int(block.words)} ]\n"
        yield program


def _written(text: str, name: str) -> str:
    return f"cat > {name} <<'END_OF_BLOCK'\n{text}END_OF_BLOCK\n"


def unlike(printed: str, shown: str) -> list[str]:
    """The lines that a page shows and that were not printed, in this order, in this form."""
    lines = [_form(line) for line in printed.splitlines()]
    missing = []
    for line in filter(str.strip, shown.splitlines()):
        wanted = re.compile(".*".join(re.escape(_form(part)) for part in re.split(r"\.\.+", line)))
        place = next((index for index, each in enumerate(lines) if wanted.fullmatch(each)), None)
        if place is None:
            missing.append(line)
        else:
            del lines[: place + 1]
    return missing


def _form(line: str) -> str:
    for pattern, name in _ALIKE:
        line = re.sub(pattern, name, line)
    return line.strip()
