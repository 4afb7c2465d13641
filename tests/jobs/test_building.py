"""`ecgchat shards build` on several processes and on a Ray cluster: killed and started again, the bytes are the same."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from cluster.local import object_store, ray_head
from shards.build import BuildOptions, build
from shards.sources.ptb_xl import PtbXl
from shards.storage import Store

pytestmark = pytest.mark.slow

SMALL = BuildOptions(records_per_shard=8)


@pytest.fixture(scope="module")
def undisturbed(simulated_folder, tmp_path_factory):
    """The same corpus, built in this process."""
    folder = tmp_path_factory.mktemp("undisturbed") / "set"
    build(PtbXl(simulated_folder, 100), str(folder), SMALL)
    return contents(Store(str(folder)))


def contents(store):
    return {name: store.get(name) for name in store.list()}


def build_command(corpus, out, *options):
    words = [sys.executable, "-m", "jobs.cli", "shards", "build", "ptb-xl", str(corpus), "--out", out]
    return [*words, "--rate", "100", "--records-per-shard", "8", *options]


def test_a_build_killed_at_any_point_goes_on_and_ends_with_the_same_bytes(simulated_folder, undisturbed, tmp_path):
    out = tmp_path / "set"
    for notes in (1, 5, 9):
        process = subprocess.Popen(build_command(simulated_folder, str(out), "--workers", "2"), start_new_session=True)
        while process.poll() is None and len(list(out.glob("unfinished/*.parquet"))) < notes:
            time.sleep(0.001)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() in (-signal.SIGKILL, 0)
    finished = Store(str(out)).exists("manifest.json") and not (out / "unfinished").exists()
    if not finished:
        subprocess.run(build_command(simulated_folder, str(out), "--workers", "2"), check=True)
    assert contents(Store(str(out))) == undisturbed


def test_workers_end_when_the_build_is_killed(simulated_folder, tmp_path):
    words = build_command(simulated_folder, str(tmp_path / "set"), "--workers", "2", "--measure")
    process = subprocess.Popen(words, start_new_session=True)
    while not list((tmp_path / "set").glob("unfinished/*.parquet")):
        time.sleep(0.01)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and members(process.pid):
        time.sleep(0.1)
    assert not members(process.pid)


def members(session):
    """Processes of a session that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, its_session, *_ = path.read_text().rpartition(")")[2].split()
            if int(its_session) == session and state != "Z":
                found.append(path.parent.name)
    return found


def test_a_ray_cluster_writes_the_same_bytes_into_object_storage(simulated_folder, undisturbed, tmp_path, monkeypatch):
    with object_store.serve(tmp_path / "s3") as s3, ray_head.serve(tmp_path / "ray.log", s3.environment, cpus=2) as head:
        words = ["submit", "ray", "--address", head.address, "--working-dir", str(tmp_path), "--"]
        done = subprocess.run(
            [sys.executable, "-m", "jobs.cli", *words, *build_command(simulated_folder, f"{s3.uri}/set", "--ray")],
            env={**os.environ, **head.environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        assert contents(Store(f"{s3.uri}/set")) == undisturbed
