"""What is learnt depends on the global batch, never on how many workers share it."""

import json

import pytest
import torch

from cluster import metrics
from tests.cluster.conftest import torchrun

pytestmark = pytest.mark.slow

ZERO_STAGES = [0, 1, 2, 3]


@pytest.fixture(scope="module")
def first_steps(request, tmp_path_factory):
    """Results of the first step with one worker and with two, for every ZeRO stage."""

    def measured(job, workers):
        folder = tmp_path_factory.mktemp(f"world-{workers}")
        settings = folder / "settings.json"
        settings.write_text(json.dumps({**job, "out": str(folder / "out.pt"), "zero_stages": ZERO_STAGES}))
        done = torchrun(workers, "tests.cluster.workers:first_gradients", settings)
        assert done.returncode == 0, done.stderr[-3000:]
        return torch.load(folder / "out.pt")

    return measured


def test_one_worker_and_two_have_the_same_losses_and_gradients(first_steps, small_job):
    one, two = first_steps(small_job, 1), first_steps(small_job, 2)
    for zero_stage in ZERO_STAGES:
        assert two[zero_stage]["losses"] == pytest.approx(one[zero_stage]["losses"], rel=1e-5)
        for name, gradient in one[zero_stage]["gradients"].items():
            torch.testing.assert_close(two[zero_stage]["gradients"][name], gradient, rtol=1e-4, atol=1e-6, msg=name)
            torch.testing.assert_close(
                gradient, one[0]["gradients"][name], rtol=1e-4, atol=1e-6, msg=f"ZeRO-{zero_stage} {name}"
            )


@pytest.mark.parametrize("zero_stage", [3])
def test_a_run_of_two_or_three_workers_has_the_figures_of_one(small_job, tmp_path, zero_stage):
    """Three do not divide the batch of 12 pairs nor the validation split, so that padding is in play."""
    small_job["train"] |= {"steps": 6, "eval_every": 3, "engine": {"zero_stage": zero_stage, "precision": "fp32"}}
    lines = {}
    for workers in (1, 3):
        small_job["run"]["folder"] = str(tmp_path / f"run-{workers}")
        settings = tmp_path / f"settings-{workers}.json"
        settings.write_text(json.dumps(small_job))
        done = torchrun(workers, "jobs.coca:worker", settings)
        assert done.returncode == 0, done.stderr[-3000:]
        lines[workers] = metrics.read(tmp_path / f"run-{workers}" / metrics.FILE)
    for one, three in zip(lines[1], lines[3], strict=True):
        for name in [name for name in one if name.startswith(("train/", "eval/"))]:
            assert three[name] == pytest.approx(one[name], rel=2e-4), (one["step"], name)


@pytest.mark.parametrize("zero_stage", [2, 3])
def test_a_run_goes_on_with_another_number_of_workers(small_job, tmp_path, zero_stage):
    """Ten steps with two workers, the rest with one: what one worker alone would have done, to float tolerance."""
    small_job["train"] |= {"steps": 16, "engine": {"zero_stage": zero_stage, "precision": "fp32"}}
    small_job["train"]["checkpoint"] = {"every_steps": 5, "keep_last": 9}
    lines = {}
    for name, workers in (("resized", 2), ("alone", 1)):
        small_job["run"]["folder"] = str(tmp_path / name)
        (tmp_path / "settings.json").write_text(json.dumps(small_job))
        assert torchrun(workers, "jobs.coca:worker", tmp_path / "settings.json").returncode == 0
        if workers == 2:
            for step in (15, 16):
                (tmp_path / name / "checkpoints" / f"step-{step:06d}.committed.json").unlink()
            done = torchrun(1, "jobs.coca:worker", tmp_path / "settings.json")
            assert done.returncode == 0, done.stderr[-3000:]
            assert "1 workers, 16 steps, resumed from committed step 10" in done.stdout
        lines[name] = metrics.read(tmp_path / name / metrics.FILE)
    for resized, alone in zip(lines["resized"], lines["alone"], strict=True):
        assert resized["train/loss"] == pytest.approx(alone["train/loss"], rel=1e-4), alone["step"]
        assert resized["train/gradient_norm"] == pytest.approx(alone["train/gradient_norm"], rel=1e-3), alone["step"]
