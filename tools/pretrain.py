"""Pretrain the embedded CLIP from scratch: ``python -m tools.pretrain --out DIR``.

A batch holds one image and one caption of each of several hundred different emoji, so that no pair is a false negative;
the loss is CLIP's. Neither the held-out style nor a held-out emoji ever enters a batch, a background or the merge list.
An interrupted run goes on from DIR's checkpoint. At its end the run measures the shipped (fp16) weights and leaves
``clip.safetensors``, ``merges.txt.gz`` and ``recipe.json`` in DIR; ``--install`` copies them to backbones/embedded, and
``--evaluate`` measures installed weights again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import math
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import PatchDropout
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from peftmark.backbones.embedded.atlas import FOLDER, HELD_OUT_STYLE, Atlas, load_atlas
from peftmark.backbones.embedded.clip import (
    CONFIG,
    IMAGE_MEAN,
    IMAGE_STD,
    MERGES,
    TEMPLATES,
    WEIGHTS,
    load_clip,
    load_tokenizer,
    train_merges,
)

from .captioned_scenes import (
    CAPTIONS_PER_EMOJI,
    Sampler,
    caption_pool,
    caption_tokens,
    evaluation_images,
    normalise,
    training_images,
)

log = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 180
LOG_EVERY = 25


@dataclass(frozen=True)
class Recipe:
    """Every choice that decides the weights."""

    seed: int = 0
    steps: int = 3650
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    warmup_steps: int = 300
    decay_fraction: float = 0.3  # of the steps, at the end; images are whole in this phase's second half
    betas: tuple[float, float] = (0.9, 0.98)
    gradient_clip: float = 1.0
    ema_decay: float = 0.998
    patch_dropout: float = 0.2
    precision: str = "bf16"


# --- training ---------------------------------------------------------------------------------------------------------


def encode_short_text(model: open_clip.CLIP, tokens: Tensor) -> Tensor:
    """``model.encode_text`` without the columns that only hold padding (the mask is causal: the result is the same)."""
    tokens = tokens[:, : int((tokens != 0).sum(1).max())]
    length = tokens.shape[1]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    return x[torch.arange(len(x)), tokens.argmax(-1)] @ model.text_projection


def contrastive_loss(images: Tensor, texts: Tensor, logit_scale: Tensor) -> Tensor:
    """CLIP's loss of features (B, D), pair by pair."""
    logits = logit_scale.exp() * F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


class Batches:
    """The batch of any step, from the seed and the step alone, so that a resumed run sees the same ones."""

    def __init__(self, atlas: Atlas, tokens: Tensor, recipe: Recipe) -> None:
        self.sampler, self.tokens, self.recipe = Sampler(atlas), tokens, recipe

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Images (B, 3, 40, 40), normalised, and their captions' tokens (B, 32)."""
        generator = torch.Generator().manual_seed(self.recipe.seed * 10_000_019 + step)
        rows, styles = self.sampler.rows(self.recipe.batch_size, generator)
        images = training_images(self.sampler.sprites[styles, self.sampler.emoji[rows]], self.sampler, generator)
        # Captions of similar length share a batch: a batch is as slow as its longest caption.
        column = torch.randint(CAPTIONS_PER_EMOJI, (), generator=generator)
        column = column + torch.randint(-4, 5, (len(rows),), generator=generator)
        return normalise(images), self.tokens[rows, column.clamp(0, CAPTIONS_PER_EMOJI - 1)]


def learning_rate(step: int, recipe: Recipe) -> float:
    """Linear warm-up, a constant, a half cosine down to zero.

    Before the decay nothing depends on ``steps``, so a run can be resumed with more or fewer of them and is still what
    an uninterrupted run of that length would have been.
    """
    warm = min(1.0, (step + 1) / recipe.warmup_steps)
    progress = (step - decay_start(recipe)) / (recipe.steps - decay_start(recipe))
    return recipe.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, progress))))


def decay_start(recipe: Recipe) -> int:
    return round(recipe.steps * (1 - recipe.decay_fraction))


def sees_whole_images(step: int, recipe: Recipe) -> bool:
    """Patches are dropped for speed, except in the second half of the decay."""
    return step >= (decay_start(recipe) + recipe.steps) // 2


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices only, not for biases, norms, embeddings of position and the temperature."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (free if parameter.ndim < 2 or "positional_embedding" in name else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write to a neighbour, then rename: a reader or a crash never meets half a file."""
    partial = path.with_name(path.name + ".partial")
    write(partial)
    os.replace(partial, path)


def half(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().half().contiguous() for name, value in state.items()}


def train(recipe: Recipe, out: Path) -> float:
    """Run (or resume) the recipe; leaves ``clip.safetensors`` in ``out`` and returns the seconds spent training."""
    # One thread a tower, not two threads an operation: it is as fast alone and far faster on a machine that is shared.
    torch.set_num_threads(1)
    # For 26 tokens plain attention trains twice as fast as the fused CPU kernel, whose backward pass is slow.
    torch.backends.cuda.enable_flash_sdp(False)
    helper = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))
    atlas = load_atlas()
    pool = caption_pool(atlas, recipe.seed)
    merges = out / MERGES.name
    if not merges.exists():
        train_merges((text for texts in pool for text in texts), merges)
    batches = Batches(atlas, caption_tokens(pool, load_tokenizer(merges)), recipe)

    torch.manual_seed(recipe.seed)
    model = load_clip(pretrained=False).train()
    whole = nn.Identity()
    dropped = PatchDropout(recipe.patch_dropout)
    optimizer = torch.optim.AdamW(parameter_groups(model, recipe.weight_decay), betas=recipe.betas, fused=True)
    average = {name: value.clone() for name, value in model.state_dict().items()}
    first, spent = 0, 0.0
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        trained = Recipe(**json.loads(saved["recipe"]))
        unlike = asdict(replace(trained, steps=recipe.steps)) != json.loads(json.dumps(asdict(recipe)))
        if unlike or (trained.steps != recipe.steps and saved["step"] > min(map(decay_start, (trained, recipe)))):
            raise SystemExit(f"{checkpoint} is of another recipe; remove it or choose another --out")
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        average, first, spent = saved["average"], saved["step"], saved["seconds"]

    def encode(tower: Callable[..., Tensor], *inputs: Any) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16"):
            return tower(*inputs).float()

    def save(step: int, seconds: float) -> None:
        state = {
            "recipe": json.dumps(asdict(recipe)),
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "average": average,
            "step": step,
            "seconds": seconds,
        }
        write_atomically(checkpoint, lambda path: torch.save(state, path))
        write_atomically(out / WEIGHTS.name, lambda path: save_file(half(average), path))

    began = saved_at = logged_at = time.monotonic()
    losses: list[float] = []
    upcoming = helper.submit(batches, first)
    for step in range(first, recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe)
        model.visual.patch_dropout = whole if sees_whole_images(step, recipe) else dropped
        images, tokens = upcoming.result()
        torch.manual_seed(recipe.seed + step)  # patch dropout draws from the global generator
        optimizer.zero_grad(set_to_none=True)
        text = helper.submit(encode, encode_short_text, model, tokens)
        upcoming = helper.submit(batches, step + 1)
        towers = [encode(model.visual, images), text.result()]
        leaves = [features.detach().requires_grad_() for features in towers]
        loss = contrastive_loss(leaves[0], leaves[1], model.logit_scale)
        loss.backward()
        text = helper.submit(towers[1].backward, leaves[1].grad)
        towers[0].backward(leaves[0].grad)
        text.result()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_clip)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
            state = model.state_dict()
            decay = min(recipe.ema_decay, (step + 1) / (step + 10))
            torch._foreach_lerp_(list(average.values()), [state[name] for name in average], 1 - decay)
        losses.append(loss.item())
        now = time.monotonic()
        if (step + 1) % LOG_EVERY == 0:
            rate = LOG_EVERY * recipe.batch_size / (now - logged_at)
            log.info(
                "step %d/%d  loss %.3f  %.0f images/s  scale %.1f  %.1f min",
                step + 1,
                recipe.steps,
                np.mean(losses[-LOG_EVERY:]),
                rate,
                model.logit_scale.exp().item(),
                (spent + now - began) / 60,
            )
            logged_at = now
        if now - saved_at > CHECKPOINT_SECONDS or step + 1 == recipe.steps:
            save(step + 1, spent + now - began)
            saved_at = now
    helper.shutdown(cancel_futures=True)
    return spent + time.monotonic() - began


# --- evaluation -------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def class_embeddings(model: open_clip.CLIP, tokenizer: SimpleTokenizer, names: list[str]) -> Tensor:
    """Unit vectors (C, 128), the mean over ``TEMPLATES``."""
    total = torch.zeros(len(names), model.text_projection.shape[1])
    for template in TEMPLATES:
        tokens = tokenizer([template.format(name) for name in names])
        # Names of similar length go together, so that few are padded.
        for rows in (tokens != 0).sum(1).argsort(stable=True).split(128):
            total[rows] += F.normalize(encode_short_text(model, tokens[rows]), dim=-1)
    return F.normalize(total, dim=-1)


def evaluation_batches(
    atlas: Atlas, styles: list[int], emoji: np.ndarray, seed: int, limit: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Normalised images and their emoji's indices: each drawing once, in an order fixed by the seed."""
    pairs = np.array([(style, e) for style in styles for e in emoji if atlas.present[style, e]])
    pairs = np.random.default_rng(seed).permutation(pairs)[:limit]
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, len(pairs), 250):
        style, index = pairs[start : start + 250].T
        sprites = torch.from_numpy(np.ascontiguousarray(atlas.sprites[style, index].transpose(0, 3, 1, 2)))
        yield normalise(evaluation_images(sprites, generator)), torch.from_numpy(index.copy())


@torch.inference_mode()
def zero_shot(
    model: open_clip.CLIP, names: Tensor, candidates: np.ndarray, batches: Iterator[tuple[Tensor, Tensor]]
) -> dict[str, float]:
    """Top-1 and top-5 in percent over the candidate emoji (``names``: (E, 128) of all of them)."""
    position = torch.full((len(names),), -1)
    position[torch.from_numpy(candidates)] = torch.arange(len(candidates))
    top1 = top5 = n = 0
    for images, index in batches:
        logits = model.encode_image(images, normalize=True) @ names[torch.from_numpy(candidates)].T
        hits = logits.topk(5).indices == position[index][:, None]
        top1, top5, n = top1 + int(hits[:, 0].sum()), top5 + int(hits.any(1).sum()), n + len(index)
    return {"top1": round(100 * top1 / n, 2), "top5": round(100 * top5 / n, 2), "classes": len(candidates), "n": n}


def evaluate(weights: Path, merges: Path, seed: int = 1) -> dict[str, dict[str, float]]:
    """Zero-shot figures of the weights on disk, by what pretraining had seen."""
    atlas, model = load_atlas(), load_clip(weights=weights)
    names = class_embeddings(model, load_tokenizer(merges), list(atlas.names))
    everything = np.arange(len(atlas))
    seen, held_out = np.flatnonzero(~atlas.held_out), np.flatnonzero(atlas.held_out)
    seen_styles, new_style = atlas.seen_styles.tolist(), [atlas.style(HELD_OUT_STYLE)]
    settings = {
        "seen_styles_seen_emoji": (seen_styles, seen, everything),
        "held_out_style_seen_emoji": (new_style, seen, everything),
        "seen_styles_held_out_emoji": (seen_styles, held_out, everything),
        "seen_styles_held_out_emoji_held_out_names": (seen_styles, held_out, held_out),
        "held_out_style_held_out_emoji": (new_style, held_out, everything),
        "held_out_style_held_out_emoji_held_out_names": (new_style, held_out, held_out),
    }
    return {
        name: zero_shot(model, names, candidates, evaluation_batches(atlas, styles, emoji, seed))
        for name, (styles, emoji, candidates) in settings.items()
    }


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def processor() -> str:
    """The CPU's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def recipe_table(recipe: Recipe, seconds: float, out: Path) -> dict[str, Any]:
    """What ``recipe.json`` says."""
    model = load_clip(pretrained=False)
    table = json.loads((FOLDER / "atlas.json").read_text(encoding="utf-8"))
    return {
        "command": "python -m tools.pretrain --out DIR --install",
        "recipe": asdict(recipe),
        "model": CONFIG,
        "image_mean": IMAGE_MEAN,
        "image_std": IMAGE_STD,
        "parameters": {
            "total": sum(p.numel() for p in model.parameters()),
            "vision": sum(p.numel() for p in model.visual.parameters()),
        },
        "captions_per_emoji": CAPTIONS_PER_EMOJI,
        "held_out_style": HELD_OUT_STYLE,
        "images": recipe.steps * recipe.batch_size,
        "duration_s": round(seconds, 1),
        "hardware": {"cpu": processor(), "cores": os.cpu_count()},
        "torch": torch.__version__,
        "open_clip": open_clip.__version__,
        "drawings": table["packages"],
        "sha256": {name: sha256(out / name) for name in (WEIGHTS.name, MERGES.name)},
        "zero_shot": evaluate(out / WEIGHTS.name, out / MERGES.name),
    }


def install(out: Path) -> None:
    """Copy what ships from ``out`` to this folder."""
    for name in (WEIGHTS.name, MERGES.name, "recipe.json"):
        shutil.copyfile(out / name, FOLDER / name)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where checkpoints and results go")
    parser.add_argument("--install", action="store_true", help="ship the result: copy it to backbones/embedded")
    parser.add_argument("--evaluate", action="store_true", help="only measure weights (--out's, or the installed ones)")
    defaults = asdict(Recipe())
    for name in ("seed", "steps", "batch_size", "learning_rate", "patch_dropout"):
        value = defaults[name]
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default=defaults["precision"])
    arguments = parser.parse_args()

    if arguments.evaluate:
        folder = arguments.out or FOLDER
        log.info(json.dumps(evaluate(folder / WEIGHTS.name, folder / MERGES.name), indent=1))
        return
    if arguments.out is None:
        parser.error("--out DIR is needed")
    arguments.out.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(**{name: getattr(arguments, name) for name in defaults if hasattr(arguments, name)})
    seconds = train(recipe, arguments.out)
    result = recipe_table(recipe, seconds, arguments.out)
    write_atomically(arguments.out / "recipe.json", lambda path: path.write_text(json.dumps(result, indent=1) + "\n"))
    log.info(json.dumps(result["zero_shot"], indent=1))
    if arguments.install:
        install(arguments.out)


if __name__ == "__main__":
    main()
