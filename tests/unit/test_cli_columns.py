"""Tables of text: they fit the terminal, whatever stands in them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banyan.cli.columns import UNLIMITED, WHOLE, Cell, Column, cells, cut, lines, one_line

COLUMNS = (
    Column(heading="ID", least=WHOLE),
    Column(heading="NAME", least=10, most=30, middle=True),
    Column(heading="STATUS", least=6),
    Column(heading="AGE", least=WHOLE, goes=1, right=True),
    Column(heading="WHY", least=8, goes=2),
)


def row(name: str, status: str = "available", why: str = "") -> tuple[Cell, ...]:
    return Cell("6b0d57e0d0b50f5b62bb0fdb"), Cell(name), Cell(status), Cell("3m"), Cell(why, short="busy")


def test_where_there_is_space_everything_is_whole_and_aligned() -> None:
    assert lines(COLUMNS, [row("fit", why="the workers are busy"), row("longer")], UNLIMITED) == [
        "ID                        NAME    STATUS     AGE  WHY",
        "6b0d57e0d0b50f5b62bb0fdb  fit     available   3m  the workers are busy",
        "6b0d57e0d0b50f5b62bb0fdb  longer  available   3m",
    ]


def test_where_there_is_little_columns_shrink_and_short_texts_stand_for_long_ones() -> None:
    name = "a-simulation-of-the-north-wing[117]"
    assert lines(COLUMNS, [row(name, why="the workers that fit are all busy")], 66) == [
        "ID                        NAME                   STATUS  AGE  WHY",
        "6b0d57e0d0b50f5b62bb0fdb  a-simulation-o…g[117]  avail…   3m  busy",
    ]


def test_where_there_is_less_the_least_needed_columns_go() -> None:
    assert lines(COLUMNS, [row("fit", why="busy")], 40) == [
        "ID                        NAME  STATUS",
        "6b0d57e0d0b50f5b62bb0fdb  fit   availab…",
    ]


@given(
    texts=st.lists(st.tuples(st.text(), st.text(), st.text()), max_size=5),
    width=st.integers(min_value=36, max_value=200),
)
def test_no_line_is_wider_than_the_terminal(texts: list[tuple[str, str, str]], width: int) -> None:
    shown = lines(COLUMNS, [row(*each) for each in texts], width)
    assert len(shown) == len(texts) + 1
    for line in shown:
        assert cells(line) <= width
        assert line.isprintable()


@pytest.mark.parametrize(
    ("text", "wide", "shown"),
    [
        ("plain", 5, "plain"),
        ("too long", 5, "too …"),
        ("温度計算", 8, "温度計算"),
        ("温度計算", 6, "温度…"),
        ("cafe\u0301s", 4, "caf…"),
        ("cafe\u0301", 4, "cafe\u0301"),
        ("x", 0, ""),
    ],
)
def test_what_is_cut_takes_no_more_columns_than_there_are(text: str, wide: int, shown: str) -> None:
    assert cut(text, wide) == shown


def test_what_a_terminal_would_obey_is_not_printed() -> None:
    assert one_line("a\x1b[31mred\nb\tc\u202ed\u200bé\x00") == "a?[31mred b cdé?"


def test_colours_are_outside_of_what_is_measured() -> None:
    columns, row = [Column(heading="A"), Column(heading="B")], (Cell("x", "bold red"), Cell("y"))
    assert lines(columns, [row], 80, colours=True)[1] == "\x1b[1;31mx\x1b[0m  y"
