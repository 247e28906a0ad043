"""The Dockerfile and the Kubernetes example, as far as they can be checked without either: names, paths, ports, times."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from fastapi.routing import APIRoute

from llada_uni import cli
from llada_uni.serving.http.app import life
from llada_uni.serving.http.options import KEY_VARIABLE

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
OBJECTS = {one["kind"]: one for one in yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text())}
POD = OBJECTS["Deployment"]["spec"]["template"]["spec"]
SERVER = POD["containers"][0]


def instructions(name: str) -> list[str]:
    """The arguments of every instruction of that name, continued lines joined."""
    joined = DOCKERFILE.replace("\\\n", " ")
    return [line.split(None, 1)[1] for line in joined.splitlines() if line.startswith(f"{name} ")]


def command_line() -> list[str]:
    """What the container runs, with the arguments that Kubernetes gives it."""
    return [*yaml.safe_load(instructions("ENTRYPOINT")[0]), *SERVER["args"]]


def options_of_serve() -> set[str]:
    command = cli.command_line().find("serve")
    return {name for parameter in command.params for name in parameter.opts}


def test_what_the_image_is_made_of_exists_and_is_sent_to_the_builder():
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [name for line in instructions("COPY") for name in shlex.split(line)[:-1]]
    assert set(copied) == allowed and all((ROOT / name).exists() for name in copied)
    extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert "EXTRA=serve" in instructions("ARG") and {"serve", "ray"} <= set(extras)


def test_the_command_and_its_options_exist():
    program, command, model, *rest = command_line()
    assert (program, command, model) == ("llada-uni", "serve", "/model") and "/model" in instructions("VOLUME")
    given = [word for word in [*rest, *yaml.safe_load(instructions("CMD")[0])] if word.startswith("--")]
    assert set(given) <= options_of_serve()
    assert rest[rest.index("--port") + 1] == instructions("EXPOSE")[0] == str(SERVER["ports"][0]["containerPort"])
    assert f":{instructions('EXPOSE')[0]}/health" in instructions("HEALTHCHECK")[0]


def test_nobody_runs_as_root():
    user = int(instructions("USER")[0])
    assert user > 0 and f"--uid {user}" in DOCKERFILE
    assert POD["securityContext"]["runAsUser"] == user and POD["securityContext"]["runAsNonRoot"] is True
    assert SERVER["securityContext"]["allowPrivilegeEscalation"] is False
    assert SERVER["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize(("probe", "path"), [("startup", "/ready"), ("readiness", "/ready"), ("liveness", "/health")])
def test_probes_ask_what_the_server_answers(probe, path):
    asked = SERVER[f"{probe}Probe"]["httpGet"]
    assert asked["path"] == path and asked["port"] == SERVER["ports"][0]["name"]
    assert path in {route.path for route in life.routes if isinstance(route, APIRoute)}


def test_a_stop_has_time_to_drain():
    grace = float(command_line()[command_line().index("--grace") + 1])
    before = float(SERVER["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert POD["terminationGracePeriodSeconds"] >= before + grace + 10


def test_metrics_are_read_where_no_key_is_needed():
    annotations = OBJECTS["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    port = command_line()[command_line().index("--metrics-port") + 1]
    assert annotations["prometheus.io/port"] == port
    assert int(port) in [one["containerPort"] for one in SERVER["ports"] if one["name"] == "metrics"]
    assert "metrics" not in [one["targetPort"] for one in OBJECTS["Service"]["spec"]["ports"]]


def test_the_model_has_a_name():
    """Without one it would be called as its mount is, "model"."""
    for words in (command_line(), yaml.safe_load(instructions("CMD")[0])):
        assert words[words.index("--name") + 1] == "llada-uni"


def test_secret_model_and_resources_come_from_outside():
    (key,) = [one for one in SERVER["env"] if one["name"] == KEY_VARIABLE]
    assert set(key["valueFrom"]) == {"secretKeyRef"} and "Secret" not in OBJECTS
    assert {"cpu", "memory"} <= set(SERVER["resources"]["requests"]) and "memory" in SERVER["resources"]["limits"]
    mounted = {one["name"]: one for one in SERVER["volumeMounts"]}
    assert mounted["model"] == {"name": "model", "mountPath": "/model", "readOnly": True}
    assert set(mounted) == {one["name"] for one in POD["volumes"]}


def test_service_and_budget_select_the_pods():
    labels = OBJECTS["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for kind in ("Deployment", "PodDisruptionBudget"):
        assert OBJECTS[kind]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    service = OBJECTS["Service"]["spec"]
    assert service["selector"].items() <= labels.items()
    assert service["ports"][0]["targetPort"] == SERVER["ports"][0]["name"]
    assert OBJECTS["PodDisruptionBudget"]["spec"]["minAvailable"] < OBJECTS["Deployment"]["spec"]["replicas"]


def test_no_version_is_written_twice():
    assert not re.search(r"torch==", DOCKERFILE), "versions stand in constraints.txt"
