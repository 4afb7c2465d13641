"""What a run relies on is broken, one thing after the other, and the doctor says which and what to do."""

from __future__ import annotations

import email.utils
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from cluster.doctor import accelerators, machine, ray, services, slurm, stores
from cluster.doctor.findings import Finding, examine, ok
from cluster.local import ray_head
from cluster.local.servers import free_ports
from jobs import doctor
from tests.shards.faults.proxy import Fault, Plan, faulty

PROJECT = Path(__file__).parents[2]
KEY = "0123456789abcdef0123456789abcdef01234567"


def levels(findings: list[Finding]) -> dict[str, str]:
    return {finding.name: finding.level for finding in findings}


def only(findings: list[Finding]) -> Finding:
    [finding] = findings
    assert (finding.level == "ok") == (finding.advice == ""), "what is not well has advice, what is well needs none"
    return finding


def in_shell(before: str, check: str) -> list[Finding]:
    """The findings of a check in a process of its own, after some commands of the shell, in a mount namespace of its own."""
    program = f"import json, dataclasses, cluster.doctor.machine as m; print(json.dumps([vars(f) for f in m.{check}()]))"
    words = ["unshare", "--mount", "bash", "-euc", f'{before}; exec "$0" -c "$1"', sys.executable, program]
    done = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True, timeout=100, check=False)
    if "unshare" in done.stderr:
        pytest.skip("a mount namespace needs root")
    assert done.returncode == 0, done.stderr
    return [Finding(**fields) for fields in json.loads(done.stdout)]


@contextmanager
def answering(status: int, body: object = None, date: float | None = None) -> Iterator[str]:
    """Address of a server that says the same to everybody."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response_only(status)
            self.send_header("Date", email.utils.formatdate(time.time() if date is None else date, usegmt=True))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(json.dumps(body).encode())

        do_GET = do_POST = do_HEAD = answer  # noqa: N815  (named by the server)

        def log_message(self, *words: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_no_check_stops_the_others() -> None:
    forever = threading.Event()

    def broken() -> list[Finding]:
        raise KeyError("driver")

    def hanging() -> list[Finding]:
        forever.wait()
        return []

    checks: list[tuple[str, Callable[[], list[Finding]]]] = [("a", broken), ("b", hanging), ("c", lambda: [ok("c", "fine")])]
    findings = examine(checks, limit_s=0.5)
    forever.set()
    assert levels(findings) == {"a": "fail", "b": "fail", "c": "ok"}
    assert findings[0].found == "the check failed: 'driver'"
    assert findings[1].found == "no answer within 0.5 s"


def test_a_machine_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = machine.compiler()[0]
    assert (finding.level, finding.found) == ("fail", "no c++ on PATH")
    assert "g++" in finding.advice


@pytest.mark.slow
def test_deepspeeds_op_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "empty"))
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = only(machine.deepspeed_op())
    assert finding.level == "fail"
    assert "compiler" in finding.advice


@pytest.mark.parametrize(
    ("pins", "level", "found"),
    [
        ("torch==1.0.0\nnumpy==1.2\n", "warn", "torch 2."),
        ("ray==2.60.0\n", "ok", "all 1 of"),
        ("# nothing\n", "ok", "all 0 of"),
        (None, "warn", "is absent"),
    ],
)
def test_versions_are_those_that_work_together(pins: str | None, level: str, found: str, tmp_path: Path) -> None:
    file = tmp_path / "constraints.txt"
    if pins is not None:
        file.write_text(pins)
    finding = only(machine.versions(file))
    assert finding.level == level
    assert found in finding.found


def test_a_package_that_is_needed_and_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine.metadata, "requires", lambda name: ["no-such-package>=1"])
    (tmp_path / "constraints.txt").write_text("no-such-package==1.0\nother-package==1.0\n")
    finding = only(machine.versions(tmp_path / "constraints.txt"))
    assert (finding.level, finding.found) == ("fail", "not installed: no-such-package")


@pytest.mark.parametrize(("megabytes", "level"), [(64, "fail"), (1500, "warn")])
def test_little_shared_memory(megabytes: int, level: str) -> None:
    finding = only(in_shell(f"mount -t tmpfs -o size={megabytes}m tmpfs /dev/shm", "shared_memory"))
    assert finding.level == level
    assert "--shm-size" in finding.advice


def test_few_open_files() -> None:
    finding = only(in_shell("ulimit -n 1024", "open_files"))
    assert (finding.level, finding.found) == ("warn", "1024 (ulimit -n), at most 1024")


def test_little_room_for_scratch(tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o size=200m tmpfs {tmp_path}; export TMPDIR={tmp_path}"
    scratch, _ = in_shell(mount, "disks")
    assert (scratch.name, scratch.level) == ("disk of TMPDIR", "fail")
    assert "TMPDIR" in scratch.advice


@pytest.mark.slow
def test_processes_that_do_not_reach_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "nowhere0")
    finding = only(accelerators.all_reduce())
    assert (finding.name, finding.level) == ("all-reduce (gloo)", "fail")
    assert "GLOO_SOCKET_IFNAME" in finding.advice


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "PATIENCE", stores.Patience(deadline_s=2, attempt_s=2, longest_wait_s=0.5))


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
class TestStore:
    def look(self, uri: str) -> list[Finding]:
        return examine(stores.checks(uri), limit_s=60)

    def test_a_store_that_is_well_is_left_as_it_was(self, s3: str) -> None:
        findings = self.look(f"{s3}/runs")
        assert {name for name, level in levels(findings).items() if level == "fail"} == set()
        assert levels(findings)["store: ranged read"] == levels(findings)["clock"] == "ok"
        assert stores.Store(s3).list() == []

    def test_wrong_keys(self, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
        finding = self.look(f"{s3}/runs")[0]
        assert finding.level == "fail"
        assert "refused" in finding.found
        assert KEY not in str(self.look(f"{s3}/runs"))

    def test_a_closed_port(self, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_ports(1)[0]}")
        assert set(levels(self.look(f"{s3}/runs")).values()) == {"fail"}

    def test_bytes_that_change_on_their_way(self, s3: str) -> None:
        with faulty(dict(os.environ), Plan.always(Fault.CORRUPT, "GET")):
            finding = self.look(f"{s3}/runs")[0]
        assert (finding.level, finding.advice) == ("fail", "do not train on this store")

    @pytest.mark.parametrize(("ahead_s", "level"), [(0, "ok"), (-60, "warn"), (900, "fail")])
    def test_a_clock_that_is_wrong(self, ahead_s: float, level: str, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with answering(200, date=time.time() - ahead_s) as address:
            monkeypatch.setenv("AWS_ENDPOINT_URL", address)
            finding = only(stores.clock("s3://bucket/runs"))
        assert finding.level == level
        assert ("ahead of" in finding.found, "behind" in finding.found) == (ahead_s > 0, ahead_s < 0)

    def test_a_folder(self, tmp_path: Path) -> None:
        assert set(levels(self.look(str(tmp_path / "runs"))).values()) <= {"ok", "warn"}
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]


class TestWandb:
    @pytest.fixture(autouse=True)
    def online(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("WANDB_MODE", raising=False)

    @pytest.mark.parametrize(
        ("status", "body", "level", "found"),
        [
            (200, {"data": {"viewer": {"username": "me"}}}, "ok", "knows WANDB_API_KEY"),
            (200, {"data": {"viewer": None}}, "fail", "does not know WANDB_API_KEY"),
            (401, {}, "fail", "refuses WANDB_API_KEY (401)"),
            (503, {}, "warn", "answers 503"),
        ],
    )
    def test_a_host_and_a_key(self, status: int, body: object, level: str, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        with answering(status, body) as address:
            monkeypatch.setenv("WANDB_BASE_URL", address)
            finding = only(services.wandb())
        assert finding.level == level
        assert found in finding.found
        assert KEY not in str(finding)

    def test_a_key_and_no_way_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{free_ports(1)[0]}")
        finding = only(services.wandb())
        assert finding.level == "fail"
        assert "train.tracking.wandb" in finding.advice

    def test_without_a_key_runs_are_offline(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("WANDB_API_KEY", raising=False)
        assert only(services.wandb()).level == "ok"


def test_slurm_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [only(slurm.facts(needed)).level for needed in (False, True)] == ["ok", "fail"]


class TestRay:
    @pytest.fixture(autouse=True)
    def nowhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
            monkeypatch.delenv(name, raising=False)

    def test_no_cluster_is_named(self) -> None:
        assert levels(ray.facts(needed=False)) == {"Ray": "ok"}
        assert levels(ray.facts(needed=True)) == {"Ray": "ok", "Ray cluster": "fail"}

    @pytest.mark.slow
    def test_a_cluster_with_a_token(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        with ray_head.serve(tmp_path / "ray.log", {}, cpus=1) as head:
            assert levels(ray.facts(True, head.address)) == {"Ray": "ok", "Ray dashboard": "fail"}
            for name, value in head.environment.items():
                monkeypatch.setenv(name, value)
            monkeypatch.setenv("RAY_ADDRESS", head.nodes)
            findings = ray.facts(True, head.address)
        assert levels(findings) == {"Ray": "ok", "Ray dashboard": "ok", "Ray cluster": "ok"}
        assert "1 nodes, 1 CPUs, 0 GPUs" in findings[-1].found

    def test_a_dashboard_of_another_version(self) -> None:
        with answering(200, {"ray_version": "2.9.0"}) as address:
            finding = ray.jobs_api(address)
        assert finding.level == "fail"
        assert "Ray 2.9.0 there" in finding.found

    def test_a_closed_port(self) -> None:
        finding = ray.jobs_api(f"http://127.0.0.1:{free_ports(1)[0]}")
        assert finding.level == "fail"
        assert "ssh -L" in finding.advice

    @pytest.mark.slow
    def test_a_head_that_is_not_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ray, "JOIN_S", 4.0)
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_ports(1)[0]}")
        assert levels(ray.facts(needed=True)) == {"Ray": "ok", "Ray cluster": "fail"}


@pytest.mark.slow
class TestCommand:
    @pytest.fixture(autouse=True)
    def offline(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("WANDB_API_KEY", "RAY_ADDRESS"):
            monkeypatch.delenv(name, raising=False)

    def test_everything_is_looked_at(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        status = doctor.main(["--store", str(tmp_path / "store"), "--json"])
        findings = [Finding(**fields) for fields in json.loads(capsys.readouterr().out)]
        assert status == int(any(finding.level == "fail" for finding in findings))
        assert levels(findings)["DeepSpeed op"] == levels(findings)["all-reduce (gloo)"] == "ok"
        assert {"Python", "C++ compiler", "versions", "GPU", "W&B", "Slurm", "Ray", "store"} <= set(levels(findings))

    def test_a_table_says_what_to_do_and_the_status_that_something_will_not_work(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(doctor, "checks", lambda *given: [("Ray", lambda: ray.facts(True))])
        assert doctor.main([]) == 1
        said = " ".join(capsys.readouterr().out.split())
        assert "fail Ray cluster" in said
        assert "→ give --address http://HEAD:8265" in said
        assert "1 ok, 0 to look at, 1 that will not work" in said
