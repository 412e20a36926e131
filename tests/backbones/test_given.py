"""Models that the user built: what they are by name, with their own weights, and untouched."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
import transformers
from open_clip.tokenizer import HFTokenizer
from torch import Tensor, nn
from vision_language import add_architectures, save_transformers

from peftmark.adapting import adapt
from peftmark.backbones import Anatomy, anatomy_of, find_backbone
from peftmark.backbones.embedded.clip import load_clip, load_tokenizer
from peftmark.errors import PeftmarkError
from peftmark.methods import AdaptedModel

NAMES = ("red apple", "grinning face", "sailboat")
TIMM = (
    "test_vit",
    "test_vit4",
    "test_convnext",
    "test_efficientnet",
    "vit_tiny_patch16_224",
)


def adapted(backbone: Any, method: str = "lora", **arguments: Any) -> AdaptedModel:
    torch.manual_seed(1)
    kind = {} if "class_names" in arguments else {"num_classes": 3}
    model = adapt(backbone, method, **kind, **arguments).eval()
    for name, parameter in model.named_parameters():
        if "slots" in name:
            with torch.no_grad():
                parameter.copy_(torch.rand(parameter.shape, generator=torch.Generator().manual_seed(len(name))))
    return model


def outputs(model: AdaptedModel) -> Tensor:
    images = torch.rand(2, *model.anatomy.input.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(images)


def assert_same(given: AdaptedModel, named: AdaptedModel) -> None:
    assert torch.equal(outputs(given), outputs(named))
    assert given.trainable_parameters() == named.trainable_parameters()
    for method in ("named_parameters", "named_buffers"):
        assert [name for name, _ in getattr(given, method)()] == [name for name, _ in getattr(named, method)()]
    one, other = given.anatomy, named.anatomy
    for fact in ("input", "feature_dim", "grid", "prefix_tokens", "class_token", "norm_after_pooling"):
        assert getattr(one, fact) == getattr(other, fact), fact
    assert [type(block.module) for block in one.token_blocks] == [type(block.module) for block in other.token_blocks]


class Watched:
    """That a model is afterwards what it was: weights, classes, flags, mode."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.before = self.facts()

    def facts(self) -> Any:
        tensors = {name: (id(value), value._version) for name, value in self.model.state_dict(keep_vars=True).items()}
        return (
            {name: (id(module), type(module), module.training) for name, module in self.model.named_modules()},
            {name: parameter.requires_grad for name, parameter in self.model.named_parameters()},
            tensors,
        )

    def assert_untouched(self) -> None:
        assert self.facts() == self.before


@pytest.mark.parametrize("name", TIMM)
def test_a_timm_model(name: str) -> None:
    """With a classifier of its own, which goes."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=7).train()
    watched = Watched(model)
    named = find_backbone(name).build(pretrained=False)
    own = {key: value for key, value in model.state_dict().items() if key in named.model.state_dict()}
    named.model.load_state_dict(own)
    method = "lora" if "vit" in name or "convnext" in name else "full"
    assert_same(adapted(model, method), adapted(named, method))
    watched.assert_untouched()


def test_a_timm_model_of_a_user_s_own_class_and_settings() -> None:
    class Mine(timm.models.VisionTransformer):
        pass

    model = Mine(img_size=24, patch_size=8, embed_dim=24, depth=2, num_heads=2, global_pool="avg", num_classes=4)
    anatomy = anatomy_of(model.half())
    assert (anatomy.name, anatomy.grid, anatomy.feature_dim, len(anatomy.blocks)) == ("Mine", (3, 3), 24, 2)
    assert anatomy.input.shape == (3, 24, 24)
    assert {parameter.dtype for parameter in anatomy.model.parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float16}
    images = torch.rand(2, 3, 24, 24)
    expected = copy.deepcopy(model).float().eval()
    with torch.no_grad():
        pooled = expected.forward_head(expected.forward_features(images), pre_logits=True)
        anatomy.model.eval()
        torch.testing.assert_close(anatomy.pooled(images), pooled)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    add_architectures(monkeypatch, tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["small-CLIP", "small-RN", "small-custom"])
@pytest.mark.parametrize(("method", "config"), [("coop", {"n_ctx": 4}), ("bitfit", {})])
@pytest.mark.usefixtures("weights")
def test_an_open_clip_model(name: str, method: str, config: dict[str, int]) -> None:
    """With OpenAI's vocabulary, so that its tokenizer is known."""
    torch.manual_seed(0)
    model = open_clip.create_model(name).eval()
    watched = Watched(model)
    named = find_backbone(f"open_clip/{name}").build(pretrained=False)
    explicit = anatomy_of(model).root.state_dict()  # its attention is split as by name
    named.root.load_state_dict(explicit)
    arguments = {"class_names": NAMES, **config}
    assert_same(adapted(model, method, **arguments), adapted(named, method, **arguments))
    watched.assert_untouched()


def test_an_open_clip_model_gives_its_own_logits() -> None:
    clip, tokenizer = load_clip().eval(), load_tokenizer()
    model = adapted(clip, "zero_shot", class_names=NAMES, tokenizer=tokenizer)
    images = torch.rand(2, 3, 40, 40)
    with torch.no_grad():
        image, text, scale = clip(images, tokenizer([f"a photo of a {name}." for name in NAMES]))
        torch.testing.assert_close(model(images), scale * image @ text.T, rtol=1e-4, atol=1e-4)
    assert_same(model, adapted("embedded/clip", "zero_shot", class_names=NAMES))


def test_an_open_clip_model_with_another_vocabulary(weights: Path) -> None:
    torch.manual_seed(0)
    model = open_clip.create_model("small-SigLIP").eval()
    named = find_backbone("open_clip/small-SigLIP").build(pretrained=False)
    named.root.load_state_dict(anatomy_of(model).root.state_dict())
    tokenizer = HFTokenizer(str(weights / "tokenizers" / "timm" / "small-SigLIP"), clean="canonicalize")
    given = adapted(model, "bitfit", class_names=NAMES, tokenizer=tokenizer)
    assert_same(given, adapted(named, "bitfit", class_names=NAMES))
    line = r"the tokenizer of this CustomTextCLIP is not known: give tokenizer=, e.g. open_clip.get_tokenizer\(NAME\)"
    with pytest.raises(PeftmarkError, match=line):
        outputs(adapted(model, "zero_shot", class_names=NAMES))
    assert outputs(adapted(model, "linear")).shape == (2, 3)  # nothing is to be read there


@pytest.mark.parametrize("family", ["clip", "siglip", "flava", "align"])
def test_a_model_of_transformers(family: str, tmp_path: Path) -> None:
    """From a folder, whose tokenizer is taken."""
    save_transformers(family, tmp_path / family)
    model = transformers.AutoModel.from_pretrained(tmp_path / family)
    watched = Watched(model)
    named = f"hf/{tmp_path / family}"
    for method in ("zero_shot", "bitfit"):
        assert_same(adapted(model, method, class_names=NAMES), adapted(named, method, class_names=NAMES))
    watched.assert_untouched()


def test_a_model_of_transformers_from_a_configuration(tmp_path: Path) -> None:
    """Its tokenizer is given."""
    save_transformers("clip", tmp_path)
    loaded = transformers.AutoModel.from_pretrained(tmp_path)
    model = transformers.CLIPModel(copy.deepcopy(loaded.config))
    model.config.name_or_path = ""
    model.load_state_dict(loaded.state_dict())
    with pytest.raises(PeftmarkError, match="the tokenizer of this CLIPModel is not known: give tokenizer="):
        outputs(adapted(model, "zero_shot", class_names=NAMES))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    named = adapted(f"hf/{tmp_path}", "zero_shot", class_names=NAMES)
    assert_same(adapted(model, "zero_shot", class_names=NAMES, tokenizer=tokenizer), named)
    ids = named.text.tokenize

    def mine(texts: list[str], length: int) -> Tensor:
        assert length == 24
        return ids(texts)

    assert_same(adapted(model, "zero_shot", class_names=NAMES, tokenizer=mine), named)


def test_mistakes() -> None:
    vit, clip = timm.create_model("test_vit"), load_clip()
    vision = transformers.CLIPVisionModel(
        transformers.CLIPVisionConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    )

    def refuse(message: str, act: Callable[[], object]) -> None:
        with pytest.raises(PeftmarkError, match=message) as error:
            act()
        assert "\n" not in str(error.value)

    none = "is no model of timm, open_clip or transformers: give one of these, a backbone's name, or an Anatomy of it"
    refuse(f"a Linear {none}", lambda: anatomy_of(nn.Linear(2, 2)))
    refuse(f"a Sequential {none}", lambda: adapt(nn.Sequential(vit), "lora", num_classes=2))
    refuse("a Block is a part of a timm model", lambda: anatomy_of(vit.blocks[0]))
    refuse("a VisionTransformer is a part of an open_clip model", lambda: anatomy_of(clip.visual))
    refuse(
        "a CLIPVisionModel of transformers is not known here: give a CLIPModel, SiglipModel", lambda: anatomy_of(vision)
    )
    refuse("a VisionTransformer of timm has none", lambda: anatomy_of(vit, tokenizer=load_tokenizer()))
    refuse("Scratch draws its weights: give a backbone's name", lambda: adapt(vit, "scratch", num_classes=2))
    refuse("a dict is no backbone: give a name, a model or an Anatomy", lambda: adapt({}, "lora", num_classes=2))
    by_name = {"num_classes": 2, "tokenizer": load_tokenizer()}
    refuse("a backbone by name has its own", lambda: adapt("embedded/vit", "lora", **by_name))


def test_the_device_is_the_model_s() -> None:
    model = timm.create_model("test_vit").to("meta")
    assert {parameter.device.type for parameter in adapt(model, "linear", num_classes=2).parameters()} == {"meta"}
    assert isinstance(anatomy_of(model), Anatomy)
