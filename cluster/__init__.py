"""The cluster room: getting a run onto machines and keeping it alive. Knows nothing of ECGs or of models."""
