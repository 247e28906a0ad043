#!/usr/bin/env bash
# Several machines under Slurm: one torchrun a node, started by srun; they find each other through the first node.
#
#   sbatch --nodes 16 launch/slurm.sh recipes/released/s1.yaml parallel.shard=true
#
# Recipe, data and run directory must lie on a file system that every node sees, under the same path.
#SBATCH --job-name=llada-uni
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1        # one torchrun a node; it starts a process for each GPU
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue                  # after a fault of a node the job starts again and goes on from its last checkpoint
#SBATCH --signal=TERM@120          # two minutes before the time is up: the loop saves a checkpoint and leaves
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"

gpus=${SLURM_GPUS_ON_NODE:-8}
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 20000))
export OMP_NUM_THREADS=$((${SLURM_CPUS_PER_TASK:-8} / gpus))

# --max-restarts: a process that dies takes all others with it, and all start again from the last checkpoint.
srun --kill-on-bad-exit=1 "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes "$SLURM_NNODES" --nproc-per-node "$gpus" --max-restarts 3 \
    --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d --rdzv-endpoint "$first:$port" \
    -m llada_uni train "$@"
