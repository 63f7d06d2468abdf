"""The kinds of fields: each a Cerberus rule set. `coerce` converts the received value to the stored one."""

from typing import Any

Rules = dict[str, Any]

MAX_COUNT = 1_000_000_000
MAX_LINKS = 100_000
"""The most parents or children of one task."""

NAME = r"[A-Za-z0-9_][A-Za-z0-9_.:@+-]{0,127}"
"""Names of queues, users, labels, custom resources."""


def text(maxlength: int = 1000, **rules: Any) -> Rules:
    """A text without NUL bytes."""
    return {"type": "string", "maxlength": maxlength, "check_with": "no_nul", **rules}


def word(**rules: Any) -> Rules:
    """A short name that is safe in paths and commands."""
    return {"type": "string", "regex": NAME, **rules}


def flag(**rules: Any) -> Rules:
    """True or false."""
    return {"type": "boolean", **rules}


def whole(minimum: int = 0, maximum: int = MAX_COUNT, **rules: Any) -> Rules:
    """A whole number."""
    return {"type": "integer", "min": minimum, "max": maximum, **rules}


def number(minimum: float = 0, maximum: float = MAX_COUNT, **rules: Any) -> Rules:
    """A finite number."""
    return {"type": "number", "min": minimum, "max": maximum, **rules}


def size(minimum: int = 0, **rules: Any) -> Rules:
    """A number of bytes; a text such as "1 GiB" is accepted."""
    return {"type": "integer", "coerce": "size", "min": minimum, **rules}


def duration(minimum: float = 0, **rules: Any) -> Rules:
    """A number of seconds; a text such as "2h" is accepted."""
    return {"type": "float", "coerce": "duration", "min": minimum, "max": 10 * 365 * 86400.0, **rules}


def date(**rules: Any) -> Rules:
    """A point in time."""
    return {"type": "datetime", "coerce": "date", **rules}


def capability(**rules: Any) -> Rules:
    """A CUDA compute capability such as "8.0", compared number by number."""
    return {"type": "capability", "coerce": "capability", **rules}


def identifier(**rules: Any) -> Rules:
    """24 hex digits."""
    return {"type": "objectid", "coerce": "id", **rules}


def reference(resource: str, **rules: Any) -> Rules:
    """The id of another resource's document, which `embedded` can show in its place."""
    return identifier(data_relation={"resource": resource, "field": "_id", "embeddable": True}, **rules)


def identifiers(maximum: int = MAX_LINKS, **rules: Any) -> Rules:
    """A list of different ids."""
    return _list_of({"type": "objectid"}, coerce="ids", maxlength=maximum, **rules)


def texts(maximum: int, **rules: Any) -> Rules:
    """A list of texts."""
    return _list_of({"type": "string"}, check_with="texts", maxlength=maximum, **rules)


def mapping(**fields: Rules) -> Rules:
    """An object with these fields alone."""
    return {"type": "dict", "schema": fields}


def free(**rules: Any) -> Rules:
    """An object with any names and any values that BSON holds."""
    return {"type": "dict", "meta": {"free": True}, **rules}


def names_to(kind: str, **rules: Any) -> Rules:
    """An object with any names whose values are all `texts` or all `amounts`."""
    value: Rules = {"type": "string"} if kind == "texts" else {"type": "number", "minimum": 0}
    return {"type": "dict", "check_with": f"names_to_{kind}", "meta": {"free": True, "values": value}, **rules}


def anything(**rules: Any) -> Rules:
    """Any JSON value."""
    return {"meta": {"free": True}, **rules}


def optional(rules: Rules) -> Rules:
    """A field that may be absent, or null to clear it."""
    return {**rules, "nullable": True}


def shown(rules: Rules) -> Rules:
    """A field that the server writes and users read."""
    return {**rules, "readonly": True, "nullable": True}


def virtual(rules: Rules, instead: str) -> Rules:
    """A field that is computed when it is read; a filter on it is refused with the hint `instead`."""
    return {**rules, "meta": {**rules.get("meta", {}), "virtual": instead}}


def costly(rules: Rules) -> Rules:
    """A virtual field that a list of documents shows only if a projection names it."""
    return {**rules, "meta": {**rules["meta"], "costly": True}}


def described(rules: Rules, description: str) -> Rules:
    """The same rules with a sentence for readers of the OpenAPI document."""
    return {**rules, "meta": {**rules.get("meta", {}), "description": description}}


def _list_of(item: Rules, **rules: Any) -> Rules:
    return {"type": "list", "meta": {"items": item}, **rules}
