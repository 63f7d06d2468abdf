"""Who acts, and what may be done to whose tasks."""

from dataclasses import dataclass

from banyan.domain.roles import Role
from banyan.errors import Forbidden, NotFound


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """A user in one of the roles; `private` hides other users' tasks from providers."""

    name: str
    role: Role
    private: bool = False

    def must_own(self, owner: str, what: str) -> None:
        """Raise `Forbidden` (`NotFound` where reads are private) unless the actor steers this owner's things."""
        if self.steers(owner):
            return
        if not self.sees_all:
            raise NotFound(f"there is no {what}")
        raise Forbidden(f"{what} belongs to {owner!r}; only its owner or an admin may change it")

    def steers(self, owner: str) -> bool:
        """Whether the actor may change this owner's things."""
        return self.role == Role.ADMIN or (self.role == Role.PROVIDER and self.name == owner)

    @property
    def sees_all(self) -> bool:
        """Whether the actor sees everybody's things; nobody else may hear that something of another's exists."""
        return not self.private or self.role != Role.PROVIDER

    def may_read(self, owner: str) -> bool:
        """Whether the actor sees this owner's things."""
        return self.sees_all or self.name == owner
