"""A classifier of small photographs that sees pixels alone: the judge of what a model has drawn. Trained for this, by

    python -m llada_uni.photos.judge ../shared/data/cifar10 runs/photos/judge

It shares nothing with the model that it judges. A small convolutional network learns the class folders with a whitening first
layer, mirroring, shifts and cutout. The result is OUT/judge.safetensors, and OUT/judge.json with its accuracy on the images
held back for settings and, once at the end, on the test images. The same command goes on after the last finished epoch.
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

WIDTHS = (64, 192, 256)
EPOCHS = 24
BATCH = 256
RATE = 0.15
WEIGHT_DECAY = 5e-4
SMOOTHING = 0.1
AVERAGED = 0.995  # decay of the averaged weights, less in short runs


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

    def features(self, images: Tensor) -> Tensor:
        hidden = self.blocks(F.gelu(self.whitening(images.contiguous(memory_format=torch.channels_last))))
        return hidden.amax((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images)) / 4  # softer logits at the start

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
        classes.append((judge.head(seen) + judge(pixels.flip(3)) * 4).argmax(1).numpy())
        features.append(seen.numpy())
    return np.concatenate(classes), np.concatenate(features)


def accuracy(judge: Judge, photos: Photos) -> float:
    """Share of right classes."""
    return float((judged(judge, photos.images)[0] == photos.labels).mean())


# Training


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrored half of the time, moved by up to 3 pixels, with a gray square of 8 pixels; [B, 3, 32, 32] in 0..1."""
    count = len(images)
    mirrored = torch.rand(count, generator=generator) < 0.5
    images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    padded = F.pad(images, (3, 3, 3, 3), mode="reflect")
    moves = torch.randint(0, 7, (count, 2), generator=generator)
    rows = (moves[:, :1] + torch.arange(SIDE))[:, None, :, None]
    columns = (moves[:, 1:] + torch.arange(SIDE))[:, None, None, :]
    moved = padded[torch.arange(count)[:, None, None, None], torch.arange(3)[None, :, None, None], rows, columns]
    corner = torch.randint(-4, SIDE - 4, (count, 2), generator=generator)
    inside = [(torch.arange(SIDE) >= corner[:, i : i + 1]) & (torch.arange(SIDE) < corner[:, i : i + 1] + 8) for i in (0, 1)]
    hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return moved.masked_fill(hole, 0.47)


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
    steps = max(1, len(images) // batch_size)
    decay = min(AVERAGED, 1 - 10 / (steps * epochs))
    averaged = torch.optim.swa_utils.AveragedModel(
        judge, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(decay), use_buffers=True
    )
    trained = [weight for weight in judge.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=RATE, momentum=0.9, nesterov=True, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RATE, total_steps=steps * epochs, pct_start=0.25, anneal_strategy="linear", final_div_factor=100
    )
    state, first = out / "state.pt", 0
    parts: dict[str, Any] = {"judge": judge, "averaged": averaged, "optimizer": optimizer, "schedule": schedule}
    if state.is_file():
        stored = torch.load(state, weights_only=True)
        first = stored.pop("epoch")
        for name, part in parts.items():
            part.load_state_dict(stored[name])
    for epoch in range(first, epochs):
        began, total = time.monotonic(), 0.0
        generator = torch.Generator().manual_seed(epoch)
        order = torch.randperm(len(images), generator=generator).numpy()
        judge.train()
        for step in range(steps):
            chosen = order[step * batch_size : (step + 1) * batch_size]
            batch = augmented(to_pixels(images[chosen]), generator)
            with torch.autocast("cpu", torch.bfloat16):
                logits = judge(batch)
            loss = F.cross_entropy(logits.float(), labels[chosen], label_smoothing=SMOOTHING)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            averaged.update_parameters(judge)
            total += loss.item()
            if step % 40 == 39:
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
