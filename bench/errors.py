"""What can be wrong with a measurement."""

from banyan.errors import SetupError


class Missing(SetupError):
    """A program that is measured beside ours is not installed; the text names the command that installs it."""


class Incomplete(Exception):
    """A run in which something is not as it must be, so that its time says nothing."""
