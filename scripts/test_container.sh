#!/usr/bin/env bash
# Builds deploy/Dockerfile without a daemon or a registry, runs it as its own user, and draws a picture with it.
#
#   sudo scripts/test_container.sh [WORK]        # WORK: a folder for the base system and the logs (build/container)
#
# Needs root, buildah and debootstrap (Debian packages). The base is a minimal Debian with Python, made by debootstrap, because
# images of a registry cannot be had everywhere. WHEELS: a folder with a CPU build of torch; without it pip takes its own.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=${1:-$root/build/container}
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
port=${PORT:-18000}
export BUILDAH_ISOLATION=chroot
mkdir -p "$work"

base=localhost/debian-python:bookworm
if ! buildah images -q "$base" > /dev/null 2>&1; then
    [ -x "$work/root/usr/bin/python3" ] || debootstrap --variant=minbase \
        --include=python3,python3-venv,python3-pip,ca-certificates bookworm "$work/root" "$mirror" > "$work/debootstrap.log"
    ln -sf python3 "$work/root/usr/bin/python"
    container=$(buildah from scratch)
    buildah add -q "$container" "$work/root" /
    buildah config --env PIP_BREAK_SYSTEM_PACKAGES=1 "$container"  # Debian's pip is careful with its own system
    buildah commit -q --rm "$container" "$base" > /dev/null
fi
echo "base: $base"

shared=(--volume /etc/ssl/certs:/etc/ssl/certs:ro)
[ -z "${WHEELS:-}" ] || shared+=(--volume "$WHEELS:/wheels:ro" --env PIP_FIND_LINKS=/wheels)
buildah bud -q --format docker --network host "${shared[@]}" --build-arg "BASE=$base" -f "$root/deploy/Dockerfile" -t llada-uni "$root" \
    > "$work/build.log" 2>&1 || { tail -20 "$work/build.log"; exit 1; }
echo "built: llada-uni"

container=$(buildah from llada-uni)
trap 'kill $server 2> /dev/null || true; wait 2> /dev/null; buildah rm "$container" > /dev/null' EXIT
# (at /mnt: buildah run lays an empty volume over the /model of the image)
buildah run --network host --volume "$root/models/world:/mnt:ro" "$container" -- \
    llada-uni serve /mnt --name world --host 127.0.0.1 --port "$port" --grace 5 2> "$work/serve.log" &
server=$!
for _ in $(seq 120); do
    curl -sf "http://127.0.0.1:$port/ready" > /dev/null && break
    kill -0 $server 2> /dev/null || { cat "$work/serve.log"; exit 1; }
    sleep 1
done
buildah run "$container" -- id -u | grep -qx 10001 || { echo "it runs as root"; exit 1; }
curl -sf "http://127.0.0.1:$port/v1/images/generations" -H 'Content-Type: application/json' \
    -d '{"prompt": "a cat and a dog on green", "seed": 1}' > "$work/answer.json"
python3 - "$work/answer.json" <<'PY'
import base64, json, sys
data = base64.b64decode(json.load(open(sys.argv[1]))["data"][0]["b64_json"])
assert data[:4] == b"\x89PNG", "no picture"
print(f"drawn: a picture of {len(data)} bytes")
PY
