"""Dates over HTTP: each means one moment, or is refused with the field and the reason, wherever it is sent."""

import json
from urllib.parse import quote

import pytest

from tests.integration.conftest import Api

NOT_EXACT = [
    ("Wed, 01 Jan 2031 10:00:00 CET", "'CET' is not exact"),
    ("Wed, 01 Jan 2031 10:00:00 JST", "'JST' is not exact"),
    ("Wed, 01 Jan 2031 10:00:00 IST", "'IST' is not exact"),
    ("Wed, 01 Jan 2031 10:00:00 GMT+2", "'GMT+2' is not exact"),
    ("Mon, 01 Jan 2031 10:00:00 GMT", "that day is a Wed"),
    ("Wed, 01 Jan 31 10:00:00 GMT", "four digits"),
    ("2031-02-29T10:00:00Z", "day is out of range"),
    ("Wed, 31 Dec 2031 23:59:60 GMT", "leap second"),
    ("Wed, 01 Jan 2031 10:00:00 GMT tomorrow", "a date"),
]


@pytest.mark.parametrize(("date", "reason"), NOT_EXACT)
def test_a_date_that_is_not_exact_is_refused_in_every_body(
    provider: Api, admin: Api, worker: Api, date: str, reason: str
) -> None:
    task = provider.post("/tasks", {"command": "true"}).get_json()["_id"]
    sample = {"task": task, "time": date, "resident_memory_bytes": 1}
    node = {"name": "n", "resources": {"cores": 1}, "available_until": date}
    bodies = [
        (provider.post("/tasks", {"command": "true", "not_before": date}), "not_before"),
        (provider.patch(f"/tasks/{task}", {"not_before": date}), "not_before"),
        (provider.patch("/tasks?where={}", {"not_before": date}), "not_before"),
        (provider.post("/sweeps", {"command": "echo {x}", "grid": {"x": [1]}, "not_before": date}), "not_before"),
        (admin.post("/memory_usage", sample), "time"),
        (admin.post("/users", {"name": "ann", "role": "provider", "expires": date}), "expires"),
        (admin.post("/users/alice/rotate", {"expires": date}), "expires"),
        (worker.post("/workers", node), "available_until"),
    ]
    for answer, field in bodies:
        assert answer.status_code == 422, answer.get_data(as_text=True)
        assert reason in str(answer.get_json()["_issues"][field])
    assert "not_before" not in provider.get(f"/tasks/{task}").get_json()


@pytest.mark.parametrize(("date", "reason"), NOT_EXACT)
def test_a_date_that_is_not_exact_is_refused_in_every_filter(provider: Api, date: str, reason: str) -> None:
    for condition in (date, {"$gt": date}, {"$in": [None, date]}, {"$not": {"$lte": date}}):
        where = quote(json.dumps({"$or": [{"not_before": condition}, {"_created": condition}]}))
        for path in ("/tasks", "/statistics"):
            refused = provider.get(f"{path}?where={where}")
            assert refused.status_code == 400
            assert reason in refused.get_json()["_error"]["message"]
            assert "not_before" in refused.get_json()["_error"]["message"]


def test_an_offset_is_honoured_in_bodies_and_filters(provider: Api) -> None:
    for date in ("Wed, 01 Jan 2031 11:00:00 +0100", "2031-01-01T11:00:00+01:00", "2031-01-01 15:30:00+0530"):
        task = provider.post("/tasks", {"command": "true", "not_before": date}).get_json()["_id"]
        assert provider.get(f"/tasks/{task}").get_json()["not_before"] == "Wed, 01 Jan 2031 10:00:00 GMT"
        where = quote(json.dumps({"_id": task, "not_before": date}))
        assert provider.get(f"/tasks?where={where}").get_json()["_meta"]["total"] == 1
