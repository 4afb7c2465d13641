"""Ways to start the workers of a job: Ray Train, or plain processes (torchrun, or one)."""
