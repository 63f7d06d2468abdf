"""The part of `docs/performance.md` that is made from results: table, plots, what it ran on."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from banyan.errors import SetupError
from bench import plots, table
from bench.session import Line, Session

PAGE = "performance.md"
PLOTS = "plots"

_BEGIN = "<!-- measured: begin -->"
_END = "<!-- measured: end -->"
_GIBIBYTE = 2**30


def write(session: Session, docs: Path) -> list[Path]:
    """Bring the page and its plots to these results; the files written. SetupError if the page has no markers."""
    page = docs / PAGE
    before, after = _around(page.read_text(), page)
    (docs / PLOTS).mkdir(exist_ok=True)
    drawn = [line for line in session.lines if plots.worth_drawing(line)]
    written = [plots.draw(line, docs / PLOTS / f"{line.name}.svg") for line in drawn]
    made = "\n".join(_part(session, drawn))
    page.write_text(f"{before}{_BEGIN}\n\n{made}\n{_END}{after}")
    return [page, *written]


def _around(text: str, page: Path) -> tuple[str, str]:
    before, begun, rest = text.partition(_BEGIN)
    _, ended, after = rest.partition(_END)
    if not begun or not ended:
        raise SetupError(f"{page} has no part between {_BEGIN} and {_END}; put the two lines where it belongs")
    return before, after


def _part(session: Session, drawn: list[Line]) -> Iterator[str]:
    yield f"{_where(session)}\n"
    yield table.markdown(session)
    for line in session.lines:
        for remark in table.remarks(line):
            yield f"- {remark}"
        for title, functions in table.profiles(line):
            yield f"\n{title}:\n"
            yield _functions(functions)
    yield "\n### What each line measures\n"
    for line in session.lines:
        yield f"**{line.name}**: {line.text}. {line.conditions}.\n"
        if line in drawn:
            yield f"![{line.name}]({PLOTS}/{line.name}.svg)\n"
    yield "### Versions\n"
    yield ", ".join(f"{name} {version}" for name, version in sorted(session.versions.items())) + "\n"


def _functions(rows: Sequence[tuple[str, str, str]]) -> str:
    body = [("with all", "alone", "function"), ("--:", "--:", "---"), *((a, b, f"`{name}`") for a, b, name in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in body) + "\n"


def _where(session: Session) -> str:
    on = session.machine
    load = ", ".join(f"{each:.2f}" for each in on["load_before"])
    commit = f", revision {session.revision}" if session.revision else ""
    return (
        f"Measured on {session.begun[:10]} ({session.size} size{commit}): {on['cores']} cores ({on['processor']}), "
        f"{on['memory_bytes'] / _GIBIBYTE:.1f} GiB of memory, Linux {on['kernel']}, Python {on['python']}; load "
        f"before: {load}. Each figure is the median of its rounds, with the least and the most of them in parentheses."
    )
