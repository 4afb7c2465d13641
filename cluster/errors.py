"""The errors that the cluster room means for the user."""


class RunError(RuntimeError):
    """A run that cannot start or go on: one sentence with what was expected, what was found and what to do."""


class AgreedError(RunError):
    """A `RunError` that every rank raises together: starting the workers again would meet it again."""
