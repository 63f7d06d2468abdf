"""The pages of the documentation: each block of code is run by a test or says why not, and each command is there."""

import re
from pathlib import Path

import pytest

from tests.support import help_examples, pages
from tests.support.pages import PAGES, ROOT

_INLINE = re.compile(r"`(banyan [^`]+)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_block_is_run_or_says_why_not(page: Path) -> None:
    unsaid = [f"line {block.line}: {block.language}" for block in pages.blocks(page) if not block.act]
    assert not unsaid, f"{unsaid}: say what is to be done with them (tests/support/pages.py has the words)"
    for block in pages.blocks(page):
        if block.act == "not run":
            assert len(block.words.split()) >= 3, f"line {block.line}: say why it is not run"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_command_that_a_page_names_is_there_with_its_options(page: Path) -> None:
    text = page.read_text()
    code = [line.strip() for block in pages.blocks(page) if block.language == "sh" for line in block.text.splitlines()]
    lines = [*_INLINE.findall(text), *(line for line in code if line.startswith("banyan "))]
    assert [fault for line in lines for fault in help_examples.faults(line)] == []


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("banyan submit --cores 2 -- python --no-such", None),
        ("banyan submt -- true", "there is no command banyan submt"),
        ("banyan sweep start", "there is no command banyan sweep start"),
        ("banyan list --colour red", "banyan list has no --colour"),
        ("banyan logs -f $ID | head -1", None),
    ],
)
def test_a_command_that_is_not_there_is_seen(line: str, fault: str | None) -> None:
    assert [each.partition(": ")[2] for each in help_examples.faults(line)] == ([] if fault is None else [fault])


def test_an_output_is_compared_in_its_form() -> None:
    printed = "ID                        NAME\n6b0d517a70b3d2856e7866de  a\n2 of 3 tasks\n"
    assert pages.unlike(printed, "ID NAME\n0123456789abcdef01234567   a\n") == []
    assert pages.unlike(printed, "0123456789abcdef01234567  ..\n1 of 9 tasks\n") == []
    assert pages.unlike(printed, "0123456789abcdef01234567  b\n") == ["0123456789abcdef01234567  b"]
    assert pages.unlike(printed, "1 of 2 tasks\nID NAME\n") == ["ID NAME"]


def test_comments_say_what_is_to_be_done_with_a_block(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- file: a/b.py -->\n```python\nx = 1\n```\n\n```sh\ncat a/b.py\n```\n\n```toml\n```\n")
    first, second, third = pages.blocks(page)
    assert (first.act, first.words, first.line, first.text) == ("file", "a/b.py", 2, "x = 1\n")
    assert (second.act, second.is_run, third.act) == ("run", True, "")


@pytest.mark.parametrize("name", ["demo", "tests"])
def test_both_commands_of_the_readme_are_one_line_each(name: str) -> None:
    (block,) = (each for each in pages.blocks(ROOT / "README.md") if (each.act, each.words) == ("ci", name))
    assert block.text.count("\n") == 1
