"""The objects that request handlers need: the server's context and the requesting user."""

from typing import cast

from flask import current_app, g

from banyan.queue.actor import Actor
from banyan.queue.context import Context
from banyan.storage.users import User

CONFIG_KEY = "BANYAN"
"""The key of the context in the app's configuration."""


def context() -> Context:
    """The storage, hub and settings of the server that handles this request."""
    return cast(Context, current_app.config[CONFIG_KEY])


def user() -> User:
    """The user who sent this request; the guard in `auth` has checked the token."""
    return cast(User, g.user)


def actor() -> Actor:
    """The same user for the use cases."""
    return Actor(name=user().name, role=user().role, private=context().settings.auth.private)
