#!/usr/bin/env bash
# Trains the shipped model from the art alone and puts it together in OUT (default models/world-new).
# Every stage resumes where it was interrupted. On two cores the whole takes about two hours; see docs/model-card.md.
# usage: bash scripts/train_world_model.sh [OUT]
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-models/world-new}
python=${PYTHON:-.venv/bin/python}
# glibc gives memory back to the system too eagerly for training on a CPU: 1.9 to 6 times slower without these.
export MALLOC_MMAP_MAX_=0 MALLOC_MMAP_THRESHOLD_=4000000000 MALLOC_TRIM_THRESHOLD_=8000000000 MALLOC_TOP_PAD_=200000000
export PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1
mkdir -p runs

train() { echo "== $1"; "$python" -m "llada_uni.training.$1" "${@:2}"; }

# The autoencoder and the image tokenizer need nothing but the art.
train vae --steps 6500 >runs/vae.log 2>&1 &
vae=$!
train tokenizer --steps 8000
train records --count 160000
train records --count 70000 --reading --seed 12 --out runs/records-reading.pt
# One core learns words and codes while the other learns to paint them.
train backbone --records runs/records.pt runs/records-reading.pt --steps "${BACKBONE_STEPS:-20500}" >runs/backbone.log 2>&1 &
backbone=$!
wait "$vae"
train decoder --out runs/decoder --steps 5900 --batch 10 --pictures 6000
train decoder --out runs/turbo --distill runs/decoder --steps 1500 --batch 10 --pictures 6000 --lr 3e-4
wait "$backbone"
train assemble --out "$out"
echo "done: llada-uni eval --model $out"
