"""The data room: corpora, records, WebDataset shards, storage and the order in which samples are read."""
