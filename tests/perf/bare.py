"""Fine-tuning a timm ViT as one writes it without peftmark: what the harness's overhead is held against."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LoRAQKV(nn.Module):
    """A frozen fused q, k, v projection, with low-rank updates of q and v (Hu et al. 2022, arXiv:2106.09685)."""

    def __init__(self, qkv: nn.Linear, rank: int = 8, alpha: float = 8.0) -> None:
        super().__init__()
        self.qkv, self.scale = qkv, alpha / rank
        width = qkv.in_features
        self.q_down, self.q_up = nn.Parameter(torch.empty(rank, width)), nn.Parameter(torch.zeros(width, rank))
        nn.init.kaiming_uniform_(self.q_down, a=math.sqrt(5))
        self.v_down, self.v_up = nn.Parameter(torch.empty(rank, width)), nn.Parameter(torch.zeros(width, rank))
        nn.init.kaiming_uniform_(self.v_down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q = q + F.linear(F.linear(x, self.q_down), self.q_up * self.scale)
        v = v + F.linear(F.linear(x, self.v_down), self.v_up * self.scale)
        return torch.cat([q, k, v], dim=-1)


def train_and_test(
    vit: nn.Module,
    method: str,
    train: tuple[Tensor, Tensor],
    splits: Mapping[str, tuple[Tensor, Tensor]],
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    warmup_epochs: float,
    seed: int,
) -> tuple[dict[str, Tensor], dict[str, float], list[float]]:
    """Fine-tune a timm model without classifier, in place.

    Args:
        method: ``full``, ``lora`` or ``linear``.
        train, splits: uint8 images (N, 3, H, W) and labels; the model is tested on `splits`, after training.

    Returns:
        Predicted labels and accuracy (percent) of each split, and the mean training loss of each epoch.
    """
    torch.manual_seed(seed)
    if method != "full":
        vit.requires_grad_(False)
    if method == "lora":
        for block in vit.blocks:
            block.attn.qkv = LoRAQKV(block.attn.qkv)
    head = nn.Linear(vit.num_features, int(train[1].max()) + 1)
    nn.init.trunc_normal_(head.weight, std=0.02, a=-0.04, b=0.04)
    nn.init.zeros_(head.bias)
    model = nn.Sequential(vit, head)
    shift, scale = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)

    def preprocess(pixels: Tensor) -> Tensor:
        pixels = F.interpolate(pixels.float() / 255, vit.patch_embed.img_size, mode="bicubic", antialias=True)
        return (pixels.clamp(0, 1) - shift) / scale

    images, labels = preprocess(train[0]), train[1]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in trained if p.dim() >= 2], "weight_decay": weight_decay},
            {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
        ],
        lr=learning_rate,
    )
    steps = math.ceil(len(labels) / batch_size)

    def rate(step: int) -> float:
        epoch = step / steps
        if epoch < warmup_epochs:
            return (epoch + 1e-3) / warmup_epochs
        return 0.5 * (1 + math.cos(math.pi * min((epoch - warmup_epochs) / (epochs - warmup_epochs), 1.0)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    order = torch.Generator().manual_seed(seed)
    losses = []
    model.train()
    for _ in range(epochs):
        total = 0.0
        for batch in torch.randperm(len(labels), generator=order).split(batch_size):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images[batch]), labels[batch])
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(batch)
        losses.append(total / len(labels))

    model.eval()
    predictions, accuracies = {}, {}
    with torch.inference_mode():
        for name, (pixels, truth) in splits.items():
            predicted = torch.cat([model(preprocess(each)).argmax(dim=-1) for each in pixels.split(256)])
            predictions[name] = predicted
            accuracies[name] = 100.0 * int((predicted == truth).sum()) / len(truth)
    return predictions, accuracies, losses
