"""Extraction over a cluster by Ray Data (extra "ray"): workers get shards as they become free, and those of a lost one again.

    extract_on_ray(job, workers=16, address="auto")

The shards that are not there yet -> Ray Data, one row a shard -> a pool of actors, each with the models
loaded once -> token shards on a file system that all machines see. What a lost worker had not finished is given to another; a
shard appears in one step, so work that is done twice changes nothing.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, cast

import torch

from llada_uni.data.extract import Extraction, Extractor, OnShard, finish_shards, unfinished_shards
from llada_uni.data.sources import Chunk
from llada_uni.errors import UserError

LOCAL = "local"
"""In place of an address: a cluster of this machine alone, for the time of the work."""


class ShardMaker:
    """An actor of the pool: makes shards, with the models loaded once."""

    def __init__(self, fields: dict[str, Any]) -> None:
        torch.set_num_threads(1)
        self.extractor = Extractor(Extraction(**fields))

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """row: number of the shard and the fields of its chunk -> its number of records, or what a person can mend."""
        number = row.pop("number")
        try:
            return {"records": self.extractor.make(number, Chunk(**row)), "mistake": ""}
        except UserError as error:
            return {"records": 0, "mistake": str(error)}


def extract_on_ray(
    job: Extraction, workers: int = 2, address: str = LOCAL, on_shard: OnShard | None = None
) -> dict[str, Any] | None:
    """As `extract`, by `workers` actors of the Ray cluster at `address` ("auto": the one this machine belongs to).

    With the device "cuda" each actor has a GPU. UserError as for `extract`, and when Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise UserError("Ray is not installed: pip install 'llada-uni[ray]'") from error
    if workers < 1:
        raise UserError(f"workers is {workers}; allowed: 1 and more")
    todo, total = unfinished_shards(job)
    if todo:
        own: dict[str, Any] = {"num_cpus": workers + 1, "include_dashboard": False}
        ray.init(ignore_reinit_error=True, log_to_driver=False, **(own if address == LOCAL else {"address": address}))
        try:
            _make(job, todo, workers, total, on_shard)
        finally:
            ray.shutdown()
    return finish_shards(job, total)


def _make(job: Extraction, todo: list[tuple[int, Chunk]], workers: int, total: int, on_shard: OnShard | None) -> None:
    import ray

    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = [{"number": number, **asdict(chunk)} for number, chunk in todo]
    made = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        cast(Any, ShardMaker),  # Ray takes classes of callables, whatever its hints say
        fn_constructor_args=(asdict(job),),
        concurrency=min(workers, len(rows)),
        num_cpus=1,
        num_gpus=1 if job.device.startswith("cuda") else 0,
        max_restarts=-1,  # a worker that is lost is started again, and what it was at is done again
        max_task_retries=-1,
    )
    done = total - len(todo)
    for row in made.iter_rows():
        if row["mistake"]:
            raise UserError(row["mistake"])
        done += 1
        if on_shard is not None:
            on_shard(done, total, row["records"])
