"""A classifier of small photographs that sees pixels alone: the judge of what a model has drawn. Trained for this, by

    python -m llada_uni.photos.judge ../shared/data/cifar10 runs/photos/judge

It shares nothing with the model that it judges. A small convolutional network learns the class folders with a whitening first
layer, mirroring and shifts, its filters moved by orthogonal steps. The result is OUT/judge.safetensors, and OUT/judge.json with
its accuracy on the images held back for settings and, once at the end, on the test images. The same command goes on after the
last finished epoch.
Source: K. Jordan, 94% on CIFAR-10 in 3.29 seconds (arXiv:2404.00498), for the network; Muon (2024) for the filters' steps.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llada_uni.errors import UserError
from llada_uni.files.weights import WeightFiles, atomic_file, read_json, write_json, write_weights
from llada_uni.photos.images import SIDE, Photos, kept_photos, to_pixels
from llada_uni.training.loop.muon import orthogonalized

WIDTHS = (64, 192, 256)
EPOCHS = 10
BATCH = 500
RATES = {"filters": 0.12, "biases": 0.05, "head": 1.5e-3}  # of the summed loss, but the filters', a share of their norm
SHRINKING = 0.001  # weight decay of biases and head, times their rate
SMOOTHING = 0.2
AVERAGED = 0.99  # decay of the averaged weights, less in short runs


class Judge(nn.Module):
    """Logits [B, classes] of images float32 [B, 3, 32, 32] in 0..1; `features` are the pooled ones [B, 128] before them."""

    def __init__(self, classes: int, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.whitening = nn.Conv2d(3, 24, 2)
        self.whitening.weight.requires_grad = False
        before, blocks = 24, []
        for width in widths:
            blocks.append(
                nn.Sequential(
                    _convolution(before, width), nn.MaxPool2d(2), nn.BatchNorm2d(width), nn.GELU(),
                    _convolution(width, width), nn.BatchNorm2d(width), nn.GELU(),
                )
            )  # fmt: skip
            before = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(before, classes, bias=False)
        for part in self.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.weight.requires_grad = False

    def features(self, images: Tensor) -> Tensor:
        hidden = self.blocks(F.gelu(self.whitening(images.contiguous(memory_format=torch.channels_last))))
        return hidden.amax((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images)) / 9  # softer logits at the start

    @torch.no_grad()
    def whiten(self, images: Tensor) -> None:
        """Sets the first layer: the principal directions of 2 x 2 patches of [B, 3, H, W], scaled, and their opposites."""
        patches = F.unfold(images, 2).transpose(1, 2).reshape(-1, 12)
        values, vectors = torch.linalg.eigh(torch.cov((patches - patches.mean(0)).T))
        filters = (vectors / (values + 5e-4).sqrt()).T.reshape(12, 3, 2, 2)
        self.whitening.weight.copy_(torch.cat([filters, -filters]))
        assert self.whitening.bias is not None
        self.whitening.bias.zero_()


def _convolution(before: int, width: int) -> nn.Conv2d:
    layer = nn.Conv2d(before, width, 3, padding=1, bias=False)
    nn.init.dirac_(layer.weight[:before])  # starts as a copy of what comes in, where there is room
    return layer


def load_judge(folder: Path) -> tuple[Judge, tuple[str, ...]]:
    """A trained judge and the names of its classes. UserError when there is none."""
    facts = read_json(folder / "judge.json")
    judge = Judge(len(facts["classes"]), tuple(facts["widths"]))
    weights = WeightFiles(folder, "judge.safetensors")
    judge.load_state_dict({name: weights.tensor(name) for name in judge.state_dict()})
    return _laid_out(judge.eval()), tuple(facts["classes"])


def _laid_out(judge: Judge) -> Judge:
    """In place: weights lie as a CPU's convolutions like them."""
    judge.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    return judge


@torch.inference_mode()
def judged(judge: Judge, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Classes int64 [N] and features float32 [N, F] of images uint8 [N, 32, 32, 3]; a class is of image and mirror image."""
    classes, features = [], []
    for start in range(0, len(images), 500):
        pixels = to_pixels(images[start : start + 500])
        seen = judge.features(pixels)
        classes.append((judge.head(seen) + judge(pixels.flip(3)) * 9).argmax(1).numpy())
        features.append(seen.numpy())
    return np.concatenate(classes), np.concatenate(features)


def accuracy(judge: Judge, photos: Photos) -> float:
    """Share of right classes."""
    return float((judged(judge, photos.images)[0] == photos.labels).mean())


# Training


class FilterSteps(torch.optim.Optimizer):
    """Steps of convolutions [out, in, height, width]: momentum, made orthogonal, of the filters' own size times the rate.

    The norm of all filters of a layer stays the square root of their number, so the rate is a share of them.
    """

    def __init__(self, filters: list[nn.Parameter], rate: float, momentum: float = 0.6) -> None:
        super().__init__(filters, {"lr": rate, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # there are no closures here
        """One step of all filters."""
        for group in self.param_groups:
            for filters in group["params"]:
                momentum = self.state[filters].setdefault("momentum", torch.zeros_like(filters))
                momentum.mul_(group["momentum"]).add_(filters.grad)
                ahead = filters.grad.add(momentum, alpha=group["momentum"])
                filters.mul_(len(filters) ** 0.5 / filters.norm())
                filters.sub_(orthogonalized(ahead.flatten(1)[None]).view_as(filters), alpha=group["lr"])


def augmented(images: Tensor, mirrored: Tensor, generator: torch.Generator) -> Tensor:
    """Images [B, 3, 32, 32], those of `mirrored` (bool [B]) turned around, moved by up to 2 pixels."""
    count = len(images)
    images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    padded = F.pad(images, (2, 2, 2, 2), mode="reflect")
    moves = torch.randint(0, 5, (count, 2), generator=generator)
    rows = (moves[:, :1] + torch.arange(SIDE))[:, None, :, None]
    columns = (moves[:, 1:] + torch.arange(SIDE))[:, None, None, :]
    return padded[torch.arange(count)[:, None, None, None], torch.arange(3)[None, :, None, None], rows, columns]


def train(
    data: Path, out: Path, epochs: int = EPOCHS, widths: tuple[int, ...] = WIDTHS, batch_size: int = BATCH
) -> dict[str, Any]:
    """Trains the judge and tests it; what judge.json says."""
    out.mkdir(parents=True, exist_ok=True)
    sets = kept_photos(data, out / "images.npz")
    images, labels = sets["train"].images, torch.from_numpy(sets["train"].labels)
    classes = sets["train"].classes
    torch.manual_seed(0)
    judge = _laid_out(Judge(len(classes), widths))
    judge.whiten(to_pixels(images[:: max(1, len(images) // 4000)]))
    mirrored = torch.rand(len(images)) < 0.5  # in the first epoch; every other one in the second, and so on
    steps = max(1, len(images) // batch_size)
    decay = min(AVERAGED, 1 - 10 / (steps * epochs))
    averaged = torch.optim.swa_utils.AveragedModel(
        judge, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(decay), use_buffers=True
    )
    optimizers = _optimizers(judge)
    # Up for a tenth of the run, then down to nothing.
    total_steps = steps * epochs
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(
            one, lambda step: min((step + 1) / (0.1 * total_steps), (total_steps - step) / (0.9 * total_steps))
        )
        for one in optimizers
    ]
    state, first = out / "state.pt", 0
    parts: dict[str, Any] = {"judge": judge, "averaged": averaged}
    parts |= {f"optimizer {i}": one for i, one in enumerate(optimizers)} | {
        f"schedule {i}": one for i, one in enumerate(schedules)
    }
    if state.is_file():
        stored = torch.load(state, weights_only=True)
        first = stored.pop("epoch")
        for name, part in parts.items():
            part.load_state_dict(stored[name])
    for epoch in range(first, epochs):
        began, total = time.monotonic(), 0.0
        generator = torch.Generator().manual_seed(epoch)
        order = torch.randperm(len(images), generator=generator)
        judge.train()
        for step in range(steps):
            chosen = order[step * batch_size : (step + 1) * batch_size]
            batch = augmented(to_pixels(images[chosen.numpy()]), mirrored[chosen] ^ (epoch % 2 == 1), generator)
            with torch.autocast("cpu", torch.bfloat16):
                logits = judge(batch)
            loss = F.cross_entropy(logits.float(), labels[chosen], label_smoothing=SMOOTHING, reduction="sum")
            judge.zero_grad(set_to_none=True)
            loss.backward()
            for optimizer, schedule in zip(optimizers, schedules, strict=True):
                optimizer.step()
                schedule.step()
            averaged.update_parameters(judge)
            total += loss.item() / len(batch)
            if step % 20 == 19:
                pace = f"loss {total / (step + 1):.4f} {time.monotonic() - began:.0f} s"
                print(f"epoch {epoch + 1} step {step + 1}/{steps} {pace}", flush=True)
        with atomic_file(state) as temporary:
            torch.save({name: part.state_dict() for name, part in parts.items()} | {"epoch": epoch + 1}, temporary)
        held = accuracy(_best(averaged), sets["held"])
        print(f"epoch {epoch + 1}/{epochs}: loss {total / steps:.4f}, held-back accuracy {held:.4f}", flush=True)
    best = _best(averaged)
    facts = {
        "classes": list(classes),
        "widths": list(widths),
        "held_back": {"images": len(sets["held"].images), "accuracy": accuracy(best, sets["held"])},
        "test": {"images": len(sets["test"].images), "accuracy": accuracy(best, sets["test"])},
        "epochs": epochs,
        "parameters": sum(weight.numel() for weight in best.parameters()),
    }
    write_weights(out / "judge.safetensors", best.state_dict(), None)
    write_json(out / "judge.json", facts)
    return facts


def _optimizers(judge: Judge) -> list[torch.optim.Optimizer]:
    """Of the filters; of biases, those of normalization among them, and the head. Scales of normalization stay 1."""
    filters: list[nn.Parameter] = []
    biases: list[nn.Parameter] = []
    for name, weight in judge.named_parameters():
        if weight.requires_grad and name != "head.weight":
            (filters if weight.dim() == 4 else biases).append(weight)
    groups = [(biases, RATES["biases"]), ([judge.head.weight], RATES["head"])]
    slow = torch.optim.SGD(
        [{"params": weights, "lr": rate, "weight_decay": SHRINKING / rate} for weights, rate in groups],
        momentum=0.85,
        nesterov=True,
    )
    return [FilterSteps(filters, RATES["filters"]), slow]


def _best(averaged: torch.optim.swa_utils.AveragedModel) -> Judge:
    judge = averaged.module.eval()
    assert isinstance(judge, Judge)
    return judge


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder with train-*.tar and test-*.tar")
    parser.add_argument("out", type=Path, help="where the judge is kept")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    arguments = parser.parse_args()
    try:
        print(json.dumps(train(arguments.data, arguments.out, arguments.epochs), indent=1))
    except UserError as error:
        raise SystemExit(f"judge: {error}") from None


if __name__ == "__main__":
    main()
