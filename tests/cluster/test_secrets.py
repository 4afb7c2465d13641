"""Keys and tokens are in nothing that a run leaves, says or shows: all of it is searched, after a run that ends well and one
that does not.

Searched are the run's folder (archives and compressed streams too), the temporary folders, Ray's folder with its logs, what
its Jobs API says of the jobs, what the commands printed, and every command line of the machine while the jobs ran.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import secrets
import subprocess
import sys
import threading
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest

from cluster.local import object_store, ray_head
from cluster.local.ray_head import RayHead
from tests.settings import small_settings

PROJECT = Path(__file__).parents[2]


def encodings(secret: str) -> dict[str, bytes]:
    """The forms in which something may hold a secret."""
    plain = secret.encode()
    basic = base64.b64encode(plain).rstrip(b"=")[:-1]  # its end depends on what follows
    return {"plain": plain, "quoted": quote(secret, safe="").encode(), "base64": basic, "hex": plain.hex().encode()}


def found_in(body: bytes, known: Mapping[str, str], where: str) -> list[str]:
    """Which secrets are in some bytes, or in what those hold compressed."""
    found = [
        f"{name} ({form}) in {where}"
        for name, secret in known.items()
        for form, pattern in encodings(secret).items()
        if pattern in body
    ]
    for label, part in unpacked(body):
        found += found_in(part, known, f"{where}: {label}")
    return found


def unpacked(body: bytes) -> Iterator[tuple[str, bytes]]:
    """Members of an archive (`torch.save` writes one too), or a decompressed stream."""
    if body.startswith(b"PK\x03\x04"):
        with suppress(zipfile.BadZipFile), zipfile.ZipFile(io.BytesIO(body)) as archive:
            for name in archive.namelist():
                if not name.endswith(".data"):
                    yield name, archive.read(name)
    elif body.startswith(b"\x1f\x8b"):
        with suppress(OSError, EOFError):
            yield "decompressed", gzip.decompress(body)
    elif body[:2] in (b"\x78\x9c", b"\x78\x01", b"\x78\xda"):
        with suppress(zlib.error):
            yield "decompressed", zlib.decompress(body)


def found_below(folder: Path, known: Mapping[str, str], but: tuple[Path, ...] = ()) -> list[str]:
    """Which secrets are in the files below a folder, or in their names."""
    found = []
    for path in folder.rglob("*"):
        found += found_in(str(path).encode(), known, f"the name {path}")
        if path.is_file() and not path.is_symlink() and path not in but:
            with suppress(OSError):  # it has gone meanwhile
                found += found_in(path.read_bytes(), known, str(path))
    return found


@dataclass
class CommandLines:
    """Every command line of this machine that was seen, with what its process was called."""

    seen: set[bytes] = field(default_factory=set)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look again and again while the context lasts."""
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(0.1):
                for pid in psutil.pids():
                    with suppress(OSError):
                        self.seen.add(Path(f"/proc/{pid}/cmdline").read_bytes())

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def test_a_search_finds_what_is_hidden(tmp_path):
    known = {"A": "s3cret+of/mine-" + secrets.token_hex(8)}
    body = known["A"].encode()
    hidden = {
        "plain": b"x" + body,
        "packed": gzip.compress(body),
        "streamed": zlib.compress(body),
        "quoted": quote(known["A"], safe="").encode(),
        "encoded": base64.b64encode(body),
        "nothing": b"nothing",
    }
    for name, content in hidden.items():
        (tmp_path / name).write_bytes(content)
    with zipfile.ZipFile(tmp_path / "zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner", gzip.compress(body))
    found = {line.split(" in ")[1].split(":")[0] for line in found_below(tmp_path, known)}
    assert found == {str(tmp_path / name) for name in (*hidden, "zip") if name != "nothing"}


@dataclass(frozen=True)
class Cluster:
    """A Ray head and an S3 server whose environment holds all keys that a run may need."""

    head: RayHead
    known: Mapping[str, str]
    """Name → value of each secret."""
    environment: Mapping[str, str]
    uri: str
    folder: Path
    ray_folder: Path


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Everything that it writes lies below one folder, and Ray's own."""
    folder = tmp_path_factory.mktemp("secrets")
    (folder / "tmp").mkdir()
    marked = {"WANDB_API_KEY": secrets.token_hex(20), "HF_TOKEN": f"hf_{secrets.token_urlsafe(25)}"}
    with object_store.serve(folder / "s3") as store:
        ours = {
            **store.environment,
            **marked,
            "TMPDIR": str(folder / "tmp"),
            "PYTHONPATH": str(PROJECT),
            "WANDB_MODE": "offline",
        }
        with ray_head.serve(folder / "ray.log", ours, cpus=2) as head:
            token = Path(head.environment["RAY_AUTH_TOKEN_PATH"])
            known = {
                **marked,
                "AWS_SECRET_ACCESS_KEY": store.environment["AWS_SECRET_ACCESS_KEY"],
                "RAY_AUTH_TOKEN": token.read_text(),
            }
            environment = {**os.environ, **ours, **head.environment}
            yield Cluster(head, known, environment, store.uri, folder, token.parent)


def job_file(cluster: Cluster, name: str, shards: str, tokenizer: str, **launch: Any) -> Path:
    """Settings of a short run."""
    settings = small_settings(shards, tokenizer, Path("unused"))
    settings["run"]["folder"] = f"{cluster.uri}/{name}"
    settings["train"] |= {"steps": 4, "eval_every": 4, "checkpoint": {"every_steps": 2}}
    settings["launch"] |= {"max_failures": 0, **launch}
    file = cluster.folder / f"{name}.json"
    file.write_text(json.dumps(settings))
    return file


def ecgchat(cluster: Cluster, *words: str) -> tuple[int, str]:
    """Status and output of a command."""
    command = [sys.executable, "-m", "jobs.cli", *words]
    done = subprocess.run(
        command,
        cwd=PROJECT,
        env=dict(cluster.environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=400,
        check=False,
    )
    return done.returncode, done.stdout


def said_by_the_jobs_api(cluster: Cluster) -> bytes:
    """What anybody with access to the dashboard reads of the jobs."""
    access = {"Authorization": f"Bearer {cluster.known['RAY_AUTH_TOKEN']}"}
    request = urllib.request.Request(f"{cluster.head.address}/api/jobs/", headers=access)
    with urllib.request.urlopen(request, timeout=30) as reply:
        return reply.read()


@pytest.mark.slow
def test_no_key_is_in_anything_that_runs_leave_behind(cluster, simulated_shards, tokenizer_folder):
    lines = CommandLines()
    where = ("--address", cluster.head.address)
    good = job_file(cluster, "good", simulated_shards, tokenizer_folder)
    bad = job_file(cluster, "bad", simulated_shards + "-that-is-not-there", tokenizer_folder)
    settings = cluster.folder / "failing.json"
    settings.write_text(json.dumps({**json.loads(good.read_text()), "run": {"folder": f"{cluster.uri}/failing", "name": "x"}}))
    failing = ("--", sys.executable, "-m", "tests.cluster.run_ray", "tests.cluster.workers:failing", str(settings))
    alone = ("--run.folder", f"{cluster.uri}/alone", "--launch.launcher", "processes", "--launch.workers", "1")
    commands = [
        ("submit", "ray", "coca", "--config", str(good), *where),
        ("submit", "ray", "coca", "--config", str(bad), *where),
        ("submit", "ray", *where, "--working-dir", str(PROJECT), *failing),
        ("train", "coca", "--config", str(good), *alone),
    ]
    with lines.watched(), ThreadPoolExecutor(len(commands)) as pool:
        outputs = list(pool.map(lambda words: ecgchat(cluster, *words), commands))
    assert [status == 0 for status, _ in outputs] == [True, False, False, True], outputs

    jobs = said_by_the_jobs_api(cluster)
    assert jobs.count(b"submission_id") >= 3
    assert any(b"jobs.coca" in line for line in lines.seen)
    run = cluster.folder / "s3" / "ecgchat" / "good"
    assert {"metrics.jsonl", "config.json", "checkpoints", "wandb"} <= {path.name for path in run.iterdir()}
    assert list((cluster.ray_folder / "session_latest" / "logs").glob("worker-*"))
    token = Path(cluster.head.environment["RAY_AUTH_TOKEN_PATH"])
    places = [
        *found_below(cluster.folder, cluster.known),
        *found_below(cluster.ray_folder, cluster.known, but=(token,)),
        *found_in(jobs, cluster.known, "Ray's Jobs API"),
        *(place for _, output in outputs for place in found_in(output.encode(), cluster.known, "what a command printed")),
        *(place for line in lines.seen for place in found_in(line, cluster.known, f"the command line {line[:60]!r}")),
    ]
    assert not places, "\n".join(places[:20])


def test_a_plan_of_a_launch_shows_no_key(tmp_path, monkeypatch, capsys):
    from jobs.submit import LAUNCHERS, main

    known = {"WANDB_API_KEY": secrets.token_hex(20), "AWS_SECRET_ACCESS_KEY": secrets.token_urlsafe(30)}
    for name, value in {**known, "AWS_ACCESS_KEY_ID": "id", "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    settings = small_settings("s3://bucket/set", "s3://bucket/tokenizer", tmp_path)
    settings["run"]["folder"] = "s3://bucket/run"
    del settings["launch"]
    file = tmp_path / "job.json"
    file.write_text(json.dumps(settings))
    own = {"kubernetes": ("--image", "image:1"), "ray": ("--address", "http://127.0.0.1:9")}
    for launcher in LAUNCHERS:
        machines = ("--nodes", "2", "--cpus-per-node", "2")
        assert main([launcher, "coca", "--config", str(file), *machines, "--dry-run", *own.get(launcher, ())]) == 0
        plan = capsys.readouterr().out
        assert "s3://bucket/run" in plan
        assert not found_in(plan.encode(), known, f"the plan of {launcher}")
