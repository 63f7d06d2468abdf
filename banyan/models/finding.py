"""The search for models, without importing any of them.

A model is a file or package in one of the directories of `models.path`, or an entry point of the group `banyan.models`.
"""

import ast
import hashlib
import importlib.util
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

log = logging.getLogger("banyan.models")

GROUP = "banyan.models"
"""The group of entry points."""

_RESERVED = frozenset({"banyan", "dask", "distributed", "numpy", "simsvc", "worker"})
_MOST_FILES = 10_000
_MOST_LOOKED_INTO = 100
_INIT = "__init__.py"
_TASK = "function task(spec, cancel)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The source of a model.

    `module` is the module to import, `directory` an absolute path for `sys.path` (None for an entry point), `attribute`
    the object that an entry point names within the module, `summary` the first line of the module's docstring. A source
    with a `fault` is reported, but not offered. A `helper` does not look like a model: its `fault` is for users who
    request it by name.
    """

    name: str
    module: str
    attribute: str | None = None
    directory: str | None = None
    summary: str = ""
    fault: str | None = None
    helper: bool = False

    def version(self) -> str:
        """A text that changes when a file changes that the model may import from its directory; "" without one."""
        if self.directory is None:
            return ""
        digest = hashlib.sha256()
        for number, line in enumerate(_importable(self.directory)):
            if number == _MOST_FILES:
                break
            digest.update(line.encode(errors="surrogateescape"))
        return digest.hexdigest()[:20]


def find(path: Sequence[str]) -> dict[str, Source]:
    """The models in the directories of `path`, first match first, then those of entry points, by name.

    Files without a top-level `task` (a function, an assignment, an import) are no models; directories that do not exist
    are empty. A file that looks like a model and cannot be one is included with its `fault`, and so are files with
    names of no model, as `helper`.
    """
    found: dict[str, Source] = {}
    helpers: list[Source] = []
    for directory in path:
        for source in _in_directory(str(Path(directory).expanduser().absolute())):
            if source.helper:
                helpers.append(source)
            else:
                found.setdefault(source.name, source)
    for source in [*_entry_points(), *helpers]:
        found.setdefault(source.name, source)
    return found


def offered(found: Mapping[str, Source]) -> dict[str, Source]:
    """The models without a fault; the others are logged."""
    for source in found.values():
        if source.fault is not None and not source.helper:
            place = f" in {source.directory}" if source.directory is not None else ""
            log.warning("model %r%s is not offered: %s", source.name, place, source.fault)
    return {name: source for name, source in found.items() if source.fault is None}


def _in_directory(directory: str) -> Iterator[Source]:
    """The possible models in a directory; of the same name a package precedes a file, as it does for Python."""
    try:
        names = sorted(name for name in os.listdir(directory) if not name.startswith((".", "__")))
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("no models from %s: %s", directory, error.strerror)
        return
    directories = [name for name in names if os.path.isdir(os.path.join(directory, name))]
    packages = [name for name in directories if os.path.lexists(os.path.join(directory, name, _INIT))]
    files = [name for name in names if name.endswith(".py") and name not in directories]
    for name in packages:
        yield _source(directory, name, os.path.join(directory, name, _INIT))
    for name in files:
        yield _source(directory, name.removesuffix(".py"), os.path.join(directory, name))
    for name in directories:
        if name not in packages and not name.startswith("_"):
            yield from _bare_directory(directory, name)


def _source(directory: str, name: str, file: str) -> Source:
    summary, is_model, fault = _read(file)
    shown = _shown(name)
    how: dict[str, Any] = {"name": shown, "module": name, "directory": directory, "summary": summary}
    if name.startswith("_"):
        return Source(**how, fault=f"{shown} begins with an underscore, so that it is no model; rename it", helper=True)
    if not is_model and fault is None:
        what = f"{shown}/{_INIT}" if os.path.basename(file) == _INIT else f"{shown}.py"
        return Source(**how, fault=f"{what} has no {_TASK} at its top level", helper=True)
    return Source(**how, fault=fault or _bad_name(shown))


def _bare_directory(directory: str, name: str) -> Iterator[Source]:
    """A directory that is no package: with a model in it it was meant as one, with other code it is a helper."""
    shown = _shown(name)
    fault = f"the directory {shown} has no {_INIT} with a {_TASK}"
    try:
        files = sorted(each for each in os.listdir(os.path.join(directory, name)) if each.endswith(".py"))
    except OSError as error:
        files, fault = [], f"the directory {shown} cannot be read: {error.strerror}"
        yield Source(name=shown, module=name, directory=directory, fault=fault)
    if files:
        has_model = any(_read(os.path.join(directory, name, each))[1] for each in files[:_MOST_LOOKED_INTO])
        yield Source(name=shown, module=name, directory=directory, fault=fault, helper=not has_model)


def _bad_name(name: str) -> str | None:
    if name in sys.stdlib_module_names or name in _RESERVED:
        return f"another module is called {name!r}; rename the file"
    if not name.isidentifier():
        return f"{name!r} cannot be imported; rename the file to letters, digits and underscores"
    return None


def _read(file: str) -> tuple[str, bool, str | None]:
    """The summary, whether it is a model, and its fault."""
    try:
        status = os.stat(file)
        return _parse(file, status.st_mtime_ns, status.st_size, status.st_ino)
    except OSError as error:
        return "", False, f"{_shown(file)} cannot be read: {error.strerror}"


@lru_cache(maxsize=1000)
def _parse(file: str, *version: int) -> tuple[str, bool, str | None]:
    """The result of `_read` for a file as it is in this `version` of it."""
    with open(file, "rb") as opened:
        text = opened.read()
    name = _shown(file)
    try:
        tree = ast.parse(text, filename=file)
    except SyntaxError as error:
        place = f"{name}, line {error.lineno}" if error.lineno else f"{name} cannot be parsed"
        return "", False, f"{place}: {error.msg}"
    except (ValueError, RecursionError, MemoryError) as error:
        return "", False, f"{name} cannot be parsed: {str(error) or type(error).__name__}"
    lines = (ast.get_docstring(tree) or "").splitlines()
    return lines[0].strip() if lines else "", _binds(tree.body, "task"), None


def _shown(file: str) -> str:
    return os.fsencode(os.path.basename(file)).decode(errors="backslashreplace")


def _binds(body: Iterable[ast.stmt], name: str) -> bool:
    """Return whether statements of a module give `name` a value, even below `if`, `try` and `with`."""
    return any(name in _names(statement) or _binds(_inner(statement), name) for statement in body)


def _names(statement: ast.stmt) -> set[str]:
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return {name}
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return {alias.asname or alias.name.partition(".")[0] for alias in names}
        case ast.Assign(targets=targets):
            nodes = (node for target in targets for node in ast.walk(target))
            return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        case ast.AnnAssign(target=ast.Name(id=name), value=value) if value is not None:
            return {name}
    return set()


def _inner(statement: ast.stmt) -> list[ast.stmt]:
    match statement:
        case ast.If(body=body, orelse=orelse):
            return body + orelse
        case ast.With(body=body):
            return body
        case ast.Try(body=body, handlers=handlers, orelse=orelse, finalbody=finalbody):
            return [*body, *(each for handler in handlers for each in handler.body), *orelse, *finalbody]
    return []


def _importable(directory: str, seen: frozenset[tuple[int, int]] = frozenset()) -> Iterator[str]:
    """Path, size and time of each Python file in a directory and in the possible packages below it."""
    try:
        here = os.stat(directory)
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError:
        return
    if (here.st_dev, here.st_ino) in seen:
        return  # a link to a directory above
    seen |= {(here.st_dev, here.st_ino)}
    for entry in entries:
        try:
            if entry.name.endswith((".py", ".so")) and entry.is_file():
                status = entry.stat()
                yield f"{entry.path}\0{status.st_size}\0{status.st_mtime_ns}\n"
            elif entry.name.isidentifier() and entry.name != "__pycache__" and entry.is_dir():
                yield from _importable(entry.path, seen)
        except OSError:
            continue  # it is being replaced, which the next call will see


def _entry_points() -> Iterator[Source]:
    for point in _points(tuple(sys.path)):
        summary, fault = "", None
        try:
            file = _module_file(point.module)
            if file is not None and file.suffix == ".py":
                summary, _, fault = _read(str(file))
        except ImportError:
            fault = f"its entry point names {point.value!r}, and there is no module {point.module!r}"
        yield Source(name=point.name, module=point.module, attribute=point.attr or None, summary=summary, fault=fault)


@lru_cache(maxsize=10)
def _points(path: tuple[str, ...]) -> list[EntryPoint]:
    """The entry points that are installed in `path`, which is `sys.path`; the search reads many files."""
    return sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value))


def _module_file(module: str) -> Path | None:
    """The file of an installed module, if it has one, found without importing the packages around it.

    ImportError if even its outermost package is missing.
    """
    top, *inner = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # it was imported in an unusual way
        return None
    if spec is None:
        raise ModuleNotFoundError(f"there is no module {top!r}")
    if not inner:
        return Path(spec.origin) if spec.origin else None
    for location in spec.submodule_search_locations or ():
        base = Path(location, *inner)
        for file in (base / "__init__.py", base.with_suffix(".py")):
            if file.is_file():
                return file
    return None
