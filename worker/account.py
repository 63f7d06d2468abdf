"""The other user as whom a worker that is root runs its tasks."""

import grp
import os
import pwd
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from banyan.config import WorkerSettings
from banyan.errors import SetupError


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A user with the groups of its processes."""

    name: str
    home: str
    uid: int
    gid: int
    groups: tuple[int, ...]

    @property
    def ids(self) -> tuple[int, int, list[int]]:
        """Return the user, the group and all groups, as the supervisor receives them."""
        return self.uid, self.gid, list(self.groups)


def account_of(settings: WorkerSettings) -> Account | None:
    """Return the user that `run_as` names, None if it is empty; SetupError if it cannot be used."""
    if not settings.run_as:
        if settings.run_as_group:
            raise SetupError("run_as_group is of no use without run_as; name the user too")
        return None
    if os.geteuid() != 0:
        raise SetupError(f"run_as = {settings.run_as}: only root can run tasks as another user; leave it empty")
    try:
        user = pwd.getpwnam(settings.run_as)
        gid = grp.getgrnam(settings.run_as_group).gr_gid if settings.run_as_group else user.pw_gid
    except KeyError as error:
        raise SetupError(f"run_as: {error.args[0]} on this machine") from error
    groups = tuple(os.getgrouplist(user.pw_name, gid))
    return Account(name=user.pw_name, home=user.pw_dir, uid=user.pw_uid, gid=gid, groups=groups)


def check_root(root: Path, account: Account) -> None:
    """Raise SetupError unless the user can reach the work directory and only root can exchange its contents."""
    for path in (root, *root.parents):
        status = path.stat()
        others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not (path != root and status.st_mode & stat.S_ISVTX)
        if status.st_uid != 0 or others:
            raise SetupError(
                f"run_as = {account.name}: {path} can be changed by others than root, who could exchange what the "
                f"worker reads in {root}; choose another directory with --workdir, or correct its owner and mode"
            )
    looked = subprocess.run(
        ["/bin/sh", "-c", 'cd "$0"', str(root)],
        user=account.uid,
        group=account.gid,
        extra_groups=account.groups,
        env={},
        cwd="/",
        stderr=subprocess.DEVNULL,
        check=False,
    )
    if looked.returncode != 0:
        raise SetupError(
            f"run_as = {account.name}: this user cannot reach the work directory {root}; choose another with "
            "--workdir, such as /var/lib/banyan, or let this user pass through the directories above it"
        )
