"""A PEFT folder as a method: what PEFT itself saved, what is trained on, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

peft = pytest.importorskip("peft")

from folders import CLASSES, LIBRARIES, foreign, images, logits, whole_model  # noqa: E402

from peftmark.adapting import adapt  # noqa: E402
from peftmark.backbones import find_backbone  # noqa: E402
from peftmark.errors import PeftmarkError, Unsupported  # noqa: E402
from peftmark.methods import AdaptedModel, Context, make_method  # noqa: E402
from peftmark.methods import files as method_files  # noqa: E402

QKV = {"timm": ["qkv", "fc2"], "transformers": ["q_proj", "v_proj", "fc2"]}
HEAD = {"timm": ["head"], "transformers": ["classifier"]}
FC1 = {"timm": "blocks.1.mlp.fc1", "transformers": "vit.layers.1.mlp.fc1"}


def adapted(whole: nn.Module, folder: Path, classes: int = CLASSES, **config: Any) -> AdaptedModel:
    return adapt(whole, "peft_folder/mine", num_classes=classes, path=str(folder), **config)


CONFIGS: dict[str, Callable[[str], Any]] = {
    "lora by the ends of names": lambda lib: peft.LoraConfig(r=4, target_modules=QKV[lib], modules_to_save=HEAD[lib]),
    "lora by a pattern, of several ranks": lambda lib: peft.LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=r".*\.(fc1|fc2|proj|o_proj)",
        rank_pattern={FC1[lib]: 2, "fc2": 3},
        alpha_pattern={FC1[lib]: 5},
        modules_to_save=HEAD[lib],
        use_rslora=True,
    ),
    "dora": lambda lib: peft.LoraConfig(
        r=4, target_modules=QKV[lib], modules_to_save=HEAD[lib], use_dora=True, init_lora_weights="gaussian"
    ),
    "lora with biases": lambda lib: peft.LoraConfig(
        r=2, target_modules=QKV[lib], modules_to_save=HEAD[lib], bias="lora_only"
    ),
    "ia3": lambda lib: peft.IA3Config(
        target_modules=QKV[lib], feedforward_modules=r".*\.fc2", modules_to_save=HEAD[lib]
    ),
    "vera without its projections": lambda lib: peft.VeraConfig(
        r=8, target_modules=QKV[lib], modules_to_save=HEAD[lib], save_projection=False
    ),
    "ln_tuning": lambda lib: peft.LNTuningConfig(
        target_modules=["norm1"] if lib == "timm" else ["layernorm_before"], modules_to_save=HEAD[lib]
    ),
    "loha": lambda lib: peft.LoHaConfig(r=3, target_modules=QKV[lib], modules_to_save=HEAD[lib]),
    "oft": lambda lib: peft.OFTConfig(
        r=0, oft_block_size=4, target_modules=QKV[lib], modules_to_save=HEAD[lib], use_cayley_neumann=False
    ),
}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.filterwarnings("ignore:Specified to not load vera_A")
def test_what_peft_saved_is_evaluated_as_peft_evaluates_it(kind: str, library: str, tmp_path: Path) -> None:
    whole = whole_model(library)
    expected = foreign(whole, CONFIGS[kind](library), tmp_path)
    assert (expected - logits(whole)).abs().max() > 0.02
    model = adapted(whole, tmp_path)
    assert torch.equal(logits(model), expected)
    assert (model.method.head, model.method.train) == ("loaded", "nothing")
    assert [phase.epochs for phase in model.method.phases()] == [0]
    assert model.trainable_parameters(include_head=False) == 0
    state = load_file(tmp_path / "adapter_model.safetensors")
    biases = 2 * (144 + 48) if library == "timm" else 2 * 3 * 48  # the backbone's own are in no adapter's file
    own = biases if kind == "lora with biases" else 0
    assert sum(t.numel() for t in model.adapter_state_dict().values()) + own == sum(t.numel() for t in state.values())


def test_an_adapter_of_a_model_without_classifier(tmp_path: Path) -> None:
    """As of a `ViTModel`: no ``vit.`` in its names, and a classifier is trained on it."""
    whole = whole_model("transformers")
    config = peft.LoraConfig(target_modules=["q_proj", "fc1"])
    tower: Any = peft.get_peft_model(whole_model("transformers").vit, config)
    for parameter in tower.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.2)
    tower.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = tower.eval()(images()).last_hidden_state[:, 0]
        model = adapted(whole, tmp_path).eval()
        assert torch.equal(model.features(images()), expected)
    assert (model.method.head, model.method.train) == ("new", "head")


@pytest.mark.parametrize("train", ["head", "all"])
def test_what_is_trained_on(train: str, tmp_path: Path) -> None:
    whole = whole_model("timm")
    config = peft.LoraConfig(r=2, target_modules=["qkv"], modules_to_save=["head"], bias="lora_only")
    expected = foreign(whole, config, tmp_path)
    model = adapted(whole, tmp_path, train=train)
    assert torch.equal(logits(model), expected)
    assert [phase.epochs for phase in model.method.phases()] == [1]
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    model.method.loss(model, images(), torch.arange(4), Context(1, 1, ("a",) * CLASSES)).backward()
    model.optimizer_step(optimizer)
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    lora = {name for name in before if "lora_" in name}
    biases = {f"backbone.blocks.{i}.attn.qkv.bias" for i in range(2)}
    assert len(lora) == 4
    assert moved == {"head.weight", "head.bias"} | (lora | biases if train == "all" else set())
    # what was saved is whole: it brings another model of the folder to the same point
    other = adapted(whole, tmp_path, train=train)
    other.load_adapter_state_dict(model.adapter_state_dict())
    assert torch.equal(logits(other), logits(model))
    other.restart()
    if train == "head":
        assert torch.equal(logits(other), expected)


def test_a_new_classifier(tmp_path: Path) -> None:
    whole = whole_model("timm")
    foreign(whole, peft.LoraConfig(target_modules=["qkv"], modules_to_save=["head"]), tmp_path)
    with pytest.raises(
        Unsupported, match=r"bias \(5,\), weight \(5, 48\); bias \(7,\), weight \(7, 48\)\): method.head"
    ):
        adapted(whole, tmp_path, classes=7)
    model = adapted(whole, tmp_path, classes=7, head="new")
    assert (model.method.train, model.head.weight.shape) == ("head", (7, 48))
    with pytest.raises(PeftmarkError, match=r"a new classifier has to be trained: method\.train=head, or all"):
        adapted(whole, tmp_path, classes=7, head="new", train="nothing")


def test_identity_is_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = whole_model("timm")
    foreign(whole, peft.LoraConfig(target_modules=["qkv"], modules_to_save=["head"]), tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "README.md").write_text("another card")
    one, other = (make_method("peft_folder/x", {"path": str(tmp_path / name)}).config() for name in "ab")
    parts = [(tmp_path / "a" / name).read_bytes() for name in ("adapter_config.json", "adapter_model.safetensors")]
    hashes = "".join(hashlib.sha256(part).hexdigest() for part in parts)
    assert (
        one
        == other
        == {
            "adapter_sha256": hashlib.sha256(hashes.encode()).hexdigest(),
            "peft_type": "lora",
            "head": "loaded",
            "train": "nothing",
            "peft_version": peft.__version__,
        }
    )
    assert str(tmp_path) not in json.dumps(one)
    # a worker has the config, and what it was told of places
    assert make_method("peft_folder/x", one).config() == one
    told = method_files.known_files()
    monkeypatch.setattr(method_files, "_known", {})
    with pytest.raises(PeftmarkError, match=r"where its adapter lies is not known here: give --set method\.path=DIR"):
        make_method("peft_folder/x", one)
    method_files.know_files(told)
    method = make_method("peft_folder/x", one)
    with pytest.raises(PeftmarkError, match=r"was run with peft 0\.0\.1; installed is"):
        make_method("peft_folder/x", {**one, "peft_version": "0.0.1"})
    with pytest.raises(PeftmarkError, match="is another"):
        make_method("peft_folder/x", {**one, "adapter_sha256": "0" * 64, "path": str(tmp_path / "a")})
    for name in "ab":
        (tmp_path / name / "adapter_config.json").write_bytes(parts[0] + b" ")
    with pytest.raises(PeftmarkError, match="has changed since the run was planned"):
        adapt(whole, method, num_classes=CLASSES)
    assert make_method("peft_folder/x", {"path": str(tmp_path / "a")}).config() != one
    with pytest.raises(PeftmarkError, match=r"give its folder, --set method\.path=DIR"):
        make_method("peft_folder/x")
    with pytest.raises(PeftmarkError, match="has no hyper-parameter 'rank'"):
        make_method("peft_folder/x", {"path": str(tmp_path / "a"), "rank": 4})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    foreign(whole_model("timm"), peft.LoraConfig(r=4, target_modules=["qkv"], modules_to_save=["head"]), tmp_path / "f")
    return tmp_path / "f"


def changed_config(folder: Path, **fields: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def changed_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    file = folder / "adapter_model.safetensors"
    state = load_file(file)
    change(state)
    save_file(state, file)


A = "base_model.model.blocks.0.attn.qkv.lora_A.weight"

DAMAGED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no folder": (shutil.rmtree, "there is no folder"),
    "no config": (lambda f: (f / "adapter_config.json").unlink(), "is no PEFT folder: it has no adapter_config.json"),
    "no weights": (lambda f: (f / "adapter_model.safetensors").unlink(), "it has no adapter_model.safetensors"),
    "a pickle": (
        lambda f: (f / "adapter_model.safetensors").rename(f / "adapter_model.bin"),
        "holds adapter_model.bin, a pickle, which can run code and is never loaded",
    ),
    "half a config": (
        lambda f: (f / "adapter_config.json").write_text('{"peft_type": "LORA"'),
        "is no JSON that can be read",
    ),
    "a config in another encoding": (
        lambda f: (f / "adapter_config.json").write_bytes(b"\xff\xfe\x00"),
        "is no JSON that can be read",
    ),
    "a config without end": (
        lambda f: (f / "adapter_config.json").write_text("[" * 200_000),
        "is no JSON that can be read",
    ),
    "a deep config": (
        lambda f: changed_config(f, rank_pattern=json.loads('{"a":' * 100 + "1" + "}" * 100)),
        "nested more than 32 levels deep",
    ),
    "a huge config": (lambda f: changed_config(f, revision="x" * 2**20), "more than 1,048,576"),
    "a config that is a list": (lambda f: (f / "adapter_config.json").write_text("[]"), "has no peft_type"),
    "a pipe": (
        lambda f: ((f / "adapter_config.json").unlink(), os.mkfifo(f / "adapter_config.json")),
        "it has no adapter_config.json",
    ),
    "not a number": (lambda f: changed_config(f, lora_alpha=float("nan")), "NaN is no number"),
    "an unknown kind": (lambda f: changed_config(f, peft_type="<script>" * 99), "does not know"),
    "a kind for texts": (lambda f: changed_config(f, peft_type="PROMPT_TUNING"), "is not for images: prompt_tuning"),
    "half the weights": (
        lambda f: os.truncate(f / "adapter_model.safetensors", 5000),
        r"cannot be read .*: is the file whole\?",
    ),
    "weights that are text": (
        lambda f: (f / "adapter_model.safetensors").write_text("no tensors"),
        r"cannot be read .*: is the file whole\?",
    ),
    "whole numbers": (
        lambda f: changed_tensors(f, lambda s: s.update({A: s[A].int()})),
        "has values that are no finite numbers",
    ),
    "an infinity": (lambda f: changed_tensors(f, lambda s: s[A].fill_(float("inf"))), "are no finite numbers"),
    "a tensor lacks": (
        lambda f: changed_tensors(f, lambda s: s.pop(A)),
        r"lacks tensors: 1, e.g. 'base_model.model.blocks.0.attn.qkv.lora_A.default.weight'",
    ),
    "a tensor too many": (
        lambda f: changed_tensors(f, lambda s: s.update({A.replace("lora_A", "lora_C"): s[A].clone()})),
        "has tensors that belong nowhere: 1",
    ),
    "another width": (
        lambda f: changed_tensors(f, lambda s: s.update({A: torch.zeros(4, 64)})),
        r"does not fit VisionTransformer: .*size mismatch",
    ),
    "another depth": (
        lambda f: changed_tensors(f, lambda s: s.update({A.replace("blocks.0", "blocks.11"): s[A].clone()})),
        "is of another model than VisionTransformer: that has no 'blocks.11.attn.qkv.lora_A.weight'",
    ),
    "names of no PEFT": (
        lambda f: changed_tensors(f, lambda s: s.update({"<script>alert(1)</script>": s[A].clone()})),
        "that has no '<script>",
    ),
    "a backbone's parameter of another shape": (
        lambda f: changed_tensors(f, lambda s: s.update({"base_model.model.norm.weight": torch.zeros(3)})),
        r"norm.weight is \(3,\) there, \(48,\) here",
    ),
    "a change of the classifier": (
        lambda f: changed_tensors(f, lambda s: s.update({"base_model.model.head.lora_A.weight": torch.zeros(4, 48)})),
        r"the classifier in the PEFT folder f does not fit the task's .*lora_A.weight \(4, 48\)",
    ),
    "a huge rank": (lambda f: changed_config(f, r=10**9), "sets 'r' to '1000000000', more than its tensors have"),
    "a huge rank of a layer": (
        lambda f: changed_config(f, rank_pattern={"blocks.0.attn.qkv": 10**12}),
        "does not fit VisionTransformer",
    ),
    "no rank": (lambda f: changed_config(f, r=0), "should be a positive integer value but the value passed is 0"),
    "a rank that is text": (lambda f: changed_config(f, r="__import__('os').system('true')"), "which is not valid"),
    "a pattern that takes for ever": (
        lambda f: changed_config(f, alpha_pattern={"(a+)+$": 4}),
        r"alpha_pattern has '\(a\+\)\+\$': names are read, no patterns",
    ),
    "a pattern of no numbers": (lambda f: changed_config(f, rank_pattern={"fc1": "4"}), "rank_pattern is not valid"),
    "a start that changed the backbone": (
        lambda f: changed_config(f, init_lora_weights="pissa_niter_4"),
        "sets 'init_lora_weights' to 'pissa_niter_4', which has changed the weights of the model",
    ),
    "a field of a later PEFT": (
        lambda f: changed_config(f, use_tomorrow=True),
        "sets 'use_tomorrow' to 'True', which the installed PEFT does not know",
    ),
    "repeated layers": (
        lambda f: changed_config(f, layer_replication=[[0, 1], [0, 1]]),
        "sets 'layer_replication' to .* which cannot be had here",
    ),
    "a file elsewhere": (
        lambda f: changed_config(f, corda_config={"cache_file": "/etc/passwd"}),
        "sets 'corda_config' to .* which cannot be had here",
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_what_is_wrong_is_one_line(damage: str, folder: Path) -> None:
    change, message = DAMAGED[damage]
    whole = whole_model("timm")
    change(folder)
    with pytest.raises(PeftmarkError, match=message) as error:
        adapted(whole, folder)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_nothing_is_fetched_nor_matched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a config says of names, places and other models is left alone."""
    opened = []
    monkeypatch.setattr(socket.socket, "connect", lambda *arguments: opened.append(arguments))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    whole = whole_model("timm")
    expected = logits(adapted(whole, folder))
    changed_config(
        folder,
        base_model_name_or_path="https://example.org/../../etc/passwd",
        revision="main",
        auto_mapping={"base_model_class": "os.system", "parent_library": "os"},
        target_modules="(.*)*" * 20 + "x",
        exclude_modules="(a|a)*b",
        layers_to_transform=[7],
        use_tomorrow=None,
    )
    assert torch.equal(logits(adapted(whole, folder)), expected)
    assert opened == []


def test_other_backbones_are_one_line(folder: Path) -> None:
    for backbone, message in (
        ("embedded/vit", "is of another model than embedded/vit|does not fit embedded/vit"),
        ("resnet18", "is of another model than timm/resnet18: that has no 'blocks.0"),
        ("embedded/clip", "embedded/clip has layers that its library's own model has not"),
    ):
        with pytest.raises(Unsupported, match=message):
            adapt(find_backbone(backbone).build(False), "peft_folder/x", num_classes=CLASSES, path=str(folder))
