"""Weights for timm models: the forms in which checkpoints lie about, each brought to timm's names."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, cast

import timm
import torch
from timm.layers import QuickGELU
from torch import Tensor, nn

from ...errors import PeftmarkError
from ..weights import Checkpoint, load_exactly, load_state_dict

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and std of the images of MAE and MoCo-v3."""
MOCO_HEADS = {384: 12, 768: 12, 1024: 16, 1280: 16}
"""Attention heads of MoCo-v3's models by their width (vits.py); timm's ViT-S has 6, and no tensor's shape tells."""
OF_A_BLOCK = {
    "LayerNorm_0": "norm1",
    "LayerNorm_2": "norm2",
    "MultiHeadDotProductAttention_1/qkv": "attn.qkv",
    "MultiHeadDotProductAttention_1/out": "attn.proj",
    "MlpBlock_3/Dense_0": "mlp.fc1",
    "MlpBlock_3/Dense_1": "mlp.fc2",
}
OF_A_MODEL = {
    "cls": "cls_token",
    "Transformer/posembed_input/pos_embedding": "pos_embed",
    "Transformer/encoder_norm": "norm",
    "embedding": "patch_embed.proj",
}
"""What Google's JAX files call the parts of a Vision Transformer; theirs are queries, keys and values apart."""


class Weights(Checkpoint):
    """A checkpoint as read, without what has no share in the features; names that timm itself converts stay."""

    def load_into(self, model: nn.Module, published: bool = False) -> None:
        """Copy every parameter of a model without classifier.

        Position embeddings of another grid are resampled, by timm's own conversion of checkpoints.

        Args:
            published: timm's own file for the model. What it holds besides the model, timm knows of.

        Raises:
            PeftmarkError: where names, shapes, the patches' size or the activation do not fit.
        """
        config = cast(dict[str, Any], model.pretrained_cfg)
        self._check(model, config["architecture"])
        # by convention the function of a model's file that knows the names and shapes of its original checkpoints
        convert = getattr(
            sys.modules[timm.model_entrypoint(config["architecture"]).__module__], "checkpoint_filter_fn", None
        )
        try:
            state = convert(dict(self.state), model) if convert else self.state
        except (RuntimeError, KeyError, ValueError, IndexError) as error:
            reason = str(error).strip().split("\n")[0][:160]
            raise PeftmarkError(f"{self.file} does not fit the architecture: {reason}") from error
        classifiers = config.get("classifier") or ()
        heads = tuple(f"{name}." for name in ([classifiers] if isinstance(classifiers, str) else classifiers))
        if getattr(model, "attn_pool", False) is None:
            heads += ("attn_pool.",)  # SigLIP's, of which timm's models with average pooling have none
        load_exactly(
            self.file,
            model,
            state,
            beside=("",) if published else heads,
            # FCMAE pretrains no last norm; timm keeps it as it is drawn, the identity
            drawn=("head.norm.",) if config.get("tag") == "fcmae" else (),
        )

    def _check(self, model: nn.Module, architecture: str) -> None:
        """What timm would adapt, or cannot see, but what gives another function than the one that was trained."""
        kernels = [self.state.get(name) for name in ("patch_embed.proj.weight", "visual.conv1.weight")]
        own = getattr(getattr(getattr(model, "patch_embed", None), "proj", None), "weight", None)
        for kernel in kernels:
            if kernel is not None and own is not None and kernel.ndim == 4 and kernel.shape[-2:] != own.shape[-2:]:
                raise PeftmarkError(
                    f"{self.file} does not fit the architecture: its patches have {kernel.shape[-1]} pixels a side, "
                    f"those of {architecture} {own.shape[-1]}"
                )
        if self.quick_gelu and not any(isinstance(module, QuickGELU) for module in model.modules()):
            other = architecture.replace("_clip_", "_clip_quickgelu_")
            raise PeftmarkError(
                f"{self.file} was trained with QuickGELU, which {architecture} does not compute"
                + (f": use timm/{other}@{self.file}" if timm.is_model(other) and other != architecture else "")
            )


def read_weights(file: Path) -> Weights:
    """A checkpoint for a timm model: timm's own, or one of those below, told by its names.

    DINO, DINOv2 and OpenAI's CLIP (its image tower) have names that timm's own conversion knows.

    Raises:
        PeftmarkError: where the file is damaged or holds something else.
    """
    state = {
        name.removeprefix("_orig_mod.").removeprefix("module."): value for name, value in load_state_dict(file).items()
    }
    if file.suffix == ".npz":
        return _jax(file, state)
    if any(name.startswith("base_encoder.") for name in state):
        return _moco_v3(file, state)
    if "decoder_embed.weight" in state:
        return _mae(file, state)
    if "visual.class_embedding" in state:
        # the text tower's parts and the projection to it have no share in the features
        tower = {name: value for name, value in state.items() if name.startswith("visual.") and name != "visual.proj"}
        return Weights(file, tower, quick_gelu="input_resolution" in state)
    return Weights(file, state)


def _moco_v3(file: Path, state: dict[str, Tensor]) -> Weights:
    """MoCo-v3's pretraining checkpoint (Chen et al. 2021, arXiv:2104.02057; moco/builder.py, convert_to_deit.py).

    The base encoder without its projector, as the authors' own conversion takes it. Left out: the momentum encoder
    and the predictor.
    """
    heads = ("base_encoder.head.", "base_encoder.fc.")
    encoder = {
        name.removeprefix("base_encoder."): value
        for name, value in state.items()
        if name.startswith("base_encoder.") and not name.startswith(heads)
    }
    positions = encoder.get("pos_embed")
    width = None if positions is None else positions.shape[-1]
    settings = {"num_heads": MOCO_HEADS[width]} if width in MOCO_HEADS else {}
    return Weights(file, encoder, settings, *IMAGENET)


def _mae(file: Path, state: dict[str, Tensor]) -> Weights:
    """MAE's pretraining checkpoint with its decoder (He et al. 2022, arXiv:2111.06377; models_mae.py).

    The file of the encoder alone (mae_pretrain_vit_base.pth) has timm's names and nothing that tells what it is.
    """
    decoder = ("decoder_", "mask_token")
    encoder = {name: value for name, value in state.items() if not name.startswith(decoder)}
    return Weights(file, encoder, {}, *IMAGENET)


def _jax(file: Path, arrays: dict[str, Tensor]) -> Weights:
    """A Vision Transformer as Google published it (Dosovitskiy et al. 2021, arXiv:2010.11929; ``ViT-B_16.npz``).

    Also the "augreg" files (Steiner et al. 2022, arXiv:2106.10270) and training checkpoints (``opt/target/``). Names
    that are not known are kept, so that they are refused: timm's own loader reads what it needs and no more, a deeper
    model's first blocks, too. Linear maps are (in, out), convolutions (rows, columns, in, out), attention's are split
    by heads: (D, heads, d) in, (heads, d, D) out. The heads' number is in the file; the shapes in timm do not tell.
    """
    arrays = {name.removeprefix("opt/target/"): value for name, value in arrays.items()}
    if "embedding/kernel" not in arrays:
        raise PeftmarkError(f"{file} is no Vision Transformer as Google published it: it has no embedding/kernel")
    arrays = {name: value for name, value in arrays.items() if not name.startswith(("head/", "pre_logits/"))}
    settings: dict[str, Any] = {}
    for name in [name for name in arrays if name.endswith(("/query/kernel", "/query/bias"))]:
        parts = [name.replace("/query/", f"/{part}/") for part in ("query", "key", "value")]
        if len({arrays[part].shape if part in arrays else None for part in parts}) > 1:
            continue  # refused by its names
        if arrays[name].ndim == 3:
            settings["num_heads"] = arrays[name].shape[1]
        joined = torch.cat([arrays.pop(part).flatten(-2) for part in parts], dim=-1)
        arrays[name.replace("/query/", "/qkv/")] = joined
    return Weights(file, dict(_from_jax(name, value) for name, value in arrays.items()), settings)


def _from_jax(name: str, value: Tensor) -> tuple[str, Tensor]:
    """An array's name and layout in timm; of a name that is not known, as it is."""
    if name in OF_A_MODEL:
        return OF_A_MODEL[name], value
    part, _, kind = name.rpartition("/")
    block = re.fullmatch(r"Transformer/encoderblock_(\d+)/(.+)", part)
    ours = OF_A_BLOCK.get(block[2]) if block else OF_A_MODEL.get(part)
    if ours is None:
        return name, value
    ours = f"blocks.{block[1]}.{ours}" if block else ours
    if kind == "kernel" and value.ndim == 4:
        return f"{ours}.weight", value.permute(3, 2, 0, 1)
    if kind == "kernel":
        return f"{ours}.weight", (value.flatten(0, 1) if value.ndim == 3 else value).mT
    return f"{ours}.{'weight' if kind == 'scale' else kind}", value
