"""Requests that are nearly right: bodies and filters made from the schemas, then spoilt."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bson import ObjectId
from hypothesis import strategies as st

from banyan.api.continuations import EDIT
from banyan.api.schema import RESOURCES
from banyan.api.schema.kinds import Rules
from banyan.api.schema.reports import CURL_DATA, REPORT, SAMPLE
from banyan.api.schema.sweeps import NEW_SWEEP
from banyan.api.schema.tasks import GIVEN
from banyan.api.schema.workers import CLAIM, LEAVING, QUEUE, REGISTRATION, USER
from banyan.domain.roles import Role
from tests.support.documents import json_values, odd_names, odd_values, right_documents, right_values, spoilt_documents

Document = dict[str, Any]
Request = tuple[str, str, Any, Role]
"""Method, path, body, and the role that may."""

PROVIDER, WORKER, ADMIN = Role.PROVIDER, Role.WORKER, Role.ADMIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is stored, by kind; `attempts` with their tokens."""

    tasks: list[str]
    workers: list[str]
    sweeps: list[str]
    attempts: dict[str, str]

    @property
    def ids(self) -> list[str]:
        """All ids, and one of nothing."""
        return [*self.tasks, *self.workers, *self.sweeps, *self.attempts, str(ObjectId())]

    def of(self, path: str) -> list[str]:
        """The ids that fit a path."""
        kinds = {"/workers": self.workers, "/sweeps": self.sweeps, "/execution_history": list(self.attempts)}
        return next((ids for start, ids in kinds.items() if path.startswith(start)), self.tasks)


def bodies(known: Known) -> st.SearchStrategy[Request]:
    """A request to any route that writes, with a body that is right or spoilt, and mostly about what is stored."""
    task, worker, sweep = (st.sampled_from(ids) for ids in (known.tasks, known.workers, known.sweeps))
    attempt = st.sampled_from(list(known.attempts))

    def documents(schema: Mapping[str, Rules], **fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[Document]:
        made = right_documents(schema) | spoilt_documents(schema)
        return st.builds(lambda body, more: _about(known, {**body, **more}), made, st.fixed_dictionaries(fixed))

    def lists(item: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return item | st.lists(item, max_size=3)

    def reported(schema: Mapping[str, Rules]) -> st.SearchStrategy[Document]:
        return st.builds(
            lambda body, id, right: {**body, "execution": id, "token": known.attempts[id]} if right else body,
            documents(schema),
            attempt,
            st.booleans(),
        )

    told = st.fixed_dictionaries(
        {"reports": st.lists(reported(REPORT), max_size=3), "memory_usage": st.lists(documents(SAMPLE), max_size=2)},
        optional={"time": odd_values},
    )
    data = st.builds(
        lambda body, id, right: {**body, "token": known.attempts[id]} if right else body,
        documents(CURL_DATA),
        attempt,
        st.booleans(),
    )
    states = st.sampled_from(["running", "terminated", "cancelled", "available", "inactive", "x", None])
    changes = documents(GIVEN) | documents(_EDGES) | st.builds(lambda state: {"state": state}, states)
    reports = st.builds(lambda data, state: {"update_execution_data": data, "state": state}, data, states)
    ids = st.lists(task | odd_values, max_size=3)
    verbs = st.sampled_from(["add", "remove"])
    once = st.just(0)
    choices: list[st.SearchStrategy[Request]] = [
        _request("POST", st.just("/tasks"), lists(documents(GIVEN)), PROVIDER),
        _request("PATCH", task.map("/tasks/{}".format), changes, PROVIDER),
        _request("PATCH", task.map("/tasks/{}".format), reports, WORKER),
        _request("PATCH", st.just("/tasks"), st.lists(documents(GIVEN, _id=task), max_size=3), PROVIDER),
        _request("PATCH", st.just('/tasks?where={"name":"x"}'), changes, PROVIDER),
        _request("POST", verbs.map("/tasks/{}_continuations".format), lists(documents(EDIT)), PROVIDER),
        _request("POST", st.builds("/tasks/{}/{}_continuations".format, task, verbs), ids, PROVIDER),
        _request("POST", task.map("/tasks/{}/update_execution_data".format), data, WORKER),
        _request(
            "POST", st.builds("/tasks/{}/{}".format, task, st.sampled_from(["cancel", "retry"])), odd_values, PROVIDER
        ),
        _request(
            "DELETE",
            st.builds("/{}".format, task.map("tasks/{}".format) | sweep.map("sweeps/{}".format)),
            odd_values,
            PROVIDER,
        ),
        _request("POST", st.just("/sweeps"), documents(NEW_SWEEP), PROVIDER),
        _request(
            "POST", st.builds("/sweeps/{}/{}".format, sweep, st.sampled_from(["cancel", "retry"])), odd_values, PROVIDER
        ),
        _request(
            "PUT",
            st.sampled_from(["m", "x" * 201, "a%00b", "a/b"]).map("/models/{}/defaults".format),
            json_values,
            ADMIN,
        ),
        _request("POST", st.just("/workers"), documents(REGISTRATION), WORKER),
        _request("POST", worker.map("/workers/{}/claim".format), documents(CLAIM, wait=once), WORKER),
        _request("POST", worker.map("/workers/{}/report".format), told, WORKER),
        _request(
            "PATCH",
            worker.map("/workers/{}".format),
            st.builds(lambda state: {"state": state}, states | odd_values),
            ADMIN,
        ),
        _request("DELETE", st.sampled_from(known.ids).map("/workers/{}".format), documents(LEAVING), PROVIDER),
        _request("POST", st.just("/queues"), documents(QUEUE), ADMIN),
        _request("PATCH", st.sampled_from(["default", "x"]).map("/queues/{}".format), documents(QUEUE), ADMIN),
        _request("POST", st.just("/users"), documents(USER), ADMIN),
        _request("POST", st.sampled_from(["u", "x"]).map("/users/{}/rotate".format), odd_values, ADMIN),
        _request("POST", st.just("/memory_usage"), lists(documents(RESOURCES["memory_usage"])), PROVIDER),
        _request("PUT", st.builds("/execution_history/{}/{}".format, attempt, _PATHS), st.binary(max_size=30), WORKER),
    ]
    return st.one_of(choices)


_EDGES: dict[str, Rules] = {
    "continuations": GIVEN["continuations"],
    "add_continuations": GIVEN["continuations"],
    "remove_continuations": GIVEN["continuations"],
}
_PATHS = st.sampled_from(
    [
        "stdout",
        "stderr?offset=10",
        "files/a",
        "files/a/b.txt?offset=10",
        "files/../x",
        "files/%2e%2e/x",
        "files//etc/passwd",
        "files/a%00",
        "files/" + "d/" * 120 + "x",
        "files/" + "x" * 1001,
        "stdout?offset=-1",
        "stdout?offset=" + "9" * 30,
    ]
)


def _request(
    method: str, path: st.SearchStrategy[str], body: st.SearchStrategy[Any], role: Role
) -> st.SearchStrategy[Request]:
    return st.tuples(st.just(method), path, body, st.just(role))


def _about(known: Known, value: Any) -> Any:
    """The value with most of its made up ids replaced by those of what is stored."""
    if isinstance(value, dict):
        return {name: _about(known, each) for name, each in value.items()}
    if isinstance(value, list):
        return [_about(known, each) for each in value]
    if isinstance(value, str) and len(value) == 24 and value.isalnum():
        place = sum(value.encode())
        return known.ids[place % len(known.ids)] if place % 4 else value
    return value


HEADERS: st.SearchStrategy[dict[str, str]] = st.just({}) | st.dictionaries(
    st.sampled_from(
        [
            "If-Match",
            "If-None-Match",
            "Range",
            "If-Range",
            "Idempotency-Key",
            "Banyan-Attempt-Token",
            "Content-Type",
            "Accept",
            "Content-Encoding",
            "Authorization",
            "Host",
            "Accept-Encoding",
            "X-HTTP-Method-Override",
            "Cookie",
            "Origin",
        ]
    ),
    st.sampled_from(
        [
            "*",
            '"x"',
            "bytes=0-1",
            "bytes=-0",
            "bytes=" + "9" * 5000 + "-",
            "gzip",
            "Basic \xe9",
            "Bearer ",
            "text/plain",
        ]
    )
    | st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=12),
    max_size=2,
)


def spoilt() -> st.SearchStrategy[Callable[[bytes], bytes]]:
    """What may befall a JSON text on its way; mostly nothing."""

    def at(place: int, made: Callable[[bytes, bytes], bytes]) -> Callable[[bytes], bytes]:
        return lambda text: made(text[: place % (len(text) + 1)], text[place % (len(text) + 1) :])

    places = st.integers(0, 300)
    pieces = [b"\0", b"\xff", b"\xc0\xae", b"\\ud800", b'"', b"{", b"[" * 200, b"1e400", b"NaN", b",", b"9" * 5000]
    harm = st.one_of(
        st.builds(
            lambda place, piece: at(place, lambda left, right: left + piece + right), places, st.sampled_from(pieces)
        ),
        st.builds(lambda place: at(place, lambda left, _: left), places),
        st.just(lambda text: text.replace(b'{"', b'{"name": 1, "name": 2, "', 1)),
        st.just(lambda text: b"\xef\xbb\xbf" + text),
        st.just(lambda text: text.decode().encode("utf-16")),
    )
    return st.sampled_from(range(8)).flatmap(lambda luck: harm if luck == 7 else st.just(lambda text: text))


# Filters


def filters(resource: str) -> st.SearchStrategy[str]:
    """Texts for `where`: conditions on the fields of a resource, many of them wrong in one place."""
    conditions = st.recursive(
        _condition(resource),
        lambda inner: st.builds(
            lambda name, parts: {name: parts},
            st.sampled_from(["$and", "$or", "$nor"] * 3 + ["$where", "$expr", "$function"]),
            st.lists(inner, min_size=1, max_size=3),
        ),
        max_leaves=4,
    )
    return st.builds(
        lambda value, spoil: spoil(json.dumps(value).encode()).decode(errors="replace"), conditions, spoilt()
    )


def _condition(resource: str) -> st.SearchStrategy[Document]:
    fields = sorted(RESOURCES[resource])
    known = st.sampled_from(fields).flatmap(lambda name: _on(name, RESOURCES[resource][name]))
    return st.one_of(known, known, known, known, st.dictionaries(odd_names, odd_values, max_size=1))


def _on(name: str, rules: Rules) -> st.SearchStrategy[Document]:
    """A condition on a field, on something in it, or on what is not there."""
    odd = st.sampled_from([f"{name}.{rest}" for rest in ("x", "0", "x.y", "$where", "", "a" * 2000)])
    inner = [(f"{name}.{each}", inside) for each, inside in rules.get("schema", {}).items()]
    right = [_compared(path, each) for path, each in [(name, rules), *inner]]
    wrong = st.builds(
        lambda path, operand: {path: operand}, st.just(name) | odd, _operand(right_values(rules) | odd_values)
    )
    return st.one_of(*right, *right, wrong)


def _compared(path: str, rules: Rules) -> st.SearchStrategy[Document]:
    """A right condition, mostly."""
    value = right_values(rules)
    whole = st.builds(lambda name, one: {name: one}, st.sampled_from("$eq $ne $gt $gte $lt $lte".split()), value)
    several = st.builds(
        lambda name, some: {name: some}, st.sampled_from(["$in", "$nin", "$all"]), st.lists(value, max_size=3)
    )
    others = st.sampled_from(
        [{"$exists": True}, {"$type": "string"}, {"$regex": "(a+)+$", "$options": "i"}, {"$size": 1}]
    )
    operators = whole | several | others
    return st.builds(
        lambda operand: {path: operand}, value | operators | st.builds(lambda part: {"$not": part}, operators)
    )


def _operand(value: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Operators, right and wrong ones, with operands that may or may not be theirs."""
    names = st.sampled_from(
        "$eq $ne $gt $gte $lt $lte $in $nin $all $exists $type $regex $options $mod $size $elemMatch $not $where $expr "
        "$function $accumulator $jsonSchema $text $near $comment $bitsAllSet $rand $sampleRate".split()
    )
    texts = st.sampled_from(["(a+)+$", "[", "(?i)x", "(" * 500, "x" * 1001, "date", "i", "imsx", "\\C", "(?R)"])
    operands = (
        value | texts | st.lists(value, max_size=3) | st.sampled_from([[2, 0], [0, 1], [1.5, 1], True, -1, 2**31])
    )
    return value | st.recursive(
        st.dictionaries(names, operands, min_size=1, max_size=2),
        lambda inner: st.builds(
            lambda name, part: {name: part}, st.sampled_from(["$not", "$elemMatch", "$all"]), inner
        ),
        max_leaves=3,
    )


def queries(resource: str) -> st.SearchStrategy[dict[str, str]]:
    """Query parameters of a list, few of them at a time."""
    fields = st.sampled_from([*sorted(RESOURCES[resource]), "_id", "_created"])
    odd = st.sampled_from(["x", "", "$natural", "class_key", "metadata.a.b", "digest", "inputs.$where", "a" * 2000])
    some = st.sampled_from(range(6)).flatmap(lambda luck: odd if luck == 5 else fields)
    numbers = st.sampled_from(
        ["1", "2", "25", "1", "2", "1001", "0", "-1", "1e3", "9" * 30, "000000000001" + "9" * 30, "\u00b2", ""]
    )
    shown = st.sampled_from([0, 1]).flatmap(lambda value: st.dictionaries(some, st.just(value), max_size=3))
    wrong = st.dictionaries(some, st.sampled_from([2, "x", True, {"$slice": 1}, None]), max_size=2)
    links = [name for name, rules in RESOURCES[resource].items() if "data_relation" in rules]
    sorts = st.lists(st.builds("{}{}".format, st.sampled_from(["", "-", "", "-", "--"]), some), max_size=4).map(
        ",".join
    )
    pairs = st.lists(st.tuples(some, st.sampled_from([1, -1, 1, -1, 0])), max_size=3).map(repr)
    parts: dict[str, st.SearchStrategy[str]] = {
        "where": filters(resource),
        "projection": st.one_of(shown, shown, shown, wrong).map(json.dumps) | st.text(max_size=5),
        "embedded": st.dictionaries(st.sampled_from(links), st.just(1)).map(json.dumps)
        if links
        else wrong.map(json.dumps),
        "sort": sorts | pairs | sorts | st.text(max_size=5),
        "max_results": numbers,
        "page": numbers,
        "aggregate": st.just("[]"),
    }
    names = st.lists(st.sampled_from([*parts, "where", "where", "where"]), min_size=1, max_size=2, unique=True)
    return names.flatmap(lambda chosen: st.fixed_dictionaries({name: parts[name] for name in chosen}))
