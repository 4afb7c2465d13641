"""The numbers of steps: what a line says, whose they are, and how they look in a log file and in a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cluster import numbers
from cluster.console import duration
from cluster.flops import peak_flops, peak_of_world
from cluster.numbers import Numbers, StepNumbers

PROJECT = Path(__file__).parents[2]
DEVICE = torch.device("cpu")
STAGE = SimpleNamespace(name="small", global_batch=32)


class TwoRanks:
    """As rank 0 sees them, where the other rank has just the same numbers and twice the memory."""

    size, device, main = 2, DEVICE, True

    def sum(self, tensor):
        return 2 * tensor

    def max(self, tensor):
        return 2 * tensor

    def gather_objects(self, value):
        return [value, value]


class Times:
    """Of a step that took two seconds."""

    def seconds(self):
        return {"data": 0.5, "forward": 0.5, "backward": 0.5, "optimizer": 0.5, "step": 2.0}


def step(number, flops=3e12, tokens=100):
    totals, counts = torch.tensor([8.0, 4.0]), torch.tensor([16.0, 8.0])
    weights = {"contrastive": 1.0, "caption": 2.0}
    return StepNumbers(number, totals, counts, weights, 1.5, 1e-4, Times(), tokens, flops, wait_s=0.5)


@pytest.fixture
def lines_of(monkeypatch):
    """The lines of some steps on accelerators of a known or unknown peak."""

    def lines(steps, peak=12e12):
        monkeypatch.setattr(numbers, "peak_of_world", lambda world: (peak, f"about {peak}"))
        kept = Numbers(STAGE, TwoRanks(), 100)
        for item in steps:
            kept.add(item)
        return kept, kept.lines()

    return lines


def test_a_line_joins_the_ranks(lines_of, monkeypatch):
    monkeypatch.setattr(numbers, "peak_memory_gb", lambda device: 3.0)
    _, [line] = lines_of([step(7)])
    assert line == {
        "step": 7,
        "samples": 7 * 32,
        "train/loss": 1.0 + 2 * 1.0,
        "train/loss_contrastive": 1.0,
        "train/loss_caption": 1.0,
        "train/learning_rate": 1e-4,
        "train/gradient_norm": 1.5,
        "perf/samples_per_s": 16.0,
        "perf/tokens_per_s": 100.0,
        "perf/tokens_per_s_gpu": 50.0,
        "perf/mfu": pytest.approx(2 * 3e12 / 2.0 / 12e12),
        "perf/data_wait_share": 0.25,
        **{f"perf/time_{part}_s": seconds for part, seconds in Times().seconds().items()},
        "perf/memory_gb": 6.0,
    }


def test_the_line_of_a_log_file_has_every_number(lines_of, capsys):
    kept, lines = lines_of([step(9), step(10)])
    kept.say(lines, committed=5)
    about, said = capsys.readouterr().out.splitlines()
    assert about.endswith("about 12000000000000.0")
    found = said.split(" ", 1)[1].split("  ")
    memory = found.pop(-3)
    assert memory.endswith(" GB")
    assert found == [
        "small step 10/100 (10%)",
        "loss 3.0000",
        "lr 1.00e-04",
        "grad 1.50",
        "16.0 samples/s",
        "50 tokens/s/worker",
        "MFU 25.0%",
        "data wait 25.0%",
        "step 2.00 s",
        "committed 5",
        "left 3 min 00 s",
    ]


@pytest.mark.parametrize(
    ("flops", "peak", "sentence"), [(1e12, None, "about None"), (0.0, 1e12, "no MFU: the stage small does not count")]
)
def test_without_mfu_it_is_said_once(lines_of, capsys, flops, peak, sentence):
    kept, lines = lines_of([step(1, flops)], peak)
    kept.say(lines, None)
    kept.say(lines, None)
    said = capsys.readouterr().out
    assert said.count(sentence) == 1
    assert "MFU 0" not in said
    assert "perf/mfu" not in lines[0]


def test_a_terminal_has_a_bar_below_its_lines():
    script = (
        "from cluster.console import Watched, say\n"
        "watched = Watched('small', 100)\n"
        "watched.update(40, ['loss 3.0000', 'MFU 25.0%'])\n"
        "say('validated')\n"
        "watched.close()\n"
        "say('the end')\n"
    )
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    subprocess.run([sys.executable, "-c", script], stdout=theirs, cwd=PROJECT, env=environment, check=True, timeout=300)
    os.close(theirs)
    shown = b""
    while chunk := _read(ours):
        shown += chunk
    text = shown.decode()
    assert "40/100" in text
    assert "loss 3.0000  MFU 25.0%" in text
    assert text.index("validated") < text.index("the end")
    assert "\x1b[?25h" in text, "the cursor is shown again"


def _read(descriptor):
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux says so at the end of a terminal that nobody holds any more
        return b""


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA H200 NVL", None),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA B200", 2250e12),
        ("NVIDIA L40S", 362e12),
        ("Tesla T4", None),
    ],
)
def test_peaks_by_the_names_that_drivers_give(name, peak):
    assert peak_flops(name) == peak


def test_a_cpu_has_no_peak():
    assert peak_of_world(TwoRanks()) == (None, "no MFU: the peak of a CPU is not known")


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (3720, "1 h 02 min"), (183600, "2 d 03 h")]
)
def test_times_are_said_in_two_units(seconds, said):
    assert duration(seconds) == said
