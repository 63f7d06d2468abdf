"""Results with objects of odd classes: each becomes its plain value or is refused with the reason, in bounded time."""

import collections
import datetime as dt
import decimal
import enum
import http
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import pytest

from banyan.models.results import BadResult, encode


def _never(*_: object, **__: object) -> Any:
    raise AssertionError("a method of the value was called")


HOSTILE = dict.fromkeys(
    (
        *("__eq__", "__hash__", "__contains__", "__index__", "__int__", "__float__", "__bool__", "__lt__", "__le__"),
        *("__str__", "__repr__", "__iter__", "__len__", "__getitem__", "__format__", "__reduce__", "encode", "strip"),
    ),
    _never,
)


def hostile(kind: type) -> Any:
    """A subclass of which no method can be called."""
    return type(f"Odd{kind.__name__}", (kind,), HOSTILE)


class Colour(enum.IntEnum):
    RED = 1


class Way(enum.IntFlag):
    NORTH = 1
    EAST = 2


class Kind(enum.Enum):
    A = "a"


class Name(enum.StrEnum):
    SITE = "site"


class Point(NamedTuple):
    x: int
    y: float


class Endless(dict[str, int]):
    def __iter__(self) -> Iterator[str]:
        return itertools.repeat("x")


class Lazy(dict[str, int]):
    """Holds nothing, and computes what it is asked for."""

    def keys(self) -> Any:
        return ["a", "b"]

    def __getitem__(self, name: str) -> int:
        return ord(name)


class Ten(list[int]):
    def __iter__(self) -> Iterator[int]:
        return itertools.count()


PLAIN: list[tuple[Any, Any]] = [
    (http.HTTPStatus.OK, 200),
    (Colour.RED, 1),
    (Way.NORTH | Way.EAST, 3),
    (hostile(int)(7), 7),
    (hostile(int)(-(2**63)), -(2**63)),
    (hostile(float)(0.5), 0.5),
    (hostile(str)("text"), "text"),
    (hostile(list)([1, [2]]), [1, [2]]),
    (hostile(tuple)((1, 2)), [1, 2]),
    (Name.SITE, "site"),
    (Point(1, 2.5), [1, 2.5]),
    (Ten([1, 2]), [1, 2]),
    (Endless(a=1), {"a": 1}),
    (Lazy(), {"a": 97, "b": 98}),
    (collections.OrderedDict(a=1), {"a": 1}),
    (collections.Counter("aab"), {"a": 2, "b": 1}),
    (collections.ChainMap({"a": 1}, {"b": 2}), {"a": 1, "b": 2}),
    (collections.UserDict(a=1), {"a": 1}),
    (np.float64(1.5), 1.5),
    (np.float16(1.5), 1.5),
    (np.longdouble(1.5), 1.5),
    (np.int64(3), 3),
    (np.uint8(3), 3),
    (np.bool_(True), True),
    (np.str_("text"), "text"),
    (np.array(5), 5),
    (np.array([Colour.RED, None], object), [1, None]),
    (np.ma.masked_array([1.0, 2.0], [False, True]), [1.0, None]),
]


@pytest.mark.parametrize(("value", "expected"), PLAIN, ids=[str(number) for number in range(len(PLAIN))])
def test_a_subclass_of_a_plain_type_counts_as_the_value_that_it_holds(value: Any, expected: Any) -> None:
    assert json.loads(encode({"value": value})) == {"value": expected}
    assert json.loads(encode({"list": [{"inner": value}]})) == {"list": [{"inner": expected}]}


def test_names_may_be_of_a_subclass_too() -> None:
    assert json.loads(encode({Name.SITE: 1, np.str_("b"): 2})) == {"site": 1, "b": 2}

    class Apart(str):
        """Never equal to another text."""

        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            return self is other

        def __hash__(self) -> int:
            return id(self)

    assert json.loads(encode({Apart("a"): 1})) == {"a": 1}
    with pytest.raises(BadResult, match="the name 'a' is there twice"):
        encode({Apart("a"): 1, Apart("a"): 2})


@dataclass
class Record:
    x: int = 1


class Fake:
    """Says of itself that it is an int."""

    __class__ = int  # type: ignore[assignment]


class Dtype:
    kind: ClassVar[Any] = "f"
    itemsize: ClassVar[int] = 8


class Unending:
    """Like an array whose list is an array again."""

    dtype = Dtype

    def tolist(self) -> Self:
        return self


def _self_holding() -> Any:
    array = np.empty((), object)
    array[()] = array
    return array


REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: decimal.Decimal("0.1"), r"type Decimal .*give float\(\.\.\) or str\(\.\.\)"),
    (lambda: b"x", "type bytes .*decode"),
    (lambda: hostile(bytes)(b"x"), "type Oddbytes .*decode"),
    (Record, r"type Record .*dataclasses\.asdict"),
    (lambda: Record, "type type cannot"),
    (lambda: dict, "type type cannot"),
    (lambda: Kind.A, r"type Kind .*\.value"),
    (lambda: dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "isoformat"),
    (lambda: dt.timedelta(1), "total_seconds"),
    (lambda: {1}, "type set .*a list"),
    (lambda: 1j, "real and"),
    (lambda: np.complex128(1j), "a value of complex128"),
    (lambda: np.array([1j]), "an array of complex128"),
    (lambda: np.datetime64("2026"), r"a value of datetime64\[Y\]"),
    (lambda: np.array([b"x"]), r"an array of \|S1"),
    (lambda: np.uint64(2**64 - 1), "an integer of 64 bits"),
    (lambda: hostile(int)(2**63), "an integer of 64 bits"),
    (lambda: hostile(int)(10**5000), "an integer of 16610 bits"),
    (lambda: hostile(str)("\ud800"), "lone surrogate"),
    (lambda: {10**5000: 1}, r"the name \(an integer of 16610 bits\) is of type int"),
    (lambda: {Point(1, 2): 1}, "the name is of type Point"),
    (Fake, "type Fake cannot"),
    (Unending, "contains itself"),
    (_self_holding, "contains itself|nested deeper"),
]


@pytest.mark.parametrize(("make", "told"), REFUSED, ids=[str(number) for number in range(len(REFUSED))])
def test_what_is_no_json_is_refused_with_what_to_give_instead(make: Callable[[], Any], told: str) -> None:
    value = make()
    with pytest.raises(BadResult, match=told):
        encode({"value": value})


class Again:
    """Like a mapping that is another one each time."""

    def keys(self) -> list[str]:
        return ["a", "b"]

    def __getitem__(self, name: str) -> Any:
        return Again()


class Unlimited(Again):
    def keys(self) -> Any:
        return map(str, itertools.count())


def test_a_result_without_end_is_refused() -> None:
    laughs: Any = 1
    for _ in range(60):
        laughs = [laughs] * 10
    for value in (Again(), Unlimited(), laughs):
        with pytest.raises(BadResult, match=r"more than 5000 values|nested deeper"):
            encode({"value": value}, max_values=5000)


def test_the_whole_result_may_be_of_an_odd_class() -> None:
    assert json.loads(encode(hostile(dict)())) == {}
    for value in (Point(1, 2), [1], Record(), dict, None, Colour.RED, np.float64(1)):
        with pytest.raises(BadResult, match="must give a mapping of names to values"):
            encode(value)
