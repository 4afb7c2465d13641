"""The dashboard: one page of some runs that needs nothing else, and the same sections for W&B."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import numpy as np
import pytest

from cluster import metrics
from cluster.errors import RunError
from cluster.stage import Picture
from cluster.tracking import keep_pictures
from jobs.dashboard import main, workspace
from jobs.dashboard.page import read_run
from jobs.dashboard.plots import COLOURS, running_mean, thinned
from jobs.dashboard.sections import SECTIONS
from shards.storage import Store

PNG = b"\x89PNG not really"
NAMES = ["loss", "speed", "data", "memory", "evaluation"]


def make_run(folder, steps=40):
    """A run that was interrupted once, with a loss that was no number and a sentence that looks like HTML."""
    store = Store(str(folder))
    config = {"stage": "coca", "run": {"run": {"name": folder.name}}, "world_size": 2, "steps": steps, "mfu": "no MFU: a CPU"}
    store.put("config.json", json.dumps(config).encode())
    file = folder / metrics.FILE
    metrics.append(file, [{"attempt": "a", "resumed_from": 0, "started": "2026-11-20T10:15:00+00:00"}])
    metrics.append(file, [line(step) for step in range(1, steps // 2)])
    metrics.append(file, [{"attempt": "b", "resumed_from": 10, "started": "2026-11-20T11:15:00+00:00"}])
    metrics.append(file, [{"event": "slow_rank", "step": 11, "attempt": "b", "said": "rank 3 <script>is slow</script>"}])
    metrics.append(file, [line(step) for step in range(11, steps + 1)])
    keep_pictures(store, [Picture("record-1", PNG, "sinus rhythm & more")])
    return store


def line(step):
    return {
        "step": step,
        "samples": 8 * step,
        "train/loss": float("nan") if step == 5 else 4 / step,
        "train/loss_caption": 2 / step,
        "train/gradient_norm": 1.0,
        "perf/samples_per_s": 100.0,
        "perf/data_wait_share": 0.0,
        "perf/memory_gb": 3.0,
        **({"eval/loss": 5 / step, "eval/accuracy": 0.5} if step % 10 == 0 else {}),
    }


class Page(HTMLParser):
    """What a page holds."""

    def __init__(self, text):
        super().__init__()
        self.headings, self.scripts, self.places, self.words, self.svgs, self.open = [], 0, [], [], 0, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.scripts += tag == "script"
        self.svgs += tag == "svg"
        self.places += [value for name, value in attrs if name in ("src", "href", "xlink:href") and value]
        if tag == "h2":
            self.headings.append(dict(attrs)["id"])

    def handle_endtag(self, tag):
        assert tag in self.open

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return [make_run(folder / "first"), make_run(folder / "second", 60)]


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "page.html"
    assert main([run.uri for run in runs] + ["--html", str(file)]) == 0
    return file.read_text()


def test_the_page_has_all_sections_and_needs_nothing_else(page):
    found = Page(page)
    assert found.headings == [*NAMES, "pictures", "events"]
    assert found.scripts == 0
    assert all(place.startswith(("#", "data:")) for place in found.places)
    assert "@import" not in page
    assert "url(http" not in page


def test_a_measure_that_may_be_drawn_on_a_logarithmic_scale_is_drawn_on_both(page):
    # loss, caption loss, gradient norm, validation loss; samples a second, waiting, memory, accuracy
    assert Page(page).svgs == 2 * 4 + 4


def test_runs_lie_over_one_another_each_in_its_colour(page):
    assert all(COLOURS[run] in page for run in (0, 1))
    words = "".join(Page(page).words)
    assert "first, coca" in words
    assert "second, coca" in words


def test_attempts_events_and_pictures_are_shown_as_they_are(page):
    words = Page(page).words
    assert words.count("slow_rank: rank 3 <script>is slow</script>") == 2
    assert words.count("resumed 2026-11-20T11:15:00+00:00") == 2
    assert words.count("record-1: sinus rhythm & more") == 2
    assert "data:image/png;base64,iVBO" in page


def test_what_a_run_has_not_is_left_out(tmp_path, capsys):
    file = tmp_path / "run" / metrics.FILE
    Store(str(file.parent)).put("config.json", b"{}")
    metrics.append(file, [{"attempt": "a", "resumed_from": 0}, {"attempt": "a", "step": 1, "samples": 8, "train/loss": 1.0}])
    assert main([str(file.parent), "--html", str(tmp_path / "page.html")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "page.html")
    assert Page((tmp_path / "page.html").read_text()).headings == ["loss", "pictures", "events"]


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(RunError, match="expected a run's folder"):
        main([str(tmp_path)])


def test_thinning_keeps_the_outline():
    values = np.random.default_rng(0).normal(size=100_000)
    values[77_777], values[123] = 50, np.nan
    samples, kept = thinned(np.arange(100_000.0), values)
    assert len(kept) <= 1200
    assert (np.nanmax(kept), np.nanmin(kept)) == (50, np.nanmin(values))
    assert (np.diff(samples) > 0).all()
    assert samples[0] < 200
    assert samples[-1] > 99_800


def test_a_mean_leaves_out_what_is_no_number():
    values = np.ones(500)
    values[100:103] = np.nan
    assert np.allclose(running_mean(values), 1)


def test_the_workspace_has_the_same_sections(runs):
    made = workspace.build("team", "ecgchat", [read_run(0, runs[0].uri)])
    assert [section.name for section in made.sections] == [*NAMES, "pictures"]
    panels = {panel.title: panel for section in made.sections for panel in section.panels if hasattr(panel, "log_y")}
    assert panels["training loss"].log_y
    assert not panels["samples a second"].log_y
    assert all(panel.x == "samples" for panel in panels.values())
    sent = made._to_model().model_dump_json()
    assert all(section.name in sent for section in SECTIONS)


def test_a_workspace_that_cannot_be_saved_is_one_sentence(runs, monkeypatch):
    class Refused:
        def save(self):
            raise ConnectionError("connection refused\nand a long story")

    monkeypatch.setattr(workspace, "build", lambda *_: Refused())
    with pytest.raises(RunError, match=r"could not be saved \(connection refused\); set WANDB_API_KEY"):
        workspace.save("team", "ecgchat", [read_run(0, runs[0].uri)])
