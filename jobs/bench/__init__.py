"""Measurements of this project beside its peers, in one run, in turn, on the same records.

python -m jobs.bench.build --json build.json
"""
