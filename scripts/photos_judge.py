"""A classifier of its own for class folders of small images: the judge of images that a model has drawn.

    python -m scripts.photos_judge shared/data/cifar10 runs/photos/judge

It sees pixels alone and shares nothing with the model that it judges. Tars of class folders become arrays, kept in
OUT/images.npz. A small convolutional network learns them with a whitening first layer, mirroring, shifts and cutout. The
result is OUT/judge.safetensors, and OUT/judge.json with its accuracy on the images held back for settings and, once at
the end, on the test images.
The same command goes on after the last finished epoch.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tarfile
import time
from pathlib import Path, PurePosixPath

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from llada_uni.data.importers.splits import split_of

SIDE = 32
SPLITS = {"train": 0.96, "held": 0.04}  # as recipes/photos import them: the held-back images choose settings
WIDTHS = (64, 128, 128)
EPOCHS = 10
BATCH = 256
RATE = 0.15
WEIGHT_DECAY = 5e-4
SMOOTHING = 0.1


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
        self.whitening.bias.zero_()


def _convolution(before: int, width: int) -> nn.Conv2d:
    layer = nn.Conv2d(before, width, 3, padding=1, bias=False)
    nn.init.dirac_(layer.weight[:before])  # starts as a copy of what comes in, where there is room
    return layer


def load_judge(folder: str | Path) -> tuple[Judge, list[str]]:
    """A trained judge and the names of its classes."""
    facts = json.loads((Path(folder) / "judge.json").read_text(encoding="utf-8"))
    judge = Judge(len(facts["classes"]), tuple(facts["widths"]))
    judge.load_state_dict(load_file(Path(folder) / "judge.safetensors"))
    return judge.eval().to(memory_format=torch.channels_last), facts["classes"]


# ---
# Images


def read_tars(folder: Path, prefix: str, classes: list[str]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Images uint8 [N, 32, 32, 3], classes int64 [N] and names, of all PREFIX-*.tar, by class and name."""
    found = []
    for tar in sorted(folder.glob(f"{prefix}-*.tar")):
        with tarfile.open(tar) as file:
            for member in file:
                if member.isfile() and member.name.endswith(".jpg"):
                    kind = Path(member.name).parent.name
                    image = Image.open(io.BytesIO(file.extractfile(member).read())).convert("RGB")
                    found.append((kind, member.name, np.asarray(image)))
    if not found:
        raise SystemExit(f"there are no images in {folder}/{prefix}-*.tar")
    classes += sorted({kind for kind, _, _ in found} - set(classes))
    found.sort(key=lambda entry: entry[:2])
    return (
        np.stack([image for _, _, image in found]),
        np.array([classes.index(kind) for kind, _, _ in found]),
        [name for _, name, _ in found],
    )


def images_of(data: Path, out: Path) -> dict[str, np.ndarray]:
    """train, held-back and test images with their classes; made once."""
    path = out / "images.npz"
    if not path.is_file():
        classes: list[str] = []
        images, labels, names = read_tars(data, "train", classes)
        held = np.array([split_of(str(PurePosixPath(name).with_suffix("")), SPLITS) == "held" for name in names])
        tests = read_tars(data, "test", classes)
        temporary = out / ".images.npz"
        np.savez(
            temporary, train=images[~held], train_labels=labels[~held], held=images[held], held_labels=labels[held],
            held_names=np.array(names)[held], train_names=np.array(names)[~held],
            test=tests[0], test_labels=tests[1], test_names=np.array(tests[2]), classes=np.array(classes),
        )  # fmt: skip
        os.replace(temporary, path)
    with np.load(path) as file:
        return dict(file)


def to_pixels(images: np.ndarray) -> Tensor:
    """uint8 [B, H, W, 3] -> float32 [B, 3, H, W] in 0..1."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


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


# ---
# Training and testing


@torch.inference_mode()
def accuracy(judge: Judge, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of right classes, from an image and its mirror image together."""
    right = 0
    for start in range(0, len(images), 500):
        pixels = to_pixels(images[start : start + 500])
        logits = judge(pixels) + judge(pixels.flip(3))
        right += int((logits.argmax(1).numpy() == labels[start : start + 500]).sum())
    return right / len(images)


def train(data: Path, out: Path, epochs: int) -> dict:
    """Trains the judge and tests it; what judge.json says."""
    out.mkdir(parents=True, exist_ok=True)
    sets = images_of(data, out)
    images, labels = sets["train"], torch.from_numpy(sets["train_labels"])
    torch.manual_seed(0)
    judge = Judge(len(sets["classes"])).to(memory_format=torch.channels_last)
    judge.whiten(to_pixels(images[:: max(1, len(images) // 4000)]))
    averaged = torch.optim.swa_utils.AveragedModel(
        judge, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995), use_buffers=True
    )
    steps = len(images) // BATCH
    trained = [weight for weight in judge.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=RATE, momentum=0.9, nesterov=True, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RATE, total_steps=steps * epochs, pct_start=0.25, anneal_strategy="linear", final_div_factor=100
    )
    state, first = out / "state.pt", 0
    parts = {"judge": judge, "averaged": averaged, "optimizer": optimizer, "schedule": schedule}
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
            chosen = order[step * BATCH : (step + 1) * BATCH]
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
                print(
                    f"epoch {epoch + 1} step {step + 1}/{steps} loss {total / (step + 1):.4f} {time.monotonic() - began:.0f} s",
                    flush=True,
                )
        temporary = out / ".state.pt"
        torch.save({name: part.state_dict() for name, part in parts.items()} | {"epoch": epoch + 1}, temporary)
        os.replace(temporary, state)
        held = accuracy(averaged.module.eval(), sets["held"], sets["held_labels"])
        print(f"epoch {epoch + 1}/{epochs}: loss {total / steps:.4f}, held-back accuracy {held:.4f}", flush=True)
    judge = averaged.module.eval()
    facts = {
        "classes": [str(name) for name in sets["classes"]],
        "widths": list(WIDTHS),
        "held_back": {"images": len(sets["held"]), "accuracy": accuracy(judge, sets["held"], sets["held_labels"])},
        "test": {"images": len(sets["test"]), "accuracy": accuracy(judge, sets["test"], sets["test_labels"])},
        "epochs": epochs,
        "parameters": sum(weight.numel() for weight in judge.parameters()),
    }
    save_file({name: tensor.contiguous() for name, tensor in judge.state_dict().items()}, out / "judge.safetensors")
    (out / "judge.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder with train-*.tar and test-*.tar")
    parser.add_argument("out", type=Path, help="where the judge is kept")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    arguments = parser.parse_args()
    print(json.dumps(train(arguments.data, arguments.out, arguments.epochs), indent=1))


if __name__ == "__main__":
    main()
