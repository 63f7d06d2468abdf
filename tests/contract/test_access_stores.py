"""Users, repeated requests and samples: what each store promises."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId
from pymongo.database import Database

from banyan.domain.roles import Role
from banyan.errors import Conflict, Invalid, NotFound
from banyan.storage.idempotency import ABANDONED_SECONDS, FirstAnswer, IdempotencyStore, Key
from banyan.storage.memory import MemoryStore
from banyan.storage.statistics import summary
from banyan.storage.users import CACHE_SECONDS, User, UserStore

NOW = datetime(2024, 5, 1, tzinfo=UTC)
KEPT = 1e9

Db = Database[dict[str, Any]]


class HandClock:
    """Monotonic seconds, moved by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def users(db: Db, clock: Callable[[], float]) -> UserStore:
    store = UserStore(db, clock)
    store.prepare()
    return store


@pytest.fixture
def requests(db: Db) -> IdempotencyStore:
    store = IdempotencyStore(db)
    store.prepare()
    return store


def test_a_token_names_its_user_and_only_its_digest_is_stored(db: Db, users: UserStore) -> None:
    token = users.add("alice", Role.PROVIDER, NOW)
    assert users.by_token(token) == User(name="alice", role=Role.PROVIDER)
    assert users.by_token(token + "x") is None
    assert users.by_token("") is None
    assert token not in str(list(db["users"].find()))


def test_a_name_is_taken_once(users: UserStore) -> None:
    users.add("alice", Role.PROVIDER, NOW)
    with pytest.raises(Invalid, match="alice"):
        users.add("alice", Role.ADMIN, NOW)
    assert users.list() == [User(name="alice", role=Role.PROVIDER)]


def test_a_rotated_token_ends_at_once(users: UserStore) -> None:
    old = users.add("alice", Role.PROVIDER, NOW)
    assert users.by_token(old) is not None
    new = users.rotate("alice", NOW)
    assert (users.by_token(old), users.by_token(new)) == (None, User(name="alice", role=Role.PROVIDER))


def test_another_server_forgets_a_removed_token_in_seconds(db: Db, users: UserStore, clock: HandClock) -> None:
    token = users.add("alice", Role.PROVIDER, NOW)
    assert users.by_token(token) is not None
    UserStore(db).remove("alice", NOW)
    clock.seconds += CACHE_SECONDS
    assert users.by_token(token) is None


def test_a_user_is_made_sure_of_again_and_again(users: UserStore) -> None:
    for token in ("first", "second", "second"):
        users.make_sure("admin", Role.ADMIN, token, NOW)
    assert (users.by_token("first"), users.by_token("second")) == (None, User(name="admin", role=Role.ADMIN))
    assert users.list() == [User(name="admin", role=Role.ADMIN)]


def test_the_last_admin_stays(users: UserStore) -> None:
    users.add("alice", Role.PROVIDER, NOW)
    token = users.add("root", Role.ADMIN, NOW)
    with pytest.raises(Invalid, match="last admin"):
        users.remove("root", NOW)
    users.add("second", Role.ADMIN, NOW)
    users.remove("second", NOW)
    with pytest.raises(Invalid, match="last admin"):
        users.remove("root", NOW)
    assert users.by_token(token) == User(name="root", role=Role.ADMIN)


def test_a_token_ends_at_its_date_and_a_new_one_has_a_date_of_its_own(users: UserStore) -> None:
    date = NOW + timedelta(days=30)
    user = users.by_token(users.add("alice", Role.PROVIDER, NOW, date))
    assert user == User(name="alice", role=Role.PROVIDER, expires=date)
    assert [user.expired(now) for now in (NOW, date - timedelta(seconds=1), date)] == [False, False, True]
    endless = users.by_token(users.rotate("alice", date))
    assert endless == User(name="alice", role=Role.PROVIDER)
    assert not endless.expired(date + timedelta(days=10_000))


def test_an_admin_whose_token_has_expired_is_no_admin_that_could_stay(users: UserStore) -> None:
    users.add("root", Role.ADMIN, NOW)
    users.add("guest", Role.ADMIN, NOW, NOW + timedelta(days=1))
    with pytest.raises(Invalid, match="last admin"):
        users.remove("root", NOW + timedelta(days=2))
    users.remove("root", NOW)
    assert [user.name for user in users.list()] == ["guest"]


@pytest.mark.parametrize("how", ["rotated", "removed"])
def test_a_file_that_has_outlived_a_token_does_not_bring_it_back(users: UserStore, how: str) -> None:
    assert users.make_sure("user", Role.PROVIDER, "from the file", NOW)
    if how == "rotated":
        users.rotate("user", NOW)
    else:
        users.remove("user", NOW)
    before = users.list()
    assert not users.make_sure("user", Role.PROVIDER, "from the file", NOW)
    assert (users.by_token("from the file"), users.list()) == (None, before)
    assert users.make_sure("user", Role.PROVIDER, "a fresh one", NOW)


def test_making_sure_of_a_token_that_is_there_keeps_its_date(users: UserStore) -> None:
    users.add("user", Role.PROVIDER, NOW)
    token = users.rotate("user", NOW, NOW + timedelta(days=1))
    users.make_sure("user", Role.PROVIDER, token, NOW)
    assert users.by_token(token) == User(name="user", role=Role.PROVIDER, expires=NOW + timedelta(days=1))


def test_unknown_users_are_told(users: UserStore) -> None:
    for act in (lambda name: users.remove(name, NOW), users.document, lambda name: users.rotate(name, NOW)):
        with pytest.raises(NotFound, match="nobody"):
            act("nobody")


def test_what_is_shown_of_a_user_has_no_secret(users: UserStore) -> None:
    users.add("alice", Role.PROVIDER, NOW)
    assert users.document("alice").keys() == {"_id", "_etag", "_created", "_updated", "name", "role", "expires"}


def test_a_request_is_begun_once_and_answered_ever_after(requests: IdempotencyStore) -> None:
    key = requests.begin("k", "digest", NOW, KEPT)
    assert isinstance(key, Key)
    with pytest.raises(Conflict, match="still running"):
        requests.begin("k", "digest", NOW, KEPT)
    requests.finish(key, 201, b"answer")
    assert requests.begin("k", "digest", NOW, KEPT) == FirstAnswer(status=201, body=b"answer")
    with pytest.raises(Invalid, match="another body"):
        requests.begin("k", "other", NOW, KEPT)


def test_a_failed_request_is_forgotten_and_a_finished_one_is_not(requests: IdempotencyStore) -> None:
    key = requests.begin("k", "digest", NOW, KEPT)
    assert isinstance(key, Key)
    requests.release(key)
    again = requests.begin("k", "other", NOW, KEPT)
    assert isinstance(again, Key)
    requests.finish(again, 200, None)
    requests.release(again)
    assert requests.begin("k", "other", NOW, KEPT) == FirstAnswer(status=200, body=None)


def test_the_request_of_a_dead_server_is_taken_over_by_one(requests: IdempotencyStore) -> None:
    dead = requests.begin("k", "digest", NOW, KEPT)
    later = NOW + timedelta(seconds=ABANDONED_SECONDS)
    heir = requests.begin("k", "digest", later, KEPT)
    assert isinstance(dead, Key)
    assert isinstance(heir, Key)
    with pytest.raises(Conflict, match="still running"):
        requests.begin("k", "digest", later, KEPT)
    with pytest.raises(Conflict, match="taken this request over"):
        requests.finish(dead, 201, b"late")
    requests.release(dead)
    requests.finish(heir, 201, b"answer")
    assert requests.begin("k", "digest", later, KEPT) == FirstAnswer(status=201, body=b"answer")


def test_a_key_that_has_expired_is_as_good_as_new_although_it_is_still_there(requests: IdempotencyStore) -> None:
    for body in ("digest", "digest", "other"):
        key = requests.begin("k", body, NOW, KEPT)
        assert isinstance(key, Key)
        requests.finish(key, 201, b"answer")
        with pytest.raises(Invalid, match="another body"):
            requests.begin("k", "third", NOW + timedelta(seconds=KEPT - 1), KEPT)
        later = requests.begin("k", "third", NOW + timedelta(seconds=KEPT), KEPT)
        assert isinstance(later, Key)
        requests.release(later)


def test_samples_are_kept_until_their_task_goes(db: Db) -> None:
    store = MemoryStore(db)
    store.prepare()
    one, two = ObjectId(), ObjectId()
    stored = store.add([{"task": task, "time": NOW, "resident_memory_bytes": 1} for task in (one, two)], NOW)
    assert store.add([], NOW) == []
    store.doom([one])
    assert (store.remove_doomed(10), store.remove_doomed(10)) == (1, 0)
    assert list(db["memory_usage"].find()) == [stored[1]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], (None, None, None, None)),
        ([5], (5, 5, 5, 5)),
        ([3, 1], (1, 2, 3, 3)),
        (list(range(101)), (0, 50, 95, 100)),
    ],
)
def test_a_summary_of_values(values: list[float], expected: tuple[float | None, ...]) -> None:
    assert summary(values) == dict(zip(("min", "median", "p95", "max"), expected, strict=True))
