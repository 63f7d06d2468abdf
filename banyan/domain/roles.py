"""Who may do what, in general."""

from enum import StrEnum


class Role(StrEnum):
    """What a user may do."""

    PROVIDER = "provider"
    WORKER = "worker"
    ADMIN = "admin"
