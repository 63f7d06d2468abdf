"""Documents for a schema: right ones of each kind of field, and values that are odd in some way."""

from collections.abc import Iterator, Mapping
from typing import Any

from hypothesis import strategies as st

Document = dict[str, Any]
Values = st.SearchStrategy[Any]

ID = "56a210d5e7794978227cb2f4"
DATE = "Tue, 02 Apr 2013 10:29:13 GMT"

_BIG = 2**63 - 1
_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
_NAME = st.text(st.characters(exclude_characters="\0=", exclude_categories=["Cs"]), min_size=1, max_size=8)
_RANGES = st.sampled_from([[0, 1], [-1.5, 2], {"low": 0.1, "high": 10}, {"low": 1, "high": 2, "scale": "log"}])
_IDS = st.binary(min_size=12, max_size=12).map(bytes.hex)

json_values: Values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), _BIG) | st.floats() | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAME, inner, max_size=3),
    max_leaves=6,
)


def _deep(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


ODD = [
    *(None, True, False, 0, 1, 1.0, 0.5, -1, -0.0, 2**31, 2**53, _BIG, _BIG + 1, -_BIG - 1, -_BIG - 2, 10**400),
    *(1e9, 1e9 + 1, 1_000_000, 1_000_001, 10 * 365 * 86400.0, 1e300, float("nan"), float("inf"), float("-inf")),
    *("", " ", "x", "default\n", ".x", "a b", "x" * 128, "x" * 129, "x" * 1000, "x" * 1001, "😀", "\ud800", "a\0b"),
    *("1 GiB", "1e400 B", "2h", "1e400h", "-1", "8.0", "8", "²", ID, ID.upper(), ID + "\n", DATE, "2013-04-02"),
    *(f"{DATE} (\ud800)", "0001-01-01T00:00:00+23:59", "success", "any", "active", "available", "admin", "task"),
    *([], [1], ["x"], [""], ["\ud800"], ["a\0"], [ID], [ID, ID], [{"task": ID}], [{"task": ID, "on": "x"}], [[]]),
    *(
        {"x": [0, 1]},
        {"x": [1]},
        {"x": []},
        {"x": [0, 1, 2]},
        {"x": {"low": 0, "high": 1, "scale": "log"}},
        [{}],
        [[1]],
    ),
    *([{"name": "m"}], [{"name": ""}], [{"name": "m", "summary": 1}], [{"name": "m", "x": 1}]),
    *({"x": {"task": ID}}, {"": {"task": ID, "result": ""}}, {"x": {"task": 1}}, {"x": {"task": ID, "result": 1}}),
    *({"$ref": {"task": ID, "x": 1}}, {"x": {"result": "y"}}, {"x": ID}),
    *({}, {"a": 1}, {"a": "b"}, {"a": "\ud800"}, {"a\0": 1}, {"\ud800": "x"}, {"": "x"}, {"a=b": "x"}, {"a": True}),
    *({"a": float("nan")}, {"a": 2**64}, {"a": None}, {"cores": 1}, {"cores": True}, {"memory": "1 GiB"}),
    *(_deep(62), _deep(63), _deep(64), _deep(65)),
]
"""What may be wrong for a field by its type, its bounds, its text or its depth, or happen to be right."""
odd_values: Values = st.sampled_from(ODD) | json_values

odd_names: st.SearchStrategy[str] = st.sampled_from(["", "nothing", "a.b", "$where", "\0", "\ud800", "_etag", "😀"])


def right_documents(schema: Mapping[str, Any]) -> st.SearchStrategy[Document]:
    """Documents that a schema takes, of any of its fields that may be written."""
    fields = {name: right_values(rules) for name, rules in schema.items() if not rules.get("readonly")}
    required = {name: values for name, values in fields.items() if schema[name].get("required")}
    optional = sorted(fields.keys() - required.keys())
    chosen = st.lists(st.sampled_from(optional), max_size=6, unique=True) if optional else st.just([])
    return chosen.flatmap(lambda names: st.fixed_dictionaries(required | {name: fields[name] for name in names}))


def right_values(rules: Mapping[str, Any]) -> Values:
    """Values that a field takes."""
    values = _coerced(rules) if "coerce" in rules else _checked(rules) if "check_with" in rules else _plain(rules)
    return st.none() | values if rules.get("nullable") and rules.get("check_with") != "command" else values


def _coerced(rules: Mapping[str, Any]) -> Values:
    low, high = rules.get("min", 0), rules.get("max", _BIG)
    kinds: dict[str, Values] = {
        "id": _IDS,
        "ids": st.lists(_IDS, max_size=3, unique=True),
        "dependencies": st.lists(_IDS, max_size=3, unique=True).flatmap(_dependencies),
        "input_refs": st.dictionaries(_NAME, _input_refs(), max_size=3),
        "date": st.datetimes().map(str) | st.just(DATE),
        "size": st.integers(int(low), int(high)) | st.sampled_from(["1 GiB", "500 MB", 1024.0]),
        "duration": st.floats(low, high) | st.integers(1, int(high)) | st.sampled_from(["2h", "90 s"]),
        "exit_status": st.sampled_from(["success", "failure", "failure (SIGKILL)", "timed out"]),
        "capability": st.sampled_from(["8.0", "7", 8.6, 9]),
    }
    return kinds[rules["coerce"]]


def _is_short(text: str) -> bool:
    return len(text) <= 64 and "\0" not in text


def _dependencies(ids: list[str]) -> Values:
    conditions = st.sampled_from(["success", "failure", "any"])
    return st.tuples(*(st.just(each) | st.builds(dict, task=st.just(each), on=conditions) for each in ids)).map(list)


def _input_refs() -> Values:
    return st.builds(dict, task=_IDS) | st.builds(dict, task=_IDS, result=_TEXT | st.none())


_WAITING: Values = st.builds(
    dict,
    turn=st.floats(0, 1e9),
    seconds=st.floats(0, 1e3),
    tasks=st.lists(st.tuples(st.integers(-10, 10), st.integers(1, 1000), _TEXT).map(list), max_size=3),
)


def _checked(rules: Mapping[str, Any]) -> Values:
    pattern = rules.get("regex")
    text = _TEXT.filter(lambda text: len(text) >= rules.get("minlength", 0))
    kinds: dict[str, Values] = {
        "no_nul": st.from_regex(pattern, fullmatch=True).filter(_is_short) if pattern else text,
        "command": _NAME.map("echo {}".format) | st.lists(_TEXT, max_size=3).map(lambda words: ["echo", *words]),
        "texts": st.lists(_NAME, max_size=3),
        "path": text,
        "environment": st.dictionaries(_NAME, _TEXT, max_size=3),
        "names_to_texts": st.dictionaries(_NAME, _TEXT, max_size=3),
        "models": st.lists(st.builds(dict, name=_NAME) | st.builds(dict, name=_NAME, summary=_TEXT), max_size=3),
        "grid": st.dictionaries(_NAME, st.lists(json_values, min_size=1, max_size=3), min_size=1, max_size=3),
        "points": st.lists(st.dictionaries(_NAME, json_values, max_size=3), min_size=1, max_size=3),
        "ranges": st.dictionaries(_NAME, _RANGES, min_size=1, max_size=3),
        "names_to_turns": st.dictionaries(_NAME, st.floats(0, 1e9), max_size=3),
        "waiting": st.dictionaries(_NAME, _WAITING, max_size=3),
        "names_to_amounts": st.dictionaries(_NAME, st.integers(0, 10**9) | st.floats(0, 1e9), max_size=3),
    }
    return kinds[rules["check_with"]]


def _plain(rules: Mapping[str, Any]) -> Values:
    if "schema" in rules:
        return right_documents(rules["schema"])
    if "allowed" in rules:
        return st.sampled_from(rules["allowed"])
    low, high = rules.get("min", -(2**63)), rules.get("max", _BIG)
    kinds: dict[str | None, Values] = {
        None: json_values.filter(lambda value: value is not None),
        "boolean": st.booleans(),
        "dict": st.dictionaries(_NAME, json_values, max_size=3),
        "list": st.lists(json_values, max_size=3),
        "string": st.from_regex(rules["regex"], fullmatch=True) if "regex" in rules else _TEXT,
    }
    if rules.get("type") == "integer":
        return st.integers(low, high)
    return st.floats(low, high) | st.integers(int(low) + 1, int(high)) if "min" in rules else kinds[rules.get("type")]


def spoilt_documents(schema: Mapping[str, Any]) -> st.SearchStrategy[Document]:
    """Right documents of which some fields, also inside of objects, were given odd values or names, or taken away."""
    names = st.sampled_from(sorted(schema)) | odd_names
    inside = [
        st.fixed_dictionaries({name: spoilt_documents(rules["schema"])})
        for name, rules in schema.items()
        if "schema" in rules
    ]
    odd = st.one_of(st.dictionaries(names, odd_values, min_size=1, max_size=2), *inside)
    return st.builds(_spoilt, right_documents(schema), odd, st.sets(names, max_size=1))


def _spoilt(document: Document, odd: Document, away: set[str]) -> Document:
    return {name: value for name, value in (document | odd).items() if name not in away}


def odd_documents(schema: Mapping[str, Any]) -> Iterator[Document]:
    """Each odd value in each field, which is all there is, also inside of objects."""
    for name, rules in schema.items():
        yield from ({name: value} for value in ODD)
        yield from ({name: inner} for inner in odd_documents(rules.get("schema", {})))
