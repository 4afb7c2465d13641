"""What whoever submits to Ray sees when the network or the head is lost, and a stage that is stopped and resumed there."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlparse

import pytest
import yaml

from cluster import metrics
from cluster.launch.spec import launches
from cluster.local import object_store, ray_head
from cluster.markers import committed
from cluster.stopping import STOPPED_STATUS
from shards.storage import Store
from tests.cluster.forwarder import forwarding

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]
LIMIT_S = 300
TOKEN = "0123456789abcdef" * 4

TELLER = """
import pathlib, time
for number in range(30):
    print("line", number, flush=True)
    if number == 9:
        while not pathlib.Path("{go}").exists():
            time.sleep(0.1)
"""

TRIED_TWICE = """
import pathlib, time
tried = pathlib.Path("{folder}/tried")
if tried.exists():
    print("second time")
else:
    tried.touch()
    print("first time", flush=True)
    time.sleep(3600)
"""


@contextmanager
def following(log, environment, *words):
    """`ecgchat` in a process of its own, whose output goes to a file."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs.cli", *map(str, words)],
            cwd=PROJECT,
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def wait_for(happened, process, log):
    deadline = time.monotonic() + LIMIT_S
    while not happened():
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.2)


def port_of(head):
    return urlparse(head.address).port


def test_output_goes_on_after_a_cut_and_a_job_lost_with_its_head_is_submitted_again(tmp_path):
    code = tmp_path / "code"
    code.mkdir()
    (code / "teller.py").write_text(TELLER.format(go=tmp_path / "go"))
    (code / "twice.py").write_text(TRIED_TWICE.format(folder=tmp_path))
    with forwarding() as cable, ExitStack() as stack:
        submit = ["submit", "ray", "--address", f"http://127.0.0.1:{cable.port}", "--working-dir", code, "--patience", 200]
        head = stack.enter_context(ray_head.serve(tmp_path / "ray.log", {}, cpus=1, token=TOKEN))
        access = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
        cable.plug(port_of(head))
        log = tmp_path / "cut.log"
        with following(log, access, *submit, "--", "python", "teller.py") as process:
            wait_for(lambda: "line 9\n" in log.read_text(), process, log)
            cable.pull()
            (tmp_path / "go").touch()
            wait_for(lambda: "does not answer" in log.read_text(), process, log)
            cable.plug(port_of(head))
            assert process.wait(LIMIT_S) == 0
        assert [line for line in log.read_text().splitlines() if line.startswith("line")] == [f"line {n}" for n in range(30)]
        assert "answers again" in log.read_text()

        log = tmp_path / "lost.log"
        with following(log, access, *submit, "--resubmit", 1, "--", "python", "twice.py") as process:
            wait_for(lambda: "first time" in log.read_text(), process, log)
            cable.pull()
            stack.close()
            with ray_head.serve(tmp_path / "ray2.log", {}, cpus=1, token=TOKEN) as second:
                cable.plug(port_of(second))
                assert process.wait(LIMIT_S) == 0, log.read_text()[-3000:]
        assert "was lost with its Ray head; submitting it again, 1 of 1 times" in log.read_text()
        assert log.read_text().count("first time") == log.read_text().count("second time") == 1


@pytest.mark.long
def test_a_stage_is_submitted_stopped_resumed_and_stopped_again(small_job, tmp_path):
    with object_store.serve(tmp_path / "s3") as s3, ray_head.serve(tmp_path / "ray.log", s3.environment, cpus=2) as head:
        uri = f"{s3.uri}/runs/demo"
        small_job["run"]["folder"] = uri
        small_job["train"] |= {"steps": 100000, "eval_every": 50000, "checkpoint": {"every_steps": 50}}
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(small_job))
        access = {**s3.environment, **head.environment}
        words = ["--config", tmp_path / "job.yaml", "--address", head.address]
        first = stopped(access, s3, uri, tmp_path / "first.log", "submit", "ray", "coca", *words)
        second = stopped(access, s3, uri, tmp_path / "second.log", "runs", "resume", uri)
        folder = tmp_path / "s3" / s3.bucket / "runs" / "demo"
        resumed = [attempt["resumed_from"] for attempt in metrics.attempts(folder / metrics.FILE)]
        assert resumed == [0, first]
        assert first < second
        records = launches(Store(str(folder)))
        assert [record["launcher"] for record in records] == ["ray", "ray"]
        assert records[0]["command"] == records[1]["command"]
        assert records[0]["id"] != records[1]["id"]
        left = "".join(path.read_text() for path in [*folder.glob("launch/*"), *tmp_path.glob("*.log")])
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            assert s3.environment[name] not in left


def stopped(access, s3, uri, log, *words):
    """The step that a run was committed at, which a command began and `ecgchat runs stop` ended."""
    checkpoints = Path(log.parent / "s3" / s3.bucket / "runs" / "demo" / "checkpoints")

    def newest():
        return max((path.name for path in checkpoints.glob("*.committed.json")), default="")

    before = newest()
    with following(log, access, *words) as process:
        wait_for(lambda: newest() > before, process, log)
        done = subprocess.run(
            [sys.executable, "-m", "jobs.cli", "runs", "stop", uri],
            cwd=PROJECT,
            env={**os.environ, **access},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert process.wait(LIMIT_S) == STOPPED_STATUS, log.read_text()[-3000:]
    assert f"'ecgchat runs resume {uri}' goes on from there" in log.read_text()
    return committed(Store(str(checkpoints)))[-1].step
