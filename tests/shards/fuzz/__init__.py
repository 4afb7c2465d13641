"""Damaged corpora for every source: each has to give records or one clear rejection, within limits, from its own folder.

python -m tests.shards.fuzz --all        all cases, on the simulated corpora and on real recordings where they are at hand
python -m tests.shards.fuzz --case 1234  one case in this process, with what came of it
pytest tests/shards/fuzz                 a fifth of the cases; `--fuzz-all` for all of them
"""
