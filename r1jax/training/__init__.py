"""The loop around a step: optimizer, checkpoints, metrics, files, time."""
