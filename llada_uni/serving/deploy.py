"""Many replicas of the server on a Ray cluster: Ray Serve starts them, spreads requests over them, replaces dead ones.

    python -m llada_uni.serving.deploy --model models/world --replicas 2
    python -m llada_uni.serving.deploy --model /models/uni --replicas 2 --max-replicas 8 --gpus 1 --address auto

HTTP -> Ray's proxy -> the replica with the least to do, which is one `Service` behind `create_app` ->
answers and streams, unchanged. A replica opens when its model is in memory; it is asked for its health, and when it stops,
what it works on is finished first. The model directory must lie under the same path on every machine.
Limits (queue, rate) are each replica's own; /metrics are those of the replica that happens to answer.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import signal
import sys
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llada_uni.errors import UserError
from llada_uni.serving.http.options import ServerOptions, keys_from_environment
from llada_uni.serving.scheduler.limits import Limits

if TYPE_CHECKING:
    from fastapi import FastAPI
    from ray.serve import Application

NAME = "llada-uni"
OBJECT_STORE = 100 * 2**20  # bytes; nothing large goes through it: every replica reads the model itself
HEALTH_PERIOD, HEALTH_TIMEOUT = 5.0, 30.0  # seconds
STARTS = 3  # how often a replica may fail to load its model before the deployment is given up
SLACK = 10.0  # seconds that the proxy waits longer than the service, whose own word about the time is clearer


@dataclass(frozen=True)
class Plan:
    """What is deployed. model, device, dtype, quantization, offload: as for `UniModel.from_pretrained`.

    replicas: how many; max_replicas: as many as that under load, None for a fixed number. cpus, gpus: what Ray sets aside
    for each. grace: seconds in which a replica that stops finishes what it works on. UserError for numbers that make no
    sense.
    """

    model: str | None = None
    device: str | None = None
    dtype: str | None = None
    quantization: str | None = None
    offload: bool = False
    limits: Limits = field(default_factory=Limits)
    options: ServerOptions = field(default_factory=ServerOptions)
    replicas: int = 2
    max_replicas: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    grace: float = 30.0

    def __post_init__(self) -> None:
        if self.replicas < 1:
            raise UserError(f"replicas is {self.replicas}; allowed: at least 1")
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise UserError(f"max_replicas is {self.max_replicas}; allowed: at least the {self.replicas} replicas of the start")
        if min(self.cpus, self.gpus, self.grace) < 0:
            raise UserError("cpus, gpus and grace must not be negative")


class Replica:
    """One service behind the HTTP application. Made by Ray on a worker; UserError when its model cannot be loaded."""

    def __init__(self, plan: Plan) -> None:
        from llada_uni.serving.memory import keep_little

        keep_little()  # before torch is imported
        from llada_uni.model import UniModel
        from llada_uni.serving.metrics import Metrics
        from llada_uni.serving.scheduler.service import Service

        self.options = plan.options
        model = UniModel.from_pretrained(
            plan.model, plan.device, plan.dtype, quantization=plan.quantization, offload=plan.offload
        )
        self.service = Service(model, plan.limits, Metrics())
        self.service.start()
        pause = threading.Event()
        while not self.service.ready:
            if self.service.failure is not None:
                self.service.close()
                raise UserError(self.service.failure)
            pause.wait(0.05)

    def __serve_build_asgi_app__(self) -> FastAPI:
        from llada_uni.serving.http.app import create_app

        return create_app(self.service, self.options)

    def check_health(self) -> None:
        """Ray replaces a replica for which this raises."""
        if not self.service.ready:
            raise RuntimeError("the service takes nothing")

    def __del__(self) -> None:
        """Ray calls it when what the replica worked on is finished, or its grace is over."""
        if "service" in vars(self):
            self.service.close()


def application(plan: Plan) -> Application:
    """The deployment for `ray.serve.run`. UserError without Ray."""
    serve = _ray_serve()
    limits = plan.limits
    scale: dict[str, Any] = {"num_replicas": plan.replicas}
    if plan.max_replicas is not None:
        scale = {
            "autoscaling_config": {
                "min_replicas": plan.replicas,
                "max_replicas": plan.max_replicas,
                "target_ongoing_requests": limits.max_batch,
            }
        }
    deployment = serve.deployment(
        serve.ingress()(Replica),
        name=NAME,
        ray_actor_options={"num_cpus": plan.cpus, "num_gpus": plan.gpus},
        max_ongoing_requests=limits.max_batch + limits.max_queue,
        max_queued_requests=limits.max_queue,
        health_check_period_s=HEALTH_PERIOD,
        health_check_timeout_s=HEALTH_TIMEOUT,
        graceful_shutdown_timeout_s=plan.grace,
        max_constructor_retry_count=STARTS,
        **scale,
    )
    return deployment.bind(plan)


def run(plan: Plan, host: str = "127.0.0.1", port: int = 8000, address: str | None = None) -> None:
    """Deploy and serve until SIGTERM or SIGINT comes, then drain and end.

    address: of a running Ray cluster ("auto": the one this machine belongs to); None starts one here. UserError without
    Ray, and for a model that cannot be loaded.
    """
    serve = _ray_serve()
    import ray

    here: dict[str, Any] = {"include_dashboard": False, "object_store_memory": OBJECT_STORE} if address is None else {}
    ray.init(address=address, logging_level=logging.WARNING, log_to_driver=False, **here)
    try:
        if address is None:
            _check_room(plan, ray.cluster_resources())
        serve.start(http_options={"host": host, "port": port, "request_timeout_s": plan.limits.timeout + SLACK})
        try:
            serve.run(application(plan), name=NAME)
        except RuntimeError as error:
            raise UserError(f"the deployment failed: {_reason(serve)}") from error
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):  # after ray.init, which takes SIGTERM for itself
            signal.signal(number, lambda *_: stop.set())
        print(f"http://{host}:{port}  ready, {plan.replicas} replicas; SIGTERM or Ctrl+C drains and ends", file=sys.stderr)
        stop.wait()
        serve.delete(NAME)  # returns when every replica has finished its work
    finally:
        serve.shutdown()
        ray.shutdown()


def _check_room(plan: Plan, there: dict[str, float]) -> None:
    """UserError where Ray would wait for ever: more asked for than this machine has."""
    for name, each in (("CPU", plan.cpus), ("GPU", plan.gpus)):
        if plan.replicas * each > there.get(name, 0):
            raise UserError(
                f"{plan.replicas} replicas of {each:g} {name} each need {plan.replicas * each:g}, "
                f"this machine has {there.get(name, 0):g}; ask for fewer, or give --{name.lower()}s"
            )


def _reason(serve: Any) -> str:
    """The last line that a replica said before it died."""
    said = serve.status().applications[NAME].deployments[NAME].message
    return said.strip().splitlines()[-1].removeprefix("llada_uni.errors.UserError: ")


def _ray_serve() -> Any:
    try:
        from ray import serve
    except ImportError as error:
        raise UserError("Ray is not installed: pip install 'llada-uni[ray]'") from error
    return serve


def read_plan(arguments: list[str] | None = None) -> tuple[Plan, dict[str, Any]]:
    """A command line as a plan, and the other arguments of `run`. API keys come from LLADA_UNI_API_KEY."""
    parser = argparse.ArgumentParser(
        prog="python -m llada_uni.serving.deploy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    plan, limits = Plan(), Limits()
    parser.add_argument("--model", "-m", help="model directory; default: LLADA_UNI_MODEL, else the shipped model")
    parser.add_argument("--name", default=plan.options.model_name, help="what clients call the model")
    parser.add_argument("--replicas", type=int, default=plan.replicas)
    parser.add_argument("--max-replicas", type=int, help="scale up to so many under load; default: a fixed number")
    parser.add_argument("--cpus", type=float, default=plan.cpus, help="CPU cores for each replica")
    parser.add_argument("--gpus", type=float, default=plan.gpus, help="GPUs for each replica")
    parser.add_argument("--device", help="cpu, cuda, mps; default: a GPU if there is one")
    parser.add_argument("--dtype", help="float32, bfloat16, float16")
    parser.add_argument("--quantization", help="experts in memory as int8, int4 or float8")
    parser.add_argument("--offload", action="store_true", help="the decoder's transformer and VAE are in memory by turns")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--address", help="of a running Ray cluster (auto: this machine's); default: start one here")
    parser.add_argument("--grace", type=float, default=plan.grace, help="seconds to finish what runs when told to stop")
    parser.add_argument("--max-batch", type=int, default=limits.max_batch, help="requests a replica works on at a time")
    parser.add_argument("--max-queue", type=int, default=limits.max_queue, help="requests that wait at a replica")
    parser.add_argument("--timeout", type=float, default=limits.timeout, help="seconds for a request")
    parser.add_argument("--allow-remote-images", action="store_true", help="fetch pictures given as http(s) addresses")
    given = vars(parser.parse_args(arguments))
    options = ServerOptions(keys_from_environment(), given["allow_remote_images"], model_name=given["name"])
    own = {name: given[name] for name in ("max_batch", "max_queue", "timeout")}
    planned = {name: given[name] for name in (field.name for field in dataclasses.fields(Plan)) if name in given}
    where = {name: given[name] for name in ("host", "port", "address")}
    return Plan(limits=Limits(**own), options=options, **planned), where


def main() -> int:
    try:
        plan, where = read_plan()
        run(plan, **where)
    except UserError as error:
        print(f"deploy: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
