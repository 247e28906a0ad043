"""A day's share of each key: what is counted, what is said when it is used up, and that a new day brings a new one."""

from __future__ import annotations

import pytest

from llada_uni.errors import UserError
from llada_uni.results import Usage
from llada_uni.serving.http.options import ServerOptions
from llada_uni.serving.http.quota import DAY, EVERY_KEY, Quota, Quotas, read_quotas
from tests.serving.servers import ask, error_of, one_picture, scripted, words

CHAT, BODY = "/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}


def test_words_become_quotas():
    assert read_quotas(["requests=5, images=2", "2:tokens=9"]) == {EVERY_KEY: Quota(5, None, 2), "key 2": Quota(tokens=9)}


@pytest.mark.parametrize(
    "words", ["", "5", "words=5", "images=-1", "images=1,images=2", "0:images=1", "images=1,", "x:images=1"]
)
def test_other_words_are_refused(words):
    with pytest.raises(UserError, match="--quota"):
        read_quotas([words])


def test_a_new_day_brings_a_new_share():
    now = [DAY * 100.0 + 60]
    quotas = Quotas({EVERY_KEY: Quota(requests=1)}, lambda: now[0])
    assert quotas.refusal("key 1") is None
    assert quotas.refusal("key 1") == ("1 requests a day", DAY - 60)
    assert quotas.refusal("key 2") is None
    now[0] += DAY
    assert quotas.refusal("key 1") is None


def test_tokens_and_images_count_when_they_are_there():
    quotas = Quotas({"key 1": Quota(tokens=20, images=1)}, lambda: 0.0)
    quotas.charge("key 1", Usage(5, 7, 0))
    assert quotas.refusal("key 1") is None
    quotas.charge("key 1", Usage(5, 7, 0))
    assert quotas.refusal("key 1") == ("20 tokens a day", DAY)
    assert quotas.refusal("key 2") is None


@pytest.mark.parametrize("stream", [False, True])
def test_a_key_that_has_used_up_its_share_is_told(stream):
    quotas = read_quotas(["images=1", "2:images=5"])
    _, client = scripted(one_picture, api_keys=("a", "b"), quotas=quotas)
    body = {"prompt": "a cat", "stream": stream}

    def draw(key):
        return ask(client, "/v1/images/generations", json=body, headers={"authorization": f"Bearer {key}"})

    assert draw("a").status_code == 200
    refused = draw("a")
    assert refused.status_code == 429 and int(refused.headers["retry-after"]) > 0
    assert error_of(refused)["code"] == "insufficient_quota" and "1 images a day" in error_of(refused)["message"]
    assert draw("b").status_code == draw("b").status_code == 200
    assert ask(client, "/v1/models", "GET", headers={"authorization": "Bearer a"}).status_code == 200


def test_quotas_need_keys():
    with pytest.raises(UserError, match="LLADA_UNI_API_KEY"):
        ServerOptions(quotas=read_quotas(["images=1"]))
    with pytest.raises(UserError, match="quota for key 2"):
        ServerOptions(api_keys=("a",), quotas=read_quotas(["2:images=1"]))
    assert ask(scripted(words)[1], CHAT, json=BODY).status_code == 200
