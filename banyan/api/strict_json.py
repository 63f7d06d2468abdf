"""Answers for readers of strict JSON: NaN and infinities, which JSON does not have, become null, with a note of each.

A request asks for that by `?strict_json=true` or by a header. `Banyan-Nulls` of the answer says how many values were
replaced, if any, and `_nulls` in its body what they were: `{"/result/x": "NaN"}`, by JSON pointers (RFC 6901).
"""

import math
from typing import Any

from flask import Response, g, request
from werkzeug.datastructures import ImmutableMultiDict

from banyan.errors import BadRequest

PARAMETER = "strict_json"
HEADER = "Banyan-Strict-JSON"
COUNT = "Banyan-Nulls"
NOTE = "_nulls"
MAX_NOTED = 1000
"""So many replaced values are named; all are counted."""

_WORDS = {"true": True, "1": True, "false": False, "0": False}


def read_wish(answers_json: bool) -> None:
    """Find out whether the request asks for strict JSON; the parameter is then gone. BadRequest for no clear wish.

    A route that answers with something else than JSON has no such parameter.
    """
    given = request.headers.getlist(HEADER)
    if answers_json:
        given += request.args.getlist(PARAMETER)
        if PARAMETER in request.args:
            others = [(name, value) for name, value in request.args.items(multi=True) if name != PARAMETER]
            request.args = ImmutableMultiDict(others)
    wishes = {_WORDS.get(word.strip().lower()) for word in given}
    if None in wishes or len(wishes) > 1:
        raise BadRequest(f"{PARAMETER}, and the header {HEADER}, is true or false; this request has {', '.join(given)}")
    g.strict_json = True in wishes


def is_asked() -> bool:
    """Whether the answer to this request has to be strict JSON."""
    return bool(g.get("strict_json", False))


def tell(response: Response) -> Response:
    """Say in the header of a strict answer how many values were replaced."""
    if is_asked():
        response.vary.add(HEADER)
        if "strict_json_nulls" in g:
            response.headers[COUNT] = str(g.strict_json_nulls)
    return response


class Nulls:
    """What was replaced in one answer."""

    def __init__(self) -> None:
        self.count = 0
        self.noted: dict[str, str] = {}

    def replaced(self, value: Any, place: str = "") -> Any:
        """The value without NaN and infinities; `place` is the JSON pointer to it."""
        if isinstance(value, float) and not math.isfinite(value):
            self.count += 1
            if len(self.noted) < MAX_NOTED:
                self.noted[place] = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
            return None
        if isinstance(value, dict):
            return {name: self.replaced(each, f"{place}/{_step(name)}") for name, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.replaced(each, f"{place}/{index}") for index, each in enumerate(value)]
        return value


def strict(value: Any, *, noted: bool) -> Any:
    """A whole answer without NaN and infinities; with a note of them if it is an object and `noted`."""
    nulls = Nulls()
    replaced = nulls.replaced(value)
    g.strict_json_nulls = nulls.count
    return {**replaced, NOTE: nulls.noted} if noted and nulls.noted and isinstance(replaced, dict) else replaced


def _step(name: object) -> str:
    return str(name).replace("~", "~0").replace("/", "~1")
