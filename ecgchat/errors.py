"""What goes wrong with models and conversations and is meant for the user."""


class ModelError(ValueError):
    """A model, tokenizer or conversation that cannot be used: one sentence."""
