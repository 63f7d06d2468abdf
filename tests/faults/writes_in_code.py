"""Which writes there are, read from the code: the stores' calls to MongoDB, and the use cases that lead to them."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "banyan"
WRITES = frozenset(
    "insert_one insert_many update_one update_many replace_one delete_one delete_many bulk_write "
    "find_one_and_update find_one_and_replace find_one_and_delete upload_from_stream commit_transaction".split()
)
"""The driver's methods that write."""
FUNCTIONS = frozenset({"change_each"})
"""The storage's own functions that write for several stores."""
PREPARING = frozenset({"prepare"})
"""Run at each start, in no use case of their own: the scenario `start` passes them."""


@dataclass(frozen=True, slots=True)
class Write:
    """A call of the driver in a store: the file's name without `.py`, and the lines that it takes."""

    file: str
    first: int
    last: int
    method: str

    def done(self, lines: set[tuple[str, int]]) -> bool:
        """Whether one of these lines, as (file, number), is within it."""
        return any((self.file, number) in lines for number in range(self.first, self.last + 1))


def writes() -> list[Write]:
    """Every call of the storage that writes."""
    return [
        Write(path.stem, call.lineno, call.end_lineno or call.lineno, place)
        for path in sorted((PACKAGE / "storage").glob("*.py"))
        for place, call in _calls(path)
        if _method(call) in WRITES
    ]


def sites() -> dict[str, set[str]]:
    """Every place of a use case that calls a writing method of a store, with the names that its point may have."""
    writing = _writing_methods()
    found: dict[str, set[str]] = {}
    for layer in ("queue", "api"):
        for path in sorted((PACKAGE / layer).glob("*.py")):
            for place, call in _calls(path):
                stores = {store for store in _stores(call) if f"{store}.{_method(call)}" in writing}
                where = f"{layer}.{path.stem}.{place}"
                if stores:
                    name = f"{where}>{'|'.join(sorted(stores))}.{_method(call)}"
                    found[name] = {f"{where}>{store}.{_method(call)}" for store in stores}
    return found


def _calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call of a method or of one of `FUNCTIONS`, with the qualified name of the function that it is in."""
    yield from _calls_below(ast.parse(path.read_text()), "")


def _calls_below(node: ast.AST, place: str) -> Iterator[tuple[str, ast.Call]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call) and (isinstance(child.func, ast.Attribute) or _method(child) in FUNCTIONS):
            yield place, child
        yield from _calls_below(child, _place(node, child, place))


def _place(node: ast.AST, child: ast.AST, place: str) -> str:
    name = "<lambda>" if isinstance(child, ast.Lambda) else getattr(child, "name", None)
    if name is None or not isinstance(child, (ast.Lambda, ast.FunctionDef, ast.ClassDef)):
        return place
    if not place:
        return name
    return f"{place}.{name}" if isinstance(node, ast.ClassDef) else f"{place}.<locals>.{name}"


def _method(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else str(getattr(call.func, "id", ""))


def _writing_methods() -> set[str]:
    """Methods of the storage that write, by themselves or through others, as `Class.method`."""
    calls: dict[str, set[str]] = {}
    for path in (PACKAGE / "storage").glob("*.py"):
        for place, call in _calls(path):
            if _method(call) in WRITES | FUNCTIONS or _of_a_store(call):
                calls.setdefault(place.partition(".<locals>")[0], set()).add(_method(call))
    found: set[str] = set()
    while True:
        names = {each.rpartition(".")[2] for each in found} | WRITES | FUNCTIONS
        more = {place for place, called in calls.items() if called & names and "." in place}
        if more == found:
            return {each for each in found if each.rpartition(".")[2] not in PREPARING} | {"Storage.transaction"}
        found = more


def _of_a_store(call: ast.Call) -> bool:
    """Whether a store calls a method of its own (`self.x`), or of another that it has (`self._files.x`)."""
    receiver = call.func.value if isinstance(call.func, ast.Attribute) else None
    if isinstance(receiver, ast.Attribute):
        return receiver.attr.removeprefix("_") in _classes()
    return getattr(receiver, "id", "") == "self"


def _stores(call: ast.Call) -> set[str]:
    """The classes that the receiver of a call may have: `storage.tasks`, `storage`, or a local variable `store`."""
    receiver = call.func.value if isinstance(call.func, ast.Attribute) else None
    name = receiver.attr if isinstance(receiver, ast.Attribute) else getattr(receiver, "id", "")
    if name == "storage":
        return {"Storage"}
    classes = _classes()
    if name == "store":
        return set(classes.values())
    of_storage = isinstance(receiver, ast.Attribute) and _ends_with_storage(receiver.value)
    return {classes[name]} if of_storage and name in classes else set()


def _ends_with_storage(node: ast.AST) -> bool:
    return (node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")) == "storage"


def _classes() -> dict[str, str]:
    """The stores by the attribute of `Storage` that has them."""
    tree = ast.parse((PACKAGE / "storage" / "mongo.py").read_text())
    return {
        target.attr: node.value.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Name)
        for target in node.targets
        if isinstance(target, ast.Attribute)
    }
