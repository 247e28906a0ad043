"""Opens each directory given, every part of it, in a process of its own with little memory and time.

Directories on the command line -> one line of JSON each: "read", "refused: ...", or what went
wrong ("raised: ...", "died: ...": too much memory or time). Run as a program by test_untrusted_models.py.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path

import torch
from PIL import Image

from llada_uni.errors import UserError
from llada_uni.model import UniModel

MEMORY, SECONDS = 2 * 2**30, 20  # more than the tiny model takes, beyond what the process has when it starts


def open_all(folder: Path) -> None:
    """What a server does at its start, and a picture through every part."""
    model = UniModel.from_pretrained(folder, device="cpu")
    parts = model.parts
    _ = parts.defaults, parts.config, parts.text, parts.format, parts.codebook_size, parts.pixels_per_code
    codes = parts.image_tokenizer.encode(Image.new("RGB", (64, 48), "red"))
    parts.image_tokenizer.encode(Image.new("RGB", (64, 48), "red"), mode="edit")
    _ = parts.backbone, parts.decoder.sigvq, parts.decoder.vae
    for variant in parts.decoder.variants:
        parts.decoder.decode(codes, variant, steps=2)
    model.generate_image("a cat", seed=1)
    model.understand(Image.new("RGB", (64, 48), "red"), "what is it?", seed=1)


def outcome(folder: Path) -> str:
    try:
        open_all(folder)
    except UserError as error:
        return f"refused: {error}"
    except Exception as error:
        return f"raised: {type(error).__name__}: {error}"
    return "read"


def in_a_fork(folder: Path) -> str:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))
        signal.alarm(SECONDS)
        os.write(writer, outcome(folder).encode()[:4000])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return said or f"died: {status}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[1:]:
        print(json.dumps({"folder": Path(name).name, "outcome": in_a_fork(Path(name))}), flush=True)
