"""The commands that the small world adds to the command line."""

from __future__ import annotations

from llada_uni.cli import main
from llada_uni.world.data.world_records import MIXTURES


def test_the_help_names_every_mixture(capsys):
    assert main(["data", "world", "--help"]) == 0
    out = capsys.readouterr().out
    assert MIXTURES and all(name in out for name in MIXTURES)
