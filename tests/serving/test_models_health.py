"""GET /v1/models, /v1/llada/defaults, /health, /ready, /metrics, the page, and the forms of 404 and 405."""

from __future__ import annotations

import pytest

from llada_uni.generation.params import CONFIDENCES
from llada_uni.generation.unmasking import RULES
from llada_uni.model import UniModel
from llada_uni.serving.http.app import create_app
from llada_uni.serving.http.options import ServerOptions, keys_from_environment
from llada_uni.serving.scheduler.limits import Limits
from llada_uni.serving.scheduler.service import Service
from tests.serving.servers import asgi_client, ask, error_of, one_picture, scripted, wait_for, words
from tests.tiny_model import make_tiny_model


def get(path, method="GET", **options):
    service, client = scripted(words, **options)
    return service, ask(client, path, method, headers={"authorization": "Bearer right"})


def test_models():
    _, client = scripted(words)  # one server: its start is the "created" of the model
    listed = ask(client, "/v1/models", "GET").json()
    assert listed["object"] == "list" and [model["id"] for model in listed["data"]] == ["scripted"]
    assert listed["data"][0]["sizes"] == ["32x32"]
    assert ask(client, "/v1/models/scripted", "GET").json() == listed["data"][0]
    response = get("/v1/models/other")[1]
    assert response.status_code == 404 and error_of(response)["code"] == "model_not_found"


def test_health_and_ready():
    service, client = scripted(words)
    assert ask(client, "/health", "GET").json()["status"] == "ok"
    assert ask(client, "/ready", "GET").json() == {"status": "ready", "model": "scripted"}
    service.ready = False
    response = ask(client, "/ready", "GET")
    assert response.status_code == 503 and "loading" in error_of(response)["message"] and response.headers["retry-after"]
    assert ask(client, "/health", "GET").status_code == 200
    assert ask(client, "/v1/llada/defaults", "GET").status_code == 503
    service.failure = "the model cannot be loaded: config.json is broken"
    response = ask(client, "/ready", "GET")
    assert response.status_code == 503 and error_of(response)["message"] == service.failure


def test_metrics():
    response = get("/metrics")[1]
    assert response.headers["content-type"].startswith("text/plain") and "llada_uni_jobs_running" in response.text


def test_defaults_of_a_model(tmp_path, golden):
    service = Service(UniModel.from_pretrained(make_tiny_model(tmp_path / "tiny", golden), "cpu"), Limits(max_n=3))
    service.start()
    try:
        wait_for(lambda: service.ready, "the model")
        answer = ask(asgi_client(create_app(service)), "/v1/llada/defaults", "GET").json()
    finally:
        service.close()
    assert answer["size_step"] == service.model.parts.pixels_per_code
    assert answer["settings"]["generate"]["width"] == 32 and answer["decoders"] == ["turbo", "base"]
    assert answer["limits"]["max_n"] == 3 and answer["remote_images"] is False
    assert answer["rules"] == list(RULES) and answer["confidences"] == list(CONFIDENCES)


def test_a_broken_model_leaves_the_server_up(tmp_path, golden):
    folder = make_tiny_model(tmp_path / "broken", golden)
    (folder / "model.safetensors").write_bytes(b"nothing")
    service = Service(UniModel.from_pretrained(folder, "cpu"))
    service.start()
    try:
        wait_for(lambda: service.failure is not None, "the reason")
        client = asgi_client(create_app(service))
        response = ask(client, "/ready", "GET")
        assert response.status_code == 503 and "cannot be loaded" in error_of(response)["message"]
        assert str(folder) not in response.text
        refused = ask(client, "/v1/images/generations", json={"prompt": "a dog"})
        assert refused.status_code == 503 and error_of(refused)["message"] == error_of(response)["message"]
        assert ask(client, "/health", "GET").status_code == 200
    finally:
        service.close()


def test_the_page_and_its_files():
    page = get("/")[1]
    assert page.headers["content-type"].startswith("text/html") and "<title>" in page.text
    module = get("/studio/js/main.js")[1]
    assert module.headers["content-type"].startswith("text/javascript")
    assert page.headers["cache-control"] == module.headers["cache-control"] == "no-cache"
    assert get("/studio/../http.py")[1].status_code == 404 == get("/studio/%2e%2e/http.py")[1].status_code


@pytest.mark.parametrize(("path", "method", "status"), [("/v1/nothing", "GET", 404), ("/v1/models", "DELETE", 405)])
def test_wrong_addresses_and_methods(path, method, status):
    response = get(path, method)[1]
    assert response.status_code == status and "/openapi.json" in error_of(response)["message"]


def test_keys_open_the_api_and_say_who_asks():
    service, client = scripted(one_picture, api_keys=("left", "right"))
    body = {"prompt": "a cat"}
    refused = ask(client, "/v1/images/generations", json=body)
    assert refused.status_code == 401 and error_of(refused)["code"] == "invalid_api_key"
    right = {"authorization": "Bearer right"}
    assert ask(client, "/v1/images/generations", json=body, headers=right).status_code == 200
    assert service.owners == ["key 2"]
    assert ask(client, "/health", "GET").status_code == 200 == ask(client, "/", "GET").status_code


def test_pages_of_other_origins():
    _, client = scripted(words, cors_origins=("https://example.org",))
    asked = {"origin": "https://example.org", "access-control-request-method": "POST"}
    response = ask(client, "/v1/chat/completions", "OPTIONS", headers=asked)
    assert response.status_code == 200 and response.headers["access-control-allow-origin"] == "https://example.org"
    response = ask(client, "/v1/models", "GET", headers={"origin": "https://example.com"})
    assert response.status_code == 403 and error_of(response)["code"] == "origin_not_allowed"


def test_options_are_checked(monkeypatch):
    with pytest.raises(ValueError, match="API key is blank"):
        ServerOptions(api_keys=("good", " "))
    with pytest.raises(ValueError, match="model name"):
        ServerOptions(model_name="a\nb")
    assert "secret" not in repr(ServerOptions(api_keys=("secret",)))
    monkeypatch.setenv("LLADA_UNI_API_KEY", "a, b,")
    assert keys_from_environment() == ("a", "b")
