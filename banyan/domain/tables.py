"""The results of a sweep as a table: its columns and their labels."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FIRST = ("index", "task", "state", "exit_status")
"""The columns at the start of every table."""

INPUTS = "inputs"
RESULT = "result"
RESULT_FILE = "result_file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One input or one result; its label is its name, with its kind as a prefix only where names clash."""

    kind: str
    name: str
    label: str

    def has(self, task: Mapping[str, Any]) -> bool:
        """Return whether a task has a value in this column."""
        values = task.get(self.kind)
        return isinstance(values, Mapping) and self.name in values

    def of(self, task: Mapping[str, Any]) -> Any:
        """The value of a task in this column."""
        return task[self.kind][self.name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The columns of a sweep; `whole` are fields shown as they are: a result that is no object, or its file."""

    columns: Sequence[Column]
    whole: Sequence[str] = ()

    @classmethod
    def of(cls, inputs: Sequence[str], results: Sequence[str], whole: Sequence[str] = ()) -> "Table":
        """The table with these names of inputs and results."""
        wanted = [(INPUTS, name) for name in inputs] + [(RESULT, name) for name in results]
        labels = _labels(wanted, {*FIRST, *whole})
        columns = [Column(kind=kind, name=name, label=labels[kind, name]) for kind, name in wanted]
        return cls(columns=columns, whole=whole)

    @property
    def labels(self) -> list[str]:
        """The labels of all columns, each one different."""
        return [*FIRST, *(column.label for column in self.columns), *self.whole]

    def row(self, task: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """The values of a task in each column, by label; a column without a value is left out."""
        yield from (("index", task["index"]), ("task", str(task["_id"])), ("state", task["state"]))
        yield "exit_status", task.get("exit_status")
        yield from ((column.label, column.of(task)) for column in self.columns if column.has(task))
        for name in self.whole:
            if task.get(name) is not None and not isinstance(task[name], Mapping):
                yield name, task[name]


def _labels(wanted: Sequence[tuple[str, str]], taken: set[str]) -> dict[tuple[str, str], str]:
    """A label for each kind and name, different from all others and from those that are taken."""
    labels = {(kind, name): name for kind, name in wanted}
    while True:
        counts = Counter([*labels.values(), *taken])
        clashing = [key for key, label in labels.items() if counts[label] > 1 and label == key[1]]
        if not clashing:
            return labels
        labels |= {(kind, name): f"{kind}.{name}" for kind, name in clashing}
