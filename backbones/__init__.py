"""Backbones by name, and their anatomy: what of a backbone a method may touch."""

from .anatomy import Anatomy
from .backbone import RANDOM, Backbone, find_backbone, full_name
from .block_parts import Affine, Attention, Block, Branch, Mlp
from .packed_texts import PackedTexts
from .slots import Insert, WeightDelta
from .text import LogitInsert, PromptInsert, TextTower

__all__ = [
    "RANDOM",
    "Affine",
    "Anatomy",
    "Attention",
    "Backbone",
    "Block",
    "Branch",
    "Insert",
    "LogitInsert",
    "Mlp",
    "PackedTexts",
    "PromptInsert",
    "TextTower",
    "WeightDelta",
    "find_backbone",
    "full_name",
]
