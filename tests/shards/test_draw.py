"""The drawn sheet is true to scale, hides nothing and has the same bytes each time; the terminal drawing keeps its width."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from shards import draw
from shards.draw import draw_ecg, draw_in_terminal
from shards.record import INVALID, LEADS, RecordError, arrange_leads, keep_digital

SCALE = [0.001] * 12
PER_MM = 10
"""Pixels of a millimetre at the 254 dpi of the default."""
BOTTOM = draw.MARGIN + draw.FOOTER
HEIGHT = BOTTOM + draw.PAPER_HEIGHT + draw.MARGIN
LEFT = draw.MARGIN + draw.START
CORPORA = Path(__file__).parents[2].parent / "shared" / "ecg"


def silent(seconds: float = 10, fs_hz: float = 500) -> NDArray[np.int16]:
    """(12, samples) of 0 mV."""
    return np.zeros((12, round(seconds * fs_hz)), dtype=np.int16)


def pixels(image: bytes) -> NDArray[np.int64]:
    """(height, width, 3) of a PNG, the lowest row first, as the sheet's millimetres count."""
    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB"), dtype=np.int64)[::-1]


def ink(image: bytes) -> NDArray[np.bool_]:
    """(height, width): where a trace or a letter is, but not the grid."""
    return np.asarray(pixels(image).max(axis=2) < 128)


def zero_line(row: int) -> int:
    """Pixel row of 0 mV in a row of leads, from below."""
    return round((BOTTOM + draw.PAPER_HEIGHT - draw.HEAD - draw.ROW * (row + 0.5)) * PER_MM)


def column_at(second: float) -> int:
    """Pixel column of a time of the record."""
    return round((LEFT + second * 25) * PER_MM)


def middle(dark: NDArray[np.bool_]) -> float:
    """Mean position of the dark pixels of a line."""
    return float(np.flatnonzero(dark).mean())


def words(**record: Any) -> list[str]:
    """Every text of a sheet, in the order of drawing; the footer comes after the leads."""
    found: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draw._Sheet, "words", lambda sheet, x, y, text, *style, **more: found.append(text))
        draw_ecg(**record)
    return found


@pytest.mark.parametrize("dpi", [100, 127, 254])
def test_the_sheet_has_its_true_size(dpi: float) -> None:
    image = Image.open(io.BytesIO(draw_ecg(silent(), SCALE, 500, dpi=dpi)))
    assert image.size == (round(280 / 25.4 * dpi), round(HEIGHT / 25.4 * dpi))
    assert image.info["dpi"] == pytest.approx((dpi, dpi), abs=0.02)
    assert "Software" not in image.info


def test_the_grid_is_one_and_five_millimetres() -> None:
    sheet = pixels(draw_ecg(silent(), SCALE, 500))
    paper, bold = ([int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in (draw.PAPER, draw.BOLD))
    level, upright = sheet[BOTTOM * PER_MM + 25], sheet[:, LEFT * PER_MM + 2525]
    for line, start, length in ((level, draw.MARGIN, draw.PAPER_WIDTH), (upright[: zero_line(3) - 20], BOTTOM, 12)):
        for mm in range(1, length):
            at = (start + mm) * PER_MM
            assert (line[at + 5] == paper).all(), mm
            assert (line[at - 1 : at + 1] != paper).any(), mm
            assert (line[at - 1 : at + 1] == bold).all() == (mm % 5 == 0), mm


@pytest.mark.parametrize("fs_hz", [100, 257, 500, 1000])
@pytest.mark.parametrize(("lead", "row", "start"), [("I", 0, 1.0), ("aVL", 1, 3.5), ("V6", 2, 8.5), ("II", 3, 6.0)])
def test_a_millivolt_is_10_mm_and_a_second_25_mm(fs_hz: int, lead: str, row: int, start: float) -> None:
    ecg = silent(10, fs_hz)
    ecg[LEADS.index(lead), round(start * fs_hz) : round((start + 1) * fs_hz)] = 1000
    dark = ink(draw_ecg(ecg, SCALE, fs_hz))
    zero = zero_line(row)
    before, within = (middle(dark[zero - 50 : zero + 140, column_at(start + time)]) for time in (-0.25, 0.5))
    assert within - before == pytest.approx(10 * PER_MM, abs=1)
    half = dark[zero + 50, column_at(start - 0.2) : column_at(start + 1.2)]
    rise, fall = middle(half[: 15 * PER_MM]), 15 * PER_MM + middle(half[15 * PER_MM :])
    assert fall - rise == pytest.approx(25 * PER_MM, abs=1 + 250 / fs_hz * (fs_hz == 257))
    assert rise == pytest.approx(5 * PER_MM - 125 / fs_hz, abs=1 + 250 / fs_hz * (fs_hz == 257))


def test_each_row_starts_with_a_pulse_of_1_mv_and_200_ms() -> None:
    dark = ink(draw_ecg(silent(), SCALE, 500))
    for row in range(4):
        zero = zero_line(row)
        sides = np.flatnonzero(dark[zero + 50, : LEFT * PER_MM])
        assert sides.max() - sides.min() == pytest.approx(5 * PER_MM, abs=4)
        heights = np.flatnonzero(dark[zero - 20 : zero + 120, (draw.MARGIN + 7) * PER_MM])
        assert heights.mean() - 20 == pytest.approx(10 * PER_MM, abs=1)


def test_invalid_samples_are_a_gap_and_a_lonely_sample_a_dot() -> None:
    ecg = silent()
    ecg[0, 250:500] = INVALID
    ecg[0, 375] = 0
    row = np.any(ink(draw_ecg(ecg, SCALE, 500))[zero_line(0) - 30 : zero_line(0) + 60], axis=0)
    assert row[column_at(0.3) : column_at(0.49)].all()
    assert row[column_at(1.01) : column_at(2.4)].all()
    gap = np.flatnonzero(row[column_at(0.5) + 2 : column_at(1.0) - 2]) + column_at(0.5) + 2
    assert 0 < gap.size <= 4
    assert abs(gap.mean() - column_at(0.75)) <= 1


def test_a_lead_without_a_valid_sample_says_so() -> None:
    ecg = silent()
    ecg[3] = ecg[11] = INVALID
    assert words(ecg=ecg, mv_per_lsb=SCALE, fs_hz=500).count("no signal") == 2
    assert words(ecg=silent(0), mv_per_lsb=SCALE, fs_hz=500).count("no signal") == 13


def test_a_record_without_a_report_says_so_in_grey() -> None:
    found: list[tuple[Any, ...]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draw._Sheet, "words", lambda sheet, x, y, *word, **more: found.append(word))
        draw_ecg(silent(), SCALE, 500, text=None)
    assert found[-1] == ("no report", draw.TEXT_PT, draw.GREY)
    assert "no report" not in words(ecg=silent(), mv_per_lsb=SCALE, fs_hz=500)


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_a_record_of_a_few_samples_leaves_a_dot(samples: int) -> None:
    dark = ink(draw_ecg(silent()[:, :samples], SCALE, 500))
    for row in range(4):
        assert dark[zero_line(row) - 2 : zero_line(row) + 2, column_at(0) - 2 : column_at(0) + 3].any()
    assert not dark[zero_line(0) - 30 : zero_line(0) + 60, column_at(0.1) : column_at(10)].any()
    assert words(ecg=silent()[:, :samples], mv_per_lsb=SCALE, fs_hz=500)[-1].startswith(f"record ends at {samples / 500:g} s")


@pytest.mark.filterwarnings("error")
def test_letters_that_the_font_does_not_have_are_boxes_and_no_warnings() -> None:
    found = words(ecg=silent(), mv_per_lsb=SCALE, fs_hz=500, text="Größe, ритм, ≥ 1 µV;\x1b窦性")
    assert found[-1] == "Größe, ритм, ≥ 1 µV; □□"
    draw_ecg(silent(), SCALE, 500, "窦性", "窦性心律")


def test_all_leads_are_named_in_the_standard_order() -> None:
    names = [word for word in words(ecg=silent(), mv_per_lsb=SCALE, fs_hz=500) if word in LEADS]
    assert names == ["I", "aVR", "V1", "V4", "II", "aVL", "V2", "V5", "III", "aVF", "V3", "V6", "II"]


def test_a_tall_wave_is_drawn_over_its_neighbours_and_named_beyond_the_paper() -> None:
    ecg = silent()
    ecg[LEADS.index("III"), 600:610] = 4000
    dark = ink(draw_ecg(ecg, SCALE, 500))
    assert dark[zero_line(2) + 390, column_at(1.19) : column_at(1.23)].any()
    assert words(ecg=ecg, mv_per_lsb=SCALE, fs_hz=500)[-1] == "25 mm/s    10 mm/mV    500 Hz"
    ecg[LEADS.index("V1"), 2600:2610] = 9000
    assert "beyond the paper: V1 " in words(ecg=ecg, mv_per_lsb=SCALE, fs_hz=500)[-1]


def test_the_rest_of_the_paper_is_empty_after_a_short_record() -> None:
    ecg = silent(6.2)
    row = np.any(ink(draw_ecg(ecg, SCALE, 500))[zero_line(3) - 30 : zero_line(3) + 60], axis=0)
    assert row[column_at(0) : column_at(6.1)].all()
    assert not row[column_at(6.25) :].any()
    found = words(ecg=ecg, mv_per_lsb=SCALE, fs_hz=500)
    assert found[-1].startswith("record ends at 6.2 s ")
    assert "no signal" not in found


def test_a_long_record_shows_its_first_10_s_and_says_so() -> None:
    ecg = silent(31)
    ecg[:, 5050:] = 1000
    dark = ink(draw_ecg(ecg, SCALE, 500))
    assert not dark[:, column_at(10) + 3 : (draw.MARGIN + draw.PAPER_WIDTH) * PER_MM][BOTTOM * PER_MM :].any()
    assert words(ecg=ecg, mv_per_lsb=SCALE, fs_hz=500)[-1].startswith("first 10 s of 31 s ")


@pytest.mark.parametrize("image_format", ["png", "svg"])
def test_the_same_input_gives_the_same_bytes_whatever_the_settings(image_format: Any) -> None:
    ecg = np.random.default_rng(1).integers(-500, 500, (12, 5000)).astype(np.int16)
    first = draw_ecg(ecg, SCALE, 500, "Title", "Text", image_format=image_format)
    with matplotlib.rc_context({"savefig.bbox": "tight", "lines.linewidth": 5, "font.size": 20, "text.color": "red"}):
        assert draw_ecg(ecg, SCALE, 500, "Title", "Text", image_format=image_format) == first
    assert matplotlib.rcParams["svg.hashsalt"] is None
    assert b"<dc:date>" not in first


def test_words_are_wrapped_within_the_paper_and_the_sheet_grows() -> None:
    text = "SINUS RHYTHM WITH WIDE QRS, COST $5 OR $x^2$. " * 12 + "\nSecond paragraph\x00 " + "W" * 400
    dark = ink(draw_ecg(silent(), SCALE, 500, "A title of many words " * 20, text))
    assert len(dark) > (HEIGHT + 25) * PER_MM
    assert not dark[:, (draw.MARGIN + draw.PAPER_WIDTH) * PER_MM + 5 :].any()
    assert not dark[: draw.MARGIN * PER_MM - 5].any()
    assert not dark[-draw.MARGIN * PER_MM + 5 :].any()
    found = words(ecg=silent(), mv_per_lsb=SCALE, fs_hz=500, text=text)
    assert any("$x^2$" in word for word in found)
    assert any(word.startswith("Second paragraph") for word in found)


@pytest.mark.parametrize(
    "change",
    [{"ecg": np.zeros((8, 10), np.int16)}, {"ecg": np.zeros((12, 10))}, {"mv_per_lsb": [1.0]}, {"fs_hz": float("nan")}],
)
def test_what_cannot_be_drawn_is_refused(change: dict[str, Any]) -> None:
    record: dict[str, Any] = {"ecg": silent(), "mv_per_lsb": SCALE, "fs_hz": 500} | change
    for drawing in (draw_ecg, draw_in_terminal):
        with pytest.raises(RecordError, match=f"{next(iter(change))}: expected"):
            drawing(**record)


def test_unknown_formats_and_leads_are_refused() -> None:
    with pytest.raises(ValueError, match="png or svg"):
        draw_ecg(silent(), SCALE, 500, image_format="jpg")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="dpi above 0"):
        draw_ecg(silent(), SCALE, 500, dpi=0)
    with pytest.raises(ValueError, match="V7"):
        draw_in_terminal(silent(), SCALE, 500, leads=("V7",))
    with pytest.raises(ValueError, match="width >= 50"):
        draw_in_terminal(silent(), SCALE, 500, width=20)


@pytest.mark.parametrize("width", [50, 81, 100, 200])
@pytest.mark.parametrize("leads", [("II",), LEADS])
def test_every_line_in_the_terminal_has_the_asked_width(width: int, leads: tuple[str, ...]) -> None:
    ecg = np.random.default_rng(2).integers(-32767, 32767, (12, 3100)).astype(np.int16)
    ecg[4] = INVALID
    lines = draw_in_terminal(ecg, [0.001] * 11 + [7.0], 100, width, leads=leads).splitlines()
    assert {len(line) for line in lines} == {width}
    assert [line[:3].strip() for line in lines if line[:3].strip()] == list(leads)
    assert lines[-1].endswith("first 10 s of 31 s    100 Hz")
    assert " mV  0 s" in lines[-2]
    assert ("no signal" in "".join(lines)) == (len(leads) == 12)


def test_a_spike_in_the_terminal_is_where_it_is_in_the_record() -> None:
    ecg = silent(6)
    ecg[1, 2512] = 1200
    ecg[1, 1000:1500] = INVALID
    lines = draw_in_terminal(ecg, SCALE, 500, draw.GUTTER + 100).splitlines()
    drawn = np.array([[ord(sign) - 0x2800 for sign in line[draw.GUTTER :]] for line in lines[:10]])
    assert np.flatnonzero(drawn[0]).tolist() == [50]
    assert (drawn[:, 50] > 0).all()
    assert (drawn[9, :20] > 0).all()
    assert not drawn[:, 21:29].any()
    assert not drawn[:, 61:].any()
    assert lines[0].startswith("II       1.2 ┤")
    assert lines[9].startswith("           0 ┤")


def test_a_real_record() -> None:
    path = CORPORA / "ptb-xl" / "records500" / "00000" / "00001_hr"
    if not path.with_suffix(".hea").exists():
        pytest.skip(f"{path}.hea is absent: the sample corpora are not on this machine")
    wfdb = pytest.importorskip("wfdb")
    record = wfdb.rdrecord(str(path), physical=False)
    order = arrange_leads(record.sig_name, str(path))
    counts = record.d_signal.T[order]
    gain, baseline = (np.asarray(values)[order] for values in (record.adc_gain, record.baseline))
    ecg, scale = keep_digital(counts, baseline, 1 / gain, counts == INVALID)
    dark = ink(draw_ecg(ecg, scale, record.fs, title=record.record_name, text="Sinus rhythm."))
    # Every moment of the record leaves ink between the paper's edges.
    assert dark[BOTTOM * PER_MM + 50 :, column_at(0) + 1 : column_at(9.99)].any(axis=0).all()
    terminal = draw_in_terminal(ecg, scale, record.fs, leads=LEADS)
    assert all(f"\n{lead:<3} " in f"\n{terminal}" for lead in LEADS)
    assert "no signal" not in terminal
