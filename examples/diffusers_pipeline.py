"""Draw, edit and inpaint as with any diffusers pipeline.

python examples/diffusers_pipeline.py --model models/world --out out/pipeline
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image

from llada_uni.adapters.diffusers_pipeline import LLaDA2UniPipeline


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="model directory; default: the shipped model")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("out/pipeline"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    pipe = LLaDA2UniPipeline.from_pretrained(given.model).to(given.device)
    generator = torch.Generator().manual_seed(0)

    prompt = "a cat at the top left and a dog at the bottom right on green"
    drawn = pipe(prompt, num_images_per_prompt=2, guidance_scale=2.0, generator=generator)
    for image, seed in zip(drawn.images, drawn.seeds, strict=True):
        image.save(given.out / f"drawn-{seed}.png")

    def watch(pipe: LLaDA2UniPipeline, step: int, timestep: float, tensors: dict[str, torch.Tensor]) -> None:
        print(f"step {step:2}: {int((tensors['codes'] < 0).sum())} places without a draft, {timestep:.0%} to go")

    edited = pipe(
        "replace the cat with a fox",
        image=drawn.images[0],
        generator=generator,
        callback_on_step_end=watch,
        callback_on_step_end_tensor_inputs=["codes"],
    )
    edited.images[0].save(given.out / "edited.png")

    mask = Image.new("L", drawn.images[0].size)
    mask.paste(255, (0, 0, mask.width // 3, mask.height // 3))
    wanted = prompt.replace("cat", "robot")
    filled = pipe(wanted, image=drawn.images[0], mask_image=mask, generator=generator)
    filled.images[0].save(given.out / "filled.png")


if __name__ == "__main__":
    main()
