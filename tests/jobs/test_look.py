"""`inspect` and `show`: what is printed fits the line and says all that is there; what is drawn is whole."""

import argparse
import dataclasses
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.cells import cell_len
from rich.console import Console

from jobs.config import ConfigError
from jobs.shards import look
from jobs.shards.histograms import histogram_text, label_text, most_bins, quality_sentence
from jobs.shards.picture import draw_overview
from shards.build import BuildOptions, build
from shards.dataset import ShardSet
from shards.draw import draw_ecg
from shards.histogram import LabelCount, Overview, Quality, Quantity, distribute, overview
from shards.plan import Plan, PlannedRecord
from shards.record import INVALID, EcgRecord, Statement
from shards.sources.mimic_iv_ecg import MimicIvEcg
from shards.sources.ptb_xl import PtbXl

MV = Quantity("amplitude", "mV", "amplitude_mv", of=lambda table: np.empty(0))
SMALL = BuildOptions(records_per_shard=64)


@dataclasses.dataclass
class Records:
    """A source of records that a test makes."""

    records: list
    name: str = "made"
    simulated: bool = True
    kind: str = "ecg"

    def provenance(self):
        return {}

    def plan(self):
        return Plan([PlannedRecord(record.record_id, record.split, {}) for record in self.records], [], [])

    def read(self, planned):
        return next(record for record in self.records if record.record_id == planned.record_id)


def record(number="1", fs_hz=500.0, seconds=10.0, missing=(), **more):
    """A made record of beats in all leads, but for the missing ones."""
    time_s = np.arange(round(fs_hz * seconds)) / fs_hz
    beats = 1000 * np.exp(-(((time_s % 0.8 - 0.3) / 0.02) ** 2)) + 20 * np.sin(40 * time_s)
    ecg = np.tile(np.rint(beats).astype(np.int16), (12, 1))
    ecg[list(missing)] = INVALID
    fields = {"source": "made", "source_path": "x", "patient_id": number, "split": "train", "mv_per_lsb": [0.001] * 12}
    return EcgRecord(record_id=number, fs_hz=fs_hz, ecg=ecg, **{**fields, **more})


@pytest.fixture
def make(tmp_path):
    """Build a data set of made records; its URI."""

    def built(*records):
        build(Records(list(records)), str(tmp_path / "set"), SMALL)
        return str(tmp_path / "set")

    return built


@pytest.fixture
def say(capsys, monkeypatch):
    """Run `inspect` or `show` as on a pipe of so many columns; what it printed."""

    def run(tool, *, width=80, colour=False, **arguments):
        colours = "standard" if colour else "auto"
        monkeypatch.setattr(look, "console", Console(width=width, force_terminal=colour, color_system=colours))
        capsys.readouterr()
        tool(argparse.Namespace(**{"out": None, "all_leads": False} | arguments))
        return capsys.readouterr().out

    return run


def widest(text):
    return max(map(cell_len, text.plain.splitlines()))


def is_whole(image):
    """Whether nothing but paper lies along the edges of a PNG."""
    pixels = np.asarray(Image.open(io.BytesIO(image)).convert("L"))
    return all((edge == 255).all() for edge in (pixels[:6], pixels[-6:], pixels[:, :6], pixels[:, -6:]))


# --- laws of the text


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats() | st.floats(-3, 3) | st.integers(-10, 10).map(float)),
    st.integers(1, 400),
    st.integers(50, 200),
    st.booleans(),
)
def test_a_histogram_is_never_wider_than_asked(listed, times, width, whole):
    values = np.append(np.array(listed, dtype=float), [1.0] * times)
    found = distribute(values, most_bins(width), few=8, whole=whole)
    assert widest(histogram_text(MV, found, width)) <= width


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.builds(
        LabelCount, st.text(max_size=80), st.integers(0, 10**6), st.tuples(*[st.integers(0, 10**6)] * 3), st.integers(0, 10**6)
    ), min_size=1),
    st.integers(50, 200),
)  # fmt: skip
def test_labels_are_never_wider_than_asked_and_have_a_line_each(labels, width):
    text = label_text(labels, 10**6, ("label", "records"), width)
    assert widest(text) <= width
    assert len(text.plain.split("\n")) == len(labels) + 1


def test_a_line_of_less_than_50_characters_is_refused():
    for draw in (lambda: histogram_text(MV, distribute(np.ones(3), 12), 49), lambda: label_text([], 1, ("a", "b"), 49)):
        with pytest.raises(ValueError, match="at least 50"):
            draw()


# --- a histogram in the terminal


def test_bars_are_as_high_as_their_counts_say():
    found = distribute(np.repeat([1.0, 2.0, 4.0], [48, 24, 2]), 40, whole=True)
    assert (found.edges, found.counts) == ((1, 2, 3, 4, 5), (48, 24, 0, 2))
    lines = [line.split("┤")[1].ljust(16) for line in histogram_text(MV, found, 80).plain.splitlines()[1:7]]
    columns = ["".join(line[4 * place] for line in lines) for place in range(4)]
    assert columns == ["██████", "   ███", "      ", "     ▂"]


def test_the_scale_names_the_largest_count_and_the_axis_round_values():
    found = distribute(np.repeat([1.0, 2.0, 4.0], [48, 24, 2]), 40, whole=True)
    _, top, *_, axis, values = histogram_text(MV, found, 80).plain.splitlines()
    assert top.startswith("48 ┤")
    assert axis.startswith(" 0 ┼")
    marks = [place for place, sign in enumerate(axis) if sign == "┬"]
    assert [values[place] for place in marks] == ["1", "2", "3", "4"]


def test_what_lies_beyond_stands_apart_with_its_bound():
    values = np.append(np.linspace(1, 2, 400), [-60, -50, 50, 60, 70])
    found = distribute(values, 40)
    *_, last_bars, axis, bounds = histogram_text(MV, found, 80).plain.splitlines()
    assert bounds.split()[:2] == ["<", "1.00"]
    assert "≥ 2" in bounds
    assert last_bars.split("┤")[1][:6].strip()
    assert len(axis.split("┼")[1].split()) == 3


@pytest.mark.parametrize("width", [50, 60, 80, 100])
def test_every_bin_has_its_bar_on_any_line(width):
    values = np.append(np.random.default_rng(0).lognormal(0, 0.4, 100_000), [-1e6] * 501 + [1e6] * 501)
    found = distribute(values, most_bins(width))
    *_, lowest, axis, _ = histogram_text(MV, found, width).plain.splitlines()
    assert found.below
    assert found.above
    assert len(lowest.split("┤")[1].replace(" ", "")) >= np.count_nonzero(found.counts) + 2
    assert len(axis) <= width


def test_skewed_counts_stand_on_a_logarithmic_scale_that_says_so():
    text = histogram_text(MV, distribute(np.append([10.0] * 100_000, np.arange(1, 31)), 40), 80).plain
    assert "log ┼" in text
    assert "100,001 ┤" in text
    assert " 1,000 ┤" in text
    assert "▁" not in text.splitlines()[1]


def test_one_value_alone_is_a_line():
    assert histogram_text(MV, distribute(np.array([2.5] * 7), 40), 80).plain.endswith("2.5 mV in all 7")
    assert histogram_text(MV, distribute(np.array([2.5, np.nan]), 40), 80).plain.endswith("2.5 mV in 1, 1 unknown")
    assert histogram_text(MV, distribute(np.array([np.nan]), 40), 80).plain.endswith("all 1 unknown")


def test_splits_give_way_to_names():
    label = LabelCount("AF", 10, (8, 1, 1), 0)
    assert "train  val  test" in label_text([label], 20, ("label", "records"), 80).plain
    long = LabelCount("a finding with a name of some length", 10, (8, 1, 1), 3)
    text = label_text([long], 20, ("label", "records"), 80).plain
    assert long.name in text
    assert "train" not in text
    assert "unknown" in text


def test_a_name_without_room_is_cut_and_says_so():
    for name in ("a finding " * 20, "心房颤动" * 8):
        [_, line] = label_text([LabelCount(name, 10, (8, 1, 1), 0)], 20, ("label", "records"), 80).plain.splitlines()
        assert "…  " in line
        assert name.startswith(line.split("…")[0].strip())


def test_quality_names_what_is_wrong_and_what_is_not():
    assert quality_sentence(Quality(0, 0, 0, 0, 10), 10) == (
        "none with missing leads, flat leads, invalid samples or limb residual above 0.15"
    )
    assert quality_sentence(Quality(2, 0, 1, 0, 8), 10) == (
        "2 (20.0%) with missing leads, 1 (10.0%) with other invalid samples; "
        "none with flat leads or limb residual above 0.15; limb residual unknown in 2"
    )
    assert "limb residual unknown in 10" in quality_sentence(Quality(10, 0, 0, 0, 0), 10)


# --- inspect


def test_inspect_of_ptb_xl_fits_80_columns_and_says_all(ptb_xl_folder, tmp_path, say):
    build(PtbXl(ptb_xl_folder), str(tmp_path / "set"), SMALL)
    data = ShardSet.open(str(tmp_path / "set"))
    said = say(look.inspect, uri=str(tmp_path / "set"))
    first, *rest = said.splitlines()
    assert first == data.store.uri
    assert max(map(len, rest)) <= 80
    assert not any(line.endswith(" ") for line in rest)
    assert "\x1b" not in said
    text = " ".join(said.split())
    for fact in (
        "source ptb-xl",
        "records 80 of 72 patients, 500 Hz",
        "train 51, val 19, test 10",
        "2 absent, 0 rejected",
        f"index sha256 {data.digest}",
        "none with missing leads",
        "(r_amplitude_mv)",
        "(peak_mv)",
        "500 Hz in all 80",
        "10 s in all 80",
        "14 to 119 characters, median 24",
        "NORM 58 72.5%",
    ):
        assert fact in text
    assert "unknown" not in text
    assert "!" not in text


def test_inspect_of_mimic_iv_ecg_says_what_is_wrong(recordings, tmp_path, say):
    build(MimicIvEcg(recordings("mimic-iv-ecg")), str(tmp_path / "set"), SMALL)
    text = " ".join(say(look.inspect, uri=str(tmp_path / "set")).split())
    assert "1 (1.7%) with invalid samples, 2 (3.3%) with limb residual above 0.15; none with missing leads" in text
    assert "0.835 to 9.52 mV" in text
    assert "≥ 4.6" in text
    assert "1 without text" in text
    assert text.endswith("no labels")


def test_inspect_warns_in_yellow_of_what_is_implausible(make, say):
    uri = make(*(record(str(number), mv_per_lsb=[0.002] * 12) for number in range(25)))
    sentences = ShardSet.open(uri).manifest["implausible"]
    assert sentences
    coloured, plain = (say(look.inspect, uri=uri, colour=colour) for colour in (True, False))
    for sentence in sentences:
        assert f"\x1b[33m! {sentence}\x1b[0m\n" in coloured
        assert f"! {sentence}\n" in plain
    assert "\x1b" not in plain


def test_inspect_prints_names_as_they_are(make, say):
    names = ["[red]AF[/red]", "two\nlines\x1b[2J", "心房颤动", "a [label"]
    uri = make(record(labels=dict.fromkeys(names, 1)), record("2", labels=dict.fromkeys(names, None)))
    said = say(look.inspect, uri=uri)
    for name in ("[red]AF[/red]", "two lines [2J", "心房颤动", "a [label"):
        [line] = [line for line in said.splitlines() if line.startswith(name)]
        assert line.removeprefix(name).split()[:2] == ["1", "50.0%"]
        assert line.split()[-4:] == ["1", "0", "0", "1"]
    assert "\x1b" not in said


def test_inspect_of_conversations_draws_the_length_of_their_texts(dialogue_shards, say):
    said = say(look.inspect, uri=dialogue_shards)
    assert max(map(len, said.splitlines()[1:])) <= 80
    assert "text length" in said
    assert "asked for" in said
    assert "R amplitude" not in said
    assert "quality" not in said


@pytest.mark.parametrize("width", [20, 50, 120, 300])
def test_inspect_follows_the_terminal_up_to_100_columns(simulated_shards, say, width):
    said = say(look.inspect, uri=simulated_shards, width=width)
    longest = max(map(len, said.splitlines()[1:]))
    assert longest <= max(50, min(width, 100))
    assert longest > 40


@pytest.mark.parametrize("shards", ["simulated_shards", "dialogue_shards"])
def test_inspect_draws_the_same_picture_each_time(shards, request, tmp_path, say):
    uri = request.getfixturevalue(shards)
    said = say(look.inspect, uri=uri, out=str(tmp_path / "a.png"))
    assert said.startswith(say(look.inspect, uri=uri))
    assert said.endswith(f"histograms drawn in {tmp_path}/a.png\n")
    say(look.inspect, uri=uri, out=str(tmp_path / "b.png"))
    image = (tmp_path / "a.png").read_bytes()
    assert image.startswith(b"\x89PNG")
    assert image == (tmp_path / "b.png").read_bytes()
    assert is_whole(image)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("with_labels", [True, False])
def test_nothing_of_a_picture_is_cut_off_whatever_its_numbers_and_names(with_labels):
    values = np.append(np.random.default_rng(0).lognormal(0, 0.4, 100_000), [1e6, -1e6])
    labels = tuple(LabelCount("$\\frac$ 心W" * (1 + n % 2 * 20), 10**8, (10**8, 0, 0), 10**7) for n in range(90))
    quantities = [dataclasses.replace(MV, name=f"quantity {number}") for number in range(3)]
    found = [(quantity, distribute(values * 10.0**power, 48)) for quantity, power in zip(quantities, (0, 5, -7), strict=True)]
    quality = Quality(10**7, 10**7, 10**7, 10**7, 10**8)
    shown = labels if with_labels else ()
    assert is_whole(draw_overview(Overview("ecg", 2 * 10**8, tuple(found), shown, quality), "title " * 60, "file:///" * 90))


def test_a_picture_of_nothing_that_varies_is_a_picture(make, tmp_path, say):
    say(look.inspect, uri=make(record()), out=str(tmp_path / "one.png"))
    assert is_whole((tmp_path / "one.png").read_bytes())


@pytest.mark.parametrize("tool", [look.inspect, look.show])
def test_a_picture_that_cannot_be_written_is_refused_before_anything_is_read(tool, tmp_path, say):
    for out, reason in ((tmp_path / "absent" / "x.png", "its folder is not there"), (tmp_path, "is a folder")):
        with pytest.raises(ConfigError, match=reason):
            say(tool, uri="/nowhere/set", key="x", out=str(out))


def test_many_sampling_rates_are_not_listed(make, say):
    uri = make(*(record(str(rate), fs_hz=float(rate), seconds=2) for rate in range(100, 1000, 100)))
    assert "9 of 9 patients, 9 rates from 100 to 900 Hz" in say(look.inspect, uri=uri)


# --- show


def test_show_says_of_each_missing_lead_that_there_is_no_signal(make, say):
    uri = make(record(missing=(1, 6, 11)))
    assert say(look.show, uri=uri, key="made-1", all_leads=True).count("no signal") == 3
    assert "no signal" in say(look.show, uri=uri, key="made-1")


@pytest.mark.parametrize(("fs_hz", "seconds"), [(100.0, 6.0), (257.0, 10.0), (500.0, 0.004), (1000.0, 144.0)])
def test_show_draws_any_rate_and_length_and_says_what_it_leaves_out(make, say, tmp_path, fs_hz, seconds):
    uri = make(record(fs_hz=fs_hz, seconds=seconds))
    said = say(look.show, uri=uri, key="made-1")
    assert f"{fs_hz:g} Hz" in said
    assert any("\u2801" <= letter <= "\u28ff" for letter in said)
    assert (f"first 10 s of {seconds:g} s" in said) == (seconds > 10)
    assert (f"record ends at {seconds:g} s" in said) == (seconds < 10)
    say(look.show, uri=uri, key="made-1", out=str(tmp_path / "x.png"))
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("report", [None, ""])
def test_show_says_in_grey_that_there_is_no_report(make, say, tmp_path, report):
    uri = make(record(report=report, statements=[Statement("164889003", "SNOMED CT")]))
    assert "\x1b[90mno report" in say(look.show, uri=uri, key="made-1", colour=True)
    assert say(look.show, uri=uri, key="made-1").startswith("made-1  no report\n")
    say(look.show, uri=uri, key="made-1", out=str(tmp_path / "x.png"))
    _, ecg, _ = ShardSet.open(uri).sample("made-1")
    assert (tmp_path / "x.png").read_bytes() == draw_ecg(ecg, [0.001] * 12, 500, "made-1", text=None)


def test_show_prints_a_report_as_it_is(make, say):
    uri = make(record(report="[bold]Rhythmus:[/bold] :heart: Vorhofflimmern, Größe 1 µV; 窦性心律\n\x1b[2JZweite Zeile"))
    said = say(look.show, uri=uri, key="made-1")
    assert said.startswith("made-1  [bold]Rhythmus:[/bold] :heart: Vorhofflimmern, Größe 1 µV; 窦性心律\n [2JZweite Zeile\n")


def test_a_picture_of_a_record_is_drawn_with_any_letter(make, say, tmp_path, recwarn):
    uri = make(record(report="Größe 1 µV, ритм синусовый; 窦性心律 $x^2$"))
    say(look.show, uri=uri, key="made-1", out=str(tmp_path / "x.png"))
    assert not [str(warning.message) for warning in recwarn if "Glyph" in str(warning.message)]


def test_what_is_printed_of_a_label_is_what_the_index_says(simulated_shards, say):
    found = overview(ShardSet.open(simulated_shards).index, "ecg", most_bins(80))
    printed = {line.split()[0]: line.split() for line in say(look.inspect, uri=simulated_shards).splitlines() if "%" in line}
    assert len(found.labels) > 10
    for label in found.labels:
        _, present, share, *_, train, val, test = printed[label.name]
        assert (present, share) == (str(label.present), f"{label.present / 120:.1%}")
        assert (train, val, test) == tuple(map(str, label.splits))
