"""What the program is built on, checked as `python scripts/audit.py` does it, and that those checks find faults."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", ROOT / "scripts" / "audit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


audit = load()


@pytest.mark.parametrize("name", [name for name, check in audit.CHECKS.items() if check is not audit.check_holes])
def test_nothing_is_wrong_with_it(name):
    assert audit.CHECKS[name]() == []


def test_constraints_are_exact():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    packages = [line for line in lines if line.strip() and not line.startswith("#")]
    assert len(packages) == len(audit.pinned()), "one line for each package, each with =="


def test_missing_and_other_pins_are_found(monkeypatch):
    pins = audit.pinned()
    monkeypatch.setattr(audit, "pinned", lambda: {**{name: pins[name] for name in pins if name != "rich"}, "typer": "0.0.1"})
    faults = "\n".join(audit.check_pinned())
    assert f"rich=={metadata.version('rich')} is not in constraints.txt" in faults
    assert "typer: constraints.txt says 0.0.1" in faults


def test_what_dependencies_need_is_followed():
    found = audit.needed([Requirement("rich")])
    assert {"rich", "markdown-it-py", "mdurl", "pygments"} <= found
    assert "torch" not in found


def test_other_licenses_are_found(monkeypatch):
    monkeypatch.setattr(audit, "ALLOWED", audit.ALLOWED - {"MIT-CMU"})
    assert audit.check_licenses() == ["pillow is under MIT-CMU, which is not on the list of allowed licenses"]
    assert audit.licenses_of("numpy") >= {"BSD-3-Clause", "Zlib"}


def test_undeclared_imports_are_found(monkeypatch):
    everything = audit.declared()
    monkeypatch.setattr(audit, "declared", lambda: [one for one in everything if one.name != "pyyaml"])
    assert any("imports yaml" in fault for fault in audit.check_declared())


SOUND = {"name": "rich", "version": "15.0.0", "vulns": []}
HOLE = {"name": "jinja2", "version": "2.4.1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.11"], "description": ""}]}
UNKNOWN = {"name": "rich", "skip_reason": "rich is not known there"}
ANSWERS = [
    (0, [SOUND], "ok       no known holes", 0),
    (1, [SOUND, HOLE], "jinja2==2.4.1 has PYSEC-1; better versions: 2.11", 1),
    (0, [SOUND, UNKNOWN], "not looked up: rich is not known there", 1),
    (0, [UNKNOWN], "SKIPPED  no known holes", 0),
    (1, "requests.exceptions.ConnectionError: Max retries exceeded", "SKIPPED  no known holes", 0),
    (1, "No module named pip_audit", "SKIPPED  no known holes", 0),
    (2, "unrecognized arguments", "pip-audit: unrecognized arguments", 1),
]


@pytest.mark.parametrize(("code", "answer", "shown", "result"), ANSWERS)
def test_known_holes_fail_and_silence_is_told(code, answer, shown, result, monkeypatch, capsys):
    """The database itself is not asked here: tests need no network."""
    out, err = ("", answer) if isinstance(answer, str) else (json.dumps({"dependencies": answer, "fixes": []}), "")
    monkeypatch.setattr(audit, "CHECKS", {"no known holes": audit.check_holes})
    monkeypatch.setattr(audit.subprocess, "run", lambda *a, **o: subprocess.CompletedProcess(a, code, out, err))
    assert audit.main([]) == result
    assert shown in capsys.readouterr().out


def test_offline_skips_the_database_and_says_so(monkeypatch, capsys):
    monkeypatch.setattr(audit, "CHECKS", {"no known holes": audit.check_holes})
    monkeypatch.setattr(audit.subprocess, "run", lambda *a, **o: pytest.fail("the network was asked"))
    assert audit.main(["--offline"]) == 0
    assert "SKIPPED" in capsys.readouterr().out
