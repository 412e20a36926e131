"""Small vision-language models of every library, with tokenizer files like those on a hub."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import open_clip.factory
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "x a photo of a red apple . x",
    "x a drawing of a grinning face . x",
    "a photo of a sailboat . x x X",
    "dog hammer cat X . x",
]
VIT = {"image_size": 32, "layers": 2, "width": 48, "head_width": 24, "patch_size": 8}
TEXT = {"width": 32, "heads": 4, "layers": 2}
OPEN_CLIP: dict[str, dict[str, Any]] = {
    "small-CLIP": {"embed_dim": 24, "vision_cfg": VIT, "text_cfg": {**TEXT, "context_length": 77}},
    "small-RN": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8},
        "text_cfg": {**TEXT, "context_length": 20},
    },
    "small-custom": {
        "embed_dim": 24,
        "custom_text": True,
        "vision_cfg": VIT,
        "text_cfg": {**TEXT, "context_length": 20},
    },
    "small-SigLIP": {
        "embed_dim": 32,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "image_size": 64,
            "timm_model_name": "test_vit",
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "linear",
        },
        "text_cfg": {
            **TEXT,
            "context_length": 24,
            "vocab_size": 64,
            "hf_tokenizer_name": "timm/small-SigLIP",
            "tokenizer_kwargs": {"clean": "canonicalize"},
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
        },
    },
    "small-CLIPA": {
        "embed_dim": 24,
        "vision_cfg": VIT,
        "text_cfg": {
            **TEXT,
            "context_length": 24,
            "vocab_size": 128,
            "hf_tokenizer_name": "small-bert",
            "tokenizer_kwargs": {"strip_sep_token": True},
            "pool_type": "last",
            "no_causal_mask": True,
        },
    },
}
"""Architectures, as open_clip's configuration files have them."""


def add_architectures(monkeypatch: pytest.MonkeyPatch, weights: Path) -> None:
    """Let open_clip know the small architectures, and put their tokenizers into a weights folder."""
    for name, config in OPEN_CLIP.items():
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, copy.deepcopy(config))
    monkeypatch.setenv("PEFTMARK_WEIGHTS", str(weights))
    sentence_pieces().save_pretrained(weights / "tokenizers" / "timm" / "small-SigLIP")
    word_pieces().save_pretrained(weights / "tokenizers" / "small-bert")


def sentence_pieces() -> PreTrainedTokenizerFast:
    """As SigLIP's: no start token, an end token that is the padding, too."""
    words = sorted({word for text in CORPUS for word in text.lower().split()})
    pieces = [(f"▁{word}", -3.0) for word in words] + [(letter, -8.0) for letter in "▁abcdefghijklmnopqrstuvwxyz."]
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), ("</s>", 0.0), *pieces], unk_id=0))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>", unk_token="<unk>")


def word_pieces() -> PreTrainedTokenizerFast:
    """As BERT's."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=120, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def byte_pairs() -> PreTrainedTokenizerFast:
    """As CLIP's: the end token has the highest id and is the padding, too."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=100, end_of_word_suffix="</w>", special_tokens=[])
    tokenizer.train_from_iterator([text.lower() for text in CORPUS], trainer)
    tokenizer.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    start, end = (tokenizer.token_to_id(token) for token in ("<|startoftext|>", "<|endoftext|>"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A <|endoftext|>", special_tokens=[("<|startoftext|>", start), ("<|endoftext|>", end)]
    )
    names = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


LAYERS = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
IMAGES = {**LAYERS, "image_size": 32, "patch_size": 8}


def transformers_model(family: str) -> tuple[nn.Module, PreTrainedTokenizerFast]:
    """A random model of transformers far from where its weights start, and a tokenizer for it."""
    torch.manual_seed(0)
    if family == "clip":
        tokenizer = byte_pairs()
        ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        text = {**LAYERS, **ids, "pad_token_id": 1, "vocab_size": len(tokenizer), "max_position_embeddings": 24}
        config = transformers.CLIPConfig(text_config=text, vision_config=IMAGES, projection_dim=16)
        model = transformers.CLIPModel(config)
    elif family == "siglip":
        tokenizer = sentence_pieces()
        ids = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 1}
        text = {**LAYERS, **ids, "vocab_size": len(tokenizer), "max_position_embeddings": 24, "projection_size": 32}
        model = transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=IMAGES))
    elif family == "flava":
        tokenizer = word_pieces()
        text = {**LAYERS, "vocab_size": len(tokenizer), "max_position_embeddings": 40}
        config = transformers.FlavaConfig(
            image_config=IMAGES, text_config=text, multimodal_config=LAYERS, hidden_size=32, projection_dim=16
        )
        model = transformers.FlavaForPreTraining(config, image_codebook=nn.Identity())
    else:
        tokenizer = word_pieces()
        text = {**LAYERS, "vocab_size": len(tokenizer), "max_position_embeddings": 40}
        vision = {
            "image_size": 64, "hidden_dim": 32, "width_coefficient": 1.0, "depth_coefficient": 0.2,
            "kernel_sizes": [3, 5], "in_channels": [32, 8], "out_channels": [8, 32], "depthwise_padding": [],
            "strides": [1, 2], "num_block_repeats": [1, 1], "expand_ratios": [1, 4],
        }  # fmt: skip
        config = transformers.AlignConfig(text_config=text, vision_config=vision, projection_dim=32)
        model = transformers.AlignModel(config)
    for name, parameter in model.named_parameters():
        if name.split(".")[-1] in ("logit_scale", "logit_bias", "temperature"):
            nn.init.constant_(parameter, 0.7)
            continue
        # zero biases and fresh norms would hide one that is left out
        nn.init.normal_(parameter, mean=1.0 if "orm" in name and name.endswith("weight") else 0.0, std=0.2)
    return model.eval(), tokenizer


def save_transformers(family: str, folder: Path) -> nn.Module:
    """Write the model and its tokenizer as `save_pretrained` does."""
    model, tokenizer = transformers_model(family)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model
