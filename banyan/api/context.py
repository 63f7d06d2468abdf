"""What a request handler needs: the server's context and the user who asks."""

from typing import cast

from flask import current_app, g

from banyan.queue.actor import Actor
from banyan.queue.context import Context
from banyan.storage.users import User

CONFIG_KEY = "BANYAN"
"""Where the app keeps its context."""


def context() -> Context:
    """The storage, hub and settings of the server that answers this request."""
    return cast(Context, current_app.config[CONFIG_KEY])


def user() -> User:
    """Who sent this request; the guard in `auth` has checked the token."""
    return cast(User, g.user)


def actor() -> Actor:
    """The same user as the use cases see it."""
    return Actor(name=user().name, role=user().role, private=context().settings.auth.private)
