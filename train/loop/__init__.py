"""The training loop: processes, gradients, checkpoints, logs, signals."""
