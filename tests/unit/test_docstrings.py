"""The form of docstrings: none begins with a question word or a participle."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("banyan/domain", "banyan/storage", "banyan/queue", "banyan/api", "banyan/models", "banyan/cli", "worker")
FILES = tuple((ROOT / "banyan").glob("*.py"))
QUESTION = r"(?:What|Who|Whom|Whose|Whether|Where|How|When|Why|Which|Those|That which)\b"
PARTICIPLE = r"(?!(?:Matching|Nothing|Setting|String|Warning)\b)[A-Z][a-z]+ing\b"


def docstrings(file: Path) -> Iterator[tuple[int, str]]:
    """The line and the text of the docstrings of a module, of its classes, functions and attributes."""
    for node in ast.walk(ast.parse(file.read_text())):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            match statement:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    yield statement.lineno, text.strip()


def test_docstrings_begin_with_a_noun_or_a_verb() -> None:
    wrong = [
        f"{file.relative_to(ROOT)}:{line}: {text.splitlines()[0]}"
        for file in sorted([*FILES, *(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))])
        for line, text in docstrings(file)
        if re.match(f"{QUESTION}|{PARTICIPLE}", text)
    ]
    assert not wrong, "\n".join(wrong)
