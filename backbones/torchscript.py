"""The tensors of a TorchScript archive (``torch.jit.save``), read without executing anything of it.

``torch.jit.load`` runs the ``__setstate__`` of an archive's classes, and what may stand there (``torch.save``, say)
writes files. An archive is a zip: ``data.pkl`` with the modules' attributes, ``data/<key>`` with the storages, and
``code/`` with the classes as text. Here the pickle's objects stay plain data, of the code only the classes'
declarations are looked at, and what comes out is what ``torch.jit.load(FILE).state_dict()`` would be.
"""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from ..errors import PeftmarkError

LARGEST_TEXT = 2**28
"""Bytes of ``data.pkl``, or of a file of code: OpenAI's have some 100 kB."""
MOST_MODULES = 100_000
_TYPES = {
    "BFloat16": torch.bfloat16,
    "Bool": torch.bool,
    "Byte": torch.uint8,
    "Char": torch.int8,
    "ComplexDouble": torch.complex128,
    "ComplexFloat": torch.complex64,
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "Int": torch.int32,
    "Long": torch.int64,
    "Short": torch.int16,
}


def is_torchscript(path: Path) -> bool:
    """Whether a file is an archive of modules with their code; what ``torch.save`` writes is not."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """The parameters and buffers of an archive's module by their paths, on the CPU.

    Raises:
        PeftmarkError: where a module has a ``__setstate__``: what its state would be cannot be known without it.
        Exception: of many kinds, where the file is damaged or holds something else.
    """
    with zipfile.ZipFile(path) as file:
        archive = _Archive(file, path.stat().st_size)
        module = _Unpickler(io.BytesIO(archive.text("data.pkl"))).load()
        try:
            return {name: archive.tensor(reference) for name, reference in _state(module, archive, "", [MOST_MODULES])}
        except _OwnCode as error:
            raise PeftmarkError(
                f"{path} is a TorchScript archive whose {error} builds itself by code of its own (__setstate__), which "
                "peftmark never runs: save the tensors alone, torch.save(model.state_dict(), FILE)"
            ) from error


class _OwnCode(Exception):
    """Of the class that it names."""


def _state(module: Any, archive: _Archive, prefix: str, left: list[int]) -> Iterator[tuple[str, _Reference]]:
    """In torch's order: a module's parameters, its buffers, its modules.

    Args:
        left: how many more modules there may be. One may be held twice; a few, each twice in the next, are endless.
    """
    left[0] -= 1
    if left[0] < 0:
        raise ValueError(f"more than {MOST_MODULES:,} modules")
    declared = archive.declared(module)
    attributes = module.state
    for names in (declared.parameters, declared.buffers):
        for name, value in attributes.items():
            if name in names and isinstance(value, _Reference):
                yield prefix + name, value
    for name, value in attributes.items():
        if isinstance(value, _Object) and archive.declared(value).is_module:
            yield from _state(value, archive, f"{prefix}{name}.", left)


# -- the pickle --------------------------------------------------------------------------------------------------------


class _Object:
    """One of a class of the archive's code. Only its state is known."""

    module, name = "", ""
    state: Any = None

    def __init__(self, *state: Any) -> None:
        self.state = state

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Fixed:
    """A pickle can give each object attributes, a function's defaults and code too: not these."""

    def __setstate__(self, state: Any) -> None:
        raise ValueError("it changes what it is read with")


@dataclass(frozen=True)
class _Function(_Fixed):
    call: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        return self.call(*arguments)


@dataclass(frozen=True)
class _Storage(_Fixed):
    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True, eq=False)
class _Reference(_Fixed):
    """A tensor before it is read."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    conjugate: bool = False
    negative: bool = False

    @classmethod
    def of(
        cls,
        storage: _Storage,
        offset: int,
        size: tuple[int, ...],
        stride: tuple[int, ...],
        _gradient: bool,
        _hooks: None,
        views: Mapping[str, bool] = MappingProxyType({}),
    ) -> _Reference:
        """
        Args:
            views: whether what is stored is the conjugate, or the negative, of the tensor: ``conj``, ``neg``.
        """
        return cls(storage, offset, size, stride, bool(views.get("conj")), bool(views.get("neg")))


_HARMLESS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor_v2": _Reference.of,
    "torch.jit._pickle.restore_type_tag": lambda value, kind: value,
    **{f"torch.jit._pickle.build_{kind}list": lambda values: values for kind in ("bool", "double", "int", "tensor")},
    "collections.OrderedDict": lambda *arguments: None,  # a tensor's hooks
    "torch.device": lambda *arguments: None,
    "builtins.complex": lambda *arguments: None,
}
"""All that an archive's pickle may call, and what is done instead."""


_LOAD = pickle._Unpickler.dispatch
_HASHING = {*pickle.DICT, *pickle.ADDITEMS, *pickle.FROZENSET}
"""Opcodes that hash what they are given, and that no archive has."""


def _check_keys(items: list[Any]) -> None:
    """Of keys and values in turn."""
    for key in items[::2]:
        if not isinstance(key, (str, int, float, complex, _Reference)):
            raise ValueError(f"a key is a {type(key).__name__}")


class _Unpickler(pickle._Unpickler):
    """Calls nothing but `_HARMLESS`. Python's own and not C's, which makes room for whatever number a memo has.

    Keys are what TorchScript has for keys. Pairs of pairs, some forty deep, would take for ever to hash, or to print.
    """

    stack: list[Any]

    def load_reduce(self: Any) -> None:
        """A value of an enum comes without a tuple around it."""
        if not isinstance(self.stack[-1], tuple):
            self.stack[-1] = (self.stack[-1],)
        _LOAD[pickle.REDUCE[0]](self)

    def load_setitem(self: Any) -> None:
        _check_keys(self.stack[-2:])
        _LOAD[pickle.SETITEM[0]](self)

    def load_setitems(self: Any) -> None:
        _check_keys(self.stack)
        _LOAD[pickle.SETITEMS[0]](self)

    dispatch = {
        **{code: load for code, load in _LOAD.items() if code not in _HASHING},
        pickle.REDUCE[0]: load_reduce,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
    }

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return type("_Object", (_Object,), {"module": module, "name": name})
        if module == "torch" and name.removesuffix("Storage") in _TYPES and name.endswith("Storage"):
            return _Function(lambda: _TYPES[name.removesuffix("Storage")])
        if f"{module}.{name}" in _HARMLESS:
            return _Function(_HARMLESS[f"{module}.{name}"])
        raise ValueError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        _, kind, key, _, count = pid
        if not isinstance(key, str) or not isinstance(count, int):
            raise ValueError("a storage has no name, or no size")
        return _Storage(key, kind(), count)


# -- the archive -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Class:
    """What a class's text declares."""

    is_module: bool = False
    parameters: frozenset[str] = frozenset()
    buffers: frozenset[str] = frozenset()


_CLASS = re.compile(r"^class (\w+)(?:\((\w*)\))?:\n((?:  .*\n|\n)*)", re.MULTILINE)
_NAMES = re.compile(r"^  __(parameters|buffers)__ = \[(.*)\]$", re.MULTILINE)


def _declared(name: str, base: str | None, body: str) -> _Class | None:
    """None of a module that has a ``__setstate__``."""
    if base != "Module":
        return _Class()
    if "\n  def __setstate__(" in f"\n{body}":
        return None
    names = {kind: frozenset(re.findall(r'"(.*?)"', quoted)) for kind, quoted in _NAMES.findall(body)}
    return _Class(True, names.get("parameters", frozenset()), names.get("buffers", frozenset()))


class _Archive:
    """The parts of an archive, each read once."""

    def __init__(self, file: zipfile.ZipFile, size: int) -> None:
        self.file = file
        self.size = size
        [self.folder] = {name.partition("/")[0] for name in file.namelist() if name.endswith("/constants.pkl")}
        self.classes: dict[str, dict[str, _Class | None]] = {}
        self.storages: dict[_Storage, Tensor] = {}
        if f"{self.folder}/byteorder" in file.namelist() and self.text("byteorder") != b"little":
            raise ValueError("its numbers are big-endian")

    def text(self, name: str) -> bytes:
        info = self.file.getinfo(f"{self.folder}/{name}")
        if info.file_size > LARGEST_TEXT:
            raise ValueError(f"{name} has {info.file_size:,} bytes")
        return self.file.read(info)

    def declared(self, made: Any) -> _Class:
        """
        Raises:
            _OwnCode: of a module's class that has a ``__setstate__``.
        """
        if not isinstance(made, _Object):
            raise ValueError("it holds no module")
        if made.module not in self.classes:
            if made.module.startswith("__torch__.torch.classes"):  # of C++: no text, no module
                return _Class()
            text = self.text(f"code/{made.module.replace('.', '/')}.py").decode()
            self.classes[made.module] = {match[1]: _declared(*match.groups()) for match in _CLASS.finditer(text)}
        found = self.classes[made.module][made.name]
        if found is None:
            raise _OwnCode(f"{made.module}.{made.name}")
        return found

    def tensor(self, reference: _Reference) -> Tensor:
        """A view of its storage, as in the module that was saved."""
        storage = reference.storage
        if storage not in self.storages:
            self.storages[storage] = self._read(storage)
        view = self.storages[storage].as_strided(reference.size, reference.stride, reference.offset)
        view = torch.conj(view) if reference.conjugate else view
        return torch._neg_view(view) if reference.negative else view

    def _read(self, storage: _Storage) -> Tensor:
        """A zip has a checksum of each storage, which torch itself does not look at."""
        info = self.file.getinfo(f"{self.folder}/data/{storage.key}")
        size = storage.count * storage.dtype.itemsize
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > self.size:
            raise ValueError(f"storage {storage.key} is compressed")
        if info.file_size != size:
            raise ValueError(f"storage {storage.key} has {info.file_size:,} bytes, not {size:,}")
        if size == 0:
            return torch.empty(0, dtype=storage.dtype)
        data = bytearray(size)
        with self.file.open(info) as stream:
            stream.readinto(data)  # type: ignore[attr-defined]
        return torch.frombuffer(data, dtype=storage.dtype)
