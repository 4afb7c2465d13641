"""The laws of packing: every sample once an epoch, no pack too long, as many packs in every epoch, other company in each."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.packing import Packing, best_sum

CONTEXT = 100


@st.composite
def data_sets(draw, most=120):
    """Shard number and length of each sample; a few are longer than the context."""
    sizes = draw(st.lists(st.integers(1, 40), max_size=8))
    shard_of = np.repeat(np.arange(len(sizes)), np.array(sizes, np.int64))
    lengths = draw(st.lists(st.integers(1, most), min_size=len(shard_of), max_size=len(shard_of)))
    return shard_of, np.array(lengths, np.int64)


windows = st.integers(1, 50)
epochs = st.integers(0, 3)
seeds = st.integers(0, 3)


def epoch_of(packing, epoch=0, seed=0):
    return packing.members(epoch, np.arange(packing.packs), seed)


def as_lists(packs):
    return [pack.tolist() for pack in packs]


# --- laws


@settings(max_examples=200, deadline=None)
@given(data_sets(), windows, epochs, seeds)
def test_every_sample_is_in_one_pack_of_each_epoch(data, window, epoch, seed):
    packs = epoch_of(Packing(*data, CONTEXT, window), epoch, seed)
    assert all(len(pack) for pack in packs)
    assert sorted(sample for pack in packs for sample in pack) == list(range(len(data[0])))


@settings(max_examples=200, deadline=None)
@given(data_sets(), windows, epochs, seeds)
def test_no_pack_is_longer_than_the_context_unless_it_is_one_sample_that_will_be_cut(data, window, epoch, seed):
    _, lengths = data
    for pack in epoch_of(Packing(*data, CONTEXT, window), epoch, seed):
        assert lengths[pack].sum() <= CONTEXT or len(pack) == 1


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 9000), min_size=1, max_size=120), epochs, st.integers(1000, 8192))
def test_lengths_of_thousands_of_tokens_keep_the_same_laws(lengths, epoch, context):
    lengths = np.array(lengths)
    packs = epoch_of(Packing(np.zeros(len(lengths), int), lengths, context), epoch)
    assert sorted(np.concatenate(packs)) == list(range(len(lengths)))
    assert all(np.minimum(lengths[pack], context).sum() <= context for pack in packs)


@settings(max_examples=100, deadline=None)
@given(data_sets(), windows, epochs, seeds)
def test_a_pack_lies_in_one_shard_and_within_a_window(data, window, epoch, seed):
    shard_of, _ = data
    packing = Packing(*data, CONTEXT, window)
    packs = epoch_of(packing, epoch, seed)
    assert [set(shard_of[pack]) for pack in packs] == [{shard} for shard in packing.shard_of_pack]
    assert np.all(np.diff(packing.shard_of_pack) >= 0)
    assert all(np.ptp(pack) < window for pack in packs)


@settings(max_examples=100, deadline=None)
@given(data_sets(), data_sets(), windows, epochs, seeds)
def test_shards_that_come_after_change_no_pack_before_them(data, more, window, epoch, seed):
    shard_of, lengths = data
    longer = np.r_[shard_of, more[0] + len(shard_of)], np.r_[lengths, more[1]]
    before, after = Packing(*data, CONTEXT, window), Packing(*longer, CONTEXT, window)
    assert as_lists(epoch_of(after, epoch, seed)[: before.packs]) == as_lists(epoch_of(before, epoch, seed))


@settings(max_examples=100, deadline=None)
@given(data_sets(), windows, epochs, st.data())
def test_any_packs_can_be_asked_for_at_any_time(data, window, epoch, draw):
    """As after a resume, and with the deals of other epochs and seeds asked for in between."""
    packing = Packing(*data, CONTEXT, window)
    expected = epoch_of(Packing(*data, CONTEXT, window), epoch, seed=5)
    for _ in range(3):
        packs = draw.draw(st.lists(st.integers(0, packing.packs - 1), max_size=5)) if packing.packs else []
        assert as_lists(packing.members(epoch, np.array(packs, int), 5)) == as_lists(expected[pack] for pack in packs)
        epoch_of(packing, draw.draw(epochs), draw.draw(st.integers(4, 6)))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 60), max_size=10), st.integers(0, 200))
def test_the_best_sum_is_found(lengths, room):
    sums = {0}
    for length in lengths:
        sums |= {found + length for found in sums}
    taken = best_sum(lengths, room)
    assert len(set(taken)) == len(taken)
    assert sum(lengths[place] for place in taken) == max(found for found in sums if found <= room)


# --- company


def companions(packs):
    return {frozenset(pair) for pack in packs for pair in zip(pack[:-1].tolist(), pack[1:].tolist(), strict=True)}


def test_samples_of_equal_length_meet_others_in_each_epoch():
    packing = Packing(np.zeros(400, int), np.full(400, 25), CONTEXT)
    assert packing.packs == 100
    kept = companions(epoch_of(packing, 0)) & companions(epoch_of(packing, 1))
    assert len(kept) < 0.1 * 300


def test_samples_meet_others_when_hardly_two_are_of_one_length():
    lengths = np.random.default_rng(0).permutation(np.arange(200, 712))
    packing = Packing(np.zeros(512, int), lengths, 2048)
    first = companions(epoch_of(packing, 0))
    kept = first & companions(epoch_of(packing, 1))
    assert len(kept) < 0.35 * len(first)


def test_seeds_deal_otherwise():
    packing = Packing(np.zeros(400, int), np.full(400, 25), CONTEXT)
    assert as_lists(epoch_of(packing, 0, seed=0)) != as_lists(epoch_of(packing, 0, seed=1))


def test_windows_of_equal_lengths_are_dealt_apart():
    packing = Packing(np.repeat([0, 1], 40), np.full(80, 25), CONTEXT)
    packs = np.array(as_lists(epoch_of(packing)))
    assert not np.array_equal(packs[:10] + 40, packs[10:])


# --- edges


def test_no_samples_make_no_packs():
    packing = Packing(np.zeros(0, int), np.zeros(0, int), CONTEXT)
    assert (packing.packs, packing.fill, len(packing.shard_of_pack)) == (0, 0.0, 0)


def test_a_sample_longer_than_the_context_is_a_pack_of_its_own():
    packing = Packing(np.zeros(3, int), np.array([5000, CONTEXT, 1]), CONTEXT)
    assert sorted(as_lists(epoch_of(packing))) == [[0], [1], [2]]
    assert packing.fill == pytest.approx(201 / 300)


def test_padding_has_no_samples():
    packing = Packing(np.zeros(2, int), np.array([40, 40]), CONTEXT)
    assert [len(pack) for pack in packing.members(0, np.array([-1, 0, -1]), 0)] == [0, 2, 0]
    assert as_lists(Packing(np.zeros(0, int), np.zeros(0, int), CONTEXT).members(0, np.array([-1]), 0)) == [[]]


def test_a_shard_that_is_a_little_longer_than_a_window_is_halved():
    packing = Packing(np.zeros(1025, int), np.full(1025, CONTEXT // 2), CONTEXT, window=1024)
    packs = epoch_of(packing)
    assert max(pack.max() for pack in packs[:256]) == 511
    assert packing.packs == 513


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((np.zeros(3, int), np.ones(2, int), CONTEXT), "a length for each of 3 samples, found 2"),
        ((np.zeros(1, int), np.ones(1, int), 0), "at least 1, found 0 and 1024"),
        ((np.zeros(1, int), np.ones(1, int), CONTEXT, 0), "at least 1, found 100 and 0"),
    ],
)
def test_what_cannot_be_packed_is_said(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        Packing(*arguments)


def test_the_digest_names_all_that_packs_depend_on():
    shard_of, lengths = np.zeros(4, int), np.array([1, 2, 3, 4])
    digests = {
        Packing(*arguments).digest
        for arguments in (
            (shard_of, lengths, CONTEXT),
            (shard_of, lengths[::-1], CONTEXT),
            (np.array([0, 0, 1, 1]), lengths, CONTEXT),
            (shard_of, lengths, CONTEXT + 1),
            (shard_of, lengths, CONTEXT, 2),
        )
    }
    assert len(digests) == 5
    assert Packing(shard_of, lengths.astype(np.int32), CONTEXT).digest in digests


# --- how full sequences are


def instruction_lengths(samples, tokens_per_word, most_rounds):
    """Lengths as those of ECG-Instruct (Zhao et al., ECG-Chat, arXiv 2408.08849), of which the paper gives averages only.

    Published: 20,258 items are one paragraph of 66.77 words on average; 24,786 have 78.36 words of answers in 4 to 15 or 4
    to 30 rounds (it says both); an ECG takes 101 tokens. Ours, since nothing says it: words of answers spread by 30 %, every
    number of rounds is as likely, a question has 10 words, the template takes 6 tokens a round and 40 at the beginning.
    """
    rng = np.random.default_rng(0)
    one_paragraph = rng.random(samples) < 20_258 / (20_258 + 24_786)
    rounds = np.where(one_paragraph, 1, rng.integers(4, most_rounds + 1, samples))
    answers = np.where(one_paragraph, 66.77, 78.36) * rng.normal(1, 0.3, samples).clip(0.2)
    return (101 + 40 + 6 * rounds + tokens_per_word * (answers + 10 * rounds)).astype(int)


@pytest.mark.parametrize("tokens_per_word", [1.3, 1.5])
@pytest.mark.parametrize("most_rounds", [15, 30])
@pytest.mark.parametrize(("context", "least"), [(1024, 0.95), (2048, 0.98), (4096, 0.97)])
def test_sequences_of_instructions_are_full(tokens_per_word, most_rounds, context, least):
    """In shards of 512, the usual size; at 1024 tokens barely three samples share a sequence."""
    lengths = instruction_lengths(8192, tokens_per_word, most_rounds)
    packing = Packing(np.arange(8192) // 512, lengths, context)
    assert packing.fill >= least


@pytest.mark.parametrize("samples", [50, 100, 200, 300])
@pytest.mark.parametrize("context", [2048, 4096])
def test_a_small_data_set_takes_at_most_one_sequence_more_than_its_tokens_fill(samples, context):
    lengths = instruction_lengths(samples, 1.4, 15)
    packing = Packing(np.zeros(samples, int), lengths, context)
    assert packing.packs <= -(-lengths.sum() // context) + 1
