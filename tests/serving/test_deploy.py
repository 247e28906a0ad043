"""The Ray Serve deployment: one replica without Ray, the command line, and two replicas under load of which one is killed."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import psutil
import pytest

from llada_uni.errors import UserError
from llada_uni.serving import deploy
from llada_uni.serving.deploy import Plan, Replica, read_plan
from llada_uni.serving.http.options import ServerOptions
from llada_uni.serving.scheduler.limits import Limits
from tests.serving.servers import asgi_client, ask
from tests.tiny_model import make_tiny_model

PATIENCE = 120.0
DRAW = {"prompt": "a cat", "size": "32x32", "seed": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, golden):
    return make_tiny_model(tmp_path_factory.mktemp("deployed") / "tiny", golden)


def test_a_replica_is_a_service_behind_the_application(folder):
    plan = Plan(str(folder), "cpu", limits=Limits(max_batch=2), options=ServerOptions(("secret",), model_name="tiny"))
    replica = Replica(plan)
    client = asgi_client(replica.__serve_build_asgi_app__())
    assert ask(client, "/ready", "GET").json()["model"] == "tiny"
    assert ask(client, "/v1/images/generations", json=DRAW).status_code == 401
    replica.check_health()
    replica.service.close()
    with pytest.raises(RuntimeError, match="takes nothing"):
        replica.check_health()


def test_a_model_that_cannot_be_loaded_ends_the_replica_in_a_line(folder, tmp_path):
    broken = make_broken(folder, tmp_path / "broken")
    with pytest.raises(UserError, match="cannot be loaded"):
        Replica(Plan(str(broken), "cpu"))
    with pytest.raises(UserError, match="no model directory"):
        Replica(Plan(str(tmp_path / "missing"), "cpu"))


def make_broken(folder, target):
    target.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (target / name).write_bytes((folder / name).read_bytes()[:1000])
    return target


def test_the_command_line_becomes_a_plan(monkeypatch, capsys):
    monkeypatch.setenv("LLADA_UNI_API_KEY", "one,two")
    words = "--model M --replicas 3 --max-replicas 5 --gpus 1 --cpus 2 --max-batch 4 --timeout 9 --name N --port 9"
    plan, where = read_plan([*words.split(), "--quantization", "int8"])
    assert (plan.model, plan.replicas, plan.max_replicas, plan.gpus, plan.cpus) == ("M", 3, 5, 1.0, 2.0)
    assert plan.quantization == "int8"
    assert (plan.limits.max_batch, plan.limits.timeout, plan.limits.max_queue) == (4, 9.0, Limits().max_queue)
    assert plan.options == ServerOptions(("one", "two"), model_name="N")
    assert where == {"host": "127.0.0.1", "port": 9, "address": None}
    for wrong, message in (
        ("--replicas 0", "at least 1"),
        ("--replicas 3 --max-replicas 2", "max_replicas"),
        ("--gpus -1", "gpus"),
    ):
        monkeypatch.setattr(sys, "argv", ["deploy", *wrong.split()])
        assert deploy.main() == 2 and message in capsys.readouterr().err


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"llada-uni\[ray\]"):
        deploy.application(Plan())


def test_what_ray_is_told():
    pytest.importorskip("ray.serve")
    fixed = deploy.application(
        Plan(replicas=3, cpus=2, gpus=1, grace=7, limits=Limits(max_batch=4, max_queue=6))
    )._bound_deployment
    assert fixed.num_replicas == 3 and fixed.max_ongoing_requests == 10 and fixed.max_queued_requests == 6
    assert fixed.ray_actor_options["num_cpus"] == 2 and fixed.ray_actor_options["num_gpus"] == 1
    assert fixed._deployment_config.graceful_shutdown_timeout_s == 7
    elastic = deploy.application(Plan(replicas=1, max_replicas=4, limits=Limits(max_batch=8)))._bound_deployment
    scale = elastic._deployment_config.autoscaling_config
    assert (scale.min_replicas, scale.max_replicas, scale.target_ongoing_requests) == (1, 4, 8)


def test_more_than_the_machine_has_is_refused():
    deploy._check_room(Plan(replicas=4, cpus=0.5), {"CPU": 2.0})
    for plan, words in (
        (Plan(replicas=3), "need 3, this machine has 2"),
        (Plan(replicas=1, gpus=1), "1 GPU each need 1, .* has 0"),
    ):
        with pytest.raises(UserError, match=words):
            deploy._check_room(plan, {"CPU": 2.0})


# --- a cluster on this machine ---


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def deployed(*arguments: str):
    """(process, address) of the deployment, ready. What is still there at the end is killed."""
    port = free_port()
    command = [sys.executable, "-m", "llada_uni.serving.deploy", "--port", str(port), "--device", "cpu", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(process.stderr), daemon=True)
    reader.start()
    try:
        wait_for(lambda: any("ready," in line for line in said) or process.poll() is not None, "the deployment")
        assert process.poll() is None, "".join(said)
        yield process, f"http://127.0.0.1:{port}"
    finally:
        family = [process, *children_of(process)]
        for one in family:
            if one.poll() is None if one is process else one.is_running():
                one.kill()
        process.wait()


def children_of(process: subprocess.Popen) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []


def replicas_of(process: subprocess.Popen) -> list[psutil.Process]:
    found = []
    for child in children_of(process):
        try:
            if "ServeReplica" in "".join(child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


def wait_for(condition, what: str) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, f"waited for {what} in vain"
        time.sleep(0.1)


def draw(base: str, seed: int) -> tuple[int, str]:
    """(status, picture or error) of one request; status 0 where the connection broke."""
    try:
        answer = httpx.post(f"{base}/v1/images/generations", json={**DRAW, "seed": seed}, timeout=PATIENCE)
    except httpx.TransportError as error:
        return 0, repr(error)
    return answer.status_code, answer.json()["data"][0]["b64_json"] if answer.status_code == 200 else answer.text


def stream(base: str, **more) -> Iterator[str]:
    """The names of the events of a picture that is slow to draw, as they arrive."""
    body = {**DRAW, "stream": True, "progress": True, "decoder": "base", "decoder_steps": 300, **more}
    with httpx.stream("POST", f"{base}/v1/images/generations", json=body, timeout=PATIENCE) as answer:
        assert answer.status_code == 200
        yield from (line.removeprefix("event: ") for line in answer.iter_lines() if line.startswith("event: "))


@pytest.mark.slow
def test_two_replicas_of_which_one_is_killed_under_load(folder):
    pytest.importorskip("ray.serve")
    with deployed("--model", str(folder), "--replicas", "2", "--cpus", "0.5") as (process, base):
        killed, other = replicas_of(process)
        assert httpx.get(f"{base}/ready").status_code == 200
        want = draw(base, 1)
        assert want[0] == 200

        with ThreadPoolExecutor(8) as pool:
            calls = [pool.submit(draw, base, seed) for seed in range(120)]
            wait_for(lambda: sum(call.done() for call in calls) >= 20, "the load to run")
            killed.kill()
            answers = [call.result() for call in calls]
        assert len(answers) == 120 and sum(status == 200 for status, _ in answers) >= 100, "the other replica goes on"
        assert all(status in (0, 500, 503) and text for status, text in answers if status != 200), answers
        wait_for(lambda: len(set(replicas_of(process)) - {killed}) == 2, "the replica to come back")
        assert other in replicas_of(process), "the other one was left alone"
        assert {draw(base, 1) for _ in range(6)} == {want}, "a seed means the same everywhere"

        events = stream(base)
        assert next(events) == "llada.progress", "the first word comes while the picture is being drawn"
        process.send_signal(signal.SIGTERM)
        *rest, last = events
        assert len(rest) > 10 and last == "image_generation.completed", "what runs is finished before the end"
        assert process.wait(PATIENCE) == 0
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{base}/health")


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_ends_the_deployment_in_a_line(folder, tmp_path):
    pytest.importorskip("ray.serve")
    broken = make_broken(folder, tmp_path / "broken")
    command = [sys.executable, "-m", "llada_uni.serving.deploy", "--model", str(broken), "--replicas", "1"]
    done = subprocess.run([*command, "--port", str(free_port())], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("deploy: the deployment failed: the model cannot be loaded: "), done.stderr
