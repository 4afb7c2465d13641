"""Readers of the published corpora, one module each: a table becomes planned records, a planned record an `EcgRecord`."""
