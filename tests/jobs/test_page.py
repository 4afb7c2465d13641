"""The page of a pipeline: everything that was trained and measured is on it, honestly, and it needs nothing else."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from jobs.answering import Answered, Question
from jobs.eval_chat import ShownAnswer
from jobs.report.examples import NearestReport, Talk, first_of_each, talks
from jobs.report.measures import measured_tables, verdict
from jobs.report.page import Outcome, write_page
from jobs.report.summary import stage_facts
from shards.conversations.loader import ConversationSample
from shards.record import LEADS

PICTURE = "iVBORw0KGgo="


def lines(*losses):
    """Metrics of a stage of four steps that was validated at its end."""
    perf = {f"time_{part}_s": 0.1 for part in ("data", "forward", "backward", "optimizer", "step")}
    perf |= {"samples_per_s": 80.0, "tokens_per_s": 900.0}
    steps = [
        {"step": step, "samples": 8 * step, "train/learning_rate": 1e-3}
        | {f"train/{name}": 4.0 / step for name in losses}
        | {f"perf/{name}": value for name, value in perf.items()}
        for step in range(1, 5)
    ]
    steps[-1] |= {f"eval/{name}": 2.5 for name in losses}
    return steps


def stage(name, **more):
    return {
        "world_size": 2,
        "zero_stage": 2,
        "steps": 4,
        "samples_per_s": 80.0,
        "loss_first": 4.0,
        "loss_last": 1.0,
        "checkpoint": f"s3://bucket/runs/{name}/checkpoints/step-000004",
        "wandb_run": f"id-of-{name}",
        "resumed_from": 0,
    } | more


def row(value=0.8, low=0.7, high=0.9, majority=0.5, shuffled=0.4, patients=40, **verdicts):
    """A figure of a chat model that looks at the ECG."""
    gain = {"value": value - shuffled, "low": 0.1, "high": 0.5}
    controls = {name: {"value": at, "low": at, "high": at} for name, at in (("majority", majority), ("shuffled", shuffled))}
    found = {"beats_majority": True, "beats_shuffled": True, "looks_at_ecg": True} | verdicts
    return (
        {"n": 50, "patients": patients, "value": value, "low": low, "high": high, "gain_over_shuffled": gain} | controls | found
    )


BLIND = {"looks_at_ecg": False, "beats_majority": False, "beats_shuffled": False}


def outcome(**changes):
    summary = {
        "data": {"source": "made-up", "simulated": False, "records": 80, "absent": 2, "rejected": 1, "shards": 3},
        "stages": {name: stage(name, tokens_per_s=900.0) for name in ("coca", "align", "instruct")},
        "llm": {
            "parameters": 2_100_000,
            "vocabulary": 800,
            "conversations": 140,
            "steps": 4,
            "loss_first": 6.5,
            "loss_last": 1.5,
            "seconds": 12.0,
        },
        "eval": {
            "ecg_to_text_recall_at_1": {"value": 0.5, "chance": 0.1},
            "zero_shot_auroc_macro": {"value": 0.912, "chance": 0.5, "positive": 7},
        },
        "eval_chat": {"answers_rhythm": row(), "answers_finding:AFIB": row(), "report_findings_f1": row()},
        "seconds": {"whole": 100.0, "steps": {"training coca on Ray": 60.0, "asking": 40.0}},
    } | changes
    metrics = {"llm": lines("loss"), "coca": lines("loss", "loss_contrastive", "loss_caption")}
    metrics |= {name: lines("loss", "loss_answer") for name in ("align", "instruct")}
    answers = [
        ShownAnswer("Which rhythm is it?", "It is <b>sinus</b> rhythm.", "Sinus rhythm & more.", True),
        ShownAnswer("How fast is it?", "About 90 per minute.", "About 60 per minute.", False),
    ]
    report = [ShownAnswer("Write the report.", "what it wrote", "what was written", None)]
    spoken = [Talk("talk-1", PICTURE, ["sinus rhythm"], answers, report, "records500/00001_hr")]
    nearest = [NearestReport("near-1", PICTURE, "own report", "nearest report", ["NORM"])]
    return Outcome(summary, metrics, nearest, spoken, "ecgchat chat runs/demo/chat --ecg a/b_hr")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The text of a page with all its charts, which take most of the time."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_page(path, outcome())
    return path.read_text()


@pytest.fixture
def page(tmp_path, monkeypatch):
    """The text of a page without charts, with changes to the summary."""
    monkeypatch.setattr("jobs.report.page._charts", lambda name, lines: [])

    def write(**changes):
        write_page(tmp_path / "page.html", outcome(**changes))
        return (tmp_path / "page.html").read_text()

    return write


class Tags(HTMLParser):
    """Names and attributes of all elements; `words` is the text of the page."""

    def __init__(self, text):
        super().__init__()
        self.found, self.words = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words += data


def test_every_step_has_its_section_in_the_order_of_the_way(whole):
    tags = Tags(whole)
    sections = [attributes["id"] for tag, attributes in tags.found if tag == "h2"]
    assert sections == ["coca", "llm", "align", "instruct", "encoder", "conversations", "talks", "nearest", "next", "times"]
    assert sum(tag == "svg" for tag, _ in tags.found) == 5 + 2 + 2 + 2


@pytest.mark.parametrize("name", ["coca", "align", "instruct"])
def test_a_stage_names_its_run_its_checkpoint_and_its_rate(page, name):
    words = Tags(page()).words
    for fact in (f"id-of-{name}", f"s3://bucket/runs/{name}/checkpoints/step-000004", "80 samples/s, 900 tokens/s", "2.500"):
        assert fact in words


def test_a_stage_that_went_on_says_from_where(page):
    stages = {name: stage(name, resumed_from=120 if name == "align" else 0) for name in ("coca", "align", "instruct")}
    words = Tags(page(stages=stages)).words
    assert "step 120" in words
    assert words.count("started fresh") == 2


def test_answers_are_marked_right_wrong_or_not_judged(page):
    text = page()
    examples = text[text.index('id="talks"') : text.index('id="nearest"')]
    # One of each stands in the legend.
    assert [examples.count(f'class="mark {kind}"') for kind in ("right", "wrong", "unjudged")] == [2, 2, 2]
    assert re.search(r'class="wrong"><td><span class="mark wrong"[^>]*>✗</span></td><td>How fast is it\?', examples)
    assert "1 of 2 right" in examples
    assert "what it wrote" in examples
    assert "what was written" in examples


def test_what_a_model_says_is_text_and_never_markup(page):
    text = page()
    assert "It is &lt;b&gt;sinus&lt;/b&gt; rhythm." in text
    assert "Sinus rhythm &amp; more." in text


def test_the_page_needs_no_other_file_and_no_network(whole):
    text = whole
    tags = Tags(text).found
    assert not [tag for tag, _ in tags if tag in ("script", "link", "iframe", "object")]
    for _, attributes in tags:
        for name in ("src", "href", "xlink:href", "srcset", "data"):
            assert attributes.get(name, "#").startswith(("#", "data:")), attributes
    assert not re.search(r"@import|url\((?!#)", text)


@pytest.mark.parametrize(
    ("simulated", "said"), [(True, "say nothing about patients"), (False, "80 real records. Everything ran on them")]
)
def test_what_the_figures_are_worth_stands_above_them(page, simulated, said):
    data = {"source": "made-up", "simulated": simulated, "records": 80, "absent": 2, "rejected": 1, "shards": 3}
    text = page(data=data)
    assert said in text
    assert text.index(said) < text.index('id="coca"')


def test_a_model_that_does_not_look_at_the_ecg_shows_as_such(page):
    text = page(eval_chat={"answers_rhythm": row(value=0.6, majority=0.7, shuffled=0.6, **BLIND)})
    conversations = text[text.index('id="conversations"') : text.index('id="talks"')]
    assert 'class="chip no"' in conversations
    assert 'class="chip yes"' not in conversations
    assert "no better than with another&#39;s ECG" in conversations
    assert "0 of 1" in text


def test_a_figure_stands_beside_its_interval_and_both_controls(page):
    text = page(eval_chat={"answers_rhythm": row(value=0.8, low=0.7, high=0.9, majority=0.5, shuffled=0.4)})
    conversations = text[text.index('id="conversations"') : text.index('id="talks"')]
    for piece in (
        '<i style="width:80.0%">',
        '<s style="left:70.0%;width:20.0%">',
        '<u class="constant" style="left:50.0%">',
        '<u class="other" style="left:40.0%">',
        "<b>0.800</b> <small>0.70–0.90</small>",
    ):
        assert piece in conversations


def test_single_findings_are_folded_away(page):
    text = page()
    details = text[text.index("<details>") : text.index("</details>")]
    assert "atrial fibrillation" in details
    assert "which rhythm it is" not in details


def test_nothing_asked_is_said_so(page):
    assert "Nothing was asked" in page(eval_chat={})


@pytest.mark.parametrize(
    ("measured", "expected", "reason"),
    [
        (row(), "yes", "better with the right ECG"),
        (row(beats_majority=False), "yes", "not surely than the constant"),
        (row(value=0.62, shuffled=0.6, **BLIND), "no", "2.0 points more than with another's ECG, perhaps chance"),
        (row(value=0.5, shuffled=0.6, **BLIND), "no", "no better than"),
        (row(patients=3, **BLIND), "unknown", "3 patients are too few to tell"),
    ],
)
def test_a_verdict_says_what_it_means(measured, expected, reason):
    assert verdict(measured)[0] == expected
    assert reason in verdict(measured)[1]


def test_measures_come_in_a_fixed_order_and_parts_apart():
    rows = {
        name: row() for name in ("report_bleu_1", "answers_finding:LVH", "answers_rate", "answers_new_kind", "answers_rhythm")
    }
    answers, reports = measured_tables(rows)
    assert [found.name for found in answers.rows] == ["which rhythm it is", "heart rate, ± 10/min", "new kind"]
    assert [found.name for found in answers.details] == ["left ventricular hypertrophy"]
    assert [found.name for found in reports.rows] == ["BLEU-1, words in common"]


# --- examples


def sample(name, rhythm, findings, ecgs=1):
    expected = [("rhythm", rhythm), ("findings", findings)]
    record = {
        "answers": [None, *({"kind": kind, "about": None, "expected": value} for kind, value in expected)],
        "fs_hz": 100.0,
        "records": [{"source": "made-up", "record_id": name, "source_path": f"records/{name}"}] * ecgs,
    }
    signal = np.zeros((len(LEADS), 1000), np.int16)
    return ConversationSample(name, [signal] * ecgs, [[0.001] * len(LEADS)] * ecgs, record)


def test_examples_differ_in_what_they_show_and_not_in_success():
    samples = [
        sample("a", "SR", []),
        sample("b", "SR", []),
        sample("pair", "AFIB", ["AFIB"], ecgs=2),
        sample("c", "SR", ["LVH"]),
        sample("d", "AFIB", ["AFIB"]),
    ]
    questions = [Question(place, "Which rhythm?", "SR it is.", "rhythm", None, "SR") for place in range(len(samples))]
    said = ["sinus rhythm"] * 3 + ["atrial fibrillation"] * 2
    shown = talks(Answered(samples, questions, said, said, ["p"] * len(samples)))
    assert [talk.key for talk in shown] == ["a", "c", "d"]
    assert [talk.right for talk in shown] == [1, 0, 0]
    assert shown[1].labels == ["sinus rhythm", "left ventricular hypertrophy"]
    assert shown[2].labels == ["atrial fibrillation"]
    assert shown[2].source_path == "records/d"


def test_the_first_of_each_kind_is_taken():
    assert first_of_each(["x", "y", "x", "z"]) == [0, 1, 3]


# --- summary


def test_a_stage_is_summed_up_from_its_last_attempt(tmp_path):
    done_again = [{"attempt": "b", "resumed_from": 1, "started": "later"}, *lines("loss")[1:]]
    written = [{"attempt": "a", "resumed_from": 0, "started": "now"}, *lines("loss")[:3], *done_again]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in written))
    engine = {"train": {"engine": {"zero_stage": 2}}}
    (tmp_path / "config.json").write_text(json.dumps({"world_size": 2, "run": engine}))
    (tmp_path / "wandb_run.json").write_text('{"id": "id-of-coca"}')
    expected = stage("coca", tokens_per_s=900.0, resumed_from=1)
    assert stage_facts(tmp_path, expected["checkpoint"]) == expected
