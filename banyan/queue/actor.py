"""The acting user, and the tasks that this user may read or change."""

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
        """Raise `Forbidden` (`NotFound` where reads are private) unless the actor may change this owner's resources."""
        if self.steers(owner):
            return
        if not self.sees_all:
            raise NotFound(f"there is no {what}")
        raise Forbidden(f"{what} belongs to {owner!r}; only its owner or an admin may change it")

    def steers(self, owner: str) -> bool:
        """Return whether the actor may change this owner's resources."""
        return self.role == Role.ADMIN or (self.role == Role.PROVIDER and self.name == owner)

    @property
    def sees_all(self) -> bool:
        """Return whether the actor sees all users' resources; to other actors the resources of others do not exist."""
        return not self.private or self.role != Role.PROVIDER

    def may_read(self, owner: str) -> bool:
        """Return whether the actor sees this owner's resources."""
        return self.sees_all or self.name == owner
