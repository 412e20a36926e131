"""Whole models of timm and transformers, and adapters of them that PEFT made, for tests of its folders."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import peft
import timm
import torch
import transformers
from torch import Tensor, nn

from peftmark.adapting import adapt
from peftmark.methods import AdaptedModel

CLASSES = 5
LIBRARIES = ("timm", "transformers")


def whole_model(library: str) -> nn.Module:
    """A small ViT with a classifier, in evaluation mode; its biases and norms are not zeros and ones."""
    torch.manual_seed(0)
    model: nn.Module
    if library == "timm":
        sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
        model = timm.create_model("vit_tiny_patch16_224", num_classes=CLASSES, **sizes)
    else:
        sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96}
        config = transformers.ViTConfig(**sizes, image_size=32, patch_size=8, num_labels=CLASSES)
        model = transformers.ViTForImageClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def images(n: int = 4) -> Tensor:
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def logits(model: nn.Module, dtype: torch.dtype = torch.float32) -> Tensor:
    """Of a copy, in a precision."""
    with torch.no_grad():
        outputs = copy.deepcopy(model).to(dtype).eval()(images().to(dtype))
    return outputs if isinstance(outputs, Tensor) else outputs.logits


def trained(whole: nn.Module, method: str, steps: int = 2, **config: Any) -> AdaptedModel:
    """A native method's model of it after some large steps."""
    torch.manual_seed(1)
    model = adapt(whole, method, num_classes=CLASSES, **config)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images()), torch.arange(4)).backward()
        optimizer.step()
    return model.eval()


def load(whole: nn.Module, folder: Path) -> nn.Module:
    """As its user does; PEFT changes the model that it is given."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Unsupported layer type")
        return peft.PeftModel.from_pretrained(copy.deepcopy(whole), folder).eval()


def foreign(whole: nn.Module, config: peft.PeftConfig, folder: Path) -> Tensor:
    """Save an adapter that PEFT itself made, far from its start, and give the logits that it has."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Unsupported layer type")
        model: Any = peft.get_peft_model(copy.deepcopy(whole), config).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    model.save_pretrained(folder)
    return logits(model)
