"""Electrocardiograms of nobody: records made from a model of the heart, written as a corpus that the readers know.

They stand in wherever a person's record may not be used: tests, continuous integration, benchmarks and first runs.
`heart` turns waves into leads, `beats` shapes one beat, `rhythm` says when beats come, `noise` adds what electrodes
add, `findings` and `reports` say what is there and how it is put, `case` draws one record, `ptb_xl` writes a folder.
"""
