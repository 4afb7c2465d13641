"""What the tests of all sources share: a corpus read record by record, and millivolts compared lead by lead, by name."""

import numpy as np

from shards.record import INVALID, LEADS, to_millivolts


def read_all(source):
    """Every planned record of a source, record id → record."""
    return {planned.record_id: source.read(planned) for planned in source.plan().records}


def assert_millivolts(record, expected):
    """The record's millivolts are the expected ones within half an LSB, for every lead that is expected; others are missing.

    Args:
        record: an EcgRecord.
        expected: standard lead → (samples,) millivolts as another reader gives them, NaN where not valid.
    """
    assert set(expected) <= set(LEADS)
    millivolts = to_millivolts(record.ecg, record.mv_per_lsb)
    for position, lead in enumerate(LEADS):
        if lead not in expected:
            assert (record.ecg[position] == INVALID).all(), f"lead {lead} was invented"
            continue
        assert millivolts[position].shape == np.shape(expected[lead]), lead
        np.testing.assert_array_equal(np.isnan(millivolts[position]), np.isnan(expected[lead]), err_msg=lead)
        half = record.mv_per_lsb[position] / 2
        np.testing.assert_allclose(millivolts[position], expected[lead], rtol=0, atol=half * 1.0001, err_msg=lead)
