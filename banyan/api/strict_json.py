"""Responses for readers of strict JSON: NaN and infinities, which JSON lacks, become null, with a note of each.

A request selects it by `?strict_json=true` or by a header. The header `Banyan-Nulls` of the response has the number of
replaced values, if any, and `_nulls` in its body names them: `{"/result/x": "NaN"}`, by JSON pointers (RFC 6901).
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
"""The most replaced values that are named; all are counted."""

_WORDS = {"true": True, "1": True, "false": False, "0": False}


def read_wish(answers_json: bool) -> None:
    """Read whether the request wants strict JSON, and remove the parameter. BadRequest for any unclear value.

    A route with another media type than JSON has no such parameter.
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
    """Return whether the response to this request must be strict JSON."""
    return bool(g.get("strict_json", False))


def tell(response: Response) -> Response:
    """Write the number of replaced values into a header of a strict response."""
    if is_asked():
        response.vary.add(HEADER)
        if "strict_json_nulls" in g:
            response.headers[COUNT] = str(g.strict_json_nulls)
    return response


class Nulls:
    """The replaced values of one response."""

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
    """A whole response without NaN and infinities; with a note of them if it is an object and `noted`."""
    nulls = Nulls()
    replaced = nulls.replaced(value)
    g.strict_json_nulls = nulls.count
    return {**replaced, NOTE: nulls.noted} if noted and nulls.noted and isinstance(replaced, dict) else replaced


def _step(name: object) -> str:
    return str(name).replace("~", "~0").replace("/", "~1")
