"""Judging generated ECG texts: what they state, whether they are right, and whether they look at the ECG at all."""
