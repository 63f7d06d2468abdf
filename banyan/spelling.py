"""Suggestions for names that do not exist: the known name that was probably meant."""

from collections.abc import Collection, Iterable, Mapping
from difflib import SequenceMatcher

_LEAST_ALIKE = 0.75
"""The ratio from which two names are alike: `runing` and `running` have 0.92, `cores` and `progress` 0.62."""
_SWAPPED = 0.9
_LEAST_BEGINNING = 3
_LONGEST = 100
_LISTED = 12


def closest(name: str, known: Iterable[str], other_words: Mapping[str, str] | None = None) -> str | None:
    """Return the known name that `name` was probably meant to be; None when none is alike.

    `other_words` maps words that other systems use to the known name for the same thing.
    """
    names = list(known)
    wanted = _plain(name[:_LONGEST])
    meant = (other_words or {}).get(wanted)
    if meant in names:
        return meant
    scored = [(_likeness(wanted, _plain(each)), each) for each in names]
    best = max(scored, key=lambda pair: pair[0], default=(0.0, ""))
    if best[0] >= _LEAST_ALIKE:
        return best[1]
    begun = [each for each in names if len(wanted) >= _LEAST_BEGINNING and _plain(each).startswith(wanted)]
    return begun[0] if len(begun) == 1 else None


def suggestion(name: str, known: Iterable[str], other_words: Mapping[str, str] | None = None) -> str:
    """Return `; did you mean 'name'?`, or nothing when no known name is alike."""
    meant = closest(name, known, other_words)
    return "" if meant is None else f"; did you mean {meant!r}?"


def listed(known: Collection[str], most: int = _LISTED) -> str:
    """Return known names on one line, in order, not too many of them."""
    names = sorted(known)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}" or "none"


def unknown(kind: str, name: str, known: Collection[str], other_words: Mapping[str, str] | None = None) -> str:
    """Return the sentence for a name that does not exist: its kind, the name that was probably meant, known names."""
    meant = closest(name, known, other_words)
    there = f"there are: {listed(known)}"
    if meant is None:
        return f"there is no {kind} {name!r}; {there}"
    return f"there is no {kind} {name!r}; did you mean {meant!r}? ({there})"


def _plain(name: str) -> str:
    """Return a name without the differences that people make: capitals, dashes, underscores, blanks."""
    return "".join(character for character in name.casefold() if character not in "-_ ")


def _likeness(one: str, other: str) -> float:
    if one == other:
        return 1.0
    if len(one) == len(other) and _swapped(one, other):
        return _SWAPPED
    matcher = SequenceMatcher(None, other, one, autojunk=False)
    return matcher.ratio() if matcher.real_quick_ratio() >= _LEAST_ALIKE else 0.0


def _swapped(one: str, other: str) -> bool:
    """Return whether two names of the same length differ by two neighbours that changed places."""
    places = [place for place, (left, right) in enumerate(zip(one, other, strict=True)) if left != right]
    return len(places) == 2 and places[1] == places[0] + 1 and sorted(one) == sorted(other)
