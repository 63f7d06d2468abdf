"""The roles of users."""

from enum import StrEnum


class Role(StrEnum):
    """The role of a user, which decides the routes that the user may call."""

    PROVIDER = "provider"
    WORKER = "worker"
    ADMIN = "admin"
