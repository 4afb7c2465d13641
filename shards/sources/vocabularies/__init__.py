"""Coding systems that sources share: codes, labels and plain English."""
