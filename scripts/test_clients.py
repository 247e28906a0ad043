"""The newest clients that people use, each in an environment of its own, against a server with the shipped model.

    python scripts/test_clients.py [NAME ...] [--into docs/serving.md]

For each client: packages are installed into build/clients/NAME (newest versions, nothing of ours), its program in
scripts/clients/ is run against a server on a free port, and every case it prints ("ok CASE" or "no CASE: why") becomes a
cell of a table. Exit code 1 where a case fails or a client cannot be installed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from server_process import ServerProcess

ROOT = Path(__file__).parents[1]
PROGRAMS, ENVIRONMENTS = ROOT / "scripts" / "clients", ROOT / "build" / "clients"
SECONDS = 600  # for one client's program
BEGIN, END = "<!-- clients: written by make test-clients -->", "<!-- end of clients -->"


@dataclass(frozen=True)
class Client:
    """packages: the first one's version is told; program: in scripts/clients; kind: python or node."""

    packages: tuple[str, ...]
    program: str

    @property
    def is_node(self) -> bool:
        return self.program.endswith(".mjs")


CLIENTS = {
    "openai (Python)": Client(("openai",), "openai_python.py"),
    "openai (Node)": Client(("openai",), "openai_node.mjs"),
    "litellm": Client(("litellm",), "litellm_client.py"),
    "litellm proxy": Client(("litellm[proxy]", "openai"), "litellm_proxy.py"),
    "LangChain": Client(("langchain-openai",), "langchain_client.py"),
    "pydantic-ai": Client(("pydantic-ai-slim[openai]",), "pydantic_ai_client.py"),
    "instructor": Client(("instructor",), "instructor_client.py"),
    "llama-index": Client(("llama-index-llms-openai-like",), "llama_index_client.py"),
    "AI SDK": Client(("ai", "@ai-sdk/openai", "@ai-sdk/openai-compatible", "zod"), "ai_sdk.mjs"),
}


def run(*command: str | Path, folder: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(word) for word in command], cwd=folder, env=kept | variables, capture_output=True, text=True, timeout=SECONDS
    )


def install(client: Client, folder: Path) -> str:
    """What starts the client's programs; RuntimeError with the installer's last line."""
    folder.mkdir(parents=True, exist_ok=True)
    if client.is_node:
        if not (folder / "package.json").exists():
            (folder / "package.json").write_text('{"type": "module", "private": true}')
        made = run("npm", "install", "--no-audit", "--no-fund", *client.packages, folder=folder)
        starter = "node"
    else:
        uv, python = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent)), folder / "bin" / "python"
        if not python.exists():
            run(*((uv, "venv", "-q", folder) if uv else (sys.executable, "-m", "venv", folder)))
        installer = (uv, "pip", "install", "-q", "--python", python) if uv else (python, "-m", "pip", "install", "-q")
        made = run(*installer, "--upgrade", *client.packages)
        starter = str(python)
    if made.returncode != 0:
        raise RuntimeError((made.stderr.strip().splitlines() or ["cannot be installed"])[-1])
    return starter


def version(client: Client, folder: Path, starter: str) -> str:
    name = re.sub(r"\[.*", "", client.packages[0])
    if client.is_node:
        found = re.search(r'"version": "([^"]+)"', (folder / "node_modules" / name / "package.json").read_text())
        return found[1] if found else "?"
    return run(starter, "-c", f"from importlib.metadata import version as v; print(v({name!r}))").stdout.strip()


def cases_of(client: Client, folder: Path, starter: str, address: str) -> list[tuple[str, str | None]]:
    """(case, what went wrong or None) of a client's program."""
    program = PROGRAMS / client.program
    if client.is_node:  # modules are looked for beside the program
        program = Path(shutil.copy(program, folder))
    try:
        done = run(starter, program, folder=folder, BASE_URL=address)
    except subprocess.TimeoutExpired:
        return [("all", f"took more than {SECONDS} s")]
    found = re.findall(r"^(ok|no) ([^:\n]+)(?:: (.*))?$", done.stdout, re.MULTILINE)
    cases: list[tuple[str, str | None]] = [(case, None if verdict == "ok" else why[:200]) for verdict, case, why in found]
    if done.returncode != 0 or not cases:
        cases.append(("program", (done.stderr.strip().splitlines() or ["no word"])[-1][:200]))
    return cases


def table(rows: list[tuple[str, str, list[tuple[str, str | None]]]]) -> str:
    lines = ["| client | version | works | fails |", "|---|---|---|---|"]
    for name, number, cases in rows:
        good = ", ".join(case for case, why in cases if why is None) or "-"
        bad = "; ".join(f"{case}: {why}".replace("|", "/") for case, why in cases if why is not None) or "-"
        lines.append(f"| {name} | {number} | {good} | {bad} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(CLIENTS)}; default: all")
    parser.add_argument("--into", type=Path, help="a page whose table of clients is written again")
    options = parser.parse_args()
    rows = []
    with ServerProcess("world") as server:
        for name in options.names or CLIENTS:
            client, folder = CLIENTS[name], ENVIRONMENTS / re.sub(r"\W+", "-", name.lower()).strip("-")
            print(f"{name} ...", file=sys.stderr, flush=True)
            try:
                starter = install(client, folder)
                rows.append((name, version(client, folder, starter), cases_of(client, folder, starter, server.address)))
            except (RuntimeError, OSError) as error:
                rows.append((name, "-", [("install", str(error)[:200])]))
            print(table(rows[-1:]).splitlines()[-1], flush=True)
    if options.into is not None:
        page = options.into.read_text(encoding="utf-8")
        before, _, rest = page.partition(BEGIN)
        if not rest:
            raise SystemExit(f"{options.into} has no place for the table: {BEGIN}")
        options.into.write_text(f"{before}{BEGIN}\n{table(rows)}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    return int(any(why is not None for _, _, cases in rows for _, why in cases))


if __name__ == "__main__":
    sys.exit(main())
