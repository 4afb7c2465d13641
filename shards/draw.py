"""A 12-lead ECG as people read it: a clinical sheet drawn to scale (PNG or SVG), and a braille drawing for a terminal.

The sheet keeps the convention of paper electrocardiographs: 25 mm/s, 10 mm/mV, a grid of 1 mm and 5 mm, three rows of four
leads that share one time axis with the rhythm strip below. All its geometry is in millimetres from the lower left corner.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.textpath import text_to_path
from matplotlib.transforms import Affine2D
from numpy.typing import NDArray

from shards.record import LEADS, RecordError, to_millivolts

STANDARD_LAYOUT = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"))
"""Leads of the sheet's rows; column k shows seconds 2.5 k to 2.5 (k + 1) of the record."""
RHYTHM_LEAD, SHOWN_S = "II", 10
MM_PER_S, MM_PER_MV, MM_PER_INCH, PT_PER_MM = 25, 10, 25.4, 72 / 25.4
LINE = 0.3
"""Millimetres that a trace is wide."""

MARGIN, HEAD, ROW, START, FOOTER = 5, 10, 30, 15, 6
"""Millimetres: white edge, extra room above the first row, a row, room for the calibration pulse before a trace, footer."""
PAPER_WIDTH, PAPER_HEIGHT = START + SHOWN_S * MM_PER_S + 5, HEAD + ROW * (len(STANDARD_LAYOUT) + 1)
SHEET_WIDTH = PAPER_WIDTH + 2 * MARGIN
TITLE_PT, TEXT_PT, LEAD_PT, FOOTER_PT, LINE_MM_PER_PT = 11.0, 9.0, 9.0, 7.5, 0.48

PAPER, FINE, BOLD, INK, GREY = "#fffafa", "#f9dada", "#efb0b0", "#16161d", "#555555"
NO_REPORT = "no report"
FONT = "DejaVu Sans"  # It comes with matplotlib, so that a sheet does not depend on the fonts of a machine.
HALO = [withStroke(linewidth=2.5, foreground=PAPER)]

GUTTER, BRAILLE_DOTS = 14, np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
"""Characters before a trace in the terminal, for its name and scale; bits of the 4 x 2 dots of a character from U+2800 on."""


class _Sheet:
    """A white figure of true size that takes lines and words in millimetres; `bottom` is the lower edge of its paper."""

    def __init__(self, bottom: float, height: float, dpi: float) -> None:
        # Whole pixels and a hair, since Agg cuts the size down; the scale hangs on dpi alone and stays true.
        size = [(round(mm / MM_PER_INCH * dpi) + 1e-3) / dpi for mm in (SHEET_WIDTH, height)]
        self.bottom = bottom
        self.figure = Figure(figsize=(size[0], size[1]), dpi=dpi, facecolor="white", edgecolor="none")
        self.mm = Affine2D().scale(1 / MM_PER_INCH) + self.figure.dpi_scale_trans
        self.paper = Rectangle((MARGIN, bottom), PAPER_WIDTH, PAPER_HEIGHT, color=PAPER, linewidth=0, transform=self.mm)
        self.figure.add_artist(self.paper)

    def lines(self, segments: Sequence[Sequence[tuple[float, float]]], colour: str, width_mm: float) -> None:
        """Straight lines, each through its points (x, y), sharp on whole pixels."""
        style: dict[str, Any] = {"transform": self.mm, "snap": True, "zorder": 1}
        self.figure.add_artist(LineCollection(segments, colors=colour, linewidths=width_mm * PT_PER_MM, **style))

    def trace(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
        """An ECG line on the paper; NaN in `y` is a gap; a sample between two gaps, and a line too short to see, are dots."""
        valid = np.pad(np.isfinite(y), 1)
        lonely = valid[1:-1] & ((~valid[:-2] & ~valid[2:]) | (x[-1] - x[0] < LINE))
        width = LINE * PT_PER_MM
        dots: dict[str, Any] = {"marker": "o", "markevery": lonely.tolist(), "markersize": width, "markeredgewidth": 0}
        line: dict[str, Any] = {"linewidth": width, "linestyle": "-", "solid_joinstyle": "round", "solid_capstyle": "butt"}
        self.figure.add_artist(Line2D(x, y, color=INK, transform=self.mm, clip_path=self.paper, zorder=3, **line, **dots))

    def words(self, x: float, y: float, text: str, size: float, colour: str = INK, **style: Any) -> None:
        """A line of text at a point; a `$` in it is a dollar, not mathematics."""
        style = {"transform": self.mm, "parse_math": False, "usetex": False, "fontfamily": FONT, "zorder": 2, **style}
        self.figure.add_artist(Text(x, y, text, color=colour, fontsize=size, **style))

    def encode(self, image_format: Literal["png", "svg"]) -> bytes:
        """The bytes of the image; the same sheet always gives the same."""
        image = io.BytesIO()
        canvas: Any = FigureCanvasAgg(self.figure) if image_format == "png" else FigureCanvasSVG(self.figure)
        if image_format == "png":
            canvas.print_png(image, metadata={"Software": None})
        else:
            # The salt of SVG ids can be given by this setting alone; it is put back at once.
            with matplotlib.rc_context({"svg.hashsalt": "ecg", "svg.fonttype": "path"}):
                canvas.print_svg(image, metadata={"Date": None})
        return image.getvalue()


def draw_ecg(
    ecg: NDArray[np.int16], mv_per_lsb: Sequence[float], fs_hz: float, title: str = "", text: str | None = "", *,
    image_format: Literal["png", "svg"] = "png", dpi: float = 254,
) -> bytes:  # fmt: skip
    """A clinical 12-lead sheet, 280 mm wide, true to scale when printed.

    A record shorter than 10 s leaves the rest of the paper empty, of a longer one the first 10 s are shown, a trace may leave
    the paper: the footer says so each time. Invalid samples are gaps; a lead without a valid one says "no signal".

    Args:
        ecg: (12, samples) counts, leads as in `LEADS`.
        mv_per_lsb: (12,) millivolts of one count.
        fs_hz: samples a second.
        title: above the paper; wrapped.
        text: below the paper, such as the report; wrapped, its own line breaks kept; the sheet grows by it. None: "no report".
        image_format, dpi: of a PNG, a resolution that is a multiple of 25.4 puts every grid line on a whole pixel.

    Raises:
        RecordError: the signal, its scale or its rate cannot be drawn.
        ValueError: an unknown image format, or a resolution that is not above 0.
    """
    if image_format not in ("png", "svg") or not 0 < dpi < math.inf:
        raise ValueError(f"draw_ecg: expected image_format png or svg and dpi above 0, found {image_format!r} and {dpi}")
    millivolts = _checked_millivolts(ecg, mv_per_lsb, fs_hz)
    title_lines, text_lines = _wrap(title, TITLE_PT), _wrap(NO_REPORT if text is None else text, TEXT_PT)
    text_colour = GREY if text is None else INK
    title_height = math.ceil(len(title_lines) * TITLE_PT * LINE_MM_PER_PT)
    text_height = math.ceil(len(text_lines) * TEXT_PT * LINE_MM_PER_PT)
    bottom = MARGIN + text_height + FOOTER
    top = bottom + PAPER_HEIGHT + title_height
    sheet = _Sheet(bottom, top + MARGIN, dpi)
    _draw_grid(sheet)
    remarks = _remarks(ecg.shape[1], fs_hz, _draw_leads(sheet, millivolts, fs_hz))
    footer = "    ".join([*remarks, f"{MM_PER_S} mm/s", f"{MM_PER_MV} mm/mV", f"{fs_hz:g} Hz"])
    sheet.words(MARGIN + PAPER_WIDTH, bottom - 4, footer, FOOTER_PT, GREY, horizontalalignment="right")
    below = MARGIN + text_height + 1
    for lines, size, start, colour in ((title_lines, TITLE_PT, top + 2, INK), (text_lines, TEXT_PT, below, text_colour)):
        for number, line in enumerate(lines, start=1):
            sheet.words(MARGIN, start - number * size * LINE_MM_PER_PT, line, size, colour)
    return sheet.encode(image_format)


def _checked_millivolts(ecg: NDArray[np.int16], mv_per_lsb: Sequence[float], fs_hz: float) -> NDArray[np.float64]:
    """(12, samples) counts to millivolts, NaN where invalid, or a `RecordError`."""
    if ecg.ndim != 2 or len(ecg) != len(LEADS) or ecg.dtype != np.int16:
        raise RecordError(f"ecg: expected int16 of shape (12, samples), found {ecg.dtype} of shape {ecg.shape}; use a sample's")
    if len(mv_per_lsb) != len(LEADS) or not np.all(np.isfinite(mv_per_lsb)):
        raise RecordError(f"mv_per_lsb: expected 12 finite numbers, found {list(mv_per_lsb)}; take them from the sample's JSON")
    if not 0 < fs_hz < math.inf:
        raise RecordError(f"fs_hz: expected a rate above 0, found {fs_hz}; take it from the sample's JSON")
    return to_millivolts(ecg, mv_per_lsb)


def _window(samples: int, fs_hz: float, start_s: float, end_s: float) -> slice:
    """The samples of a time span, both ends included so that neighbouring columns meet; rounding of fs_hz is forgiven."""
    first, last = math.ceil(start_s * fs_hz - 1e-6), math.floor(end_s * fs_hz + 1e-6)
    return slice(min(first, samples), min(last + 1, samples))


def _remarks(samples: int, fs_hz: float, beyond: Sequence[str] = ()) -> list[str]:
    """Whatever of the record a drawing of 10 s does not show."""
    duration = samples / fs_hz
    cut = f"first {SHOWN_S} s of {duration:.6g} s" if duration > SHOWN_S else f"record ends at {duration:.4g} s"
    return [f"beyond the paper: {', '.join(beyond)}"] * bool(beyond) + [cut] * (duration != SHOWN_S)


def _draw_grid(sheet: _Sheet) -> None:
    """Fine lines every 1 mm and bold ones every 5 mm."""
    left, low, right, high = MARGIN, sheet.bottom, MARGIN + PAPER_WIDTH, sheet.bottom + PAPER_HEIGHT
    for step, colour, width in ((1, FINE, 0.1), (5, BOLD, 0.2)):
        upright = [[(left + x, low), (left + x, high)] for x in range(0, PAPER_WIDTH + 1, step)]
        level = [[(left, low + y), (right, low + y)] for y in range(0, PAPER_HEIGHT + 1, step)]
        sheet.lines([*upright, *level], colour, width)


def _draw_leads(sheet: _Sheet, millivolts: NDArray[np.float64], fs_hz: float) -> list[str]:
    """The rows, each after its calibration pulse of 1 mV and 0.2 s; returns the leads that go beyond the paper."""
    left, beyond = MARGIN + START, []
    for row, leads in enumerate((*STANDARD_LAYOUT, (RHYTHM_LEAD,))):
        zero = sheet.bottom + PAPER_HEIGHT - HEAD - ROW * (row + 0.5)
        pulse = ((2.5, 0), (5, 0), (5, 1), (10, 1), (10, 0), (12.5, 0))
        sheet.lines([[(MARGIN + x, zero + y * MM_PER_MV) for x, y in pulse]], INK, LINE)
        for column, lead in enumerate(leads):
            signal, seconds = millivolts[LEADS.index(lead)], SHOWN_S / len(leads)
            start, end = (left + edge * seconds * MM_PER_S for edge in (column, column + 1))
            window = _window(len(signal), fs_hz, column * seconds, (column + 1) * seconds)
            y = zero + signal[window] * MM_PER_MV
            # Names lie under the traces: a tall wave that meets one must stay whole.
            sheet.words(start + 1, zero + 8.7, lead, LEAD_PT, fontweight="bold", path_effects=HALO)
            sheet.lines([[(start, zero + 8), (start, zero + 12)]] if column else [], GREY, 0.2)
            if np.isfinite(y).any():
                sheet.trace(left + np.arange(window.start, window.stop) / fs_hz * MM_PER_S, y)
            elif y.size or not np.isfinite(signal).any():
                sheet.words((start + end) / 2, zero, "no signal", LEAD_PT, GREY, ha="center", va="center", path_effects=HALO)
            if lead not in beyond and np.any((y < sheet.bottom) | (y > sheet.bottom + PAPER_HEIGHT)):
                beyond.append(lead)
    return beyond


def drawable(text: str) -> str:
    """A line of text as `FONT` can show it: `□` for a letter without a glyph, a space for what cannot be printed.

    The latter would make an SVG invalid.
    """
    has_glyph = get_font(findfont(FontProperties(family=FONT))).get_char_index
    return "".join(" " if not letter.isprintable() else letter if has_glyph(ord(letter)) else "□" for letter in text)


def _wrap(text: str, size: float) -> list[str]:
    """Lines that fit the paper's width at a size in points, measured in the font itself; line breaks of the text are kept."""
    font = FontProperties(family=FONT, size=size)
    paragraphs = [drawable(line) for line in text.strip().splitlines()]
    for columns in range(int(PAPER_WIDTH * PT_PER_MM / (0.45 * size)), 0, -4):
        lines = [line for paragraph in paragraphs for line in textwrap.wrap(paragraph, columns) or [""]]
        if all(text_to_path.get_text_width_height_descent(line, font, False)[0] <= PAPER_WIDTH * PT_PER_MM for line in lines):
            break
    return lines


def draw_in_terminal(
    ecg: NDArray[np.int16], mv_per_lsb: Sequence[float], fs_hz: float, width: int = 100, *, leads: Sequence[str] = ("II",)
) -> str:
    """The first 10 s as text of braille dots; one lead is drawn tall, several small and stacked, each with its scale in mV.

    Takes the signal as `draw_ecg` does, with the same errors; `width` is the characters of every line, `leads` are names from
    `LEADS`. Raises ValueError for a width below 50 and for a lead that is none of the twelve.
    """
    unknown = [lead for lead in leads if lead not in LEADS]
    if unknown or width < 50:
        raise ValueError(f"draw_in_terminal: expected width >= 50 and leads of {', '.join(LEADS)}, found {width} and {unknown}")
    millivolts = _checked_millivolts(ecg, mv_per_lsb, fs_hz)
    columns, rows = width - GUTTER, 10 if len(leads) == 1 else 4
    lines = [line for lead in leads for line in _terminal_lead(lead, millivolts[LEADS.index(lead)], fs_hz, columns, rows)]
    axis = f"{'mV':>{GUTTER - 2}}"
    for second in range(0, SHOWN_S, 2):
        axis = axis.ljust(GUTTER + second * columns // SHOWN_S) + f"{second} s"
    notes = "    ".join([*_remarks(ecg.shape[1], fs_hz), f"{fs_hz:g} Hz"])
    return "\n".join([*lines, f"{axis:<{width - 4}}10 s", f"{notes:>{width}}"])


def _terminal_lead(lead: str, signal: NDArray[np.float64], fs_hz: float, columns: int, rows: int) -> list[str]:
    """A lead as `rows` lines of gutter and `columns` characters; its scale spans what is shown, half a millivolt at least."""
    shown = signal[_window(len(signal), fs_hz, 0, SHOWN_S)]
    valid = shown[np.isfinite(shown)]
    low = math.floor(valid.min() * 10) / 10 if valid.size else 0.0
    high = max(math.ceil(valid.max() * 10) / 10, low + 0.5) if valid.size else 0.5
    dots = _dots((high - shown) / (high - low), fs_hz, columns * 2, rows * 4)
    codes = 0x2800 + np.einsum("rycx,yx->rc", dots.reshape(rows, 4, columns, 2), BRAILLE_DOTS)
    body = ["".join(map(chr, line)) for line in codes.tolist()]
    if not valid.size:
        body[rows // 2] = "no signal".center(columns)
    names, scale = {0: lead}, {0: f"{high:.3g}", rows - 1: f"{low:.3g}"}
    return [f"{names.get(row, ''):<3}{scale.get(row, ''):>9} ┤{line}" for row, line in enumerate(body)]


def _dots(depth: NDArray[np.float64], fs_hz: float, width: int, height: int) -> NDArray[np.int64]:
    """(height, width) dots, 1 where the line passes; `depth` is 0 at the top and 1 at the bottom, the width is 10 s."""
    dots = np.zeros((height, width), dtype=np.int64)
    for column in range(width):
        # One sample of the next column too, so that a steep wave stays joined; a short record leaves the rest empty.
        here = depth[int(SHOWN_S * fs_hz * column / width) : int(SHOWN_S * fs_hz * (column + 1) / width) + 1]
        here = here[np.isfinite(here)] * (height - 1)
        if here.size:
            dots[round(here.min()) : round(here.max()) + 1, column] = 1
    return dots
