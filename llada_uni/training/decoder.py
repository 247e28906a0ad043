"""Trains the diffusion decoder (flow matching on latents, conditioned on image codes alone), then its turbo twin.

    python -m llada_uni.training.decoder --out runs/decoder --tokenizer runs/tokenizer --vae runs/vae --steps 9000
    python -m llada_uni.training.decoder --out runs/turbo --distill runs/decoder --steps 1500 ...

Base: x_t = t x1 + (1 - t) x0 with noise x0 at t = 0 and data x1 at t = 1; loss |v(x_t, t, z) - (x1 - x0)|^2
(arXiv:2604.20796, decoder training). A tenth of the conditions are zeros, which is the negative branch of guidance.
Turbo: the teacher walks from fresh noise to the data in a few Euler steps; the student learns, at every point of
that walk, the straight velocity to the walk's end, so that its data prediction is right in one step from anywhere.

B pictures, C latent channels, N condition tokens (each code 2 x 2 times), F condition features.
"""

from __future__ import annotations

import argparse
import itertools
import random
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, ZImageTransformer2DModel
from torch import Tensor, nn

from llada_uni.decoder.model import save_transformer
from llada_uni.decoder.sigvq import SigVQ
from llada_uni.training.images import to_images
from llada_uni.training.loop import LoopConfig, run, save_atomic
from llada_uni.training.records import load_objective
from llada_uni.training.tokenizer import QUANTIZER, SIDE
from llada_uni.world.render import render_array
from llada_uni.world.scene import sample_scene

FEATURES = 128
CONFIG = {
    "all_patch_size": (4,),
    "all_f_patch_size": (1,),
    "in_channels": 8,
    "dim": 256,
    "n_layers": 4,
    "n_refiner_layers": 1,
    "n_heads": 4,
    "n_kv_heads": 4,
    "norm_eps": 1e-5,
    "qk_norm": True,
    "cap_feat_dim": FEATURES,
    "rope_theta": 256.0,
    "t_scale": 1000.0,
    "axes_dims": [24, 20, 20],
    "axes_lens": [512, 64, 64],
}


class Conditioned(nn.Module):
    """SigVQ features and the transformer, called on batches."""

    def __init__(self) -> None:
        super().__init__()
        self.sigvq = SigVQ(QUANTIZER["num_embeddings"], FEATURES)
        self.transformer = ZImageTransformer2DModel(**CONFIG)

    def forward(self, x: Tensor, t: Tensor, codes: Tensor, drop: Tensor | None = None) -> Tensor:
        """x [B, C, h, w], t [B] in 0..1 (0 noise), codes int64 [B, rows, columns]; drop bool [B] -> velocity like x."""
        doubled = codes.repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1)
        condition = self.sigvq(doubled)
        if drop is not None:
            condition = condition * (~drop)[:, None, None]
        patch, frames = CONFIG["all_patch_size"][0], CONFIG["all_f_patch_size"][0]
        out = self.transformer(
            list(x.unsqueeze(2)), t, list(condition), patch_size=patch, f_patch_size=frames, return_dict=False
        )[0]
        return torch.stack(list(out)).squeeze(2)


def prepare(path: Path, tokenizer: str, vae_dir: str, count: int) -> dict[str, Tensor]:
    """Latents float16 [count, C, h, w] and codes uint8 [count, rows, columns] of rendered scenes, made once and kept."""
    if path.exists():
        return torch.load(path, weights_only=True)
    objective = load_objective(tokenizer)
    vae = AutoencoderKL.from_pretrained(f"{vae_dir}/vae").eval()
    rng, latents, codes = random.Random(77), [], []
    grid = SIDE // objective.vision.patch_size
    with torch.inference_mode():
        for start in range(0, count, 32):
            scenes = [sample_scene(rng, "any", two_tone=0.1, mixed_styles=0.5) for _ in range(32)]
            small, large = (to_images([render_array(s, side) for s in scenes]) for side in (SIDE, 2 * SIDE))
            codes.append(objective.codes(small).view(-1, grid, grid).to(torch.uint8))
            mean = vae.encode(large).latent_dist.mean
            latents.append(((mean - vae.config.shift_factor) * vae.config.scaling_factor).half())
            if start % 1600 == 0:
                print(f"latents {start}/{count}", flush=True)
    data = {"latents": torch.cat(latents).clone(), "codes": torch.cat(codes).clone()}
    save_atomic(data, path)
    return data


def pick(data: dict[str, Tensor], batch: int) -> tuple[Tensor, Tensor]:
    """A random batch: latents float32 [B, C, h, w], codes int64 [B, rows, columns]."""
    index = torch.randint(len(data["latents"]), (batch,))
    return data["latents"][index].float(), data["codes"][index].long()


class PlaceProbes(nn.Module):
    """Helps a small transformer find out where its tokens are; dropped after training.

    Condition tokens are numbered along the first rotary axis, image tokens along the other two, and rotary positions
    are relative, so which condition belongs to which place is hard to learn from the flow loss alone. Linear probes behind
    the first layers are trained, through the layers, to read every token's row and column.
    """

    def __init__(self, transformer: ZImageTransformer2DModel, side: int, layers: int = 2) -> None:
        super().__init__()
        self.side = side
        self.readers = nn.ModuleList(nn.Linear(CONFIG["dim"], 2 * side) for _ in range(layers))
        self.seen: dict[int, Tensor] = {}
        for i in range(layers):
            transformer.layers[i].register_forward_hook(lambda _m, _i, out, i=i: self.seen.__setitem__(i, out))

    def loss(self) -> tuple[Tensor, float]:
        """Mean cross-entropy over layers, rows and columns at the last forward, and the last layer's accuracy."""
        place = torch.arange(self.side * self.side)
        total, right = torch.zeros(()), 0.0
        for i, reader in enumerate(self.readers):
            logits = reader(self.seen[i]).unflatten(-1, (2, self.side))
            # The sequence is the image tokens, then the condition tokens, both in raster order.
            target = torch.stack([place // self.side, place % self.side], -1).repeat(2, 1).expand(len(logits), -1, -1)
            total = total + F.cross_entropy(logits.flatten(0, 2), target.flatten()) / len(self.readers)
            right = (logits.argmax(-1) == target).float().mean().item()
        return total, right


def flow_loss(model: Conditioned, x1: Tensor, codes: Tensor) -> Tensor:
    """Mean squared error of the velocity; half of the times follow the sampler's shift towards noise."""
    batch = len(x1)
    t = torch.rand(batch)
    t = torch.where(torch.rand(batch) < 0.5, t, t / (t + 6 - 6 * t))
    x0 = torch.randn_like(x1)
    at = t[:, None, None, None]
    v = model(at * x1 + (1 - at) * x0, t, codes, torch.rand(batch) < 0.1)
    return F.mse_loss(v, x1 - x0)


@torch.no_grad()
def teacher_walk(teacher: Conditioned, codes: Tensor, shape: torch.Size, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Euler from noise to data at shifted times. Returns points [steps, B, ...], their times [steps], the end [B, ...]."""
    t = torch.linspace(0, 1, steps + 1)
    t = t / (t + 3 - 3 * t)
    x, points = torch.randn(shape), []
    for now, then in itertools.pairwise(t):
        points.append(x)
        x = x + (then - now) * teacher(x, now.expand(len(x)), codes)
    return torch.stack(points), t[:-1], x


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/decoder")
    parser.add_argument("--tokenizer", default="runs/tokenizer")
    parser.add_argument("--vae", default="runs/vae")
    parser.add_argument("--distill", help="folder of the trained base decoder: train its turbo twin")
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--pictures", type=int, default=8000)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    probes: nn.Module = nn.Identity()
    data = prepare(Path("runs/latents.pt"), args.tokenizer, args.vae, args.pictures)
    model = Conditioned()
    if args.distill is None:

        probes = PlaceProbes(model.transformer, 2 * data["codes"].shape[-1])

        def loss(step: int, rng: random.Random) -> tuple[Tensor, dict[str, float]]:
            flow = flow_loss(model, *pick(data, args.batch))
            place, right = probes.loss()
            return flow + 0.1 * place, {"flow": flow.item(), "place": place.item(), "place_acc": right}

    else:
        state = torch.load(f"{args.distill}/checkpoint.pt", weights_only=True)["modules"]
        weights = {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}
        model.load_state_dict(weights)
        teacher = Conditioned().eval()
        teacher.load_state_dict(weights)
        # Both decoders share the one sigvq_embedding.pt of the released layout.
        model.sigvq.requires_grad_(False)
        walk: dict[str, Tensor] = {}
        length = 6

        def loss(step: int, rng: random.Random) -> tuple[Tensor, dict[str, float]]:
            turn = step % length
            if turn == 0 or not walk:
                x1, codes = pick(data, args.batch)
                walk["x"], walk["t"], walk["end"] = teacher_walk(teacher, codes, x1.shape, length)
                walk["codes"] = codes
                # The sampler re-noises its data prediction: half of the points are fresh mixtures of end and noise.
                fresh = torch.randn_like(walk["x"])
                at = walk["t"][:, None, None, None, None]
                mixed = at * walk["end"] + (1 - at) * fresh
                half = len(x1) // 2
                walk["x"][:, half:] = mixed[:, half:]
            t, x = walk["t"][turn], walk["x"][turn]
            v = model(x, t.expand(len(x)), walk["codes"])
            error = x + (1 - t) * v - walk["end"]
            return error.square().mean(), {}

    config = LoopConfig(args.steps, args.lr, args.out, warmup=200, decay="wsd", weight_decay=0.0, betas=(0.9, 0.99))
    run(nn.ModuleDict({"model": model, "probes": probes}), loss, config)
    model.sigvq.save_pretrained(f"{args.out}/sigvq_embedding.pt")
    save_transformer(model.transformer, f"{args.out}/transformer")


if __name__ == "__main__":
    main()
