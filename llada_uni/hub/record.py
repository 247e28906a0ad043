"""What a pulled directory says about itself: of which model, commit and files it is, and whether it is complete.

listing -> `.llada-uni-pull.json` in the directory -> `Record`. Loading and `doctor` read it: half a download is told as such,
and a file of another revision is found by its hash.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llada_uni.errors import UserError
from llada_uni.files.configs import read_json
from llada_uni.files.weights import write_json
from llada_uni.hub.listing import Listing, RemoteFile

FILE = ".llada-uni-pull.json"
PARTIALS = ".llada-uni-pull"  # the folder of beginnings


@dataclass(frozen=True)
class Record:
    """files: those of the hub that belong here, by name. quantization: format and group of the experts, if they were changed
    on the way; then the backbone's files are ours and not listed.
    """

    id: str
    revision: str
    commit: str
    complete: bool
    files: Mapping[str, RemoteFile] = field(default_factory=dict)
    quantization: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, listing: Listing, files: Iterable[RemoteFile], complete: bool, quantization: Any = None) -> Record:
        named = {file.name: file for file in files}
        plain = json.loads(json.dumps(quantization))  # as it is read back
        return cls(listing.id, listing.revision, listing.commit, complete, named, plain)

    @classmethod
    def read(cls, folder: Path) -> Record | None:
        """That of a directory; None where it was not pulled. UserError for a damaged record."""
        path = folder / FILE
        if not path.is_file():
            return None
        data = read_json(path)
        try:
            files = {name: RemoteFile(name, **entry) for name, entry in data.pop("files").items()}
            return cls(files=files, **data)
        except (TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{path} is damaged; delete it") from error

    def write(self, folder: Path) -> None:
        data = asdict(self)
        data["files"] = {
            name: {"size": file.size, "sha256": file.sha256, "blob": file.blob} for name, file in self.files.items()
        }
        write_json(folder / FILE, data)

    def missing(self, folder: Path) -> list[str]:
        """Files that are not there, or not of their size."""
        return [
            name
            for name, file in self.files.items()
            if not (folder / name).is_file() or (folder / name).stat().st_size != file.size
        ]

    @property
    def command(self) -> str:
        """The command that goes on with, or mends, the directory; its name is to be put behind it."""
        quantization = "" if self.quantization is None else f" --quantization {self.quantization['format']}"
        return f"llada-uni pull {self.id} --revision {self.revision}{quantization} --to"


def check_complete(folder: Path) -> None:
    """UserError for half a download. A directory that was not pulled passes."""
    record = Record.read(folder)
    if record is not None and not record.complete:
        missing = record.missing(folder)
        raise UserError(
            f"{folder} is half a download of {record.id}: {len(missing)} of {len(record.files)} files are missing; run "
            f"{record.command} {folder} again, it goes on where it stopped"
        )
