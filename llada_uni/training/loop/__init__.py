"""The one training loop: stepping, checkpoints, logs, optimizers, processes."""
