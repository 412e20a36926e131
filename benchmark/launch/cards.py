"""Cards: what the board will show of methods, backbones and tasks, written beside the records."""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ...adapting import DEFAULT_TEMPLATES
from ...backbones import find_backbone
from ...methods import make_method, make_model
from ...methods.places import places_of
from ...registry import BACKBONES, METHODS, TASKS, Entry
from ...results import Card, write_card, write_manifest
from ...results.cards import Kind, card_path
from ...tasks import Objective, Split, Task, TaskData, clip_length_of_track, objective_of_track
from ..plan.costs import main_track

_ROWS, _COLUMNS, _CELL = 2, 6, 40
_WITHOUT_TEXT, _WITH_TEXT = "embedded/vit", "embedded/clip"
"""The models that show where a method sits: small, and there without a download."""

_written: set[tuple[Path, str, str]] = set()


def write_pair_cards(root: Path, method: str, backbone: str) -> None:
    """Write the cards of a method and a backbone, where this process has not yet."""
    if _first(root, "methods", method):
        write_method_card(root, method)
    if _first(root, "backbones", backbone):
        write_backbone_card(root, backbone)


def write_method_card(root: Path, method: str) -> None:
    entry = METHODS.entry(method)
    facts = {**entry.metadata, "defaults": METHODS[method].defaults(method)}
    with suppress(Exception):  # a plug-in may raise what it likes on a model that it is not for: no picture then
        facts["places"] = method_places(method)
    write_card(root, "methods", _card(method, entry, entry.family, facts))


def write_backbone_card(root: Path, backbone: str) -> None:
    found = BACKBONES.entry(backbone)
    write_card(root, "backbones", _card(backbone, found, found.family, dict(found.metadata)))


def method_places(method: str) -> dict[str, Any]:
    """Where the method's defaults put something or train, by adapting a small random ViT (or CLIP) to made-up data.

    Returns:
        The ``model``, how many ``blocks`` and ``text_blocks`` it has, and the ``parts`` (see `places_of`).
    """
    track = main_track(method)
    frames = None if clip_length_of_track(track) is None else 2
    objective = objective_of_track(track, ("cat", "dog"), DEFAULT_TEMPLATES)
    name = _WITHOUT_TEXT if objective.names is None else _WITH_TEXT
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        anatomy = find_backbone(name).build(pretrained=False)
        images = torch.randn(4, *(() if frames is None else (frames,)), *anatomy.input.shape)
        made = make_method(method)
        model = make_model(anatomy, made, objective, frames)
        made.prepare(model, [(images, objective.made_up_targets(len(images)))])
    text = model.anatomy.text
    return {
        "model": name,
        "blocks": len(model.anatomy.blocks),
        "text_blocks": len(text.blocks) if text else 0,
        "parts": places_of(model),
    }


def write_task_card(root: Path, task: Task, data: TaskData) -> None:
    """Write the card of a task, and the manifest of what was drawn for it, where this process has not yet."""
    drawn = (root, "manifests", f"{task.name}, draw {task.draw}")
    if drawn not in _written and (manifest := task.manifest()) is not None:
        write_manifest(root, manifest)
    _written.add(drawn)
    if _first(root, "tasks", task.name):
        facts, picture = task_facts(task, data), None
        if data.train.inputs.dtype == torch.uint8:  # pixels
            picture, facts["sample_labels"] = sample_picture(task.objective(data), data.train)
        write_card(root, "tasks", _card(task.name, TASKS.entry(task.name), task.group, facts), picture)


def _first(root: Path, kind: Kind, name: str) -> bool:
    key = (root, kind, name)
    seen = key in _written and card_path(root, kind, name).exists()
    _written.add(key)
    return not seen


def _card(name: str, entry: Entry[Any], family: str, facts: dict[str, Any]) -> Card:
    return Card(name=name, family=family, doc=entry.doc, origin=entry.origin, facts=facts)


def task_facts(task: Task, data: TaskData) -> dict[str, Any]:
    """Track, metric, sizes and, where that is known, what guessing would give."""
    objective = task.objective(data)
    chances = {name: objective.chance(split) for name, split in data.tests.items()}
    known = {name: chance for name, chance in chances.items() if chance is not None}
    return {
        "track": task.track,
        "metric": task.metric or objective.metric().name,
        **({"caution": task.caution} if task.caution else {}),
        **({"preprocessing": task.preprocessing} if task.preprocessing else {}),
        **({"warnings": list(data.warnings)} if data.warnings else {}),
        **objective.facts(),
        **({"chance_percent": round(task.headline(known), 2)} if len(known) == len(chances) else {}),
        "n_train": len(data.train),
        "n_validation": len(data.validation),
        "n_test": sum(len(split) for split in data.tests.values()),
        "tests": {name: len(split) for name, split in data.tests.items()},
    }


def sample_picture(objective: Objective, train: Split) -> tuple[bytes, list[str]]:
    """A PNG of training examples and their captions: two rows of six images, or clips of 12 kinds, a row each."""
    images = train.inputs
    if images.dim() == 5:
        shown = objective.one_of_each(train)[: _ROWS * _COLUMNS] or list(range(min(len(train), _ROWS * _COLUMNS)))
        rows = [_cells(images[index]) for index in shown]
    else:
        count = min(_ROWS * _COLUMNS, len(train))
        shown = torch.linspace(0, len(train) - 1, count).long().tolist()
        rows = [_cells(images[shown[start : start + _COLUMNS]]) for start in range(0, count, _COLUMNS)]
    width = max(row.shape[-1] for row in rows)
    sheet = torch.cat([F.pad(row, (0, width - row.shape[-1]), value=255) for row in rows], dim=-2)
    buffer = io.BytesIO()
    Image.fromarray(sheet.permute(1, 2, 0).numpy()).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue(), [objective.caption(train, index) for index in shown]


def _cells(images: Tensor) -> Tensor:
    """Images (N, 3, H, W) side by side, each enlarged without smoothing to about `_CELL` pixels: (3, h, N·w).

    Those with sides of twice that or more are averaged down first.
    """
    images = F.avg_pool2d(images.float(), max(images.shape[-1] // _CELL, 1)).round().to(torch.uint8)
    factor = max(round(_CELL / images.shape[-1]), 1)
    cells = images.repeat_interleave(factor, dim=-1).repeat_interleave(factor, dim=-2)
    return torch.cat(list(F.pad(cells, (0, 4, 0, 4), value=255)), dim=-1)
