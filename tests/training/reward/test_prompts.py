"""Prompts by number: every record once an epoch, shares, what is asked, answers in pairs, records that cannot be used."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from llada_uni.data.sources import open_source
from llada_uni.errors import UserError
from llada_uni.text.prompts import PromptFormat
from llada_uni.text.tokenizer import TextTokenizer
from llada_uni.training.reward.prompts import CHUNK, Prompts, Records
from tests.training.reward import small


@pytest.fixture(scope="module")
def folder(tmp_path_factory, golden) -> Path:
    return small.make_folder(tmp_path_factory.mktemp("prompts"), golden)


def prompts(folder: Path, *names: str, seed: int = 0) -> Prompts:
    form = PromptFormat(TextTokenizer.from_file(folder / "model" / "tokenizer.json"), 480)
    return Prompts({str(folder / name): 1.0 for name in names}, folder / "model", form, seed)


def numbered(path: Path, count: int) -> Path:
    said = [{"role": "user", "content": "a cat"}, {"role": "assistant", "content": "a dog"}]
    lines = [json.dumps({"task": "text", "id": str(number), "messages": said}) for number in range(count)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_every_record_comes_once_an_epoch_in_another_order(tmp_path):
    count = 2 * CHUNK + 7
    records = Records(open_source(numbered(tmp_path / "many.jsonl", count)), 0)
    epochs = [[records[number].id for number in range(start, start + count)] for start in (0, count)]
    assert all(sorted(map(int, epoch)) == list(range(count)) for epoch in epochs)
    assert epochs[0] != epochs[1] != list(map(str, range(count)))
    assert records[3].id == epochs[0][3]  # whatever was read meanwhile


def test_sources_are_mixed_by_their_shares(folder, tmp_path):
    numbered(folder / "more.jsonl", 5)
    mixed = prompts(folder, small.TEXTS, "more.jsonl")
    mixed.ends = [3.0, 4.0]  # shares of 3 and 1
    found = Counter(Path(prompt.source).name for prompt in mixed.take(range(400)))
    assert 250 < found[small.TEXTS] < 350
    assert prompts(folder, small.TEXTS).take([5]) == prompts(folder, small.TEXTS).take([5])


def test_what_is_asked(folder):
    text = TextTokenizer.from_file(folder / "model" / "tokenizer.json")
    for prompt in prompts(folder, small.BOTH).take(range(12)):
        said = text.decode([token for token in prompt.ids if text.is_text(token)])
        assert prompt.record.messages[0].text() in said
        assert (prompt.grid == (4, 4)) == (prompt.record.task == "t2i")
        assert (prompt.ids[-1] == text.boi_id) == (prompt.grid is not None)


def test_pairs(folder):
    base = json.loads((folder / small.TEXTS).read_text().splitlines()[0])
    good = {**base, "rejected": "a cat"}
    image = [{"type": "image", "image": "green.png"}]
    drawn = {
        **base,
        "task": "t2i",
        "messages": [base["messages"][0], {"role": "assistant", "content": image}],
        "rejected": image,
    }
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, (good, drawn))))
    text = TextTokenizer.from_file(folder / "model" / "tokenizer.json")
    for pair in prompts(folder, "pairs.jsonl").pairs(range(4)):
        if pair.prompt.grid is None:
            assert pair.better == (*text.encode("a dog"), text.eos_id)
            assert pair.worse == (*text.encode("a cat"), text.eos_id)
        else:
            assert len(pair.better) == 16 and pair.better == pair.worse
    (folder / "mixed.jsonl").write_text(json.dumps({**base, "rejected": image}))
    with pytest.raises(UserError, match="both answers must be text, or one image each"):
        prompts(folder, "mixed.jsonl").pairs([0])
    with pytest.raises(UserError, match='it has no "rejected"'):
        prompts(folder, small.TEXTS).pairs([0])


def test_answers_of_text_and_images_in_turn_are_refused(folder):
    said = [{"type": "text", "text": "a dog"}, {"type": "image", "image": "green.png"}]
    record = {"task": "story", "messages": [{"role": "user", "content": "a cat"}, {"role": "assistant", "content": said}]}
    (folder / "story.jsonl").write_text(json.dumps(record))
    with pytest.raises(UserError, match="holds text and images in turn; allowed for training from rewards"):
        prompts(folder, "story.jsonl").take([0])
