"""Faults at random moments of real training runs, and whether each run keeps what is promised of it."""
