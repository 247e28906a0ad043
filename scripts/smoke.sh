#!/usr/bin/env bash
# Trains every stage for seconds, then runs every task from the directory that comes out: does the whole chain hold?
# The model is far too little trained to be right; what is checked is that each command accepts what the others wrote.
set -euo pipefail
cd "$(dirname "$0")/.."
began=$SECONDS
bash scripts/pipeline.sh smoke
uni=${LLADA_UNI:-.venv/bin/llada-uni} model=runs/smoke/model out=runs/smoke/tasks
mkdir -p "$out"
task() { echo "== task: $*"; "$uni" "$@" --model "$model"; }
task generate "a cat and a dog" --seed 1 -o "$out/drawn.png"
task generate "one more apple than two apples" --thinking --seed 1 -o "$out/thought.png"
task understand "$out/drawn.png" -q "what is in the picture?" --seed 1
task edit "$out/drawn.png" -i "replace the cat with an apple" --seed 1 -o "$out/edited.png"
.venv/bin/python -c "
from PIL import Image
mask = Image.new('L', (128, 128))
mask.paste(255, (64, 64, 128, 128))
mask.save('$out/mask.png')"
task inpaint "$out/drawn.png" "$out/mask.png" "a cat and an apple" --seed 1 -o "$out/filled.png"
task chat "what is at the top left?" "and at the bottom right?" --image "$out/drawn.png" --seed 1 -o "$out/chat"
task story "a story about a cat" --seed 1 -o "$out/story" --max-frames 2
task encode "$out/drawn.png" -o "$out/drawn.json"
task decode "$out/drawn.json" -o "$out/decoded.png" --decoder base --seed 1
task eval --suite geneval,understand,edit,decoder --limit 4
echo "every stage and every task ran in $((SECONDS - began)) s; the model is in $model"
