"""One typed registry for methods, backbones, tasks and suites.

A catalogue is read without importing anything heavy: the arguments of every ``@NAME.register(...)`` in a package are
literals, so `ast` can list them, and a module is imported when one of its entries is used for the first time.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from ..errors import PeftmarkError

T = TypeVar("T")


@dataclass
class Entry(Generic[T]):
    """What the catalogue knows of one name.

    Attributes:
        name: the registered name; one that ends in ``/*`` is a namespace and answers for every name below it.
        metadata: the literal keyword arguments of ``register``, e.g. ``family`` and ``tracks``.
        doc: the docstring of the registered object.
        origin: the module, or the user's file, that registers it.
        load: imports the object; called once, on first use.
    """

    name: str
    metadata: Mapping[str, Any]
    doc: str
    origin: str
    qualname: str
    load: Callable[[], T] = field(repr=False)
    aliases: tuple[str, ...] = ()

    @property
    def family(self) -> str:
        return str(self.metadata.get("family", ""))

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return self.doc.strip().split("\n", 1)[0]

    @property
    def namespace(self) -> str | None:
        """``"timm/"`` for the entry ``"timm/*"``, None for an ordinary one."""
        return self.name[:-1] if self.name.endswith("/*") else None

    def as_row(self) -> dict[str, Any]:
        """The entry as plain data, for ``peftmark list --json`` and the board's cards."""
        return {"name": self.name, **self.metadata, "summary": self.summary, "origin": self.origin}


class Registry(Generic[T]):
    """Names → objects of one kind, found lazily.

    Args:
        kind: what an entry is called in messages, e.g. ``"method"``.
        scan: yields the entries that ship with peftmark; called once, on first use.
        required: metadata that every ``register`` call must give.

    Raises:
        PeftmarkError: on an unknown name (with the nearest ones), on a name registered twice, on missing metadata.

    >>> shapes = Registry[type]("shape", required=["sides"])
    >>> @shapes.register("square", family="quads", sides=4)
    ... class Square:
    ...     '''All sides are equal.'''
    >>> shapes["square"] is Square, shapes["quads/square"] is Square
    (True, True)
    >>> shapes.names("quads/*"), shapes.entry("square").summary, shapes.entry("square").metadata["sides"]
    (['square'], 'All sides are equal.', 4)
    >>> shapes["sqare"]
    Traceback (most recent call last):
    peftmark.errors.PeftmarkError: unknown shape 'sqare': did you mean square?
    """

    def __init__(
        self, kind: str, scan: Callable[[], Iterable[Entry[T]]] = lambda: (), required: Iterable[str] = ()
    ) -> None:
        self.kind = kind
        self.required = frozenset(required)
        self._scan = scan
        self._entries: dict[str, Entry[T]] | None = None
        self._targets: dict[str, T] = {}

    # -- registration -----------------------------------------------------------------------------------------------

    def register(self, name: str, *, aliases: tuple[str, ...] = (), **metadata: Any) -> Callable[[T], T]:
        """Class or function decorator that enters its target under `name` and returns it unchanged."""

        def enter(target: T) -> T:
            module = getattr(target, "__module__", "")
            entry = Entry(
                name=name,
                metadata=metadata,
                doc=inspect.getdoc(target) or "",
                origin=_origin(module),
                qualname=getattr(target, "__qualname__", repr(target)),
                load=lambda: target,
                aliases=aliases,
            )
            self.add(entry)
            self._targets[name] = target
            return target

        return enter

    def add(self, entry: Entry[T]) -> None:
        """Enter an entry. The same object arriving again (a catalogued module being imported) is not a duplicate."""
        missing = sorted(self.required - set(entry.metadata))
        if missing:
            raise PeftmarkError(f"{self.kind} {entry.name!r}: register() needs {', '.join(missing)} ({entry.origin})")
        entries = self._all()
        names = (entry.name, *entry.aliases)
        for name in names:
            known = entries.get(name)
            if known is not None and (known.origin, known.qualname) != (entry.origin, entry.qualname):
                raise PeftmarkError(
                    f"{self.kind} {name!r} is registered twice: by {known.origin} and by {entry.origin}; rename one"
                )
        entries.update(dict.fromkeys(names, entry))

    # -- look-up ----------------------------------------------------------------------------------------------------

    def names(self, pattern: str = "*") -> list[str]:
        """Sorted names whose `name` or `family/name` matches the wildcard `pattern`; aliases are not listed."""
        return sorted(
            name
            for name, entry in self._all().items()
            if name == entry.name and (fnmatchcase(name, pattern) or fnmatchcase(f"{entry.family}/{name}", pattern))
        )

    def members(self, pattern: str) -> list[str]:
        """Sorted names below a namespace that match a wildcard which begins with it (``peft/*``, not ``*``).

        A namespace whose object has a ``members()`` can say what is below it; that imports the object.
        """
        names: list[str] = []
        for entry in self._all().values():
            if entry.namespace and pattern.startswith(entry.namespace):
                below = getattr(self[entry.name], "members", None)
                names += [name for name in below() if fnmatchcase(name, pattern)] if below else []
        return sorted(names)

    def expand(self, pattern: str) -> list[str]:
        """`names` and `members` for a wildcard; the canonical name for a plain one. Raises where nothing matches."""
        if not any(character in pattern for character in "*?["):
            return [self.canonical(pattern)]
        names = [name for name in self.names(pattern) if not name.endswith("/*")] + self.members(pattern)
        if not names:
            raise PeftmarkError(f"no {self.kind} matches {pattern!r}: see `peftmark list {self.kind}s`")
        return names

    def entry(self, name: str) -> Entry[T]:
        entries = self._all()
        if name in entries:
            return entries[name]
        for entry in entries.values():
            if entry.namespace and name.startswith(entry.namespace):
                return entry
        family, _, rest = name.partition("/")
        if rest in entries and entries[rest].family == family:
            return entries[rest]
        raise PeftmarkError(self._unknown(name))

    def canonical(self, name: str) -> str:
        """The registered name behind an alias or ``family/name``; a name in a namespace stays as it is."""
        entry = self.entry(name)
        return name if entry.namespace else entry.name

    def __getitem__(self, name: str) -> T:
        entry = self.entry(name)
        if entry.name not in self._targets:
            self._targets[entry.name] = entry.load()
        return self._targets[entry.name]

    def __contains__(self, name: object) -> bool:
        try:
            self.entry(str(name))
        except PeftmarkError:
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    # -- inside -----------------------------------------------------------------------------------------------------

    def _all(self) -> dict[str, Entry[T]]:
        if self._entries is None:
            self._entries = {}
            try:
                for entry in self._scan():
                    self.add(entry)
            except BaseException:
                self._entries = None  # half a catalogue must not be taken for a whole one
                raise
        return self._entries

    def _unknown(self, name: str) -> str:
        known = [*self._all(), *(f"{e.family}/{e.name}" for e in self._all().values())]
        near = list(dict.fromkeys(n.split("/")[-1] if n not in self._all() else n
                                  for n in difflib.get_close_matches(name, known, n=4)))  # fmt: skip
        hint = f"did you mean {', '.join(near)}?" if near else f"see `peftmark list {self.kind}s`"
        return f"unknown {self.kind} {name!r}: {hint}"


def _origin(module: str) -> str:
    """A module's name inside peftmark or an installed package; the file's path for a user's own file."""
    if module.startswith("peftmark_plugin_"):
        return str(getattr(sys.modules.get(module), "__file__", module))
    return module


def scan_package(variable: str, package: str, folder: Path) -> Iterator[Entry[Any]]:
    """Entries of every ``@variable.register(...)`` below `folder`, read with `ast`; nothing is imported.

    Raises:
        PeftmarkError: where an argument of ``register`` is not a literal.
    """
    for path in sorted(folder.rglob("*.py")):
        module = ".".join((package, *path.relative_to(folder).with_suffix("").parts)).removesuffix(".__init__")
        source = path.read_text(encoding="utf-8")
        if f"{variable}.register(" not in source:
            continue
        for node in ast.parse(source, str(path)).body:
            if not isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                continue
            for call in node.decorator_list:
                if _registers(call, variable):
                    yield _read_entry(cast(ast.Call, call), node, module)


def _registers(node: ast.expr, variable: str) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "register"
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == variable
    )


def _read_entry(call: ast.Call, node: ast.ClassDef | ast.FunctionDef, module: str) -> Entry[Any]:
    try:
        name = ast.literal_eval(call.args[0])
        arguments = {str(keyword.arg or ""): ast.literal_eval(keyword.value) for keyword in call.keywords}
        if "" in arguments:
            raise ValueError("**")
    except (ValueError, TypeError, IndexError) as error:
        raise PeftmarkError(f"{module}, line {call.lineno}: the arguments of register() must be literals") from error
    aliases = arguments.pop("aliases", ())
    return Entry(
        name=name,
        metadata=arguments,
        doc=inspect.cleandoc(ast.get_docstring(node, clean=False) or ""),
        origin=module,
        qualname=node.name,
        load=lambda: getattr(importlib.import_module(module), node.name),
        aliases=aliases,
    )
