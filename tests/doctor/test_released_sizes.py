"""What the doctor says about the published sizes, from the true headers of files that hold nothing else.

The README's table of memory is this computation (`python -m tests.doctor.test_released_sizes` prints it).
"""

from __future__ import annotations

import json
import struct
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from llada_uni.backbone.quantized_formats import make_scheme
from llada_uni.checkpoint.layout import FLOAT32_SUFFIXES, places, quantized_shapes, released_shapes
from llada_uni.checkpoint.source import config_json
from llada_uni.config import BackboneConfig
from llada_uni.decoder import model as decoder
from llada_uni.decoder.sigvq import SigVQ
from llada_uni.doctor.doctor import Diagnosis, commands, diagnose
from llada_uni.doctor.memory import Device
from llada_uni.files.weights import write_json
from llada_uni.hub.skeleton import write_sparse
from llada_uni.image import tokenizer
from llada_uni.text.tokenizer import train_tokenizer

pytestmark = pytest.mark.slow
GB, GIB = 10**9, 2**30
LAPTOP = Device("a laptop", "cpu", 24 * GIB)
SMALL_GPU = Device("cuda (24 GB)", "cuda", 24 * GIB)
LARGE_GPU = Device("cuda (80 GB)", "cuda", 80 * GIB, float8=True)
NAMES = {torch.bfloat16: "BF16", torch.float32: "F32", torch.uint8: "U8", torch.int8: "I8"}


def write_header(path: Path, tensors: dict[str, tuple[tuple[int, ...], torch.dtype]]) -> None:
    """A safetensors file of full size whose data is a hole."""
    header, at = {}, 0
    for name, (shape, dtype) in tensors.items():
        end = at + torch.Size(shape).numel() * dtype.itemsize
        header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    write_sparse(path, struct.pack("<Q", len(text)) + text, 8 + len(text) + at)


def write_shards(folder: Path, tensors: dict[str, tuple[tuple[int, ...], torch.dtype]]) -> None:
    """Shards of at most 5 GB and their index, as they are published."""
    shards, size = [{}], 0
    for name, (shape, dtype) in tensors.items():
        count = torch.Size(shape).numel() * dtype.itemsize
        if size + count > 5 * GB:
            shards, size = [*shards, {}], 0
        shards[-1][name], size = (shape, dtype), size + count
    names = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    for name, shard in zip(names, shards, strict=True):
        write_header(folder / name, shard)
    listed = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": listed})


def state(module: torch.nn.Module, rename=str) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    return {rename(name): (tuple(tensor.shape), torch.bfloat16) for name, tensor in module.state_dict().items()}


def make_released(folder: Path, format: str | None = None) -> Path:
    """A directory of the published sizes; format: of the experts, as `pull --quantization` leaves them."""
    config = BackboneConfig.released_16b()
    scheme = None if format is None else make_scheme(format)
    folder.mkdir()
    write_json(folder / "config.json", config_json(config, scheme))
    router = {name: torch.float32 for name in released_shapes(config) if name.endswith(FLOAT32_SUFFIXES)}
    if scheme is None:
        tensors = {name: (shape, router.get(name, torch.bfloat16)) for name, shape in released_shapes(config).items()}
    else:
        tensors = {name: (shape, router.get(name, torch.bfloat16)) for name, shape in quantized_shapes(config, scheme).items()}
        for place in places(config):
            for part, (shape, dtype) in scheme.shapes(*place.shape).items() if place.stacked else ():
                tensors[f"{place.name}.{part}"] = (shape, dtype)
    write_shards(folder, tensors)
    with torch.device("meta"):
        images = tokenizer.ImageTokenizer(tokenizer.released_tokenizer_config())
        transformer = decoder.build_transformer(decoder.released_decoder_config())
        vae = decoder.build_vae(decoder.released_vae_config())
    for name, part, settings, rename in (
        ("image_tokenizer/image_tokenizer", images, tokenizer.released_tokenizer_config(), tokenizer.to_released_name),
        ("decoder/decoder_model", transformer, decoder.released_decoder_config(), decoder.to_released_name),
        ("decoder-turbo/model", transformer, decoder.released_decoder_config(), decoder.to_released_name),
        ("vae/diffusion_pytorch_model", vae, decoder.released_vae_config(), str),
    ):
        write_header(folder / f"{name}.safetensors", state(part, rename))
        write_json((folder / name).parent / "config.json", settings)
    write_json(folder / "image_tokenizer" / "preprocessor_config.json", {"patch_size": 16, "merge_size": 2})
    features = SigVQ(16384, 4096).to(torch.bfloat16)
    features.save_pretrained(folder / "image_tokenizer" / "sigvq_embedding.pt")
    train_tokenizer(["a cat"] * 2, 480).save(folder / "tokenizer.json")
    return folder


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> Diagnosis:
    released = make_released(tmp_path_factory.mktemp("released") / "LLaDA2.0-Uni")
    return diagnose(str(released), devices=[LAPTOP, SMALL_GPU, LARGE_GPU])


def test_it_is_whole_and_as_large_as_published(found):
    assert found.ok, [check for check in found.checks if check.ok is False]
    assert sum(part.bytes_stored for part in found.info.parts) == pytest.approx(60.3 * GB, rel=0.01)
    assert found.settings["profile"] == "published"
    assert any("merge_size 2" in check.detail for check in found.checks)


def test_the_memory_of_each_form(found):
    sizes = {need.form: need for need in found.needs}
    assert sizes["bfloat16"].backbone == pytest.approx(32.6 * GB, rel=0.01)
    assert sizes["int4"].backbone == pytest.approx(10.2 * GB, rel=0.01)
    assert sizes["int8"].backbone == pytest.approx(17.4 * GB, rel=0.01)
    assert sizes["bfloat16"].transformer == pytest.approx(12.3 * GB, rel=0.02)
    for need in found.needs:
        assert need.two_steps < need.offload < need.all


def test_what_fits_where(found, tmp_path):
    laptop, small, large = found.fits
    assert (large.form, large.options, large.two_steps) == ("bfloat16", ("--device", "cuda"), False)
    assert (small.form, small.two_steps) == ("int8", True) and small.needed < 22 * GB
    assert commands("M", small) == (
        'llada-uni generate "a lighthouse at sunset" -m M --device cuda --quantization int8 --decoder none -o codes.json',
        "llada-uni decode codes.json -m M --device cuda --quantization int8 -o image.png",
    )
    assert (laptop.form, laptop.quantize, laptop.two_steps) == ("int8", True, False) and laptop.needed < 21 * GB
    assert commands("org/M", laptop) == (
        "llada-uni pull org/M --quantization int8 --to M-int8",
        'llada-uni generate "a lighthouse at sunset" -m M-int8 --device cpu --dtype bfloat16 -o image.png',
    )
    assert commands(str(tmp_path), laptop)[0] == f"llada-uni quantize {tmp_path} --format int8 {tmp_path.name}-int8"
    int4 = diagnose(str(make_released(tmp_path / "int4", "int4")), devices=[LAPTOP])
    (fit,) = int4.fits
    assert fit.options == ("--device", "cpu", "--dtype", "bfloat16") and fit.needed < 18 * GB


def show() -> None:
    from llada_uni.cli.hub import _show

    with tempfile.TemporaryDirectory() as folder:
        for format in (None, "int4"):
            made = make_released(Path(folder) / f"LLaDA2.0-Uni{'' if format is None else '-' + format}", format)
            found = diagnose(str(made), devices=[LAPTOP, SMALL_GPU, LARGE_GPU])
            _show(found)
            for fit in found.fits:
                print(fit, *commands(made.name, fit), sep="\n  ", file=sys.stdout)


if __name__ == "__main__":
    show()
