"""Conversations about ECGs: made from what records say, or read from LLaVA files, and streamed to a language model."""
