#!/usr/bin/env bash
# Builds the wheel, installs it into an environment of its own, and uses it there as a new user would, far from this clone.
# Usage: bash scripts/test_wheel.sh [FOLDER for the wheel, the environment and what the commands write]
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD python=${PYTHON:-python3} work=$(realpath -m "${1:-build/wheel}")
rm -rf "$work" && mkdir -p "$work"
say() { printf '%4d s  %s\n' "$SECONDS" "$*"; }

"$python" -m venv "$work/venv"
pip() { "$work/venv/bin/python" -m pip install -qq --disable-pip-version-check -c "$root/constraints.txt" "$@"; }
pip build
"$work/venv/bin/python" -m build --outdir "$work/dist" . >"$work/build.log" 2>&1 || { tail -20 "$work/build.log"; exit 1; }
wheel=$(echo "$work"/dist/*.whl)
say "built $(basename "$wheel"), $(du -m "$wheel" | cut -f1) MB"
pip "$wheel[serve]"
say "installed into a clean environment"

# What is looked at goes into a file first: `program | grep -q` closes the pipe early, and pipefail calls that a failure.
cd "$work" && unset PYTHONPATH LLADA_UNI_MODEL
uni=$work/venv/bin/llada-uni
"$work/venv/bin/python" -c "import llada_uni; assert llada_uni.__file__.startswith('$work'), llada_uni.__file__"
"$uni" --version
"$uni" info >info.txt
"$uni" recipes >recipes.txt
grep -q '^smoke/s1 ' recipes.txt
"$uni" generate "a cartoon cat at the top left on green" -o cat.png --seed 7
"$uni" understand cat.png -q "what is at the top left?" >answer.txt
grep -qx cat answer.txt
say "info, recipes, generate, understand"
"$uni" demo --out demo 2>demo.log
grep -q '<html' demo/index.html
say "demo"

port=$("$work/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$uni" serve --host 127.0.0.1 --port "$port" >serve.log 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT
for _ in $(seq 120); do curl -fs "http://127.0.0.1:$port/ready" >/dev/null && break; sleep 0.5; done
curl -fsS "http://127.0.0.1:$port/v1/images/generations" -H 'content-type: application/json' \
  -d '{"prompt": "a flat fox on blue", "seed": 3}' >image.json
"$work/venv/bin/python" -c "import base64, json; assert base64.b64decode(json.load(open('image.json'))['data'][0]['b64_json'])[:4] == b'\x89PNG'"
curl -fsS "http://127.0.0.1:$port/" >studio.html
grep -qi '<html' studio.html
say "serve: one request, the studio's page"
