#!/usr/bin/env bash
# Runs the example workflow in a ComfyUI checkout of yours, with its own Python, and shows what came out.
# try_comfyui.sh DIR [PORT]: DIR is the checkout; llada-uni is installed into the environment that `python` is (or DIR/venv, DIR/.venv).
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: $0 DIR [PORT]" >&2; exit 2; }
here=$(cd "$(dirname "$0")/.." && pwd); dir=$(cd "$1" && pwd); port=${2:-8199}
[ -f "$dir/main.py" ] && [ -d "$dir/custom_nodes" ] || { echo "$dir is no ComfyUI checkout: main.py or custom_nodes is missing" >&2; exit 1; }
python=python3
for place in "$dir/venv" "$dir/.venv"; do [ -x "$place/bin/python" ] && python=$place/bin/python; done
"$python" -c "import llada_uni" 2>/dev/null || "$python" -m pip install -e "$here"
link=$dir/custom_nodes/llada2_uni
[ -e "$link" ] || { ln -s "$here/examples/comfyui/llada2_uni" "$link"; trap 'rm -f "$link"' EXIT; }
out=$(mktemp -d); log=$out/comfyui.log
cpu=$("$python" -c "import torch; print('' if torch.cuda.is_available() or torch.backends.mps.is_available() else '--cpu')")
(cd "$dir" && exec "$python" main.py $cpu --listen 127.0.0.1 --port "$port" --output-directory "$out" --preview-method auto) >"$log" 2>&1 &
server=$!
trap 'kill $server 2>/dev/null || true; [ -L "$link" ] && [ "$(readlink "$link")" = "$here/examples/comfyui/llada2_uni" ] && rm -f "$link"' EXIT
"$python" - "$port" "$here/examples/comfyui/workflow.json" "$server" <<'PY' || { echo "failed; the log is $log" >&2; tail -20 "$log" >&2; exit 1; }
import json, os, sys, time, urllib.error, urllib.request

port, workflow, server = sys.argv[1], json.load(open(sys.argv[2])), int(sys.argv[3])
base = f"http://127.0.0.1:{port}"


def ask(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(base + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


for _ in range(300):
    try:
        nodes = ask("/object_info")
        break
    except OSError:
        os.kill(server, 0)  # an error here: ComfyUI has ended
        time.sleep(1)
else:
    sys.exit("ComfyUI did not begin to listen within 5 minutes")
ours = sorted(name for name in nodes if name.startswith("LLaDA2Uni"))
print(f"{len(ours)} nodes: {', '.join(ours)}")
if not ours:
    sys.exit("ComfyUI does not know the nodes: is llada-uni installed in its environment?")
try:
    job = ask("/prompt", {"prompt": workflow})["prompt_id"]
except urllib.error.HTTPError as error:
    sys.exit(f"ComfyUI refused the workflow: {error.read().decode()}")
while not (done := ask(f"/history/{job}").get(job)):
    os.kill(server, 0)
    time.sleep(1)
status = done["status"]
for step, output in done["outputs"].items():
    for text in output.get("text", []):
        print(f"{workflow[step]['_meta']['title']}: {text}")
    for image in output.get("images", []):
        print(f"{workflow[step]['_meta']['title']}: {image['filename']}")
sys.exit(0 if status["status_str"] == "success" else json.dumps(status["messages"])[-2000:])
PY
echo "images and the log: $out"
