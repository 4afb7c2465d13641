"""Jobs for Slurm: write the script, submit it, follow it through its restarts, and end with its status.

The script (`cluster/slurm/stage.sbatch.j2`) brings its own Ray cluster up on the allocation and holds everything that it needs:
`sbatch` takes it by hand as well.
"""

from __future__ import annotations

import codecs
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from cluster.console import pass_on
from cluster.errors import RunError, at_least
from cluster.launch.spec import LaunchSpec, record_launch, refuse_keys
from cluster.stopping import INTERRUPTED_STATUS
from shards.storage import Store

LOOK_S, LOOKS = 1.0, 5
"""The job's output is looked at so often, and Slurm is asked after so many looks: its controller serves everybody."""
UNFINISHED = (
    *("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED"),
    *("RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED", "SUSPENDED"),
)
"""States of a job that may still go on (man squeue, JOB STATE CODES)."""
REFUSALS_S = 120.0
"""For how long Slurm's controller may fail to answer while a job is followed."""
TITLE = re.compile(r"[^A-Za-z0-9_.+-]+")
RESULT = re.compile(r"(\d+):(\d+)")
"""Slurm's `ExitCode`: status, and the signal that ended it."""

Said = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class SlurmOptions:
    """What a site and a queue want to know of a job."""

    time: str = ""
    """Time limit as sbatch takes it (`2-00:00:00`, minutes); empty leaves the partition's own."""
    requeue: int = 10
    """Times that the job goes on by itself after its time limit, a preemption or a lost node; 0: never."""
    warning_s: int = 300
    """The run is asked to commit and end so long before the time limit. Slurm may be a minute early."""
    account: str = ""
    partition: str = ""
    qos: str = ""
    constraint: str = ""
    sbatch: tuple[str, ...] = ()
    """Any other option of sbatch, `KEY=VALUE` or `KEY`; one that the script has already takes its place."""
    container: str = ""
    """Image in which every process runs, by Apptainer; empty: the environment of this Python."""
    env_file: str = ""
    """File of `NAME=VALUE` lines that the job reads its keys from; closed to others, seen by all nodes."""

    def __post_init__(self) -> None:
        at_least(0, requeue=self.requeue)
        at_least(1, warning_s=self.warning_s)
        refuse_keys(self.sbatch)


@dataclass(frozen=True)
class SlurmSpec:
    """A job for Slurm."""

    launch: LaunchSpec
    options: SlurmOptions = field(default_factory=SlurmOptions)
    settings: str = ""
    """The stage's settings as YAML, which the script carries and hands to it as `--config`; empty: the arguments say all."""


def render(spec: SlurmSpec) -> str:
    """The script that sbatch takes.

    Raises:
        RunError: an option of sbatch that cannot be.
    """
    launch, options = spec.launch, spec.options
    templates = Environment(
        loader=PackageLoader("cluster", "slurm"),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        comment_start_string="{##",  # `${#array}` is the shell's
        comment_end_string="##}",
    )
    return templates.get_template("stage.sbatch.j2").render(
        title=_title(launch),
        directives=_directives(launch, options),
        command=shlex.join(_command(launch, bool(spec.settings))),
        settings=spec.settings,
        container=shlex.join(_container(options)),
        venv=shlex.quote(os.environ.get("ECGCHAT_VENV", sys.prefix)),
        requeue=options.requeue,
        environment=launch.environment,
        env_file=shlex.quote(str(Path(options.env_file).expanduser().absolute())) if options.env_file else "",
    )


def submit(spec: SlurmSpec, folder: Path = Path(".")) -> str:
    """Hand a job to Slurm and return its id.

    The script lies in the run's folder (`launch/`) and, as `NAME_ID.sbatch`, beside the job's output.

    Args:
        spec: what to run.
        folder: where the job starts, and where relative paths of its settings begin; on all nodes.

    Raises:
        RunError: there is no Slurm here, or it refuses.
    """
    script = render(spec)
    said = _slurm("sbatch", "--parsable", f"--chdir={folder.absolute()}", script=script, where=folder)
    job = said.stdout.strip().partition(";")[0]
    (folder / f"{_title(spec.launch)}_{job}.sbatch").write_text(script)
    record = record_launch(spec.launch, "slurm", id=job, options=asdict(spec.options))
    if record:
        Store(spec.launch.run).put(record.replace(".json", ".sbatch"), script.encode())
    return job


def follow(job: str, write: Callable[[str], Any] = pass_on) -> int:
    """Give out what a job writes until it has ended for good, through its restarts, and return its exit status.

    Returns:
        the status of the job; 128 + n where signal n ended it; 1 where Slurm says no more than that it failed.

    Raises:
        RunError: Slurm does not know the job, or no longer answers.
    """
    output, state = _Output(write), ""
    while True:
        facts = _patiently(job)
        # What was written before it ended is there to be read after it has.
        output.show(_output_of(facts))
        now = _sentence(facts)
        if now != state:
            write(f"ecgchat: Slurm job {job}: {now}\n")
            state = now
        if facts["JobState"] not in UNFINISHED:
            return _status(facts)
        for _ in range(LOOKS):
            time.sleep(LOOK_S)
            output.show(_output_of(facts))


def submit_slurm(
    spec: SlurmSpec, write: Callable[[str], Any] = pass_on, on_submitted: Callable[[str], Any] = lambda job: None
) -> int:
    """Submit a job, follow it, and return its exit status; Ctrl-C leaves it alone and returns 130.

    Raises:
        RunError: as `submit` and `follow`.
    """
    job = submit(spec)
    on_submitted(job)
    script = f"{_title(spec.launch)}_{job}.sbatch"
    if any(word.lstrip("-").startswith("array") for word in spec.options.sbatch):
        write(f"ecgchat: Slurm job {job} ({script}) is an array, which is not followed; 'squeue --job {job}' shows it\n")
        return 0
    write(f"ecgchat: Slurm job {job} ({script}); Ctrl-C stops following, not the job\n")
    return follow_or_leave(job, write)


def follow_or_leave(job: str, write: Callable[[str], Any] = pass_on) -> int:
    """`follow`, until Ctrl-C: the job then goes on, and 130 is returned."""
    try:
        return follow(job, write)
    except KeyboardInterrupt:
        write(
            f"\necgchat: Slurm job {job} goes on without being followed; 'ecgchat submit slurm --follow {job}' follows it "
            f"again, 'scancel {job}' commits and ends it\n"
        )
        return INTERRUPTED_STATUS


def job_facts(job: str) -> dict[str, str]:
    """What Slurm says of a job, by its own names (`JobState`, `ExitCode`, `Restarts`, `StdOut`, …).

    A job that ended a while ago is known to the accounting alone, where a site has it.

    Raises:
        RunError: Slurm does not know it, or does not answer.
    """
    try:
        said = _slurm("scontrol", "--oneliner", "show", "job", job).stdout
        return dict(re.findall(r"(?:^| )([A-Z]\S*?)=(.*?)(?= [A-Z][^ =]*=|$)", said.strip()))
    except RunError as error:
        try:
            rows = _slurm(
                "sacct", "--jobs", job, "--allocations", "--noheader", "--parsable2", "--format=State,ExitCode"
            ).stdout
        except RunError:
            raise error from None
        if not rows.strip():
            raise
        state, code = rows.splitlines()[-1].split("|")
        return {"JobState": state.split()[0], "ExitCode": code}


def _title(launch: LaunchSpec) -> str:
    return TITLE.sub("-", f"{launch.name}-{launch.stage}" if launch.stage else launch.name)


def _command(launch: LaunchSpec, has_settings: bool) -> tuple[str, ...]:
    return ("python", "-m", f"jobs.{launch.stage}") if has_settings else launch.command


def _container(options: SlurmOptions) -> tuple[str, ...]:
    # --nv brings the GPU driver in; the working folder, the home and /tmp are shared with the image by default.
    return ("apptainer", "exec", "--nv", options.container) if options.container else ()


def _directives(launch: LaunchSpec, options: SlurmOptions) -> list[str]:
    """Lines for `#SBATCH`; what the user gave in so many words takes the place of ours."""
    lines: dict[str, str | None] = {
        "job-name": _title(launch),
        "output": "%x_%j.out",
        "open-mode": "append",
        "nodes": str(max(1, launch.nodes)),
        "ntasks-per-node": "1",
        "gpus-per-node": str(launch.gpus_per_node) if launch.gpus_per_node else "",
        "cpus-per-task": str(launch.cpus_per_node) if launch.cpus_per_node else "",
        "time": options.time,
        "account": options.account,
        "partition": options.partition,
        "qos": options.qos,
        "constraint": options.constraint,
        "signal": f"B:USR1@{options.warning_s}",
        ("requeue" if options.requeue else "no-requeue"): None,
    }
    for word in options.sbatch:
        name, equals, value = word.lstrip("-").partition("=")
        if not re.fullmatch(r"[a-z][a-z-]*", name) or "\n" in value:
            raise RunError(f"--sbatch {word}: expected an option of sbatch as KEY=VALUE or KEY, such as mem=0 or exclusive")
        lines[name] = value if equals else None
    if "array" in lines and not any(word.lstrip("-").startswith("output") for word in options.sbatch):
        lines["output"] = "%x_%A_%a.out"
    return [f"--{name}" if value is None else f"--{name}={_quoted(value)}" for name, value in lines.items() if value != ""]


def _quoted(value: str) -> str:
    """As sbatch reads a line of its script: by words, as the shell does, and to the first #."""
    return shlex.quote(value) if re.search(r"[\s#'\"\\]", value) else value


def _slurm(*command: str, script: str | None = None, where: Path | None = None) -> Said:
    """Run one of Slurm's commands.

    Raises:
        RunError: it is not installed, fails, or takes more than a minute.
    """
    try:
        said = subprocess.run(command, input=script, cwd=where, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError as error:
        raise RunError(f"{command[0]}: no such command here; submit from a login node of a Slurm cluster") from error
    except subprocess.TimeoutExpired as error:
        raise RunError(f"{command[0]}: Slurm did not answer within a minute; try again later") from error
    if said.returncode:
        words = " ".join(said.stderr.split()) or f"status {said.returncode}"
        raise RunError(f"{command[0]} refused: {words}; change the option that it names")
    return said


def _patiently(job: str) -> dict[str, str]:
    """`job_facts`, while Slurm's controller may be restarting."""
    deadline = time.monotonic() + REFUSALS_S
    while True:
        try:
            return job_facts(job)
        except RunError as error:
            if time.monotonic() > deadline or "Invalid job id" in str(error):
                raise
            time.sleep(LOOK_S)


def _output_of(facts: dict[str, str]) -> Path | None:
    """The job's output file; some versions of Slurm do not fill in its pattern."""
    if "StdOut" not in facts:
        return None
    path = facts["StdOut"].replace("%x", facts.get("JobName", "")).replace("%j", facts.get("JobId", ""))
    return Path(path)


class _Output:
    """What a growing file has that was not yet written."""

    def __init__(self, write: Callable[[str], Any]) -> None:
        self._write, self._shown = write, 0
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def show(self, path: Path | None) -> None:
        """Write what is new, whole characters only."""
        if path is None or not path.is_file():
            return
        with path.open("rb") as file:
            file.seek(self._shown)
            found = file.read()
        self._shown += len(found)
        if text := self._decoder.decode(found):
            self._write(text)


def _sentence(facts: dict[str, str]) -> str:
    """A job's state in words."""
    state = facts["JobState"].lower()
    reason = facts.get("Reason", "None")
    restarts = int(facts.get("Restarts", 0))
    again = f", started again {restarts} time{'s' * (restarts > 1)}" if restarts else ""
    return state + (f" ({reason})" if reason != "None" and state == "pending" else "") + again


def _status(facts: dict[str, str]) -> int:
    found = RESULT.match(facts.get("ExitCode", ""))
    status, signal = (int(number) for number in found.groups()) if found else (0, 0)
    if status or signal:
        return status or 128 + signal
    return 0 if facts["JobState"] == "COMPLETED" else 1
