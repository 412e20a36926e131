"""Fixtures of all tests. Nothing heavy is imported before a test asks for it."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
for _threads in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # the test processes share two cores
    os.environ.setdefault(_threads, "1")

os.environ["PEFTMARK_CACHE"] = tempfile.mkdtemp(prefix="peftmark-tests-")  # not the user's own
atexit.register(shutil.rmtree, os.environ["PEFTMARK_CACHE"], ignore_errors=True)

TESTS = Path(__file__).parent


@dataclass(frozen=True)
class Ended:
    """What a command gave: its exit status and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    def one_line(self) -> str:
        """The only line on stderr: what a user's mistake must give."""
        [line] = self.err.splitlines()
        assert "Traceback" not in self.out
        return line


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., Ended]:
    """Run ``python -m peftmark`` in a process of its own, in an empty folder."""

    def run(*arguments: object, timeout: float = 120) -> Ended:
        done = subprocess.run(
            [sys.executable, "-m", "peftmark", *map(str, arguments)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def invoke(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, registries: None
) -> Callable[..., Ended]:
    """Run a command in this process: for commands that launch nothing (importing torch anew costs seconds)."""
    from peftmark.cli import main

    monkeypatch.chdir(tmp_path)
    # `profile` keeps what it frees, for the next step: this process would keep the gigabytes of all tests to come
    monkeypatch.setattr("peftmark.benchmark.launch.malloc._glibc", lambda: None)

    def run(*arguments: object) -> Ended:
        capfd.readouterr()
        code = 0
        try:
            main([str(argument) for argument in arguments], prog_name="peftmark")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        written = capfd.readouterr()
        return Ended(code, written.out, written.err)

    return run


@pytest.fixture
def registries() -> Iterator[None]:
    """What a test registers is forgotten after it."""
    from peftmark.benchmark.plan.suite import SUITES
    from peftmark.registry import BACKBONES, METHODS, TASKS

    catalogues = (BACKBONES, METHODS, SUITES, TASKS)
    before = [(dict(registry._all()), dict(registry._targets)) for registry in catalogues]
    yield
    for registry, (entries, targets) in zip(catalogues, before, strict=True):
        registry._entries = entries
        # what was imported meanwhile is kept: its module will not be executed again
        registry._targets = {n: t for n, t in registry._targets.items() if n in entries} | targets
    for name in [name for name in sys.modules if name.startswith("peftmark_plugin_")]:
        del sys.modules[name]
    if "peftmark.benchmark.run.run" in sys.modules:
        from peftmark.benchmark.run import run

        for cache in (run._loaded, run._data_sha256, run._pretrained):
            cache.cache_clear()


@pytest.fixture
def toys(tmp_path: Path) -> Path:
    """A user's plug-in file, outside the repository; not imported yet."""
    folder = tmp_path / "plugin"
    folder.mkdir()
    return Path(shutil.copy(TESTS / "benchmark" / "toys.py", folder / "toys.py"))


@pytest.fixture
def toy_plugin(registries: None, toys: Path) -> Path:
    """The same file, imported in this process for one test."""
    from peftmark.registry import import_file

    import_file(toys)
    return toys


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the embedded CLIP, for ``embedded/vit@FILE``: the tests do not depend on the shipped ones."""
    import torch
    from safetensors.torch import save_file

    from peftmark.backbones.embedded.clip import load_clip

    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = load_clip(pretrained=False).state_dict()
    path = tmp_path_factory.mktemp("weights") / "clip.safetensors"
    save_file({name: value.half().contiguous() for name, value in state.items()}, path)
    return path


@dataclass(frozen=True)
class Special:
    """What may lie where a file should: some hang, or never end, where they are opened and read like one.

    Attributes:
        reason: what is said of it.
    """

    make: Callable[[Path], None]
    reason: str


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    """Through a link: only root makes devices."""
    path.symlink_to("/dev/zero")


def _unix_socket(path: Path) -> None:
    place = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(f"/proc/self/fd/{place}/{path.name}")  # a socket's path must be short
    os.close(place)


def _folder(path: Path) -> None:
    path.mkdir()


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _nowhere(path: Path) -> None:
    path.symlink_to("nowhere")


def _huge(path: Path) -> None:
    """A terabyte of nothing."""
    with path.open("wb") as file:
        file.truncate(2**40)


_SPECIALS = [
    Special(_fifo, "not a regular file"),
    Special(_device, "not a regular file"),
    Special(_unix_socket, "not a regular file"),
    Special(_folder, "Is a directory"),
    Special(_loop, "Too many levels of symbolic links"),
    Special(_nowhere, "No such file or directory"),
    Special(_huge, "1,099,511,627,776 bytes, more than "),
]


@pytest.fixture(params=_SPECIALS, ids=[special.make.__name__.strip("_") for special in _SPECIALS])
def special(request: pytest.FixtureRequest) -> Special:
    """Each of them."""
    return request.param


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Without root's right to write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A folder that this process cannot write to, for the time of the test; others may not even enter pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="peftmark-read-only-"))
    folder.chmod(0o555)
    try:
        with unprivileged():
            yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module", autouse=True)
def trimmed() -> Iterator[None]:
    """What the tests of a file have freed goes back to the system: malloc would keep it, and more with every file."""
    from peftmark.benchmark.launch.malloc import return_freed_memory

    yield
    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()  # what was compiled holds on to its models
    gc.collect()
    return_freed_memory()


@pytest.fixture
def gigabytes() -> Iterator[None]:
    """What a large model takes goes back to the system, and what other tests have taken before it comes."""
    from peftmark.benchmark.launch.malloc import return_freed_memory

    gc.collect()
    return_freed_memory()
    yield
    gc.collect()
    return_freed_memory()
