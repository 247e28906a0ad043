"""Mistakes that need no model are found before one is loaded, and a reader that has gone is no mistake."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

IMPORTED = "import sys; from llada_uni.cli import main; code = main(sys.argv[1:]); print(code, 'torch' in sys.modules)"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", IMPORTED, *words], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["understand", "none.png", "-q", "what?"], "there is no picture none.png"),
        (["edit", "none.png", "-i", "a dog"], "there is no picture none.png"),
        (["inpaint", "none.png", "mask.png", "a dog"], "there is no picture none.png"),
        (["encode", "none.png"], "there is no picture none.png"),
        (["chat", "hello", "--image", "none.png"], "there is no picture none.png"),
        (["generate", "a cat", "-m", "none"], "there is no model directory none; give a directory"),
        (["generate", "a cat", "-m", "~/none"], "there is no model directory"),
        (["generate", "a cat", "-o", "/proc/a.png"], "cannot write /proc/a.png ("),
        (["generate", "a cat", "-o", "/proc/sub/a.json", "--decoder", "none"], "cannot write /proc/sub/a.json ("),
        (["story", "a cat", "-o", "/proc/sub"], "cannot write /proc/sub ("),
        (["chat", "hello", "-o", "/proc/sub"], "cannot write /proc/sub ("),
        (["story", "a cat", "-m", "no/such/thing"], "there is no model directory no/such/thing"),
    ],
)
def test_a_missing_file_or_model_is_told_at_once(words, message):
    done = run(*words)
    assert done.stdout == "2 False\n", "torch was not even imported"
    assert done.stderr.startswith(f"llada-uni: {message}") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [["recipes"], ["info", "--json"], ["--help"]])
def test_a_reader_that_has_gone_is_no_mistake(words):
    """As `llada-uni recipes | head`, whose head has ended already."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "llada_uni", *words]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=300)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")
