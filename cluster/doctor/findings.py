"""A finding, and a way to look that no single check can hold up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["ok", "warn", "fail"]
CHECK_S = 60.0


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    name: str
    level: Level
    """ok; warn: it works, and will be slower or lack something; fail: what relies on it will not work."""
    found: str
    advice: str = ""
    """What to do; empty where all is well."""


Check = Callable[[], list[Finding]]
"""Looks at one thing; whatever it raises becomes a finding."""


def ok(name: str, found: str) -> Finding:
    """All is well."""
    return Finding(name, "ok", found)


def warn(name: str, found: str, advice: str) -> Finding:
    """It works, and will be slower or lack something."""
    return Finding(name, "warn", found, advice)


def fail(name: str, found: str, advice: str) -> Finding:
    """What relies on it will not work."""
    return Finding(name, "fail", found, advice)


def examine(
    checks: Iterable[tuple[str, Check]], limit_s: float = CHECK_S, before: Callable[[str], None] = lambda name: None
) -> list[Finding]:
    """The findings of all checks, one check after the other, so that none disturbs what another measures.

    Args:
        checks: with their names.
        limit_s: seconds after which a check is given up.
        before: told of each check that begins.
    """
    findings: list[Finding] = []
    for name, check in checks:
        before(name)
        findings += _within(name, check, limit_s)
    return findings


def _within(name: str, check: Check, limit_s: float) -> list[Finding]:
    found: list[Finding] = []

    def look() -> None:
        try:
            found.extend(check())
        except Exception as error:  # the others are to be heard
            found[:] = [fail(name, f"the check failed: {in_one_line(error)}", "mend what it names, then look again")]

    # A daemon: what never answers does not keep the command from ending.
    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(limit_s)
    if thread.is_alive():
        return [fail(name, f"no answer within {limit_s:g} s", "find out what it waits for: network, file system or driver")]
    return found


class ChildError(RuntimeError):
    """A process that looks at something failed: its last words, in one line."""


def ask_child(module: str, *words: str, limit_s: float, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run a module of ours in a process of its own, which may hang or die, and return the JSON object on its last line.

    Raises:
        ChildError: it fails, takes too long, or says nothing of that form.
    """
    child = subprocess.Popen(
        [sys.executable, "-m", module, *words],
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = child.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        # What it started belongs to its session.
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        raise ChildError(f"no answer within {limit_s:g} s") from None
    lines = [line for line in (out if child.returncode == 0 else err or out).splitlines() if line.strip()]
    if child.returncode:
        raise ChildError(lines[-1].strip()[:300] if lines else f"status {child.returncode}")
    try:
        answer: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, ValueError) as error:
        raise ChildError(f"no answer but {lines[-1:]}") from error
    return answer


def in_one_line(error: BaseException) -> str:
    """An error's words."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def size(count: float) -> str:
    """Bytes for people, in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
