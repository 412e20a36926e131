"""Backbones by name, and their anatomy: what of a backbone a method may touch."""

from .anatomy.anatomy import Anatomy
from .anatomy.inputs import InputKind, Pixels
from .anatomy.packed_texts import PackedTexts
from .anatomy.parts import Affine, Attention, Block, Branch, Mlp
from .anatomy.segments import Output
from .anatomy.slots import Insert, WeightDelta
from .anatomy.text import LogitInsert, PromptInsert, TextTower
from .backbone import RANDOM, Backbone, find_backbone, full_name
from .given import anatomy_of

__all__ = [
    "RANDOM",
    "Affine",
    "Anatomy",
    "Attention",
    "Backbone",
    "Block",
    "Branch",
    "InputKind",
    "Insert",
    "LogitInsert",
    "Mlp",
    "Output",
    "PackedTexts",
    "Pixels",
    "PromptInsert",
    "TextTower",
    "WeightDelta",
    "anatomy_of",
    "find_backbone",
    "full_name",
]
