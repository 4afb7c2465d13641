"""Which variables of the environment hold keys, and texts without their values: what is refused, and what is hidden."""

from __future__ import annotations

import os
import re

SECRET = re.compile(r"^(AWS_ACCESS_KEY_ID|.*(TOKEN|SECRET|PASS|PASSWORD|PASSWD|PASSPHRASE|CONNECTION_STRING|APIKEY|_KEY))$")
MAY_BE_SECRET = re.compile("KEY|TOKEN|SECRET|PASS|CREDENTIAL|CONNECTION_STRING")
"""Names whose values are hidden: refusing a variable that holds no key stops somebody, hiding its value costs nothing."""
LEAST_LENGTH = 8
"""A shorter value is none that is worth hiding, and stands in too many words."""


def is_secret(name: str) -> bool:
    """Whether a variable's name says that its value is a key."""
    return SECRET.match(name.upper()) is not None


def secret_values(names: re.Pattern[str] = SECRET) -> dict[str, str]:
    """The keys of this process's environment: value → the name of its variable."""
    return {value: name for name, value in os.environ.items() if names.search(name.upper()) and len(value) >= LEAST_LENGTH}


def without_secrets(text: str) -> str:
    """A text with the name of the variable wherever the value of a key stood."""
    # The longest first: one may stand within another.
    for value, name in sorted(secret_values(MAY_BE_SECRET).items(), key=lambda pair: -len(pair[0])):
        text = text.replace(value, f"<{name}>")
    return text
