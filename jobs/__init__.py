"""The jobs room: one runnable module for each stage or tool. It composes the other three rooms; they do not know it."""

import warnings

# What transformers says to its own developers helps nobody who runs a job.
warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
