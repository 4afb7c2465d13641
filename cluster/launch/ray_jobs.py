"""Run a command on a Ray cluster through its Jobs API: submit it, follow its output, and end with its own exit status.

A lost connection is looked for again, and the output goes on where it was. A job that was lost with its head is submitted again
where that is asked for: it goes on from its run's newest committed checkpoint.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.console import pass_on, tell
from cluster.errors import RunError
from cluster.launch.spec import refuse_keys

EXCLUDED = (".git", ".venv", "/runs", "/build", "*.egg-info", "**/__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache")
"""Never sent along; `.gitignore` and `.rayignore` are honoured too."""

LOST_WITH_ITS_HEAD = ("JOB_SUPERVISOR_ACTOR_DIED", "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE")
"""Ways in which Ray says that not the command failed but the machine that it ran on (ray/dashboard/modules/job/common.py)."""

CONNECT_S = 10
REPLY_S = 120
"""Sending a working directory of 512 MiB ends with one reply."""
QUIET_S = 15
"""Output that has not come for so long may be a job that says nothing, or a connection that is gone: somebody asks."""
STOPPED = 128 + 15
"""Status of a job that somebody stopped through Ray."""

Write = Callable[[str], Any]


@dataclass(frozen=True)
class RayOptions:
    """Where a command runs, and for how long a cluster that does not answer is waited for."""

    address: str
    """Of the dashboard, `http://HEAD:8265`."""
    working_directory: Path = field(default=Path("."))
    """Sent to the cluster, where the command starts in it."""
    patience_s: float = 300
    """A head that does not answer for so long is lost."""
    resubmit: int = 0
    """Times that a job lost with its head is submitted again."""


def runtime_environment(options: RayOptions, variables: Mapping[str, str]) -> dict[str, Any]:
    """What Ray makes ready for the command. Everybody at the dashboard can read it.

    Raises:
        RunError: a variable is a key.
    """
    refuse_keys(f"{name}={value}" for name, value in variables.items())
    return {
        "working_dir": str(options.working_directory.absolute()),
        "excludes": list(EXCLUDED),
        "env_vars": dict(variables),
    }


def submit(
    command: str,
    options: RayOptions,
    name: str = "ecgchat",
    variables: Mapping[str, str] | None = None,
    write: Write = pass_on,
    on_submitted: Callable[[str], Any] = lambda submission: None,
) -> int:
    """Run a command on the cluster and return its own exit status.

    Args:
        command: as `ray job submit … -- COMMAND`.
        options: where, and with how much patience.
        name: begins the ids of its submissions.
        variables: for the job.
        write: takes the job's output as it comes.
        on_submitted: takes each submission's id.

    Raises:
        RunError: nobody answers at the address, or it refuses; or the job was lost with its head for good.
    """
    runtime = runtime_environment(options, variables or {})
    for again in range(options.resubmit + 1):
        submission = f"{re.sub('[^A-Za-z0-9-]', '-', name)}-{time.strftime('%m%dT%H%M%S')}-{secrets.token_hex(2)}"
        # The first time, a wrong address is likelier than a head that is on its way.
        _submit(command, submission, runtime, options, patience_s=options.patience_s if again else 0)
        on_submitted(submission)
        status = follow(submission, options, write)
        if status is not None:
            return status
        if again < options.resubmit:
            tell(
                f"the job {submission} was lost with its Ray head; submitting it again, {again + 1} of {options.resubmit} times"
            )
    raise RunError(
        f"Ray at {options.address}: the job {submission} was lost with its head; bring the cluster up and submit again, or let "
        f"that be done with --resubmit N (was {options.resubmit}): a run goes on from its newest committed checkpoint"
    )


def follow(submission: str, options: RayOptions, write: Write = pass_on) -> int | None:
    """Write a job's output as it comes, until the job has ended.

    Returns:
        its exit status; None where it was lost with its head.

    Raises:
        RunError: the cluster refuses this user, or could not make the command's environment.
    """
    return asyncio.run(_Following(submission, options, write).to_the_end())


def stop(submission: str, options: RayOptions) -> None:
    """End a job's driver at once, as `ray job stop` does. A run is better asked: `ecgchat runs stop`.

    Raises:
        RunError: nobody answers at the address, or it refuses.
    """
    _insist(lambda: _client(options.address).stop_job(submission), options.address, patience_s=0)


class _Following:
    """The output of one job, read over as many connections as it takes."""

    def __init__(self, submission: str, options: RayOptions, write: Write) -> None:
        self.submission, self.options, self.write = submission, options, write
        self.client: Any = None
        self.written = 0
        """Characters; a new connection tells the output from its beginning."""
        self.answered = time.monotonic()
        """When the cluster last said something."""
        self.silent = False

    async def to_the_end(self) -> int | None:
        while True:
            try:
                details = await self._details()
                if details is None:
                    return None
                async for text in self._output():
                    self._write(text)
                details = await self._details()
                if details is None or details.status.is_terminal():
                    return None if details is None else exit_status(details, self.options.address)
            except RunError:
                raise
            except _lost_connections() as error:
                if not self._patient(error):
                    return None
            await asyncio.sleep(1)

    def _write(self, text: str) -> None:
        try:
            self.write(text)
        except OSError as error:
            raise RunError(f"the output of the job {self.submission} cannot be written ({error}); the job goes on") from error

    def _patient(self, error: Exception) -> bool:
        """Whether to go on waiting for the cluster; says once that it is waited for."""
        refused = _refusal(error)
        if refused:
            raise RunError(f"Ray at {self.options.address}: {refused}") from error
        if not self.silent:
            tell(f"Ray at {self.options.address} does not answer; the job may go on. Asking for {self.options.patience_s:g} s")
        self.silent = True
        return time.monotonic() - self.answered < self.options.patience_s

    async def _details(self) -> Any:
        """What Ray says of the job; None where it does not know it."""
        try:
            self.client = self.client or await asyncio.to_thread(_client, self.options.address)
            details = await asyncio.to_thread(self.client.get_job_info, self.submission)
        except RuntimeError as error:
            if "status code 404" not in str(error):
                raise
            details = None
        if self.silent:
            tell(f"Ray at {self.options.address} answers again")
        self.answered, self.silent = time.monotonic(), False
        return details

    async def _output(self) -> AsyncIterator[str]:
        """What of the output was not written yet, until this connection ends."""
        told = 0
        stream = self.client.tail_job_logs(self.submission)
        waiting = asyncio.ensure_future(anext(stream, None))
        try:
            while (text := await self._next(waiting)) is not None:
                waiting = asyncio.ensure_future(anext(stream, None))
                new = text[max(0, self.written - told) :]
                told += len(text)
                self.written = max(self.written, told)
                if new:
                    yield new
        finally:
            waiting.cancel()

    async def _next(self, waiting: asyncio.Future[str | None]) -> str | None:
        """The next text; while none comes, the cluster is asked whether it is still there."""
        while not (await asyncio.wait([waiting], timeout=QUIET_S))[0]:
            await self._details()
        return waiting.result()


def exit_status(details: Any, address: str) -> int | None:
    """What a job that has ended leaves to its caller: the status of its command, None where it was lost with its head.

    Raises:
        RunError: Ray could not begin it.
    """
    if details.driver_exit_code is not None:
        # A negative one is the signal that ended it, which a shell tells as 128 and more.
        return details.driver_exit_code if details.driver_exit_code >= 0 else 128 - details.driver_exit_code
    if details.status == "SUCCEEDED":
        return 0
    if details.status == "STOPPED":
        return STOPPED
    if details.error_type in LOST_WITH_ITS_HEAD:
        return None
    raise RunError(f"Ray at {address}: the job was not begun: {_first_line(details.message or 'Ray does not say why')}")


def _submit(command: str, submission: str, runtime: dict[str, Any], options: RayOptions, patience_s: float) -> None:
    def send() -> None:
        try:
            _client(options.address).submit_job(entrypoint=command, submission_id=submission, runtime_env=runtime)
        except RuntimeError as error:
            # The reply to an earlier attempt was lost; the id is ours alone.
            if "already exists" not in str(error):
                raise

    _insist(send, options.address, patience_s)


def _insist(request: Callable[[], Any], address: str, patience_s: float) -> None:
    """Ask the cluster until it answers or is lost.

    Raises:
        RunError: it does not answer, or refuses.
    """
    from ray.exceptions import RayError

    begun = time.monotonic()
    while True:
        try:
            request()
            return
        except (*_lost_connections(), ValueError, RayError) as error:
            if _refusal(error) or isinstance(error, ValueError) or time.monotonic() - begun >= patience_s:
                raise RunError(
                    f"Ray at {address}: {_first_line(error)}; check the address, that the head runs with its dashboard "
                    "(ray[default]), and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
                ) from error
        time.sleep(1)


def _client(address: str) -> Any:
    """A client whose requests end, whatever happens to the network."""
    from ray.job_submission import JobSubmissionClient

    class Client(JobSubmissionClient):
        def _do_request(self, *arguments: Any, **options: Any) -> Any:
            return super()._do_request(*arguments, timeout=(CONNECT_S, REPLY_S), **options)

    return Client(address)


def _lost_connections() -> tuple[type[Exception], ...]:
    import aiohttp
    from ray.exceptions import RayError

    # Requests' own errors are kinds of OSError; Ray's client says much with a RuntimeError.
    return OSError, RuntimeError, RayError, aiohttp.ClientError, asyncio.TimeoutError


def _refusal(error: Exception) -> str | None:
    """Why the cluster will not let this user in however often it is asked; None where it may."""
    from ray.exceptions import AuthenticationError

    return _first_line(error) if isinstance(error, AuthenticationError) else None


def _first_line(error: Exception | str) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
