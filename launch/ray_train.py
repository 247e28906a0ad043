"""A recipe on a Ray cluster: Ray Train starts the workers and sets up their process group; the rest is `llada-uni train`.

    python launch/ray_train.py --workers 2 recipes/smoke/s1.yaml loop.micro_batches=2           # two CPU workers, this machine
    python launch/ray_train.py --workers 64 --gpu --restarts 3 --address auto recipes/released/s1.yaml parallel.shard=true

Recipe, data and run directory must lie on a file system that every worker sees, under the same path. When a worker is lost
Ray starts all of them again, and the loop goes on from its last complete checkpoint.
"""

from __future__ import annotations

import argparse
import os
import sys

from llada_uni.errors import UserError


def work(task: dict) -> None:
    """Runs in every worker: the same call as under torchrun."""
    os.chdir(task["folder"])  # Ray starts workers elsewhere; the recipe's paths are relative to where the user stands
    from llada_uni.training.recipes.recipe import read_recipe, train

    train(read_recipe(task["recipe"], task["changes"]))


def train_on_ray(
    recipe: str, changes: list[str], workers: int, gpu: bool = False, restarts: int = 0, address: str | None = None
) -> None:
    """Trains a recipe on `workers` workers of the cluster at `address` (None: of this machine alone).

    gpu: one GPU a worker, else one CPU core. restarts: how often all may start again after a fault. UserError for a recipe that
    cannot be read, and when Ray is not installed or a worker fails.
    """
    try:
        import ray
        from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
        from ray.train.torch import TorchTrainer
    except ImportError as error:
        raise UserError("Ray is not installed: pip install 'llada-uni[ray]'") from error
    from llada_uni.training.recipes.recipe import read_recipe

    chosen = read_recipe(recipe, changes)  # mistakes show before a cluster is asked for workers
    ray.init(address=address, ignore_reinit_error=True, num_cpus=workers + 1 if address is None else None)
    trainer = TorchTrainer(
        work,
        train_loop_config={"folder": os.getcwd(), "recipe": recipe, "changes": changes},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpu),
        run_config=RunConfig(
            name="ray", storage_path=str(chosen.out.absolute()), failure_config=FailureConfig(max_failures=restarts)
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:  # its last line is the worker's own exception
        raise UserError(f"training on Ray failed: {str(error).strip().splitlines()[-1]}") from error
    finally:
        ray.shutdown()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="a YAML file")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="keys of the recipe to change")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--gpu", action="store_true", help="one GPU a worker")
    parser.add_argument("--restarts", type=int, default=0, help="how often all may start again after a fault")
    parser.add_argument("--address", help="of a running cluster (auto: the one this machine belongs to)")
    args = parser.parse_args()
    try:
        train_on_ray(args.recipe, args.changes, args.workers, args.gpu, args.restarts, args.address)
    except UserError as error:
        print(f"ray_train: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
