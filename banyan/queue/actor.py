"""Who acts, and what may be done to whose tasks."""

from dataclasses import dataclass

from banyan.errors import Forbidden, NotFound

ADMIN = "admin"
PROVIDER = "provider"
WORKER = "worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """A user in one of the roles; `private` hides other users' tasks from providers."""

    name: str
    role: str
    private: bool = False

    def must_own(self, owner: str, what: str) -> None:
        """Raise `Forbidden` (`NotFound` where reads are private) unless the actor steers this owner's things."""
        if self.role == ADMIN or (self.role == PROVIDER and self.name == owner):
            return
        if self.private and self.role == PROVIDER:
            raise NotFound(f"{what}: there is no such thing")
        raise Forbidden(f"{what} belongs to {owner!r}; only its owner or an admin may change it")

    def may_read(self, owner: str) -> bool:
        """Whether the actor sees this owner's things."""
        return not self.private or self.role != PROVIDER or self.name == owner
