"""Which settings servers share, and which of them are in force."""

from typing import Any

from banyan.common_settings import common_of, differences, settle, with_common
from banyan.config import Auth, Leases, Limits, Retention, ServerSettings

SIX = ServerSettings(leases=Leases(lost_after=6, heartbeat=2))
SIXTY = ServerSettings(leases=Leases(lost_after=60))


def values(settings: ServerSettings) -> dict[str, dict[str, Any]]:
    return common_of(settings)


def test_every_key_is_shared_or_has_a_reason_not_to_be() -> None:
    own = {"server", "tls", "mongo", "data", "rescue", "models", "log"}
    assert set(ServerSettings.model_fields) - set(values(ServerSettings())) == own
    assert "request_seconds" not in values(ServerSettings())["limits"]
    assert "credentials_file" not in values(ServerSettings())["auth"]


def test_what_is_shared_comes_back_and_the_rest_stays() -> None:
    mine = ServerSettings(limits=Limits(request_seconds=3, max_list_items=5), auth=Auth(credentials_file="x"))
    theirs = ServerSettings(retention=Retention(tasks=60), leases=Leases(lost_after=60))
    merged = with_common(mine, {**values(theirs), "unknown": {"a": 1}, "queue": {"unknown": 1}})
    assert values(merged) == values(theirs)
    assert (merged.limits.request_seconds, merged.auth.credentials_file) == (3, "x")
    assert with_common(mine, values(mine)) == mine


def test_what_all_wish_is_in_force_else_what_was() -> None:
    six, sixty = values(SIX), values(SIXTY)
    assert settle(None, [six]) == six
    assert settle(sixty, [six]) == six
    assert settle(sixty, [six], adopt=False) == sixty
    assert settle(sixty, [six, sixty]) == sixty
    assert settle(sixty, [six, six]) == six


def test_reads_are_private_as_soon_as_one_server_wishes_it() -> None:
    private = values(ServerSettings(auth=Auth(private=True)))
    public = values(ServerSettings())
    assert settle(public, [public, private]) == private
    assert settle(private, [public, private]) == private
    assert settle(private, [public]) == public


def test_differences_are_named_with_both_values() -> None:
    assert differences(values(SIX), values(SIXTY)) == [
        "leases.heartbeat (2.0 here, 20.0 there)",
        "leases.lost_after (6.0 here, 60.0 there)",
    ]
