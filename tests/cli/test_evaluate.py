"""The command eval in a log: lines now and then instead of one that changes."""

from __future__ import annotations

from llada_uni.cli.evaluate import each_minute


def test_a_log_gets_a_line_a_minute():
    now, lines = [100.0], []
    move = each_minute(lines.append, lambda: now[0])
    for done in range(1, 14):
        now[0] += 20
        move("edit", done, 200)
    assert lines == ["edit: 3 of 200", "edit: 6 of 200", "edit: 9 of 200", "edit: 12 of 200"]
