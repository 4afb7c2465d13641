"""Histograms count every value once, in round bins that outliers cannot flatten; labels and quality are counted as they are."""

import math
import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.build import BuildOptions, build
from shards.dataset import INDEX_SCHEMA, ShardSet, index_table
from shards.histogram import FEW_VALUES, QUANTITIES, count_labels, count_quality, distribute, overview
from shards.plausibility import LARGEST_RESIDUAL
from shards.sources.mimic_iv_ecg import MimicIvEcg
from shards.sources.ptb_xl import PtbXl

R_AMPLITUDE, PEAK, RATE, LENGTH, TEXT = QUANTITIES["ecg"]

ROW = {
    "key": "x-1", "shard": "train-0", "offset": 0, "bytes": 1, "split": "train", "source": "x", "record_id": "1",
    "patient_hash": "p", "text_hash": "", "fs_hz": 500.0, "ecgs": 1, "samples": 5000, "invalid_fraction": 0.0,
    "missing_leads": 0, "flat_leads": 0, "peak_mv": 1.5, "r_amplitude_mv": 1.0, "limb_residual": 0.01, "text_length": 20,
    "labels": [], "unknown_labels": [], "answers": [],
}  # fmt: skip


def index(*changes):
    """An index with a row for each change of a sound record."""
    return index_table([ROW | change for change in changes])


def built(source, folder):
    build(source, str(folder / "set"), BuildOptions(records_per_shard=64))
    return ShardSet.open(str(folder / "set"))


def lognormal(count, seed=0):
    return np.random.default_rng(seed).lognormal(0, 0.4, count)


# --- laws


@given(
    st.lists(st.floats() | st.sampled_from([0.0, 0.3, 1.0, math.nan])),
    st.integers(2, 60),
    st.integers(0, 9),
    st.booleans(),
)
def test_every_finite_value_is_counted_once_and_where_it_belongs(listed, most_bins, few, whole):
    values = np.array(listed, dtype=float)
    finite = values[np.isfinite(values)]
    found = distribute(values, most_bins, few=few, whole=whole)
    assert found.known == found.below + sum(found.counts) + found.above == len(finite)
    assert found.missing == len(values) - len(finite)
    if found.edges:
        assert len(np.unique(finite)) > max(few, 1)
        assert 1 <= len(found.counts) == len(found.edges) - 1 <= most_bins
        for low, high, count in zip(found.edges, found.edges[1:], found.counts, strict=False):
            assert low < high
            assert count == np.count_nonzero((finite >= low) & (finite < high))
        assert found.below == np.count_nonzero(finite < found.edges[0])
        assert found.above == np.count_nonzero(finite >= found.edges[-1])
    else:
        assert list(found.values) == np.unique(finite).tolist()
        assert list(found.counts) == [np.count_nonzero(finite == value) for value in found.values]
    if len(finite):
        assert (found.least, found.greatest) == (finite.min(), finite.max())


@given(st.lists(st.integers(-30000, 30000), min_size=2, unique=True), st.integers(2, 60))
def test_edges_are_multiples_of_1_2_or_5_and_print_short(thousandths, most_bins):
    found = distribute(np.array(thousandths) / 1000, most_bins)
    exact = [round(edge * 1e6) for edge in found.edges]
    [step] = set(np.diff(exact).tolist())
    assert str(step).rstrip("0") in ("1", "2", "5")
    assert all(edge % step == 0 for edge in exact)
    assert list(found.edges) == [number / 1e6 for number in exact]


@given(st.lists(st.integers(1, 400), min_size=2, unique=True), st.integers(2, 60))
def test_bins_of_whole_numbers_are_no_narrower_than_1(lengths, most_bins):
    found = distribute(np.array(lengths, dtype=float), most_bins, whole=True)
    assert all(edge == int(edge) for edge in found.edges)


# --- what a picture needs


def test_outliers_do_not_flatten_the_others_and_are_counted_beyond():
    sound = distribute(lognormal(2000), 40)
    found = distribute(np.append(lognormal(2000), [1000, 2000, -500]), 40)
    assert found.edges[-1] < 4
    assert np.count_nonzero(found.counts) >= np.count_nonzero(sound.counts) - 2
    assert found.below >= 1
    assert found.above >= 2
    assert (found.least, found.greatest) == (-500, 2000)


def test_one_outlier_among_few_is_beyond_too():
    found = distribute(np.append(np.linspace(1, 2, 59), 9.5), 40)
    assert found.edges[-1] <= 2.1
    assert (found.below, found.above) == (0, 1)


def test_extremes_that_are_near_lie_in_bins():
    found = distribute(np.linspace(0.5, 2.5, 1000), 40)
    assert (found.below, found.above) == (0, 0)


def test_where_nearly_all_values_are_the_same_the_others_have_bins():
    found = distribute(np.array([10.0] * 5000 + [6, 7, 8, 9, 11, 12, 20, 30, 60]), 40)
    assert found.edges[0] <= 6
    assert found.edges[-1] > 60
    assert (found.below, found.above) == (0, 0)
    assert found.is_skewed


def test_a_value_on_an_edge_lies_in_the_bin_that_begins_there():
    found = distribute(np.tile(np.arange(1, 31) / 10, 500), 40)
    assert found.edges == tuple(number / 10 for number in range(1, 32))
    assert set(found.counts) == {500}


def test_few_values_have_few_bins_and_many_have_as_many_as_allowed():
    assert len(distribute(lognormal(60), 48).counts) <= 24
    assert 24 < len(distribute(lognormal(100_000), 48).counts) <= 48


def test_counts_are_skewed_where_one_bar_would_hide_the_others():
    assert not distribute(lognormal(5000), 40).is_skewed
    assert not distribute(np.array([1.0] * 40 + [2, 3, 4]), 40, few=8).is_skewed
    assert distribute(np.array([1.0] * 4000 + [2, 3, 4]), 40, few=8).is_skewed
    assert not distribute(np.array([]), 40).is_skewed


def test_nothing_known_is_said_and_not_drawn():
    found = distribute(np.array([math.nan, math.inf]), 40)
    assert (found.known, found.missing, found.values, found.edges) == (0, 2, (), ())


# --- what is taken from the index


def test_a_length_is_samples_over_rate_and_is_counted_in_seconds():
    rows = index({}, {"samples": 4096, "fs_hz": 400.0}, {"samples": 0, "fs_hz": None})
    np.testing.assert_array_equal(LENGTH.of(rows), [10, 10.24, math.nan])


def test_rates_and_lengths_are_counted_one_by_one_while_they_are_few():
    rates = [100.0 * number for number in range(1, FEW_VALUES + 1)]
    rows = index(*({"fs_hz": rate} for rate in [*rates, 100.0]))
    found = dict(overview(rows, "ecg", 40).distributions)[RATE]
    assert (found.values, found.counts) == (tuple(rates), (2, *[1] * (FEW_VALUES - 1)))
    more = index(*({"fs_hz": rate} for rate in [*rates, 900.0]))
    assert dict(overview(more, "ecg", 40).distributions)[RATE].edges


def test_records_without_text_are_missing_and_not_of_length_0():
    found = dict(overview(index({}, {"text_length": 0}, {"text_length": 90}), "ecg", 40).distributions)[TEXT]
    assert (found.known, found.missing, found.least) == (2, 1, 20)


def test_an_r_amplitude_that_cannot_be_told_is_missing():
    found = dict(overview(index({}, {"r_amplitude_mv": None}), "ecg", 40).distributions)[R_AMPLITUDE]
    assert (found.known, found.missing) == (1, 1)


@pytest.mark.parametrize("missing", range(12))
def test_samples_of_a_missing_lead_are_not_invalid_besides(missing):
    alone = {"missing_leads": missing, "invalid_fraction": round(missing / 12, 6)}
    one_more = alone | {"invalid_fraction": round(missing / 12 + 1 / 60000, 6)}
    found = count_quality(index(alone, one_more))
    assert (found.missing_leads, found.invalid_samples) == (2 * (missing > 0), 1)


def test_flat_leads_and_limb_leads_that_do_not_fit_are_counted():
    above, below = LARGEST_RESIDUAL + 0.01, LARGEST_RESIDUAL
    found = count_quality(index({"flat_leads": 3}, {"limb_residual": above}, {"limb_residual": below}, {"limb_residual": None}))
    assert (found.flat_leads, found.limb_leads, found.with_limb_leads) == (1, 1, 3)


def test_labels_are_counted_by_split_and_unknown_ones_beside():
    rows = index(
        {"labels": ["AF", "MI"]},
        {"labels": ["AF"], "split": "test"},
        {"labels": ["MI"], "split": "val", "unknown_labels": ["AF", "LVH"]},
        {"labels": ["AF"], "split": "test"},
    )
    af, mi, lvh = count_labels(rows)
    assert (af.name, af.present, af.splits, af.unknown) == ("AF", 3, (1, 0, 2), 1)
    assert (mi.name, mi.present, mi.splits, mi.unknown) == ("MI", 2, (1, 1, 0), 0)
    assert (lvh.name, lvh.present, lvh.splits, lvh.unknown) == ("LVH", 0, (0, 0, 0), 1)


def test_an_index_without_a_row_is_no_error():
    found = overview(INDEX_SCHEMA.empty_table(), "ecg", 40)
    assert (found.total, found.labels, found.quality.with_limb_leads) == (0, (), 0)
    assert all(distribution.known == 0 for _, distribution in found.distributions)


# --- real recordings


def test_ptb_xl_as_it_is(ptb_xl_folder, tmp_path):
    data = built(PtbXl(ptb_xl_folder), tmp_path)
    found = overview(data.index, "ecg", 40)
    distributions = dict(found.distributions)
    assert {distribution.known for distribution in distributions.values()} == {80}
    assert (distributions[RATE].values, distributions[LENGTH].values) == ((500.0,), (10.0,))
    assert distributions[PEAK].least == data.manifest["statistics"]["peak_mv"]["min"]
    assert {label.name: label.present for label in found.labels if label.present} == data.manifest["counts"]["label"]
    assert all(sum(label.splits) == label.present for label in found.labels)


def test_mimic_iv_ecg_as_it_is(recordings, tmp_path):
    found = overview(built(MimicIvEcg(recordings("mimic-iv-ecg")), tmp_path).index, "ecg", 40)
    text = dict(found.distributions)[TEXT]
    assert (found.total, text.known, text.missing) == (60, 59, 1)
    assert (found.quality.invalid_samples, found.quality.limb_leads) == (1, 2)
    assert found.labels == ()


# --- size


def test_a_million_rows_take_about_a_second():
    count = 1_000_000
    rows = pa.table({
        **{name: pa.array(lognormal(count)) for name in ("peak_mv", "r_amplitude_mv", "limb_residual")},
        **{name: pa.repeat(value, count) for name, value in ROW.items() if name in (
            "fs_hz", "samples", "invalid_fraction", "missing_leads", "flat_leads", "text_length"
        )},
        "split": pa.repeat("train", count),
        **{
            name: pa.ListArray.from_arrays(
                pa.array(np.arange(count + 1, dtype=np.int32)), pa.DictionaryArray.from_arrays(
                    pa.array(np.arange(count, dtype=np.int32) % 50), pa.array([f"label {number}" for number in range(50)])
                ).cast(pa.string())
            )
            for name in ("labels", "unknown_labels")
        },
    })  # fmt: skip
    rows = pa.table({name: pa.chunked_array([rows[name].combine_chunks()]) for name in rows.column_names})
    start = time.perf_counter()
    found = overview(rows, "ecg", 40)
    assert time.perf_counter() - start < 2
    assert sum(label.present for label in found.labels) == count
