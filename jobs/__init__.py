"""The jobs room: one runnable module for each stage or tool. It composes the other three rooms; they do not know it."""
