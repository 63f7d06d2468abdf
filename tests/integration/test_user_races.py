"""Two that change users at once, over the real MongoDB: each sees the other's change done, or not begun."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from pymongo.client_session import ClientSession

from banyan.domain.roles import Role
from banyan.errors import Invalid
from banyan.queue.context import Context
from banyan.storage.users import User, UserStore
from tests.support.waiting import eventually

Document = dict[str, Any]

NOW = datetime(2024, 5, 1, tzinfo=UTC)


class Second(UserStore):
    """Counts how often it has begun."""

    tries = 0

    def _known(self, name: str, session: ClientSession) -> Document:
        self.tries += 1
        return super()._known(name, session)


class First(UserStore):
    """Before its last write it lets the second begin, and waits until that one has met it and begins again."""

    begin: Callable[[], object]
    second: Second

    def _retire(self, user: Document, now: datetime, session: ClientSession) -> None:
        super()._retire(user, now, session)
        if not self.second.tries:
            self.begin()
        eventually(lambda: self.second.tries >= 2)


def raced(context: Context, first: Callable[[First], Any], second: Callable[[Second], Any]) -> tuple[Any, Future[Any]]:
    """Do the one, and the other in the middle of it; the answer of the first, and what became of the second."""
    stores = First(context.storage.db), Second(context.storage.db)
    with ThreadPoolExecutor(1) as pool:
        futures: list[Future[Any]] = []
        stores[0].second = stores[1]
        stores[0].begin = lambda: futures.append(pool.submit(second, stores[1]))
        answer = first(stores[0])
    return answer, futures[0]


def test_of_two_admins_that_remove_each_other_at_once_one_stays(context: Context) -> None:
    for name in ("one", "two"):
        context.storage.users.add(name, Role.ADMIN, NOW)
    _, second = raced(context, lambda store: store.remove("one", NOW), lambda store: store.remove("two", NOW))
    with pytest.raises(Invalid, match="last admin"):
        second.result()
    assert context.storage.users.list() == [User(name="two", role=Role.ADMIN)]


def test_of_two_that_rotate_a_token_at_once_the_second_replaces_what_the_first_has_made(context: Context) -> None:
    users = context.storage.users
    old = users.add("ann", Role.PROVIDER, NOW)
    first, second = raced(context, lambda store: store.rotate("ann", NOW), lambda store: store.rotate("ann", NOW))
    assert [users.by_token(each) for each in (old, first, second.result())] == [
        None,
        None,
        User(name="ann", role=Role.PROVIDER),
    ]
    for worthless in (old, first):
        assert not users.make_sure("ann", Role.PROVIDER, worthless, NOW)


def test_a_removal_that_fails_in_its_middle_changes_nothing(context: Context) -> None:
    class Failing(UserStore):
        def _retire(self, user: Document, now: datetime, session: ClientSession) -> None:
            super()._retire(user, now, session)
            raise RuntimeError("as planned")

    users = context.storage.users
    token = users.add("ann", Role.ADMIN, NOW)
    users.add("root", Role.ADMIN, NOW)
    for act in (Failing(context.storage.db).rotate, Failing(context.storage.db).remove):
        with pytest.raises(RuntimeError, match="as planned"):
            act("ann", NOW)
    assert users.make_sure("ann", Role.ADMIN, token, NOW)
    users.remove("root", NOW)
    assert users.by_token(token) == User(name="ann", role=Role.ADMIN)
