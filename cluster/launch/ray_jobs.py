"""Submit a command to a Ray cluster through its Jobs API, as `ray job submit` does: follow the logs, pass on the status."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cluster.errors import RunError

WORKING_DIRECTORY_LIMIT = 512 * 2**20
"""What Ray takes as a working directory (`RAY_max_grpc_message_size`)."""

EXCLUDED = (".git", ".venv", "runs", "build", "*.egg-info", "**/__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache")
"""Never sent along; `.gitignore` and `.rayignore` are honoured too."""


def submit(
    address: str,
    command: str,
    working_directory: Path,
    environment: Mapping[str, str] | None = None,
    write: Callable[[str], Any] = sys.stdout.write,
    on_submitted: Callable[[str], Any] = lambda submission: None,
) -> int:
    """Run a command on the cluster and return 0 if it succeeded, 1 otherwise.

    Args:
        address: of the dashboard, `http://HEAD:8265`.
        command: as `ray job submit … -- COMMAND`.
        working_directory: sent to the cluster, where the command starts in it.
        environment: variables for the job. They are visible in the dashboard: keys belong into the cluster's environment.
        write: takes the job's output as it comes.
        on_submitted: takes the submission's id.

    Raises:
        RunError: nobody answers at the address, or it refuses.
    """
    from ray.exceptions import RayError
    from ray.job_submission import JobStatus, JobSubmissionClient

    runtime = {
        "working_dir": str(working_directory.absolute()),
        "excludes": list(EXCLUDED),
        "env_vars": dict(environment or {}),
    }
    try:
        client = JobSubmissionClient(address)
        submission = client.submit_job(entrypoint=command, runtime_env=runtime)
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        raise RunError(
            f"Ray at {address}: {str(error).strip().splitlines()[0]}; check the address, that the head runs with its dashboard "
            "(ray[default]), and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
        ) from error
    on_submitted(submission)

    async def follow() -> None:
        async for text in client.tail_job_logs(submission):
            write(text)

    asyncio.run(follow())
    return 0 if client.get_job_status(submission) == JobStatus.SUCCEEDED else 1
