#!/usr/bin/env bash
# One machine: one process a GPU (without GPUs: PROCESSES processes on the CPU, default 1).
# A recipe's micro_batches must be a multiple of the number of processes; the result does not depend on that number.
#
#   bash launch/torchrun.sh recipes/released/s1.yaml parallel.shard=true
#   PROCESSES=2 bash launch/torchrun.sh recipes/smoke/s1.yaml loop.micro_batches=2
#
# Stopped or killed: the same command goes on from the last complete checkpoint.
set -euo pipefail
python=${PYTHON:-python}
processes=${PROCESSES:-$("$python" -c 'import torch; print(max(1, torch.cuda.device_count()))')}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec "$python" -m torch.distributed.run --standalone --nproc-per-node "$processes" -m llada_uni train "$@"
