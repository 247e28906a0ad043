"""The model's directory goes while the server runs: what is in memory serves on, the rest is no fault of the client."""

from __future__ import annotations

import shutil

from llada_uni.errors import UserError
from llada_uni.model import UniModel
from llada_uni.requests import Chat, Draw
from llada_uni.serving.errors import Failed
from llada_uni.serving.scheduler.service import LOST
from tests.serving.conftest import results, running

WORDS = Chat(messages=[{"role": "user", "content": "hello"}], modalities=("text",), seed=1, max_tokens=4)
CAT = Draw(prompt="a cat", seed=1, height=32, width=32, decoder_steps=1)


def test_a_directory_that_goes_and_comes_back(serving_folder, tmp_path):
    folder, away = tmp_path / "model", tmp_path / "away"
    shutil.copytree(serving_folder, folder)
    with running(UniModel.from_pretrained(folder, device="cpu", offload=True)) as service:  # reads the decoder each time
        before = results(service.submit(WORDS))[0].text
        folder.rename(away)
        assert results(service.submit(WORDS))[0].text == before and service.ready
        (failed,) = results(service.submit(CAT))
        assert isinstance(failed, Failed) and str(failed) == LOST
        assert not service.ready and service.failure == LOST
        assert results(service.submit(WORDS))[0].text == before  # parts in memory serve on
        away.rename(folder)
        assert service.ready and service.failure is None
        assert results(service.submit(CAT))[0].images


def test_mistakes_stay_the_clients_while_the_directory_is_there(service):
    (failed,) = results(service.submit(Draw(prompt="a cat", height=33, width=32)))
    assert isinstance(failed, UserError) and service.ready
