"""A loader over a bad network and a bad server: every batch as undisturbed, or one clear sentence; nothing lost, nothing twice.

Every request is a real one, by way of the proxy to a real S3 server, over several hundred small ECGs. Requests are made small,
so that an epoch takes very many of them.
"""

import errno
import logging
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest

from cluster.local import object_store
from shards import cache, reader
from shards.cache import CacheConfig, ShardCache
from shards.dataset import ShardSet
from shards.loader import EcgLoader, EcgWindow, LoaderConfig
from shards.order import OrderConfig
from shards.reader import DamagedSampleError, SampleReader
from shards.storage import Patience, StorageError, Store
from tests.shards.faults.proxy import Counts, Fault, Plan, faulty
from tests.shards.reading import expected_keys, take
from tests.shards.small_sets import build_small_set

RECORDS = 300
TRAINING = LoaderConfig(OrderConfig(global_batch=20, lanes=4, block=16), connections=3)
WINDOW = EcgWindow(0.4)
CHUNK = 8192
PATIENT = Patience(deadline_s=120, attempt_s=60, first_wait_s=0.01, longest_wait_s=0.1)
WATCHFUL = Patience(deadline_s=120, attempt_s=0.3, first_wait_s=0.01, longest_wait_s=0.1)
SHORT = Patience(deadline_s=1, attempt_s=0.3, first_wait_s=0.02, longest_wait_s=0.2)
READING_THREADS = ("sample-stream", "shard-range")
PASSING = [
    *(Fault.SERVER_ERROR, Fault.SLOW_DOWN, Fault.HANG, Fault.DRIP, Fault.RESET, Fault.CUT, Fault.SHORT),
    *(Fault.LOST_REPLY, Fault.CORRUPT),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The data set in a folder of this machine and on a server behind the proxy, and what reading from the folder gives."""
    folder = tmp_path_factory.mktemp("site")
    build_small_set(folder / "set", RECORDS, 40)
    shutil.copytree(folder / "set", folder / "s3" / "ecgchat" / "set")
    local = ShardSet.open(str(folder / "set")).select("train")
    loader = EcgLoader(local, TRAINING, WINDOW)
    with object_store.serve(folder / "s3") as server, mock.patch.dict(os.environ, server.environment), faulty() as proxy:
        yield SimpleNamespace(
            folder=folder,
            server=server,
            proxy=proxy,
            local=local,
            batches=loader.batches,
            undisturbed=take(loader, 2 * loader.batches),
        )


@pytest.fixture
def proxy(site, monkeypatch):
    """Before the server: no faults, nothing counted yet, small requests."""
    monkeypatch.setattr(reader, "REQUEST_BYTES", 10_000)
    monkeypatch.setattr(cache, "_of_process", lambda folder, limit: ShardCache(folder, limit, CHUNK))
    site.proxy.plan, site.proxy.counts, site.proxy.upstream = Plan(), Counts(), site.server.environment["AWS_ENDPOINT_URL"]
    site.proxy.listen()
    return site.proxy


def remote(patience=PATIENT, name="set") -> ShardSet:
    return ShardSet.open(f"s3://ecgchat/{name}", patience).select("train")


def training(**changes) -> LoaderConfig:
    return LoaderConfig(**{**vars(TRAINING), **changes})


def assert_same(found, expected):
    assert [batch.keys for batch in found] == [batch.keys for batch in expected]
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one.ecg, other.ecg)
        assert one.descriptions == other.descriptions
        assert one.position == other.position


def every_tenth(fault) -> Plan:
    return Plan(lambda number: fault if number % 10 == 0 else None, {"GET"})


def reading_threads(before):
    return [thread for thread in set(threading.enumerate()) - before if thread.name.startswith(READING_THREADS)]


def hand_out(server, path):
    """Write the keys of a server to the file that keys are read from."""
    keys = [f"{name.lower()} = {server.environment[name]}" for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
    path.write_text("\n".join(["[default]", *keys, ""]))


@pytest.fixture
def keys(site, proxy, tmp_path, monkeypatch):
    """The file that keys are read from, and from nowhere else; those of the server are in it."""
    path = tmp_path / "keys"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    hand_out(site.server, path)
    return path


# --- what passes is not seen


@pytest.mark.parametrize("fault", PASSING)
def test_two_epochs_with_a_tenth_of_all_requests_at_fault_are_as_from_the_local_copy(fault, site, proxy, monkeypatch):
    monkeypatch.setattr(reader, "REREADS", 9)  # a tenth of all replies: three wrong ones in a row would come to pass
    data = remote(WATCHFUL if fault in (Fault.HANG, Fault.DRIP) else PATIENT)
    proxy.plan, proxy.counts = every_tenth(fault), Counts()
    assert_same(take(EcgLoader(data, TRAINING, WINDOW), 2 * site.batches), site.undisturbed)
    assert proxy.counts.faults[fault] >= proxy.counts.requests["GET"] // 10 > 15, proxy.counts


def test_two_epochs_with_connections_refused_every_few_batches_are_as_from_the_local_copy(site, proxy):
    batches = iter(EcgLoader(remote(), training(ahead=1), WINDOW))
    seen = []
    for number in range(2 * site.batches):
        seen.append(next(batches))
        if number % 5 == 0:
            asked = proxy.counts.requests["GET"]
            proxy.refuse()
            threading.Timer(0.1, proxy.listen).start()
    batches.close()
    assert_same(seen, site.undisturbed)
    assert proxy.counts.requests["GET"] > asked


def test_keys_that_expire_and_were_renewed_in_their_file_are_followed(site, proxy, keys, tmp_path):
    """The server behind the proxy gives way to one that knows other keys alone."""
    with object_store.serve(site.folder / "s3", log=tmp_path / "log") as other:
        batches = iter(EcgLoader(remote(), training(ahead=1), WINDOW))
        seen = []
        for number in range(2 * site.batches):
            seen.append(next(batches))
            if number == 5:
                hand_out(other, keys)
                proxy.upstream = other.environment["AWS_ENDPOINT_URL"]
        batches.close()
    assert_same(seen, site.undisturbed)


def test_a_server_that_stops_and_starts_again_in_the_middle_of_an_epoch_is_waited_for(site, proxy, keys, tmp_path):
    """It comes back at the same address, a little later and with other keys."""
    servers = [object_store.serve(site.folder / "s3", log=tmp_path / f"log-{number}") for number in range(2)]
    seen = []
    with servers[0] as first:
        hand_out(first, keys)
        proxy.upstream = first.environment["AWS_ENDPOINT_URL"]
        batches = iter(EcgLoader(remote(), TRAINING, WINDOW))
        seen += [next(batches) for _ in range(5)]
        asked = proxy.counts.requests["GET"]
    with ThreadPoolExecutor(1) as pool:
        rest = pool.submit(lambda: [next(batches) for _ in range(2 * site.batches - 5)])
        with servers[1] as second:
            hand_out(second, keys)
            proxy.upstream = second.environment["AWS_ENDPOINT_URL"]
            seen += rest.result()
            batches.close()
    assert_same(seen, site.undisturbed)
    assert proxy.counts.requests["GET"] > asked + 100


def test_ranks_killed_and_resumed_amid_all_faults_lose_nothing_and_see_nothing_twice(site, proxy, tmp_path, monkeypatch):
    """Each life has another number of ranks than the one before; some have the local cache, too small for all."""
    monkeypatch.setattr(reader, "REQUEST_BYTES", 1)
    data, alone = remote(WATCHFUL), EcgLoader(site.local, TRAINING, WINDOW)
    signals = {key: ecg for batch in site.undisturbed for key, ecg in zip(batch.keys, batch.ecg, strict=True)}
    rates = {**dict.fromkeys(PASSING, 0.012), Fault.HANG: 0.002, Fault.DRIP: 0.002, Fault.EXPIRED_TOKEN: 0.0005}
    proxy.plan, proxy.counts = Plan.at_random(11, rates, "GET", "HEAD"), Counts()
    lives = [(3, 25, False), (2, 10, True), (3, 15, True), (5, 20, False), (4, 10, True), (3, 35, False)]
    seen, state = [], alone.order.state(alone.start)
    for world_size, count, cached in lives:
        config = training(connections=2, cache=CacheConfig(str(tmp_path) if cached else None, limit_gb=0.001))
        start = alone.order.restore(state)
        loaders = [EcgLoader(data, config, WINDOW, rank, world_size, start) for rank in range(world_size)]
        with ThreadPoolExecutor(world_size) as pool:
            ranks = list(pool.map(take, loaders, [count] * world_size))
        for shares in zip(*ranks, strict=True):
            read = [(key, ecg) for share in shares for key, ecg in zip(share.keys, share.ecg, strict=True) if key]
            assert all(np.array_equal(ecg, signals[key]) for key, ecg in read)
            seen.append([key for key, _ in read])
        state = alone.order.state(ranks[0][-1].position)
    assert seen == expected_keys(alone, sum(count for _, count, _ in lives))
    assert sum(proxy.counts.requests.values()) > 2000
    assert set(proxy.counts.faults) >= {*PASSING}


# --- bytes that are not the index's


def test_a_body_that_was_damaged_on_its_way_is_fetched_again_and_reaches_no_batch(site, proxy):
    data = remote()
    proxy.plan, proxy.counts = Plan.listed(dict.fromkeys([1, 50, 51, 80], Fault.CORRUPT), "GET"), Counts()
    config = training(order=OrderConfig(global_batch=RECORDS, lanes=1, drop_tail=False))
    [batch] = take(EcgLoader(data, config, WINDOW), 1)
    assert_same([batch], take(EcgLoader(site.local, config, WINDOW), 1))
    assert (proxy.counts.faults[Fault.CORRUPT], batch.damaged) == (4, [])


def test_a_damaged_body_that_came_into_the_cache_is_forgotten_and_fetched_again(site, proxy, tmp_path):
    data, config = remote(), training(cache=CacheConfig(str(tmp_path)))
    proxy.plan, proxy.counts = Plan.listed(dict.fromkeys([3, 20, 50], Fault.CORRUPT), "GET"), Counts()
    asked = []
    for _ in range(3):
        assert_same(take(EcgLoader(data, config, WINDOW), site.batches), site.undisturbed[: site.batches])
        asked.append(proxy.counts.requests["GET"])
    assert proxy.counts.faults[Fault.CORRUPT] == 3
    assert asked[2] == asked[1]


@pytest.mark.parametrize("cached", [False, True])
def test_a_sample_that_is_damaged_at_rest_is_named_after_few_requests_or_left_out(cached, site, proxy, tmp_path):
    for name in Store(str(site.folder / "set")).list():
        Store("s3://ecgchat/hurt", PATIENT).put(name, (site.folder / "set" / name).read_bytes())
    row = site.local.index.to_pylist()[137]
    body = bytearray((site.folder / "set" / row["shard"]).read_bytes())
    body[row["offset"] + 700] ^= 0xFF
    Store("s3://ecgchat/hurt", PATIENT).put(row["shard"], bytes(body))
    data, folder = remote(name="hurt"), str(tmp_path) if cached else None
    proxy.counts = Counts()
    sentence = f"s3://ecgchat/hurt/{row['shard']}: the bytes of sample {row['key']} are not those that the index was made for"
    with pytest.raises(DamagedSampleError, match=sentence):
        take(EcgLoader(data, training(cache=CacheConfig(folder)), WINDOW), site.batches)
    assert proxy.counts.requests["GET"] <= RECORDS + reader.REREADS
    tolerant = training(cache=CacheConfig(folder), tolerated_damage=1)
    batches = take(EcgLoader(data, tolerant, WINDOW), site.batches)
    expected = [[key for key in batch.keys if key != row["key"]] for batch in site.undisturbed[: site.batches]]
    assert [[key for key in batch.keys if key] for batch in batches] == expected
    [said] = [said for batch in batches for said in batch.damaged]
    assert said.startswith(sentence)


# --- a store that is gone


@pytest.mark.parametrize("gone", [Fault.HANG, Fault.SLOW_DOWN, None])
def test_a_store_that_is_gone_for_good_is_one_sentence_and_leaves_no_thread(gone, site, proxy):
    """However many ranges wait, its patience is spent once, and not by one after the other."""
    data, before = remote(SHORT), set(threading.enumerate())
    batches = iter(EcgLoader(data, training(connections=2), WINDOW))
    next(batches)
    if gone:
        proxy.plan, proxy.counts = Plan.always(gone), Counts()
    else:
        proxy.refuse()
    with pytest.raises(StorageError, match=r"train-\d+.tar: the request failed in .* over .* s, at last by") as failure:
        list(batches)
    assert "\n" not in str(failure.value)
    assert reading_threads(before) == []
    if gone is Fault.HANG:
        # Attempts of 0.3 s for 1 s, by 2 connections.
        assert proxy.counts.requests["GET"] <= 2 * 4


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.SLOW_DOWN])
def test_an_iterator_is_closed_while_its_next_batch_is_waited_for(fault, site, proxy, monkeypatch):
    monkeypatch.setattr(reader, "REQUEST_BYTES", 1)
    data = remote(Patience(deadline_s=3000, attempt_s=0.5, first_wait_s=1000, longest_wait_s=1000))
    # One request after the other, 20 for each batch: those for the fourth batch fail.
    config = training(connections=1, order=OrderConfig(global_batch=20, lanes=1, block=20))
    proxy.plan, proxy.counts, before = (
        Plan(lambda number: fault if number > 60 else None, {"GET"}),
        Counts(),
        set(threading.enumerate()),
    )
    batches = iter(EcgLoader(data, config, WINDOW))
    for _ in range(3):
        next(batches)
    assert reading_threads(before) != []
    batches.close()
    assert reading_threads(before) == []


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.SLOW_DOWN])
def test_a_reader_that_is_closed_waits_for_no_further_attempt(fault, site, proxy):
    """The patience would last longer than any test."""
    data = remote(Patience(deadline_s=3000, attempt_s=0.5, first_wait_s=1000, longest_wait_s=1000))
    proxy.plan, proxy.counts, before = Plan.always(fault), Counts(), set(threading.enumerate())
    table = EcgLoader(data, TRAINING, WINDOW).table
    asking = SampleReader(table, connections=4)
    fetched = asking.fetch(np.arange(20))
    closing = threading.Thread(target=asking.close, daemon=True)
    closing.start()
    closing.join(60)
    assert not closing.is_alive()
    assert reading_threads(before) == []
    assert proxy.counts.requests["GET"] <= 4
    with pytest.raises(StorageError, match="the request failed in 1 attempt over"):
        fetched.read(0)


def test_expired_keys_that_nobody_renews_are_said_in_a_sentence_without_them(site, proxy, keys, tmp_path):
    with object_store.serve(site.folder / "s3", log=tmp_path / "log") as other:
        before = set(threading.enumerate())
        batches = iter(EcgLoader(remote(), training(connections=2), WINDOW))
        next(batches)
        proxy.upstream, proxy.counts = other.environment["AWS_ENDPOINT_URL"], Counts()
        with pytest.raises(StorageError, match="the store refused the request .*, or the file of credentials") as failure:
            list(batches)
    said = [str(failure.value), repr(failure.value.__cause__), repr(failure.value.__cause__.__cause__)]
    secrets = [
        server.environment[f"AWS_{name}"] for server in (site.server, other) for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")
    ]
    assert not [key for key in secrets for sentence in said if key in sentence]
    assert "\n" not in said[0]
    assert reading_threads(before) == []


# --- a cache whose disk is full


@pytest.fixture
def disk(monkeypatch):
    """`disk.left = 5`: so many times can room be had; without end until a test says so."""
    real, disk = os.posix_fallocate, SimpleNamespace(left=None)

    def reserve(*where):
        if disk.left is not None:
            disk.left -= 1
            if disk.left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*where)

    monkeypatch.setattr(os, "posix_fallocate", reserve)
    return disk


@pytest.mark.parametrize(
    ("limit_gb", "left", "sentence"),
    [(0.0003, None, "its 0.0003 GB are taken by shards in use"), (1.0, 30, "cannot be written (No space left on device)")],
)
def test_a_cache_without_room_is_read_past_and_said_in_one_sentence(
    limit_gb, left, sentence, site, proxy, disk, tmp_path, caplog
):
    disk.left = left
    data, config = remote(), training(cache=CacheConfig(str(tmp_path), limit_gb))
    with caplog.at_level(logging.WARNING, "shards"):
        assert_same(take(EcgLoader(data, config, WINDOW), 2 * site.batches), site.undisturbed)
    said = [record.getMessage() for record in caplog.records if record.name == cache.__name__]
    assert [sentence in one for one in said] == [True]
    kept = sum(path.stat().st_blocks for path in tmp_path.iterdir()) * 512
    assert CHUNK < kept < sum(shard["bytes"] for shard in data.manifest["shards"])
