"""Checks of what a user is about to rely on: the machine, its GPUs, the store, W&B, Slurm and Ray."""
