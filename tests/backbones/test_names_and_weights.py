"""Backbones by name, weights from files, and one clear line for everything that can be wrong with either."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from peftmark.backbones import find_backbone, full_name
from peftmark.errors import PeftmarkError


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("vit_embedded", "embedded/vit"),
        ("clip_embedded", "embedded/clip"),
        ("embedded/vit", "embedded/vit"),
        ("vit_base_patch16_224", "timm/vit_base_patch16_224"),
        ("vit_base_patch16_224.orig_in21k", "timm/vit_base_patch16_224.orig_in21k"),
        ("timm/resnet18", "timm/resnet18"),
        ("ViT-B-16", "open_clip/ViT-B-16"),
        ("open_clip/ViT-B-16.openai", "open_clip/ViT-B-16.openai"),
    ],
)
def test_names(name: str, full: str) -> None:
    assert full_name(name) == full
    assert find_backbone(name).name == full


@pytest.mark.parametrize("name", ["embedded/vit", "embedded/clip", "timm/vit_tiny_patch16_224"])
def test_the_input_that_is_told_is_that_of_the_model(name: str) -> None:
    backbone = find_backbone(name)
    assert backbone.input_shape() == backbone.build(pretrained=False).input.shape


def test_unknown_name_suggests_near_ones() -> None:
    with pytest.raises(PeftmarkError, match="unknown backbone 'vit_base_patch16_225'"):
        find_backbone("vit_base_patch16_225")
    with pytest.raises(PeftmarkError, match="did you mean embedded/vit"):
        find_backbone("embedded/vitt")
    with pytest.raises(PeftmarkError, match=r"timm cannot make 'no_such_model'"):
        find_backbone("timm/no_such_model").build(pretrained=False)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(7)
    path = tmp_path / "model.safetensors"
    save_file(timm.create_model("test_vit", pretrained=False).state_dict(), path)
    return path


def test_local_checkpoint(checkpoint: Path) -> None:
    backbone = find_backbone(f"test_vit@{checkpoint}")
    torch.manual_seed(7)
    expected = timm.create_model("test_vit", pretrained=False).state_dict()
    state = backbone.build(pretrained=True).model.state_dict()
    assert state
    assert all(torch.equal(value, expected[name]) for name, value in state.items())
    assert backbone.weights_id(pretrained=True) == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert backbone.weights_id(pretrained=False) == "random"


def test_torch_checkpoint_with_a_state_dict_inside(tmp_path: Path) -> None:
    torch.manual_seed(7)
    state = timm.create_model("test_vit", pretrained=False).state_dict()
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "model.pth")
    model = find_backbone(f"test_vit@{tmp_path / 'model.pth'}").build(pretrained=True).model
    assert torch.equal(model.cls_token, state["cls_token"])


def test_weights_folder(checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PEFTMARK_WEIGHTS", str(tmp_path / "weights"))
    target = tmp_path / "weights" / "timm" / "test_vit.r160_in1k.safetensors"
    with pytest.raises(PeftmarkError, match="put them at " + str(target)):
        find_backbone("timm/test_vit.r160_in1k").weights_file()
    target.parent.mkdir(parents=True)
    target.write_bytes(checkpoint.read_bytes())
    assert find_backbone("timm/test_vit.r160_in1k").weights_file() == target


@pytest.mark.parametrize("name", ["timm/vit_base_patch16_224.orig_in21k", "open_clip/ViT-B-16-quickgelu.openai"])
def test_a_hub_that_cannot_be_reached_names_the_file(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PEFTMARK_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(PeftmarkError) as error:
        find_backbone(name).build(pretrained=True)
    message = str(error.value)
    assert str(tmp_path / f"{name}.safetensors") in message
    assert f"--backbone {name}@FILE" in message
    assert "\n" not in message


def test_open_clip_needs_a_tag() -> None:
    with pytest.raises(PeftmarkError, match=r"name its weights by a tag \(laion400m_e31, "):
        find_backbone("open_clip/ViT-B-16").weights_file()


def test_missing_truncated_and_foreign_files(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(PeftmarkError, match="no checkpoint file"):
        find_backbone(f"test_vit@{tmp_path / 'nothing.pth'}")
    truncated = tmp_path / "truncated.safetensors"
    truncated.write_bytes(checkpoint.read_bytes()[:5000])
    with pytest.raises(PeftmarkError, match="cannot be read as weights"):
        find_backbone(f"test_vit@{truncated}").build(pretrained=True)
    with pytest.raises(PeftmarkError, match=r"does not fit the architecture: \d+ missing \(e.g. blocks"):
        find_backbone(f"vit_tiny_patch16_224@{checkpoint}").build(pretrained=True)
    with pytest.raises(PeftmarkError, match="does not fit the architecture"):
        find_backbone(f"embedded/clip@{checkpoint}").build(pretrained=True)
    text = tmp_path / "notes.pth"
    text.write_text("not weights")
    with pytest.raises(PeftmarkError, match="cannot be read as weights"):
        find_backbone(f"test_vit@{text}").build(pretrained=True)


@pytest.mark.parametrize("state", [{1: torch.zeros(1)}, {"a": 1}, {"a": {"b": torch.zeros(1)}}, [torch.zeros(1)]])
def test_what_is_no_state_dict(tmp_path: Path, state: object) -> None:
    torch.save(state, tmp_path / "model.pth")
    with pytest.raises(PeftmarkError, match="holds no state dict"):
        find_backbone(f"test_vit@{tmp_path / 'model.pth'}").build(pretrained=True)


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"model": Evil(tmp_path / "ran")}, path)
    with pytest.raises(
        PeftmarkError, match=r"never loads \(builtins.getattr, pathlib.Path, .*: save the tensors alone"
    ):
        find_backbone(f"test_vit@{path}").build(pretrained=True)
    assert not (tmp_path / "ran").exists()


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.target,)  # type: ignore[return-value]


def test_no_network_without_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """`pretrained=False` opens no socket, for either library."""
    import socket

    def refuse(*arguments: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    find_backbone("vit_tiny_patch16_224").build(pretrained=False)
    find_backbone("open_clip/ViT-B-32").build(pretrained=False)
    find_backbone("embedded/clip").build(pretrained=False)
