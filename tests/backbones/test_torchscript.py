"""TorchScript archives: their tensors are read, nothing in them is executed."""

import pickle
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from peftmark.backbones.weights import load_state_dict
from peftmark.errors import PeftmarkError

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning"
)


class Point(NamedTuple):
    x: Tensor
    y: int


class Block(nn.Module):
    """What a module can have: parameters, buffers, tensors that are neither, other attributes, nothing."""

    nothing: Tensor | None
    table: dict[str, list[int]]
    names: list[str]
    tensors: list[Tensor]
    point: Point

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attend = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width, bias=False), nn.GELU(), nn.Linear(2 * width, width))
        self.register_buffer("running", torch.randn(3, 2).T)  # not contiguous
        self.register_buffer("steps", torch.tensor(2**40))
        self.register_buffer("passing", torch.randn(2), persistent=False)
        self.register_buffer("absent", None)
        self.register_parameter("no_bias", None)
        self.plain = torch.randn(4)
        self.nothing = None
        self.scale, self.count, self.big, self.on = 0.5, 3, 2**50, True
        self.label, self.table, self.names = "block", {"a": [1, 2], "b": []}, ["x", "yé"]
        self.tensors, self.pair, self.point = [torch.randn(2)], (1, torch.randn(3)), Point(torch.randn(1), 2)
        self.device, self.where = torch.device("cpu"), 1 + 2j

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x) * self.scale + self.running.sum() + self.steps + self.passing.sum() + self.plain.sum()
        return self.mlp(self.attend(y, y, y)[0])


class Mode(Enum):
    A = 1
    B = 2


@torch.jit.script
class Scale:
    """A class of TorchScript's that is no module: what it holds is no state."""

    def __init__(self, factor: Tensor) -> None:
        self.factor = factor

    def get(self) -> Tensor:
        return self.factor


class Odd(nn.Module):
    """Attributes of classes that are no modules, and numbers that a view turns the sign of."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.scale, self.mode = Scale(torch.ones(2)), Mode.B
        self.register_buffer("conjugate", torch.tensor([1 + 2j, 3 - 4j]).conj())
        self.register_buffer("negative", torch._neg_view(torch.tensor([1.0, 2.0])))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * self.scale.get() if self.mode == Mode.A else self.linear(x)


class Clip(nn.Module):
    """A small one, with shared modules, shared and overlapping tensors, and names that are no identifiers."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8), nn.Flatten(2))
        self.blocks = nn.ModuleList([Block(16), Block(16)])
        self.again = self.blocks[0]
        self.tables = nn.ModuleDict({"a": nn.Embedding(5, 16), "b": nn.Embedding(5, 16)})
        self.tables["b"].weight = self.tables["a"].weight
        whole = torch.arange(12.0)
        self.register_buffer("head", whole[:4])
        self.register_buffer("strided", whole[3:9:2])
        self.logit_scale = nn.Parameter(torch.tensor(2.0))
        self.frozen = nn.Parameter(torch.randn(3), requires_grad=False)
        self.empty = nn.Parameter(torch.zeros(0, 4))
        self.identity = nn.Identity()

    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        x = self.visual(images).flatten(1) * self.logit_scale + self.head.sum() + self.strided.sum()
        y = x[:, None, :16]
        for block in self.blocks:
            y = block(y)
        y = self.again(y) + self.frozen.sum() + self.empty.sum()
        return self.identity(y + self.tables["a"](tokens) + self.tables["b"](tokens))


def saved(folder: Path, module: Any) -> Path:
    file = folder / "model.pt"
    torch.jit.save(module, str(file))
    return file


def scripted() -> Any:
    return torch.jit.script(Clip())


def traced() -> Any:
    return torch.jit.trace(
        Clip().eval(), (torch.zeros(2, 3, 16, 16), torch.zeros(2, 3, dtype=torch.int64)), check_trace=False
    )


def frozen() -> Any:
    """Without attributes: its weights are constants."""
    return torch.jit.freeze(torch.jit.script(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).eval()))


def many_types() -> Any:
    module = nn.Module()
    for kind in (torch.float64, torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool):
        module.register_buffer(str(kind).partition(".")[2], torch.tensor([[1, 0], [3, 4]]).to(kind))
    module.register_buffer("complex", torch.randn(2, dtype=torch.complex64))
    return torch.jit.script(module)


@pytest.mark.parametrize(
    "made",
    [
        scripted,
        traced,
        frozen,
        many_types,
        lambda: torch.jit.script(Clip().half()),
        lambda: torch.jit.script(Clip().bfloat16()),
        lambda: torch.jit.script(nn.Linear(3, 2)),
        lambda: torch.jit.script(Odd()),
    ],
    ids=["scripted", "traced", "frozen", "types", "half", "bfloat16", "small", "odd"],
)
def test_the_state_is_what_torch_makes_of_it(tmp_path: Path, made: Callable[[], Any]) -> None:
    torch.manual_seed(0)
    file = saved(tmp_path, made())
    expected = torch.jit.load(str(file)).state_dict()
    found = load_state_dict(file)
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert (found[name].dtype, found[name].stride()) == (value.dtype, value.stride())
        assert torch.equal(found[name], value), name
        assert not found[name].requires_grad


def test_nothing_of_an_archive_is_executed(tmp_path: Path) -> None:
    """Its module's own code would write a file when it is loaded."""
    target = tmp_path / "written"

    class Evil(nn.Module):
        target: str

        def __init__(self) -> None:
            super().__init__()
            self.target = str(target)
            self.weight = nn.Parameter(torch.zeros(2))

        @torch.jit.export
        def __getstate__(self) -> tuple[str, Tensor]:
            return self.target, self.weight

        @torch.jit.export
        def __setstate__(self, state: tuple[str, Tensor]) -> None:
            self.target = state[0]
            torch.save(state[1], state[0])

        def forward(self, x: Tensor) -> Tensor:
            return x + self.weight

    for module in (Evil(), nn.Sequential(nn.Linear(2, 2), Evil())):
        file = saved(tmp_path, torch.jit.script(module))
        with pytest.raises(PeftmarkError) as error:
            load_state_dict(file)
        assert not target.exists()
        assert f"{file} holds Python objects" not in str(error.value)
        assert "builds itself by code of its own (__setstate__), which peftmark never runs: save" in str(error.value)
        assert "\n" not in str(error.value)


PICKLES = {
    "a function": b"cos\nsystem\n(Vtouch /tmp/never\ntR.",
    "a builtin": b"cbuiltins\neval\n(V1\ntR.",
    "one of torch": b"ctorch\nload\n(V/tmp/never\ntR.",
    "another of torch": b"ctorch._utils\n_rebuild_qtensor\n)R.",
    "a class that is told its code": b"c__torch__.x\nY\n(dV__class__\nV1\nsb.",
    "a function that is told its code": b"ctorch._utils\n_rebuild_tensor_v2\nN}V__defaults__\n)s\x86b.",
    "a tuple": b"(V1\nt.",
    "nothing": b".",
    "an endless one": b"(" * 1000,
    "a huge memo": b"V1\nr\xff\xff\xff\xff.",
    "a huge text": b"X\xff\xff\xff\xffx.",
}


@pytest.mark.parametrize("data", PICKLES.values(), ids=PICKLES)
def test_a_foreign_pickle_in_an_archive(tmp_path: Path, data: bytes) -> None:
    file = rewritten(saved(tmp_path, torch.jit.script(nn.Linear(3, 2))), {"data.pkl": lambda _: data})
    with pytest.raises(PeftmarkError, match=r"bad\.pt cannot be read as weights \(.+\): is the file whole\?$"):
        load_state_dict(file)
    assert not Path("/tmp/never").exists()


def rewritten(file: Path, changes: dict[str, Callable[[bytes], bytes]], compressed: bool = False) -> Path:
    """The archive with members changed; one that becomes empty is left out."""
    other = file.with_name("bad.pt")
    kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(file) as before, zipfile.ZipFile(other, "w", kind) as after:
        for name in before.namelist():
            data = before.read(name)
            for pattern, change in changes.items():
                data = change(data) if re.fullmatch(pattern, name.partition("/")[2]) else data
            if data:
                after.writestr(name, data)
    return other


@pytest.mark.parametrize(
    ("member", "change", "said"),
    [
        ("data/0", lambda data: data[:-4], r"storage 0 has 20 bytes, not 24"),
        ("data/0", lambda data: b"", r"data/0"),
        ("data.pkl", lambda data: data[:-1], r""),
        ("data.pkl", lambda data: data.replace(b"K\x03", b"K\x7f"), r"out of bounds|storage"),
        (r"code/.*\.py", lambda data: b"", r"linear.*\.py"),
        ("byteorder", lambda data: b"big", r"big"),
    ],
)
def test_an_archive_that_is_not_whole(tmp_path: Path, member: str, change: Any, said: str) -> None:
    file = rewritten(saved(tmp_path, torch.jit.script(nn.Linear(3, 2))), {member: change})
    with pytest.raises(PeftmarkError, match=rf"cannot be read as weights \(.*({said}).*\): is the file whole\?$"):
        load_state_dict(file)


def test_a_flipped_byte_is_noticed(tmp_path: Path) -> None:
    linear = nn.Linear(64, 64)
    file = saved(tmp_path, torch.jit.script(linear))
    data = bytearray(file.read_bytes())
    place = data.index(linear.weight.detach().numpy().tobytes()[:16])
    data[place + 100] ^= 1
    file.write_bytes(data)
    with pytest.raises(PeftmarkError, match=r"cannot be read as weights .*CRC"):
        load_state_dict(file)


@pytest.mark.parametrize("depth", [40, 100_000, None])
def test_modules_within_themselves(tmp_path: Path, depth: int | None) -> None:
    """Each one twice in the next, which makes 2 ** 40 names; too many to be walked through; one that holds itself."""

    def nested(data: bytes) -> bytes:
        [of_class] = re.findall(rb"c__torch__\S+\nLinear\n", data)
        one, child = b"h\x00)\x81", b"X\x01\x00\x00\x00%sh\x01s"
        made = of_class + b"q\x000" + one + b"}bq\x010"
        if depth is None:
            return made + one + b"q\x01}" + child % b"a" + b"b."
        return made + (one + b"}" + child % b"a" + child % b"b" + b"bq\x010") * depth + b"h\x01."

    file = rewritten(saved(tmp_path, torch.jit.script(nn.Linear(3, 2))), {"data.pkl": nested})
    with pytest.raises(
        PeftmarkError, match=r"cannot be read as weights \((more than 100,000 modules|maximum recursion)"
    ):
        load_state_dict(file)


PAIRS = pickle.EMPTY_TUPLE + b"".join(bytes([*pickle.BINPUT, i, *pickle.BINGET, i, *pickle.TUPLE2]) for i in range(40))
"""A pair of pairs of pairs: 2 ** 40 hashes, or names, made in C, where not even Ctrl-C ends it."""
STORAGE = b"(V1\nctorch\nFloatStorage\n%sV1\nI1\ntQ"
BOMBS = {
    "a key": (pickle.EMPTY_DICT + PAIRS + b"I1\ns.", "a key is a tuple"),
    "one of several keys": (pickle.EMPTY_DICT + b"(Va\nI1\n" + PAIRS + b"I1\nu.", "a key is a tuple"),
    "a dictionary of old": (b"(" + PAIRS + b"I1\nd.", "100"),
    "one of a set": (pickle.EMPTY_SET + b"(" + PAIRS + pickle.ADDITEMS + b".", "144"),
    "one of a frozen set": (b"(" + PAIRS + pickle.FROZENSET + b".", "145"),
    "the name of a storage": (STORAGE % PAIRS + b".", "a storage has no name, or no size"),
    "the type of a storage": (
        STORAGE % b"V0\n" + b"}Vdtype\n" + PAIRS + b"sb.",
        "it changes what it is read with",
    ),
}


@pytest.mark.parametrize(("data", "said"), BOMBS.values(), ids=BOMBS)
def test_what_takes_for_ever(tmp_path: Path, data: bytes, said: str) -> None:
    """Another process is asked: this one could not be ended."""
    file = rewritten(saved(tmp_path, torch.jit.script(nn.Linear(3, 2))), {"data.pkl": lambda _: b"\x80\x02" + data})
    code = (
        f"from pathlib import Path; from peftmark.backbones.torchscript import *; read_torchscript(Path({str(file)!r}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert said in found.stderr.splitlines()[-1]
