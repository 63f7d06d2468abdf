"""Variables of the worker's own environment that its tasks get as well."""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

_OWN = "BANYAN_"
_SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|JWT|PRIVATE|AUTH|API_?KEY|ACCESS_?KEY|MUNGE", re.IGNORECASE)
"""The names that no pattern includes; each has to be named in full."""
_WILD = frozenset("*?[")


def passing(environ: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """Return the variables that `names` include, names or patterns such as `SLURM_*`; never Banyan's own settings."""
    patterns = [name for name in names if _WILD & set(name)]
    exact = set(names)
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith(_OWN)
        and (name in exact or (not _SECRET.search(name) and any(fnmatchcase(name, each) for each in patterns)))
    }
