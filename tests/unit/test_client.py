"""The client against recorded answers: what it sends, what it repeats, which errors it raises."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from requests import PreparedRequest, Response

from banyan.client import Client, Page
from banyan.errors import (
    BadRequest,
    BanyanError,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    PreconditionFailed,
    TooLarge,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)
from tests.support.recorded import RecordedApp, Said
from tests.support.wsgi import WSGITransport

TASK = "5" * 24
OTHER = "6" * 24


def client_of(app: RecordedApp, pauses: list[float] | None = None) -> Client:
    return Client("http://banyan.test/", "secret", WSGITransport(app), (pauses if pauses is not None else []).append)


class TimedTransport(WSGITransport):
    """Remembers how long each answer would have been waited for."""

    def __init__(self, app: RecordedApp) -> None:
        super().__init__(app)
        self.read_seconds: list[float] = []

    def send(
        self,
        request: PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> Response:
        self.read_seconds.append(timeout[1])
        return super().send(request, stream, timeout, verify, cert, proxies)


def refusal(code: int, message: str) -> Said:
    return Said(code, {"_status": "ERR", "_error": {"code": code, "message": message}})


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequest),
        (401, Unauthorized),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (412, PreconditionFailed),
        (413, TooLarge),
        (422, Invalid),
        (429, TooManyRequests),
        (500, BanyanError),
        (503, Unavailable),
    ],
)
def test_each_status_becomes_its_error_with_the_servers_words(status: int, kind: type[BanyanError]) -> None:
    said = (
        Said(422, {"_status": "ERR", "_issues": {"command": "told why"}}) if status == 422 else refusal(status, "why")
    )
    with pytest.raises(BanyanError, match="why") as caught:
        client_of(RecordedApp(said)).update(TASK, {"name": "new"})
    assert type(caught.value) is kind


def test_issues_of_one_item_and_of_a_list_come_back_as_they_were() -> None:
    issues = {"requested_resources": {"memory": "'lots' is not a size"}}
    with pytest.raises(Invalid) as one:
        client_of(RecordedApp(Said(422, {"_status": "ERR", "_issues": issues}))).submit({})
    assert (one.value.issues, str(one.value)) == (issues, "requested_resources: (memory: 'lots' is not a size)")

    items = [{"_status": "OK"}, {"_status": "ERR", "_issues": issues}]
    listed = {"_status": "ERR", "_items": items, "_error": {"code": 422, "message": "1 of 2 is wrong"}}
    with pytest.raises(Invalid) as many:
        client_of(RecordedApp(Said(422, listed))).submit([{}, {}])
    assert many.value.items == [{}, issues]


def test_unreadable_query_names_the_field() -> None:
    said = Said(400, {"_status": "ERR", "_issues": {"where": "is not JSON"}})
    with pytest.raises(BadRequest, match="where: is not JSON"):
        client_of(RecordedApp(said)).tasks()


def test_every_request_carries_the_token_and_goes_to_one_address() -> None:
    app = RecordedApp(Said(200, {"_items": [], "_meta": {"total": 7, "page": 2}}))
    page = client_of(app).tasks({"name": "a b&c"}, "-priority", ["name", "state"], 5, 2)
    assert page == Page(items=[], total=7, page=2)
    [asked] = app.asked
    assert (asked.method, asked.path, asked.headers["Authorization"]) == ("GET", "/tasks", "Bearer secret")
    assert asked.query == {
        "where": '{"name":"a b&c"}',
        "sort": "-priority",
        "projection": '{"name":1,"state":1}',
        "max_results": "5",
        "page": "2",
    }


def test_questions_are_repeated_while_the_server_is_away() -> None:
    pauses: list[float] = []
    app = RecordedApp(Said(503, b"", (("Retry-After", "2"),)), Said(502, b"<html>"), Said(200, {"_id": TASK}))
    assert client_of(app, pauses).task(TASK) == {"_id": TASK}
    assert len(app.asked) == 3
    assert pauses[0] == 2.0
    assert 0 < pauses[1] <= 0.2


def test_questions_end_as_unavailable_after_four_tries() -> None:
    app = RecordedApp(refusal(503, "MongoDB is away"))
    with pytest.raises(Unavailable, match="MongoDB is away"):
        client_of(app).health()
    assert len(app.asked) == 4


def test_a_server_that_says_when_to_come_back_is_asked_again_for_a_while() -> None:
    """MongoDB elects a primary, or another server must first notice that the one which began has died."""
    wait = (("Retry-After", "2"),)
    for away in (Said(503, b"", wait), Said(409, {"_error": {"message": "still running"}}, wait)):
        pauses: list[float] = []
        app = RecordedApp(*[away] * 6, Said(201, {"_id": TASK, "_status": "OK"}))
        assert client_of(app, pauses).submit({"command": "true"})["_id"] == TASK
        assert (len(pauses), min(pauses)) == (6, 2.0)
        assert len({asked.headers["Idempotency-Key"] for asked in app.asked}) == 1
    with pytest.raises(Unavailable):
        client_of(RecordedApp(Said(503, b"", wait))).task(TASK)
    asked = RecordedApp(Said(503, b"", wait))
    with pytest.raises(Unavailable):
        client_of(asked).health()
    assert len(asked.asked) == 4


def test_a_claim_that_nobody_answers_is_given_up_before_the_lease_is_over() -> None:
    app = RecordedApp(Said(200, {"tasks": []}))
    transport = TimedTransport(app)
    client = Client("http://banyan.test/", "secret", transport)
    for body in ({"wait": 20}, {"wait": 0}, {}):
        client.claim(OTHER, body)
    client.claim(OTHER, {"wait": 20}, timeout=300)
    assert transport.read_seconds == [31.0, 60.0, 60.0, 300.0]


def test_an_act_that_is_not_safe_to_repeat_is_sent_once() -> None:
    app = RecordedApp(refusal(503, "away"))
    with pytest.raises(Unavailable):
        client_of(app).retry(TASK)
    assert len(app.asked) == 1


def test_a_repeated_submission_keeps_its_idempotency_key() -> None:
    app = RecordedApp(refusal(503, "away"), refusal(409, "still running"), Said(201, {"_id": TASK, "_status": "OK"}))
    client = client_of(app)
    assert client.submit({"command": "true"})["_id"] == TASK
    client.submit({"command": "true"})
    keys = [asked.headers["Idempotency-Key"] for asked in app.asked]
    assert len(set(keys[:3])) == 1
    assert keys[3] != keys[0]


def test_a_list_is_submitted_in_one_request() -> None:
    app = RecordedApp(Said(201, {"_status": "OK", "_items": [{"_id": TASK}, {"_id": OTHER}]}))
    assert client_of(app).submit([{"name": "a"}, {"name": "b"}], key="mine") == [{"_id": TASK}, {"_id": OTHER}]
    [asked] = app.asked
    assert (asked.json, asked.headers["Idempotency-Key"]) == ([{"name": "a"}, {"name": "b"}], "mine")


def test_odd_values_survive_the_way() -> None:
    app = RecordedApp(Said(201, {"_id": TASK}))
    task = {"model": "m", "inputs": {"c.x": float("inf"), "$ref": "ü", "": None}}
    client_of(app).submit(task)
    assert app.asked[0].json == task


def test_all_documents_are_read_page_by_page_after_the_last_id() -> None:
    full = [{"_id": f"{i:024x}"} for i in range(200)]
    app = RecordedApp(Said(200, {"_items": full}), Said(200, {"_items": [{"_id": TASK}]}))
    found = list(client_of(app).each_task({"state": "running"}))
    assert [each["_id"] for each in found] == [*(each["_id"] for each in full), TASK]
    assert [json.loads(asked.query["where"]) for asked in app.asked] == [
        {"state": "running"},
        {"$and": [{"state": "running"}, {"_id": {"$gt": full[-1]["_id"]}}]},
    ]
    assert {asked.query["sort"] for asked in app.asked} == {"_id"}


def listed(*tasks: tuple[str, str]) -> Said:
    return Said(200, {"_items": [{"_id": task, "state": state} for task, state in tasks]})


def test_waiting_asks_only_for_what_has_not_ended_and_tells_each_change() -> None:
    app = RecordedApp(
        listed((TASK, "running"), (OTHER, "terminated")), listed((TASK, "running")), listed((TASK, "cancelled"))
    )
    changes: list[tuple[str, str]] = []
    ended = client_of(app).wait([TASK, OTHER], on_change=lambda task: changes.append((task["_id"], task["state"])))
    assert [task["_id"] for task in ended] == [TASK, OTHER]
    assert changes == [(TASK, "running"), (OTHER, "terminated"), (TASK, "cancelled")]
    assert [json.loads(asked.query["where"])["_id"]["$in"] for asked in app.asked] == [[TASK, OTHER], [TASK], [TASK]]


def test_waiting_tells_when_a_task_that_was_assigned_has_begun() -> None:
    begun = {"_id": TASK, "state": "running", "time_started": "Tue, 02 Apr 2013 10:29:13 GMT"}
    app = RecordedApp(
        listed((TASK, "running")),
        listed((TASK, "running")),
        Said(200, {"_items": [begun]}),
        listed((TASK, "terminated")),
    )
    changes: list[tuple[str, bool]] = []
    client_of(app).wait([TASK], on_change=lambda task: changes.append((task["state"], "time_started" in task)))
    assert changes == [("running", False), ("running", True), ("terminated", False)]
    assert "time_started" in json.loads(app.asked[0].query["projection"])


def test_waiting_outlasts_a_server_that_is_away_for_a_while() -> None:
    away = [refusal(503, "away")] * 9
    app = RecordedApp(listed((TASK, "running")), *away, listed((TASK, "terminated")))
    assert client_of(app).wait([TASK])[0]["state"] == "terminated"


def test_waiting_gives_up_on_a_server_that_stays_away_and_at_once_on_one_that_never_was_there() -> None:
    pauses: list[float] = []
    never: list[float] = []
    app = RecordedApp(listed((TASK, "running")), refusal(503, "away"))
    with pytest.raises(Unavailable):
        client_of(app, pauses).wait([TASK])
    assert 600 < sum(pauses) < 800
    with pytest.raises(Unavailable):
        client_of(RecordedApp(refusal(503, "away")), never).wait([TASK])
    assert sum(never) < 2


def test_waiting_for_an_unknown_task_says_so() -> None:
    with pytest.raises(NotFound, match=OTHER):
        client_of(RecordedApp(listed((TASK, "running")))).wait([TASK, OTHER])


def test_waiting_ends_at_its_timeout() -> None:
    with pytest.raises(TimeoutError, match="1 of 1 tasks have not ended after 0 s"):
        client_of(RecordedApp(listed((TASK, "running")))).wait([TASK], timeout=0)


@pytest.mark.parametrize(
    ("said", "offset", "length", "expected"),
    [
        (Said(200, b"0123456789"), 0, None, b"0123456789"),
        (Said(206, b"456"), 4, 3, b"456"),
        (Said(200, b"0123456789"), 4, 3, b"456"),
        (Said(200, b"0123456789"), 4, None, b"456789"),
        (Said(416, b""), 10, None, b""),
    ],
)
def test_a_log_is_read_in_ranges(said: Said, offset: int, length: int | None, expected: bytes) -> None:
    app = RecordedApp(said)
    assert client_of(app).log(TASK, "stderr", offset, length, attempt=2) == expected
    assert (app.asked[0].path, app.asked[0].query) == (f"/tasks/{TASK}/stderr", {"attempt": "2"})


def test_following_a_log_goes_on_from_attempt_to_attempt_until_the_task_has_ended() -> None:
    def attempts(*numbers: int) -> Said:
        return Said(200, {"_items": [{"_id": str(number), "attempt": number} for number in numbers]})

    app = RecordedApp(
        Said(200, {"_id": TASK, "state": "available"}), attempts(),
        Said(200, {"_id": TASK, "state": "running"}), attempts(1), Said(206, b"one"), Said(206, b"one"),
        Said(200, {"_id": TASK, "state": "terminated"}), attempts(1, 2),
        Said(206, b"one more"), Said(206, b"one more"), Said(206, b"two"), Said(206, b"two"),
    )  # fmt: skip
    assert list(client_of(app).follow(TASK)) == [b"one", b" more", b"two"]
    ranges = [(each.query["attempt"], each.headers["Range"]) for each in app.asked if each.path.endswith("stdout")]
    last = (1 << 20) - 1
    assert ranges == [
        ("1", f"bytes=0-{last}"), ("1", f"bytes=0-{last}"), ("1", f"bytes=0-{last}"),
        ("1", f"bytes=0-{last}"), ("2", f"bytes=0-{last}"), ("2", f"bytes=0-{last}"),
    ]  # fmt: skip


def test_following_a_long_log_reads_only_its_last_bytes_again() -> None:
    app = RecordedApp(
        Said(200, {"_id": TASK, "state": "terminated"}),
        Said(200, {"_items": [{"_id": "1", "attempt": 1}]}),
        Said(206, b"x" * 1000),
        Said(206, b"x" * 64 + b"end"),
        Said(206, b"x" * 61 + b"end"),
    )
    assert list(client_of(app).follow(TASK)) == [b"x" * 1000, b"end"]
    ranges = [each.headers["Range"].partition("-")[0] for each in app.asked if each.path.endswith("stdout")]
    assert ranges == ["bytes=0", "bytes=936", "bytes=939"]


@pytest.mark.parametrize(
    ("then", "more", "cuts"),
    [
        ([Said(416, b""), Said(206, b"ab")], [b"ab"], 1),
        ([Said(206, b"others"), Said(206, b"others")], [b"others"], 1),
        ([Said(206, b"firs"), Said(206, b"firs")], [b"firs"], 1),
        ([Said(416, b""), Said(416, b"")], [], 0),
    ],
    ids=["shorter", "another of the same size or more", "less of the same", "nothing"],
)
def test_an_output_that_was_cut_is_followed_from_its_beginning(then: list[Said], more: list[bytes], cuts: int) -> None:
    attempt = Said(200, {"_items": [{"_id": "1", "attempt": 1}]})
    end = [Said(206, more[-1])] if more else []
    app = RecordedApp(
        Said(200, {"_id": TASK, "state": "running"}), attempt, Said(206, b"first!"), Said(206, b"first!"),
        Said(200, {"_id": TASK, "state": "terminated"}), attempt, *then, *end,
    )  # fmt: skip
    heard: list[None] = []
    assert list(client_of(app).follow(TASK, on_cut=lambda: heard.append(None))) == [b"first!", *more]
    assert len(heard) == cuts


def test_a_worker_learns_the_size_that_the_server_has() -> None:
    app = RecordedApp(Said(200, {"size": 7}), Said(409, {"_status": "ERR", "_error": {"code": 409}, "size": 3}))
    client = client_of(app)
    assert client.put_log(TASK, "stdout", 4, b"abc", "attempt token") == 7
    assert client.put_file(TASK, "a dir/ü.txt", 9, b"abc", "attempt token") == 3
    log, file = app.asked
    assert (log.path, log.query, log.body) == (f"/execution_history/{TASK}/stdout", {"offset": "4"}, b"abc")
    assert log.headers["Banyan-Attempt-Token"] == "attempt token"
    assert file.path.encode("latin-1").decode() == f"/execution_history/{TASK}/files/a dir/ü.txt"


def test_a_stale_attempt_and_a_full_quota_are_errors() -> None:
    app = RecordedApp(refusal(409, "no longer the attempt"), refusal(413, "over its quota"))
    client = client_of(app)
    with pytest.raises(Conflict, match="no longer the attempt"):
        client.put_log(TASK, "stdout", 0, b"", "old")
    with pytest.raises(TooLarge, match="over its quota"):
        client.put_log(TASK, "stdout", 0, b"", "token")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:1", "cannot reach the server at http://127.0.0.1:1 .connection refused.; check"),
        ("nonsense", "nonsense is not a usable address"),
    ],
)
def test_an_unreachable_address_is_named_with_the_reason(url: str, words: str) -> None:
    with pytest.raises(Unavailable, match=words):
        Client(url, "", sleep=lambda seconds: None).health()


def test_a_token_that_cannot_be_one_is_refused_before_it_is_sent() -> None:
    for token in ("two\nlines", "t\N{LATIN SMALL LETTER O WITH DIAERESIS}ken"):
        with pytest.raises(Unauthorized, match="characters that no token has"):
            Client("http://banyan.test", token)


def test_something_else_than_banyan_is_recognised() -> None:
    with pytest.raises(Unavailable, match="is it a Banyan server"):
        client_of(RecordedApp(Said(200, b"<html>"))).tasks()
    with pytest.raises(Unavailable, match="redirects to https://elsewhere"):
        client_of(RecordedApp(Said(301, b"", (("Location", "https://elsewhere"),)))).tasks()


ACTS: list[tuple[str, tuple[Any, ...], str, str, Any]] = [
    ("cancel", (TASK,), "POST", f"/tasks/{TASK}/cancel", None),
    ("retry", (TASK,), "POST", f"/tasks/{TASK}/retry", None),
    ("retry", (TASK, {"priority": 1}), "POST", f"/tasks/{TASK}/retry", {"priority": 1}),
    (
        "retry_many",
        ([TASK], None, {"priority": 1}),
        "POST",
        "/tasks/retry",
        {"ids": [TASK], "changes": {"priority": 1}},
    ),
    ("cancel_many", (None, {"queue": "a"}), "POST", "/tasks/cancel", {"where": {"queue": "a"}}),
    ("delete_where", ({"queue": "a"},), "DELETE", "/tasks", None),
    ("explain", (TASK,), "GET", f"/tasks/{TASK}/explain", None),
    ("delete", (TASK,), "DELETE", f"/tasks/{TASK}", None),
    ("bulk_update", ([{"_id": TASK, "priority": 1}],), "PATCH", "/tasks", [{"_id": TASK, "priority": 1}]),
    ("update_where", ({"queue": "a"}, {"hold": True}), "PATCH", "/tasks", {"hold": True}),
    ("files", (TASK,), "GET", f"/tasks/{TASK}/files/", None),
    ("statistics", (), "GET", "/statistics", None),
    ("add_queue", ({"name": "q"},), "POST", "/queues", {"name": "q"}),
    ("update_queue", ("a/b", {"paused": True}), "PATCH", "/queues/a/b", {"paused": True}),
    ("add_user", ("ann", "provider"), "POST", "/users", {"name": "ann", "role": "provider"}),
    ("rotate_user", ("ann",), "POST", "/users/ann/rotate", None),
    ("remove_user", ("ann",), "DELETE", "/users/ann", None),
    ("models", (), "GET", "/models", None),
    ("model", ("a/b",), "GET", "/models/a/b", None),
    ("model_defaults", ("sum",), "GET", "/models/sum/defaults", None),
    ("set_model_defaults", ("sum", {"c.x": 1}), "PUT", "/models/sum/defaults", {"c.x": 1}),
    ("register_worker", ({"name": "w"},), "POST", "/workers", {"name": "w"}),
    ("claim", (OTHER, {"wait": 20}), "POST", f"/workers/{OTHER}/claim", {"wait": 20}),
    ("report", (OTHER, {"reports": []}), "POST", f"/workers/{OTHER}/report", {"reports": []}),
    ("update_worker", (OTHER, {"state": "draining"}), "PATCH", f"/workers/{OTHER}", {"state": "draining"}),
    ("close_worker", (OTHER,), "DELETE", f"/workers/{OTHER}", {"finished": []}),
]


@pytest.mark.parametrize(("name", "arguments", "method", "path", "body"), ACTS, ids=[act[0] for act in ACTS])
def test_each_method_asks_for_its_route(
    name: str, arguments: tuple[Any, ...], method: str, path: str, body: Any
) -> None:
    app = RecordedApp(Said(200, {"_items": []}))
    getattr(client_of(app), name)(*arguments)
    [asked] = app.asked
    assert (asked.method, asked.path, json.loads(asked.body or b"null")) == (method, path, body)
