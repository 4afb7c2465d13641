"""The errors that the cluster room means for the user."""


class RunError(RuntimeError):
    """A run that cannot start or go on: one sentence with what was expected, what was found and what to do."""


class AgreedError(RunError):
    """A `RunError` that every rank raises together: starting the workers again would meet it again."""


class FailedRankError(RuntimeError):
    """The first cause of a failed attempt, in one sentence that says where its trace lies; `__cause__` is the error itself."""


class SilentError(RuntimeError):
    """This rank failed because another did, which says why.

    Args:
        said: what the other says.
        final: whether a restart would meet the same.
    """

    def __init__(self, said: str, final: bool = False) -> None:
        super().__init__(said)
        self.final = final


def at_least(least: float, **settings: float) -> None:
    """Refuse settings that are too small; dots of their names are written as two underscores.

    Raises:
        RunError: names the setting, what was expected and what was found.
    """
    for name, value in settings.items():
        if value < least:
            raise RunError(f"{name.replace('__', '.')}: expected at least {least:g}, found {value:g}")
