#!/usr/bin/env bash
# Every stage in a row, from the art of the small world, or from photographs, to a model directory that does every task.
# Each stage resumes where it was interrupted; a finished one is not done again.
# usage: bash scripts/pipeline.sh smoke|world|photos [OUT]      (OUT: the model directory, default runs/SIZE/model)
# photos: PHOTOS is a folder of class folders, or of tars of them, default ../shared/data/cifar10; only its split "train" is read.
set -euo pipefail
cd "$(dirname "$0")/.."
size=${1:?usage: bash scripts/pipeline.sh smoke|world|photos [OUT]}
out=${2:-runs/$size/model}
uni=${LLADA_UNI:-.venv/bin/llada-uni}
runs=runs/$size
# glibc gives memory back to the system too eagerly for training on a CPU: 1.9 to 6 times slower without these.
export MALLOC_MMAP_MAX_=0 MALLOC_MMAP_THRESHOLD_=4000000000 MALLOC_TRIM_THRESHOLD_=8000000000 MALLOC_TOP_PAD_=200000000
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} PYTHONUNBUFFERED=1
began=$SECONDS
mkdir -p "$runs"

say() { printf '== %4d s  %s\n' $((SECONDS - began)) "$*"; }
train() { for stage in "$@"; do say "train $stage"; "$uni" train "recipes/$size/$stage.yaml"; done; }
extract() { say "extract $1"; "$uni" data extract "$1" "$runs/$2" --model "$tokenizer/model" --tokenizer "$runs/tokenizer.json"; }

case $size in
  smoke) tokenizer=$runs/quantizer words=world:3000:5 images=(siglip quantizer)
         decoders=(decoder1 decoder2 decoder3) stages=(s0 s1 s2) ;;
  world) tokenizer=$runs/patch_tokenizer words=world:20000:5 images=(patch_tokenizer)
         decoders=(decoder1 decoder2 decoder3 decoder4) stages=(s0 s1 s2 s3 s4) ;;
  photos) tokenizer=$runs/quantizer words=$runs/records/train images=(siglip quantizer)
         decoders=(decoder1 decoder2 decoder3 decoder4) stages=(s0 s1 s2) ;;
  *) echo "unknown size $size; allowed: smoke, world, photos (released needs a cluster: docs/training.md)" >&2; exit 2 ;;
esac

if [ "$size" = photos ]; then
  import() {
    say "import $1"
    "$uni" data import folder "${PHOTOS:-../shared/data/cifar10}" "$runs/$1" --source-split train --templates "recipes/photos/$2" \
      --split train=0.96 --split held=0.04 >/dev/null
  }
  import tokenizer-records tokenizer_templates.yaml
  import records templates.yaml
  for part in train held; do
    [ -f "$runs/records/$part/edits-00000.jsonl" ] || ${PYTHON:-.venv/bin/python} -m scripts.photos_edits "$runs/records/$part"
  done
fi

# What needs only pictures goes on one core: the autoencoder first, and, once there are codes, the decoder.
say "train vae (in the background, log in $runs/vae.log)"
"$uni" train "recipes/$size/vae.yaml" >"$runs/vae.log" 2>&1 &
vae=$!
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
if [ ! -f "$runs/tokenizer.json" ]; then
  if [ "$size" = photos ]; then text=(--vocab-size 640); else text=(--vocab-size 1312 --keep-words world); fi
  "$uni" data tokenizer "$words" "$runs/tokenizer.json" "${text[@]}"
fi
train "${images[@]}"
wait "$vae" || { tail -5 "$runs/vae.log"; exit 1; }

say "train ${decoders[*]} distill (in the background, log in $runs/decoder.log)"
train "${decoders[@]}" distill >"$runs/decoder.log" 2>&1 &
decoder=$!
# Meanwhile the other core learns words and codes.
if [ "$size" = smoke ]; then
  extract world:3000:11 tokens
  extract world:120:999 tokens-held
elif [ "$size" = photos ]; then
  extract "$runs/records/train" tokens
  extract "$runs/records/held" tokens-held
else
  extract world:50000:13:first tokens-first
  extract world:60000:14:places tokens-places
  extract world:80000:31:finding tokens-finding
  extract world:80000:32:asking tokens-asking
  extract world:60000:34:drills tokens-drills
  extract world:30000:15:late tokens-late
  extract world:390000:11 tokens
  extract world:80000:12:reading tokens-reading
  extract world:100000:52:hard tokens-hard
  extract world:70000:53:worked tokens-worked
  extract world:70000:54:told tokens-told
  extract world:1000:999 tokens-held
fi
train "${stages[@]}"
wait "$decoder" || { tail -5 "$runs/decoder.log"; exit 1; }

say "export"
"$uni" export "$out" "$tokenizer" "$runs/vae" "$runs/${decoders[-1]}" "$runs/distill" "$runs/${stages[-1]}" --dtype float16
say "done: llada-uni eval --model $out"
