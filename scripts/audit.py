"""What this program is built on: is it consistent, pinned, allowed, declared, and free of known holes?

    python scripts/audit.py [--offline]

Pyproject.toml, constraints.txt, the installed packages, the imports of the source -> one line for
each check, and for each fault -> exit code 1 if there is any. Known holes are looked up by pip-audit in its database
on the network; where that cannot be reached, the line says that this part was skipped.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10; pytest brings it there
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
OURS = "llada-uni"
_NOT_REACHED = re.compile(r"Connection|Timeout|timed out|Max retries|ServiceError|resolution|No module named", re.IGNORECASE)
# Licenses under which a direct dependency may come: permissive, or (MPL) binding for its own files only.
ALLOWED = {"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "0BSD", "BSL-1.0", "CC0-1.0", "MIT", "MIT-CMU", "MPL-2.0", "Zlib"}
ALLOWED |= {"Apache-2.0 WITH LLVM-exception", "ISC", "PSF-2.0"}
_SPELLINGS = {  # of licenses that are given in words -> their identifier
    "apache": "Apache-2.0", "apache 2.0": "Apache-2.0", "apache 2.0 license": "Apache-2.0",
    "apache software license": "Apache-2.0", "bsd license": "BSD-3-Clause", "mit license": "MIT",
    "python software foundation license": "PSF-2.0",
}  # fmt: skip


def declared(root: Path = ROOT) -> list[Requirement]:
    """Direct dependencies, those of every extra included."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    found = [Requirement(line) for line in lines]
    return [requirement for requirement in found if canonicalize_name(requirement.name) != OURS]


def pinned(root: Path = ROOT) -> dict[str, str]:
    """Package -> exact version, from constraints.txt."""
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {canonicalize_name(name.strip()): version.strip() for name, version in pairs}


def needed(requirements: Iterable[Requirement]) -> set[str]:
    """Every installed package that the requirements lead to, directly or through others."""
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(canonicalize_name(one.name), frozenset(one.extras)) for one in requirements]
    while waiting:
        name, extras = found = waiting.pop()
        if found in seen:
            continue
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # an extra that is not installed here
        seen.add(found)
        for line in map(Requirement, lines):
            if line.marker is None or any(line.marker.evaluate({"extra": extra}) for extra in (*extras, "")):
                waiting.append((canonicalize_name(line.name), frozenset(line.extras)))
    return {name for name, _ in seen}


def check_consistent() -> list[str]:
    """What `pip check` finds."""
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True)
    return done.stdout.splitlines() if done.returncode else []


def check_pinned() -> list[str]:
    """Every package in use has its exact version in constraints.txt, and that version is the one in use."""
    pins, faults = pinned(), []
    for name in sorted(needed(declared())):
        version = metadata.version(name).partition("+")[0]  # torch adds which build it is
        if name not in pins:
            faults.append(f"{name}=={version} is not in constraints.txt")
        elif pins[name] != version:
            faults.append(f"{name}: constraints.txt says {pins[name]}, installed is {version}")
    return faults


def licenses_of(name: str) -> set[str]:
    """Identifiers of all licenses that a package states."""
    about = metadata.metadata(name)
    stated = about.get("License-Expression") or about.get("License") or ""
    if not stated or "\n" in stated:  # some put the whole text there
        kinds = [line for line in about.get_all("Classifier") or [] if line.startswith("License ::")]
        stated = kinds[0].rpartition(" :: ")[2] if kinds else "none stated"
    parts = re.split(r" AND | OR ", stated.strip().strip("()"))
    return {_SPELLINGS.get(part.strip("() ").lower(), part.strip("() ")) for part in parts}


def check_licenses() -> list[str]:
    """Direct dependencies that are installed come under allowed licenses only."""
    faults = []
    for name in sorted({canonicalize_name(one.name) for one in declared()}):
        try:
            strange = licenses_of(name) - ALLOWED
        except metadata.PackageNotFoundError:
            continue
        if strange:
            faults.append(f"{name} is under {', '.join(sorted(strange))[:100]}, which is not on the list of allowed licenses")
    return faults


def imported(folder: Path) -> set[str]:
    """Top-level names of all modules that the source imports."""
    found = set()
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found.add((node.module or "").partition(".")[0])
    return found


def check_declared() -> list[str]:
    """Whatever the package imports is declared; what only comes along with another package may be gone tomorrow."""
    packages = metadata.packages_distributions()
    known = {canonicalize_name(one.name) for one in declared()}
    faults = []
    for module in sorted(imported(ROOT / "llada_uni") - set(sys.stdlib_module_names) - {"llada_uni"}):
        owners = {canonicalize_name(name) for name in packages.get(module, ())}
        if owners and not owners & known:
            faults.append(f"llada_uni imports {module}, but pyproject.toml does not declare {', '.join(sorted(owners))}")
    return faults


def check_holes() -> list[str] | None:
    """What pip-audit knows of the pinned versions; None where its database cannot be reached, or knows no package."""
    command = [sys.executable, "-m", "pip_audit", "-r", str(ROOT / "constraints.txt"), "--no-deps", "--disable-pip"]
    done = subprocess.run([*command, "-f", "json", "--timeout", "10"], capture_output=True, text=True)
    try:
        looked_up = json.loads(done.stdout)["dependencies"]
    except ValueError:
        if _NOT_REACHED.search(done.stderr):
            return None
        return [f"pip-audit: {line}" for line in done.stderr.splitlines()[-3:]] or ["pip-audit gave no answer"]
    if all("skip_reason" in package for package in looked_up):
        return None
    faults = [f"not looked up: {package['skip_reason']}" for package in looked_up if "skip_reason" in package]
    for package in looked_up:
        for hole in package.get("vulns", ()):
            better = ", ".join(hole["fix_versions"]) or "none yet"
            faults.append(f"{package['name']}=={package['version']} has {hole['id']}; better versions: {better}")
    return faults


CHECKS: dict[str, Callable[[], list[str] | None]] = {
    "packages fit each other": check_consistent,
    "every package in use is pinned": check_pinned,
    "licenses of direct dependencies are allowed": check_licenses,
    "everything imported is declared": check_declared,
    "no known holes": check_holes,
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Checks what the program is built on.")
    parser.add_argument("--offline", action="store_true", help="do not ask the database of known holes")
    offline = parser.parse_args(arguments).offline
    failed = False
    for name, check in CHECKS.items():
        faults = None if check is check_holes and offline else check()
        if faults is None:
            print(f"SKIPPED  {name}: the database of known holes was not reached")
            continue
        failed |= bool(faults)
        print(f"{'FAILED ' if faults else 'ok     '}  {name}")
        for fault in faults:
            print(f"         {fault}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
