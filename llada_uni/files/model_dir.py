"""Which parts a model directory has: one table of their folders, the names their files may have, and what each is for.

directory -> `Part.there`, `Part.files`; folder of a part -> `find_weights`: the weight file that is read.
Loading, saving, export, `info`, `pull` and `doctor` read this table and name no file themselves. The names are those
of the published directories (both generations of them), then what other programs write.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from llada_uni.errors import UserError

INDEX = ".index.json"  # behind the name of a weight file: the table that says which shard holds which tensor


@dataclass(frozen=True)
class Part:
    """One part of a model directory.

    name: as `info` prints it. folder: where it lies, "" for the top of the directory. marker: the file, relative to
    `folder`, that tells whether the part is there. weights: names its weight file may have, the one we write first; a
    folder whose only *.safetensors file has another name is read as well. others: patterns of its further files.
    needed_for: what cannot be done without it. optional: a complete model may lack it.
    """

    name: str
    folder: str
    marker: str
    needed_for: str
    weights: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    optional: bool = False

    def path(self, model: Path) -> Path:
        """The part's folder in the directory `model`."""
        return model / self.folder

    def there(self, model: Path) -> bool:
        return (self.path(model) / self.marker).is_file()

    @property
    def patterns(self) -> tuple[str, ...]:
        """Patterns of all files that may belong to the part, relative to the directory; the marker's first."""
        weights = ("*.safetensors", f"*.safetensors{INDEX}") if self.weights else ()
        return tuple(str(Path(self.folder, name)) for name in (self.marker, *self.others, *weights))

    def files(self, model: Path) -> list[Path]:
        """The part's files, relative to the directory, sorted; empty where the part is not there."""
        if not self.there(model):
            return []
        found = (path for pattern in self.patterns for path in model.glob(pattern) if path.is_file())
        return sorted({path.relative_to(model) for path in found})


_CONFIG = "config.json"
BACKBONE = Part("backbone", "", _CONFIG, "every task", ("model.safetensors",))
RECORDED_BACKBONE = "backbone"  # the folder that a directory of recorded numbers keeps its backbone in
TEXT = Part(
    "text tokenizer", "", "tokenizer.json", "every task", others=("tokenizer_config.json", "special_tokens_map.json")
)
SETTINGS = Part("settings", "", "generation_config.json", "settings of its own (without, the published ones hold)")
IMAGE_TOKENIZER = Part(
    "image_tokenizer", "image_tokenizer", _CONFIG, "reading images",
    ("model.safetensors", "image_tokenizer.safetensors"), ("*.json",),
)  # fmt: skip
_DECODER_WEIGHTS = ("model.safetensors", "decoder_model.safetensors", "diffusion_pytorch_model.safetensors")
DECODER = Part("decoder", "decoder", _CONFIG, "decoding in 50 steps", _DECODER_WEIGHTS, ("*.json",))
TURBO = Part("decoder-turbo", "decoder-turbo", _CONFIG, "decoding in 8 steps", _DECODER_WEIGHTS, ("*.json",))
VAE = Part("vae", "vae", _CONFIG, "decoding", ("diffusion_pytorch_model.safetensors", "model.safetensors"), ("*.json",))
CODE_FEATURES = Part("code features", "image_tokenizer", "sigvq_embedding.pt", "decoding")
DRAFTS = Part(
    "drafts", "drafts", _CONFIG, "drafts of images that need no decoder", ("model.safetensors",), optional=True
)  # fmt: skip
PARTS = (BACKBONE, TEXT, SETTINGS, IMAGE_TOKENIZER, CODE_FEATURES, VAE, DECODER, TURBO, DRAFTS)

DECODERS = {"base": DECODER, "turbo": TURBO}
# A directory is a model, and may be written over by one, when one of these lies at its top.
KNOWN = tuple(
    dict.fromkeys([RECORDED_BACKBONE, *(part.folder or part.marker for part in PARTS if part not in (SETTINGS, DRAFTS))])
)


def backbone_folder(model: str | Path) -> Path:
    """Where the backbone's config.json lies: `model/backbone` (recorded numbers) or `model` itself.

    UserError when it is in neither.
    """
    model = Path(model)
    if not model.is_dir():
        raise UserError(f"there is no model directory {model}")
    for folder in (model / RECORDED_BACKBONE, model):
        if (folder / BACKBONE.marker).is_file():
            return folder
    raise UserError(f"{model} has no backbone ({BACKBONE.marker} with its weights, at the top or in {RECORDED_BACKBONE}/)")


def find_weights(folder: Path, names: tuple[str, ...]) -> Path:
    """The weight file of a part, or the index of its shards: the first of `names` that is there, else the only one.

    UserError when there is none, and when there are several and none has a known name.
    """
    for name in names:
        for file in (folder / f"{name}{INDEX}", folder / name):
            if file.is_file():
                return file
    indexes = sorted(folder.glob(f"*.safetensors{INDEX}"))
    files = indexes if len(indexes) == 1 else sorted(folder.glob("*.safetensors"))
    if len(files) == 1:
        return files[0]
    if not files:
        raise UserError(f"there are no weights in {folder} (neither {names[0]} nor {names[0]}{INDEX})")
    listed = ", ".join(file.name for file in files[:4]) + (f" and {len(files) - 4} more" if len(files) > 4 else "")
    if all("-of-" in file.name for file in files):
        raise UserError(f"{folder} has shards ({listed}) without their index; fetch {names[0]}{INDEX} as well")
    raise UserError(f"{folder} has several weight files ({listed}); give the one to be read the name {names[0]}")


def weight_files(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """Every weight file, shard and index in `folder` with one of these names, sorted."""
    stems = "|".join(re.escape(name.removesuffix(".safetensors")) for name in names)
    known = re.compile(rf"({stems})(-\d+-of-\d+)?\.safetensors({re.escape(INDEX)})?")
    return sorted(file for file in folder.iterdir() if known.fullmatch(file.name))


def check_links(model: Path) -> None:
    """UserError for a link that leads out of the directory: its copy would hold a file from elsewhere on this machine.

    The hub's download cache keeps its files beside its snapshots; links into the same repository are its own.
    """
    home = model.resolve()
    if home.parent.name == "snapshots":
        home = home.parent.parent
    for path in model.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(home):
            raise UserError(f"{path} is a link that leads out of the model directory; put the file itself there")
