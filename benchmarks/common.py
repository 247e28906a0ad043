"""What every benchmark needs: the two models, fair timing of two sides, physical floors, rows and their report.

A benchmark is a command, `python -m benchmarks.NAME [--quick] [--json FILE] [--threads N]`. Both sides of a comparison
run in one process on the same weights; `alternate` takes turns and gives medians, so that a slow minute of the machine
hits both. `report` prints a table and writes the rows.
Units: seconds, bytes, bytes a second, floating-point operations (FLOP) a second.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import platform
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llada_uni.backbone import Backbone
from llada_uni.checkpoint.load import load_backbone
from llada_uni.config import BackboneConfig
from llada_uni.errors import UserError
from llada_uni.files.weights import read_json, write_json


@dataclass(frozen=True)
class Row:
    """One measured case. ours, theirs: medians in `unit`; ratio: how many times ours is better (None without a peer).

    more: further numbers of the case (evaluations, peak memory, the floor, ...).
    """

    case: str
    peer: str
    unit: str
    ours: float
    theirs: float | None = None
    ratio: float | None = None
    more: dict[str, Any] = dataclasses.field(default_factory=dict)


def arguments(description: str, **more: dict[str, Any]) -> argparse.ArgumentParser:
    """The options every benchmark has, and those of this one: name -> keywords of `add_argument`."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a minute's worth: smaller cases, fewer repeats")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's)")
    for name, keywords in more.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **keywords)
    return parser


def start(parser: argparse.ArgumentParser, given: Sequence[str] | None) -> argparse.Namespace:
    """Read the options and set the threads."""
    options = parser.parse_args(given)
    if options.threads:
        torch.set_num_threads(options.threads)
    return options


@contextmanager
def working_folder(options: argparse.Namespace, prefix: str) -> Iterator[Path]:
    """A folder below --dir (a temporary one by default); gone afterwards, unless --keep."""
    if options.dir is not None:
        options.dir.mkdir(parents=True, exist_ok=True)
    where = Path(tempfile.mkdtemp(prefix=prefix, dir=options.dir))
    try:
        yield where
    finally:
        if not options.keep:
            shutil.rmtree(where, ignore_errors=True)


def stored(path: Path, about: Mapping[str, Any], empty: Mapping[str, Any]) -> dict[str, Any]:
    """What an earlier run has left in a file, or {"about": about, **empty}. UserError when that run had other settings."""
    found: dict[str, Any] = read_json(path) if path.exists() else {"about": dict(about), **empty}
    if found["about"] != dict(about):
        raise UserError(f"{path} was measured with {found['about']}, not {dict(about)}: give another file")
    return found


def run(measure: Callable[[], Iterable[Row]], json: Path | None) -> int:
    """Measures, reports the rows and returns the exit code; a mistake of the caller is one line and code 2.

    Rows that are yielded one by one are printed and written as they come: a run that is cut short keeps what it has.
    """
    rows: list[Row] = []
    try:
        for row in measure():
            rows.append(row)
            progress("  ".join(filter(None, (*_cells(row), _more(row)))))
            _write(rows, json)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    report(rows, json)
    return 0


def progress(text: str) -> None:
    """One line about what is being measured now."""
    print(f"  ... {text}", flush=True)


def seconds_of(call: Callable[[], Any]) -> float:
    """Wall time of one call; waits for a GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    begin = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def alternate(ours: Callable[[], Any], theirs: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Median seconds of both calls, which take turns `repeats` times. Warm them up first."""
    pairs = [(seconds_of(ours), seconds_of(theirs)) for _ in range(repeats)]
    mine, others = zip(*pairs, strict=True)
    return statistics.median(mine), statistics.median(others)


def median_seconds(call: Callable[[], Any], repeats: int, warm: int = 1) -> float:
    """Median seconds of one call, after `warm` unmeasured ones."""
    for _ in range(warm):
        call()
    return statistics.median(seconds_of(call) for _ in range(repeats))


class PeakMemory:
    """Context: `bytes` the resident memory of this process rose by, at most, while inside (sampled every 20 ms)."""

    def __enter__(self) -> PeakMemory:
        self.bytes, self._done = 0, threading.Event()
        self._before = _resident_bytes()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self.bytes = max(self.bytes, _resident_bytes() - self._before)

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._watcher.join()
        self.bytes = max(self.bytes, _resident_bytes() - self._before)


def _resident_bytes() -> int:
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * 4096 if status.exists() else 0


def memory_bandwidth(size: int = 512 * 2**20) -> float:
    """Bytes a second at which this machine reads `size` bytes once: the best of five sums."""
    numbers = torch.ones(size // 4)
    return size / min(seconds_of(numbers.sum) for _ in range(5))


def matmul_rate(side: int = 1536) -> float:
    """FLOP a second of a square float32 product, the best of five."""
    left, right = torch.randn(side, side), torch.randn(side, side)
    return 2 * side**3 / min(seconds_of(lambda: left @ right) for _ in range(5))


def middle_backbone(experts: int = 64, top_k: int = 4, context: int = 8192) -> Backbone:
    """About 150 M parameters at 64 experts, float32, random values from a seed: 8 layers, width 512, 8192 codes."""
    config = BackboneConfig(
        vocab_size=16384,
        hidden_size=512,
        intermediate_size=1280,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=64,
        num_experts=experts,
        num_experts_per_tok=top_k,
        moe_intermediate_size=192,
        image_token_offset=8192,
        n_group=min(8, experts),
        topk_group=min(4, experts),
        max_position_embeddings=context,
        initializer_range=0.05,
    )
    return Backbone(config, generator=torch.Generator().manual_seed(0)).eval()


def shipped_backbone() -> Backbone:
    """The backbone of the shipped model, float32 on the CPU. Raises UserError when it is not there."""
    return load_backbone(Path(__file__).parents[1] / "models" / "world", "cpu", torch.float32).eval()


def random_prompt(model: Backbone, length: int, seed: int) -> list[int]:
    """`length` ids of text (below the first image code and the mask), drawn from a seed."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, mask_of(model), (length,), generator=draw).tolist()


def mask_of(model: Backbone) -> int:
    """The id a benchmark uses as the mask: the last one before the image codes."""
    return model.config.image_token_offset - 1


def parameters_of(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def machine() -> dict[str, Any]:
    """What the numbers depend on: processor, threads, versions, date."""
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def report(rows: Sequence[Row], json: Path | None) -> None:
    """Print the rows as a table; write them, and the machine, to `json`."""
    here = machine()
    print(f"{here['processor']}, {here['threads']} threads, torch {here['torch']}, {here['date']}")
    head = ("case", "peer", "unit", "ours", "theirs", "ratio")
    table = [_cells(row) for row in rows]
    widths = [max(len(line[i]) for line in (head, *table)) for i in range(len(head))]
    for line, row in zip((head, *table), (None, *rows), strict=True):
        cells = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        print(f"{cells}  {_more(row) if row else ''}".rstrip())
    _write(rows, json)


def _cells(row: Row) -> tuple[str, ...]:
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}x"
    return row.case, row.peer, row.unit, _short(row.ours), _short(row.theirs), ratio


def _more(row: Row) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in row.more.items())


def _write(rows: Sequence[Row], json: Path | None) -> None:
    if json is not None:
        write_json(json, {"machine": machine(), "rows": [dataclasses.asdict(row) for row in rows]})


def _short(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
