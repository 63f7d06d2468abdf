"""What tasks wrote, both ways: from a disk that worker and server share, and from what a worker sent."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import pytest
from bson import ObjectId
from werkzeug.test import TestResponse

from banyan.config import ServerSettings, StoredFiles
from banyan.queue.context import Context
from tests.integration.conftest import Api


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """An attempt as a claim would have made it, and its worker's way to send files."""

    task: str
    id: str
    token: str
    worker: Api

    def send(self, path: str, offset: int | str, data: bytes, token: str | None = None) -> TestResponse:
        return self.worker.call(
            "PUT",
            f"/execution_history/{self.id}/{path}?offset={offset}",
            data=data,
            headers={"Banyan-Attempt-Token": self.token if token is None else token},
        )

    def send_file(self, name: bytes, offset: int, data: bytes) -> TestResponse:
        path = f"/execution_history/{self.id}/files/{quote(name)}?offset={offset}"
        return exactly(self.worker, "PUT", path, data=data, headers={"Banyan-Attempt-Token": self.token})


def exactly(api: Api, method: str, url: str, **more: Any) -> TestResponse:
    """The answer to a request whose path is sent as it is: Flask's client would replace bytes that are not UTF-8."""
    path, _, query = url.partition("?")
    raw = {"PATH_INFO": unquote_to_bytes(path).decode("latin-1"), "QUERY_STRING": query}
    return api.call(method, "/", environ_overrides=raw, **more)


def attempt_of(context: Context, provider: Api, worker: Api, **fields: Any) -> Attempt:
    task = fields.pop("task", None) or provider.post("/tasks", {"command": "true"}).get_json()["_id"]
    execution = {"_id": ObjectId(), "task": ObjectId(task), "attempt": 1, "owner": "alice", "time_terminated": None}
    context.storage.executions.begin([execution | fields])
    token = context.storage.meta.attempt_token(execution["_id"])  # type: ignore[arg-type]
    return Attempt(task=task, id=str(execution["_id"]), token=token, worker=worker)


@pytest.fixture
def sent(context: Context, provider: Api, worker: Api) -> Attempt:
    """An attempt whose worker shares no disk with the server."""
    return attempt_of(context, provider, worker)


@pytest.fixture
def shared(context: Context, provider: Api, worker: Api, tmp_path: Path) -> tuple[Attempt, Path]:
    """A running attempt on a shared disk, and the directory of its logs, as it lies before anything is reported."""
    attempt = attempt_of(context, provider, worker, files_root={"path": str(tmp_path), "owner": os.getuid()})
    logs = tmp_path / attempt.task / "1"
    (logs / "work" / "sub").mkdir(parents=True)
    return attempt, logs


def test_what_grew_is_sent_piece_by_piece_and_read_at_once(provider: Api, sent: Attempt) -> None:
    assert sent.send("stdout", 0, b"one\n").get_json() == {"_status": "OK", "size": 4}
    assert provider.get(f"/tasks/{sent.task}/stdout").get_data() == b"one\n"
    assert sent.send("stdout", 4, b"two\n").get_json()["size"] == 8
    answer = provider.get(f"/tasks/{sent.task}/stdout")
    assert (answer.get_data(), answer.content_type) == (b"one\ntwo\n", "text/plain; charset=utf-8")
    assert provider.get(f"/tasks/{sent.task}/stderr").get_data() == b""


def test_a_repeated_or_wrong_piece_is_told_the_size(provider: Api, sent: Attempt) -> None:
    sent.send("stdout", 0, b"one\n")
    sent.send("stdout", 4, b"two\n")
    for offset in (4, 3, 100):
        answer = sent.send("stdout", offset, b"two\n")
        assert (answer.status_code, answer.get_json()["size"]) == (409, 8)
    assert provider.get(f"/tasks/{sent.task}/stdout").get_data() == b"one\ntwo\n"


def test_offset_zero_begins_a_file_anew(context: Context, provider: Api, sent: Attempt) -> None:
    for data in (b"first", b"the second", b"", b"third"):
        assert sent.send("files/a.txt", 0, data).get_json()["size"] == len(data)
        assert provider.get(f"/tasks/{sent.task}/files/a.txt").get_data() == data
    assert context.storage.db["file_segments.files"].count_documents({}) == 1
    assert context.storage.db["file_segments.chunks"].count_documents({}) == 1


def test_many_small_pieces_are_joined_and_large_ones_kept_apart(context: Context, provider: Api, sent: Attempt) -> None:
    expected = b""
    for number in range(60):
        piece = (b"%04d" % number) * (500 if number % 7 else 40_000)
        assert sent.send("stdout", len(expected), piece).status_code == 200
        expected += piece
    answer = provider.get(f"/tasks/{sent.task}/stdout").get_data()
    assert answer == expected
    assert context.storage.db["file_segments.files"].count_documents({}) < 30
    for start, stop in ((0, 10), (159_990, 160_030), (len(expected) - 5, len(expected))):
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        assert provider.get(f"/tasks/{sent.task}/stdout", headers=headers).get_data() == expected[start:stop]


def test_files_are_listed_with_their_sizes(provider: Api, sent: Attempt) -> None:
    sent.send("files/out/data.bin", 0, b"\0\1\2")
    sent.send("files/a b#?.txt".replace("#", "%23").replace("?", "%3F"), 0, b"x")
    sent.send("stdout", 0, b"not a work file")
    listed = provider.get(f"/tasks/{sent.task}/files/").get_json()
    assert [(file["path"], file["size"]) for file in listed["_items"]] == [("a b#?.txt", 1), ("out/data.bin", 3)]
    answer = provider.get(f"/tasks/{sent.task}/files/out/data.bin")
    assert (answer.get_data(), answer.content_type) == (b"\0\1\2", "application/octet-stream")


@pytest.mark.parametrize("token", ["", "wrong", "0" * 40])
def test_only_the_attempts_own_token_lets_a_file_in(provider: Api, sent: Attempt, token: str) -> None:
    assert sent.send("stdout", 0, b"x", token).status_code == 409
    assert provider.get(f"/tasks/{sent.task}/stdout").get_data() == b""


def test_nothing_is_kept_of_a_lost_attempt(context: Context, provider: Api, worker: Api) -> None:
    lost = attempt_of(context, provider, worker, exit_status="abandoned (worker unreachable)")
    assert lost.send("stdout", 0, b"x").status_code == 409


def test_an_attempt_that_does_not_exist_takes_nothing(worker: Api, sent: Attempt) -> None:
    answer = worker.call("PUT", f"/execution_history/{ObjectId()}/stdout", data=b"x")
    assert answer.status_code == 404


def test_a_path_that_leads_elsewhere_is_refused(context: Context, sent: Attempt) -> None:
    encoded = ("%2e%2e/%2e%2e/x", "..%2fx", "a/%2e%2e/%2e%2e/x", "%2fetc%2fpasswd", "a%00b", "%2e")
    for path in ("../../etc/passwd", "a/../../b", "a/./b", "x" * 2000, "a//b", "/etc/passwd", "d/" * 600, *encoded):
        assert sent.send(f"files/{path}", 0, b"x").status_code in (308, 404, 422), path
    assert context.storage.db["files"].count_documents({}) == 0
    for path in ("..\\..\\x", "%252e%252e%252fx", "%c0%ae%c0%ae"):  # names like others, odd as they are
        assert sent.send(f"files/{path}", 0, b"x").status_code == 200


@pytest.mark.parametrize("offset", ["-1", "x", "1.5", "9" * 30])
def test_a_wrong_offset_is_refused(sent: Attempt, offset: str) -> None:
    assert sent.send("stdout", offset, b"x").status_code == 400


class TestQuota:
    """What one attempt may leave on the server."""

    @pytest.fixture
    def settings(self) -> ServerSettings:
        return ServerSettings(files=StoredFiles(max_file_bytes=10, max_attempt_bytes=15, max_files=3))

    def test_a_file_a_sum_and_a_number_of_files_have_limits(self, provider: Api, sent: Attempt) -> None:
        assert sent.send("stdout", 0, b"1234567890").status_code == 200
        too_long = sent.send("stdout", 10, b"1")
        assert (too_long.status_code, "max_file_bytes" in too_long.get_data(as_text=True)) == (413, True)
        too_much = sent.send("files/a", 0, b"123456")
        assert (too_much.status_code, "max_attempt_bytes" in too_much.get_data(as_text=True)) == (413, True)
        assert [sent.send(f"files/{name}", 0, b"").status_code for name in "ab"] == [200, 200]
        too_many = sent.send("files/c", 0, b"")
        assert (too_many.status_code, "max_files" in too_many.get_data(as_text=True)) == (413, True)
        assert provider.get(f"/tasks/{sent.task}/stdout").get_data() == b"1234567890"


def test_what_was_not_kept_is_shown(context: Context, provider: Api, worker: Api) -> None:
    attempt = attempt_of(
        context, provider, worker, excess={"stdout": 5, "big.bin": 7}, time_terminated=context.now(), stdout_tail="end"
    )
    answer = provider.get(f"/tasks/{attempt.task}/stdout")
    assert (answer.get_data(), answer.headers["Banyan-Missing-Bytes"]) == (b"end", "5")
    assert provider.get(f"/tasks/{attempt.task}/files/").get_json()["excess"] == {"stdout": 5, "big.bin": 7}


def test_a_short_output_is_served_from_its_tail(context: Context, provider: Api, worker: Api) -> None:
    ended = {"time_terminated": context.now(), "stdout_tail": "hé\n", "stdout_bytes": 4}
    attempt = attempt_of(context, provider, worker, **ended)
    answer = provider.get(f"/tasks/{attempt.task}/stdout")
    assert answer.get_data(as_text=True) == "hé\n"
    assert "Banyan-Missing-Bytes" not in answer.headers


def test_a_shared_disk_is_read_while_the_task_runs(provider: Api, shared: tuple[Attempt, Path]) -> None:
    attempt, logs = shared
    (logs / "stdout").write_bytes(b"one\n")
    (logs / "work" / "sub" / "a.txt").write_text("hello")
    assert provider.get(f"/tasks/{attempt.task}/stdout").get_data() == b"one\n"
    with (logs / "stdout").open("ab") as stream:
        stream.write(b"two\n")
    assert provider.get(f"/tasks/{attempt.task}/stdout").get_data() == b"one\ntwo\n"
    listed = provider.get(f"/tasks/{attempt.task}/files/").get_json()["_items"]
    assert [(file["path"], file["size"]) for file in listed] == [("sub/a.txt", 5)]
    assert provider.get(f"/tasks/{attempt.task}/files/sub/a.txt").get_data() == b"hello"


def test_no_link_and_no_path_leads_out_of_the_shared_directory(
    provider: Api, shared: tuple[Attempt, Path], tmp_path: Path
) -> None:
    attempt, logs = shared
    secret = tmp_path / "secret"
    secret.write_text("confidential")
    (logs / "work" / "link").symlink_to(secret)
    (logs / "work" / "up").symlink_to(tmp_path)
    (logs / "stdout").symlink_to(secret)
    os.mkfifo(logs / "work" / "pipe")
    for path in (
        "link",
        "up/secret",
        "../../../secret",
        "%2e%2e/%2e%2e/%2e%2e/secret",
        "%252e%252e/%252e%252e/%252e%252e/secret",
        "..%2f..%2f..%2fsecret",
        "..\\..\\..\\secret",
        "%5c..%5c..%5csecret",
        "%c0%ae%c0%ae/%c0%ae%c0%ae/secret",
        "link%00",
        "%2fetc%2fpasswd",
        "d/" * 2000,
        "/etc/passwd",
        "pipe",
        "sub",
        "",
    ):
        answer = provider.get(f"/tasks/{attempt.task}/files/{path}")
        assert "confidential" not in answer.get_data(as_text=True)
        assert (path, answer.status_code) in [(path, 404), (path, 308), ("", 200)]
    assert provider.get(f"/tasks/{attempt.task}/stdout").get_data() == b""
    assert provider.get(f"/tasks/{attempt.task}/files/").get_json()["_items"] == []


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """An attempt that has left the same bytes as its streams and as a file, in one of the ways that files are kept."""

    attempt: Attempt
    paths: list[str]


@pytest.fixture(params=["shared", "sent", "tail"])
def kept_as(request: pytest.FixtureRequest, context: Context, provider: Api, worker: Api) -> Callable[[bytes], Kept]:
    """Keeps bytes on a shared disk, as they were sent, or in the tails of the streams."""

    def keep(data: bytes) -> Kept:
        if request.param == "tail":
            attempt = attempt_of(context, provider, worker, stdout_tail=data.decode(), stderr_tail=data.decode())
            return Kept(attempt=attempt, paths=["stdout", "stderr"])
        if request.param == "shared":
            attempt, logs = request.getfixturevalue("shared")
            for path in (logs / "stdout", logs / "stderr", logs / "work" / "file"):
                path.write_bytes(data)
                os.utime(path, (1_700_000_000, 1_700_000_000))
        else:
            attempt = request.getfixturevalue("sent")
            for name in ("stdout", "stderr", "files/file"):
                attempt.send(name, 0, data[:5])
                attempt.send(name, len(data[:5]), data[5:])
        return Kept(attempt=attempt, paths=["stdout", "stderr", "files/file"])

    return keep


TEN = b"0123456789"
RANGES = [
    (TEN, "bytes=0-3", 206, b"0123", "bytes 0-3/10"),
    (TEN, "bytes=0-0", 206, b"0", "bytes 0-0/10"),
    (TEN, "bytes=0-", 206, TEN, "bytes 0-9/10"),
    (TEN, "bytes=4-", 206, b"456789", "bytes 4-9/10"),
    (TEN, "bytes=9-9", 206, b"9", "bytes 9-9/10"),
    (TEN, "bytes=5-500", 206, b"56789", "bytes 5-9/10"),
    (TEN, "BYTES= 5-6 ", 206, b"56", "bytes 5-6/10"),
    (TEN, "bytes=-3", 206, b"789", "bytes 7-9/10"),
    (TEN, "bytes=-10", 206, TEN, "bytes 0-9/10"),
    (TEN, "bytes=-1000", 206, TEN, "bytes 0-9/10"),
    (TEN, "bytes=-" + "9" * 400, 206, TEN, "bytes 0-9/10"),
    (TEN, "bytes=10-", 416, None, "bytes */10"),
    (TEN, "bytes=10-20", 416, None, "bytes */10"),
    (TEN, "bytes=-0", 416, None, "bytes */10"),
    (TEN, "bytes=5-4", 200, TEN, None),
    (TEN, "bytes=0-1,3-4", 200, TEN, None),
    (TEN, "bytes=20-30,40-", 200, TEN, None),
    (TEN, "bytes=-", 200, TEN, None),
    (TEN, "bytes=", 200, TEN, None),
    (TEN, "bytes=+1-2", 200, TEN, None),
    (TEN, "bytes=1", 200, TEN, None),
    (TEN, "bytes=x", 200, TEN, None),
    (TEN, "lines=1-2", 200, TEN, None),
    (b"abc", "bytes=-1000", 206, b"abc", "bytes 0-2/3"),
    (b"", "bytes=-5", 200, b"", None),
    (b"", "bytes=0-", 416, None, "bytes */0"),
    (b"", "bytes=-0", 416, None, "bytes */0"),
]


def test_ranges_are_those_of_rfc_9110(provider: Api, kept_as: Callable[[bytes], Kept]) -> None:
    for whole in (TEN, b"abc", b""):
        kept = kept_as(whole)
        for path in kept.paths:
            for asked, status, data, told in (row[1:] for row in RANGES if row[0] == whole):
                answer = provider.get(f"/tasks/{kept.attempt.task}/{path}", headers={"Range": asked})
                got = answer.get_data() if status != 416 else None
                found = (answer.status_code, got, answer.headers.get("Content-Range"))
                assert (path, asked, found) == (path, asked, (status, data, told))
            head = provider.call("HEAD", f"/tasks/{kept.attempt.task}/{path}", headers={"Range": "bytes=50-60"})
            assert (head.status_code, head.headers["Content-Length"], head.get_data()) == (200, str(len(whole)), b"")


def test_a_range_counts_only_while_the_file_is_the_one_that_is_named(
    provider: Api, shared: tuple[Attempt, Path]
) -> None:
    attempt, logs = shared
    path = logs / "work" / "file"
    path.write_bytes(TEN)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    address, part = f"/tasks/{attempt.task}/files/file", {"Range": "bytes=2-3"}
    named = provider.get(address).headers["Last-Modified"]
    assert provider.get(address, headers=part | {"If-Range": named}).get_data() == b"23"
    for other in ("Tue, 02 Apr 2013 10:29:13 GMT", '"etag"', 'W/"etag"', "", "2023-11-14T22:13:20Z"):
        assert provider.get(address, headers=part | {"If-Range": other}).status_code == 200
    behind = {"Range": "bytes=50-", "If-Range": "Tue, 02 Apr 2013 10:29:13 GMT"}
    assert provider.get(address, headers=behind).get_data() == TEN
    os.utime(path)
    fresh = provider.get(address).headers["Last-Modified"]
    assert provider.get(address, headers=part | {"If-Range": fresh}).status_code == 200, "it may still change unseen"


ODD_NAMES = [
    b"line\nbreak",
    b"\n",
    b"end\n",
    b"d\nir/\r\n/f\t",
    b"latin-\xe9",
    b"\xff",
    b"\xed\xa0\x80",
    b"d\xfe/\xc0\xaf",
    b"%0A",
    b"a%FFb",
    b"a?b=c&d#e",
    b"a:b",
    b"\x01\x7f",
    "ü\N{REPLACEMENT CHARACTER}".encode(),
    "\N{LINE SEPARATOR}\N{DECIDUOUS TREE}".encode(),
    b"back\\slash",
    b" blank ",
    b"semi;colon",
]


@pytest.mark.parametrize("way", ["shared", "sent"])
def test_every_file_that_is_listed_can_be_read(request: pytest.FixtureRequest, provider: Api, way: str) -> None:
    attempt = request.getfixturevalue(way)
    if way == "shared":
        attempt, logs = attempt
        for name in ODD_NAMES:
            path = os.fsencode(logs / "work") + b"/" + name
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(name)
    else:
        for name in ODD_NAMES:
            assert attempt.send_file(name, 0, name[:3]).status_code == 200
            assert attempt.send_file(name, len(name[:3]), name[3:]).get_json()["size"] == len(name)
    listed = provider.get(f"/tasks/{attempt.task}/files/").get_json()["_items"]
    assert sorted(each["path"] for each in listed) == sorted(name.decode(errors="replace") for name in ODD_NAMES)
    assert {exactly(provider, "GET", each["url"]).get_data() for each in listed} == set(ODD_NAMES)
    for each in listed:
        found = provider.get(f"/tasks/{attempt.task}/files/{quote(each['path'])}")
        assert found.status_code == 200
        assert found.get_data().decode(errors="replace") == each["path"]
    for name in (b"line", b"line\nbrea", b"\n\n", b"latin-\xe8", b"latin-?", b"\xfd", b"nothing\xff"):
        assert exactly(provider, "GET", f"/tasks/{attempt.task}/files/{quote(name)}").status_code == 404


def test_of_two_files_that_look_alike_each_has_its_own_address(provider: Api, sent: Attempt) -> None:
    for name in (b"a\xfe", b"a\xff"):
        sent.send_file(name, 0, name)
    listed = provider.get(f"/tasks/{sent.task}/files/?attempt=1").get_json()["_items"]
    assert [each["path"] for each in listed] == ["a\N{REPLACEMENT CHARACTER}"] * 2
    assert [exactly(provider, "GET", each["url"]).get_data() for each in listed] == [b"a\xfe", b"a\xff"]
    assert provider.get(f"/tasks/{sent.task}/files/{quote(listed[0]['path'])}").status_code == 404


def test_each_attempt_has_its_own_output(context: Context, provider: Api, worker: Api) -> None:
    first = attempt_of(context, provider, worker, stdout_tail="1")
    attempt_of(context, provider, worker, task=first.task, attempt=2, stdout_tail="2")
    path = f"/tasks/{first.task}/stdout"
    assert [provider.get(path + query).get_data() for query in ("", "?attempt=1", "?attempt=2")] == [b"2", b"1", b"2"]
    assert [provider.get(path + query).status_code for query in ("?attempt=3", "?attempt=x", "?attempt=-1")] == [
        404,
        400,
        400,
    ]


def test_a_task_without_an_attempt_has_no_output(provider: Api) -> None:
    task = provider.post("/tasks", {"command": "true"}).get_json()["_id"]
    for path in ("stdout", "stderr", "files/", "files/a"):
        assert provider.get(f"/tasks/{task}/{path}").status_code == 404


def test_a_page_that_a_task_wrote_is_shown_as_text(provider: Api, sent: Attempt) -> None:
    sent.send("files/page.html", 0, b"<script>alert(1)</script>")
    answer = provider.get(f"/tasks/{sent.task}/files/page.html")
    assert answer.content_type == "text/plain; charset=utf-8"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_deleting_attempts_takes_their_files_along(context: Context, sent: Attempt) -> None:
    sent.send("stdout", 0, b"x")
    context.storage.files.delete_of([ObjectId(sent.id)])
    for collection in ("files", "file_segments.files", "file_segments.chunks"):
        assert context.storage.db[collection].count_documents({}) == 0
