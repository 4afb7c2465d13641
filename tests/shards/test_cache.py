"""A disk cache that many processes share: the right bytes, each fetched once, within its limit, whoever dies meanwhile."""

import errno
import fcntl
import hashlib
import multiprocessing
import os
import random
import resource
import shutil
import signal
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards import cache as cache_module
from shards import file_locks
from shards.cache import CacheConfig, CacheError, ShardCache
from shards.storage import StorageError

CHUNK = 16 * 1024
PLENTY = 10**9
ROOM = 8 * CHUNK
"""A shard of the tests takes its 7 chunks, and below one chunk more for what tells of them."""


class Shard:
    """A shard in its store, which notes what is fetched from it: in memory, and in a file where processes share it."""

    def __init__(self, seed=0, size=7 * CHUNK - 100, notes=None):
        self.body = np.random.default_rng(seed).bytes(size)
        self.sha256 = hashlib.sha256(self.body).hexdigest()
        self.fetched = []
        self.notes = notes

    def fetch(self, start, length):
        self.fetched.append((start, length))
        if self.notes:
            with self.notes.open("a") as file:
                file.write(f"{start} {length}\n")
        return self.body[start : start + length]

    def open(self, cache):
        return closing(cache.open(self.sha256, len(self.body)))

    def ensure(self, cached, start=0, stop=None):
        """Have it in the cache and compare what the cache reads, or say that there is no room."""
        stop = len(self.body) if stop is None else stop
        if not cached.ensure(start, stop, self.fetch):
            return False
        assert os.pread(cached.fd, stop - start, start) == self.body[start:stop]
        return True

    def keep(self, cache):
        """Fetch all that the cache lacks; the (start, length) that it lacked."""
        self.fetched.clear()
        with self.open(cache) as cached:
            assert self.ensure(cached)
        return list(self.fetched)

    def path(self, cache):
        return cache.folder / f"{self.sha256}.{cache.chunk_bytes}"

    def age(self, cache, seconds):
        """Have it used last that long ago."""
        used = self.path(cache).stat().st_mtime_ns - seconds * 10**9
        os.utime(self.path(cache), ns=(used, used))


@pytest.fixture
def cache(tmp_path):
    return ShardCache(tmp_path / "cache", PLENTY, CHUNK)


def later_job(cache, hours=1):
    """What a job makes of the same folder when all that is there now was used last hours ago."""
    for path in cache.folder.iterdir():
        used = path.stat().st_mtime_ns - hours * 3600 * 10**9
        os.utime(path, ns=(used, used))
    return ShardCache(cache.folder, cache.limit_bytes, CHUNK)


def started(function, *arguments):
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments, daemon=True)
    process.start()
    return process


def ended_well(*processes):
    for process in processes:
        process.join()
    return [process.exitcode for process in processes] == [0] * len(processes)


def taken(folder):
    return sum(path.stat().st_blocks * 512 for path in folder.iterdir())


# --- what is read, and what is fetched for it


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_ranges_are_the_shards_bytes_and_missing_chunks_are_fetched_once_in_runs(data):
    chunk = data.draw(st.integers(1, 9000), label="chunk")
    size = data.draw(st.integers(0, 40 * chunk), label="size")
    bounds = st.tuples(st.integers(0, size), st.integers(0, size)).map(sorted)
    shard, have = Shard(size, size), set()
    with tempfile.TemporaryDirectory() as folder, shard.open(ShardCache(Path(folder), PLENTY, chunk)) as cached:
        for start, stop in data.draw(st.lists(bounds, max_size=8), label="ranges"):
            shard.fetched.clear()
            assert shard.ensure(cached, start, stop)
            missing = [c for c in range(size // chunk + 1) if c * chunk < stop and (c + 1) * chunk > start and start < stop]
            missing = [c for c in missing if c not in have]
            runs = np.split(np.array(missing, int), np.flatnonzero(np.diff(missing) != 1) + 1) if missing else []
            whole = [(int(run[0]) * chunk, min(size, (int(run[-1]) + 1) * chunk)) for run in runs]
            assert shard.fetched == [(first, last - first) for first, last in whole]
            have.update(missing)


def test_one_fetch_is_of_a_bounded_size(cache, monkeypatch):
    monkeypatch.setattr(cache_module, "FETCH_BYTES", 3 * CHUNK)
    shard = Shard()
    assert shard.keep(cache) == [(0, 3 * CHUNK), (3 * CHUNK, 3 * CHUNK), (6 * CHUNK, CHUNK - 100)]


def test_what_is_there_is_found_by_whoever_opens_it_next(cache):
    shard = Shard()
    assert shard.keep(cache) == [(0, len(shard.body))]
    assert shard.keep(ShardCache(cache.folder, PLENTY, CHUNK)) == []


def test_what_another_has_fetched_meanwhile_is_found_by_a_shard_that_is_open(cache):
    shard = Shard()
    with shard.open(cache) as cached:
        shard.keep(cache)
        shard.fetched.clear()
        assert shard.ensure(cached)
    assert shard.fetched == []


def test_caches_of_another_chunk_size_do_not_take_one_anothers_word(cache):
    shard = Shard(size=3 * CHUNK)
    other = ShardCache(cache.folder, PLENTY, CHUNK + 500)
    with shard.open(cache) as cached, shard.open(other) as elsewhere:
        assert shard.ensure(cached, 0, CHUNK)
        assert shard.ensure(elsewhere, 0, CHUNK + 500)
    assert shard.fetched == [(0, CHUNK), (0, CHUNK + 500)]


@pytest.mark.parametrize("length", [0, 100, 7 * CHUNK + 8])
def test_a_file_of_another_length_is_made_anew(cache, length):
    shard = Shard()
    shard.path(cache).write_bytes(b"\2" * length)
    assert shard.keep(cache) == [(0, len(shard.body))]
    assert shard.path(cache).stat().st_size == len(shard.body) + 7


def test_ranges_outside_the_shard_are_refused(cache):
    shard = Shard(size=1000)
    with shard.open(cache) as cached:
        for start, stop in ((0, 1001), (-1, 5), (6, 5)):
            with pytest.raises(CacheError, match=f"bytes {start} to {stop} of a shard of 1000 bytes: index and manifest"):
                cached.ensure(start, stop, shard.fetch)
    assert shard.path(cache).stat().st_size == 1001


def test_a_name_that_is_no_digest_makes_no_file(cache):
    with pytest.raises(CacheError, match=r"expected a shard's sha256 of 64 hexadecimal digits, found '../../x'"):
        cache.open("../../x", 10)


def test_damaged_chunks_are_fetched_again_and_no_others(cache):
    shard = Shard()
    with shard.open(cache) as cached, shard.open(cache) as elsewhere:
        assert shard.ensure(cached)
        with shard.path(cache).open("r+b") as file:
            file.seek(2 * CHUNK)
            file.write(bytes(10))
        cached.forget(2 * CHUNK, 2 * CHUNK + 5)
        shard.fetched.clear()
        assert shard.ensure(elsewhere)
        assert shard.ensure(cached)
    assert shard.fetched == [(2 * CHUNK, CHUNK)]


def test_a_damaged_chunk_that_cannot_be_marked_is_not_read_any_more(cache, monkeypatch):
    shard = Shard()
    with shard.open(cache) as cached:
        assert shard.ensure(cached)
        monkeypatch.setattr(os, "pwrite", failing(errno.EROFS))
        cached.forget(0, 5)
        assert not shard.ensure(cached, 0, 5)


# --- many at once


def test_threads_of_several_processes_fetch_each_chunk_once(cache, tmp_path):
    shard = Shard(size=40 * CHUNK, notes=tmp_path / "notes")

    def fetch_slowly(start, length):
        time.sleep(0.002)  # so that others ask for the same meanwhile
        return shard.fetch(start, length)

    def work(seed):
        ranges = [sorted(random.Random(seed * 100 + i).sample(range(len(shard.body)), 2)) for i in range(40)]
        with shard.open(cache) as cached, ThreadPoolExecutor(4) as pool:
            assert all(pool.map(lambda bounds: cached.ensure(*bounds, fetch_slowly), ranges))
            assert shard.ensure(cached)

    assert ended_well(*(started(work, seed) for seed in range(3)))
    fetched = [tuple(map(int, line.split())) for line in (tmp_path / "notes").read_text().splitlines()]
    chunks = [chunk for start, length in fetched for chunk in range(start // CHUNK, (start + length) // CHUNK)]
    assert sorted(chunks) == list(range(40))


def test_threads_that_share_a_shard_fetch_different_chunks_at_the_same_time(cache):
    shard, together = Shard(), threading.Barrier(3)

    def fetch(start, length):
        together.wait(timeout=30)
        return shard.fetch(start, length)

    with shard.open(cache) as cached, ThreadPoolExecutor(3) as pool:
        assert all(pool.map(lambda chunk: cached.ensure(chunk * CHUNK, chunk * CHUNK + 1, fetch), (0, 2, 4)))


def test_whoever_waits_for_a_chunk_goes_on_when_the_fetching_process_is_killed(cache):
    shard = Shard()
    fetching, hold = multiprocessing.Event(), multiprocessing.Event()

    def fetch_for_ever(start, length):
        fetching.set()
        hold.wait()

    with shard.open(cache) as cached, ThreadPoolExecutor(1) as pool:
        process = started(cached.ensure, 0, len(shard.body), fetch_for_ever)
        assert fetching.wait(30)
        waiting = pool.submit(shard.ensure, cached)
        process.kill()
        assert waiting.result(timeout=30)


def test_a_chunk_forgotten_while_another_thread_looks_for_it_stays_forgotten(cache, monkeypatch):
    shard, read = Shard(), os.pread
    shard.keep(cache)
    shard.fetched.clear()
    with shard.open(cache) as cached, ThreadPoolExecutor(1) as pool:

        def read_and_then_forget(*arguments):
            monkeypatch.setattr(os, "pread", read)
            found = read(*arguments)
            wait([pool.submit(cached.forget, 0, 1)], timeout=0.1)
            return found

        monkeypatch.setattr(os, "pread", read_and_then_forget)
        cached.ensure(0, 1, shard.fetch)
        pool.submit(int).result()
        assert shard.ensure(cached, 0, 1)
    assert shard.fetched == [(0, CHUNK)]


@pytest.mark.parametrize("step", range(4))
@pytest.mark.parametrize("part", [0.0, 0.5, 1.0], ids=["before", "within", "after"])
def test_a_process_killed_at_any_write_leaves_nothing_wrong_and_nothing_locked(cache, step, part):
    shard = Shard()

    def die():
        write, writes = os.pwrite, iter(range(10))

        def pwrite(fd, body, offset):
            if next(writes) < step:
                return write(fd, body, offset)
            write(fd, bytes(body)[: int(len(body) * part)], offset)
            os.kill(os.getpid(), signal.SIGKILL)

        os.pwrite = pwrite
        with shard.open(cache) as cached:
            cached.ensure(0, 3 * CHUNK, shard.fetch)
            cached.ensure(5 * CHUNK, 6 * CHUNK, shard.fetch)

    process = started(die)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    shard.keep(cache)


# --- the limit


def test_the_limit_holds_at_every_moment_while_processes_work_on_more_than_fits(tmp_path):
    cache = ShardCache(tmp_path / "cache", 5 * ROOM, CHUNK)
    shards = [Shard(seed) for seed in range(12)]

    def work(seed):
        choice = random.Random(seed)
        kept = 0
        for _ in range(100):
            shard, job = choice.choice(shards), ShardCache(cache.folder, cache.limit_bytes, CHUNK)
            with shard.open(job) as cached:
                for _ in range(3):
                    kept += shard.ensure(cached, *sorted(choice.sample(range(len(shard.body)), 2)))
                    assert os.fstat(cached.fd).st_nlink == 1
        assert kept > 200

    processes = [started(work, seed) for seed in range(3)]
    most = 0
    while any(process.is_alive() for process in processes):
        with cache._alone():
            most = max(most, taken(cache.folder))
    assert ended_well(*processes)
    assert 3 * ROOM < most <= 5 * ROOM


def test_what_was_used_since_the_start_is_not_evicted_and_what_does_not_fit_is_read_from_its_store(tmp_path, caplog):
    cache = ShardCache(tmp_path / "cache", 2 * ROOM, CHUNK)
    first, second, third = (Shard(seed) for seed in range(3))
    first.keep(cache)
    second.keep(cache)
    with third.open(cache) as cached:
        assert not third.ensure(cached)
        assert not third.ensure(cached)
    assert [first.keep(cache), second.keep(cache), third.fetched] == [[], [], []]
    assert caplog.messages == [
        f"{cache.folder}: its 0.000262144 GB are taken by shards in use; what does not fit is read from its store in every "
        "epoch; raise data.loader.cache.limit_gb to keep more"
    ]


def test_where_half_of_the_shards_fit_half_of_the_reads_are_local_in_every_later_epoch(tmp_path):
    ranks = [ShardCache(tmp_path / "cache", 10 * ROOM, CHUNK) for _ in range(2)]
    shards = [Shard(seed) for seed in range(20)]
    for epoch in range(4):
        local = 0
        for turn, shard in enumerate(random.Random(epoch).sample(shards, len(shards))):
            shard.fetched.clear()
            with shard.open(ranks[turn % 2]) as cached:
                local += shard.ensure(cached) and not shard.fetched
        assert epoch == 0 or local >= 0.45 * len(shards)


def test_a_later_job_evicts_what_an_earlier_one_left(tmp_path):
    earlier = ShardCache(tmp_path / "cache", 2 * ROOM, CHUNK)
    left, used_by_both, new = (Shard(seed) for seed in range(3))
    used_by_both.keep(earlier)
    left.keep(earlier)
    later = later_job(earlier)
    assert used_by_both.keep(later) == []
    new.keep(later)
    assert [shard.path(later).exists() for shard in (left, used_by_both, new)] == [False, True, True]


def test_where_files_tell_their_last_use_coarsely_what_was_used_just_now_is_kept(tmp_path, monkeypatch):
    touch = os.utime

    def touch_coarsely(file):
        used = time.time_ns() // 10**13 * 10**13
        touch(file, ns=(used, used))

    monkeypatch.setattr(os, "utime", touch_coarsely)
    cache = ShardCache(tmp_path / "cache", 1 * ROOM, CHUNK)
    kept, other = Shard(1), Shard(2)
    kept.keep(cache)
    with other.open(cache) as cached:
        assert not other.ensure(cached)
    assert kept.keep(cache) == []


def test_the_least_recently_used_shard_of_earlier_jobs_is_evicted_first(tmp_path):
    cache = ShardCache(tmp_path / "cache", 3 * ROOM, CHUNK)
    oldest, second, third, new = (Shard(seed) for seed in range(4))
    for seconds, shard in ((30, oldest), (20, second), (10, third)):
        shard.keep(cache)
        shard.age(cache, seconds)
    with oldest.open(cache):
        pass
    new.keep(later_job(cache))
    assert [shard.path(cache).exists() for shard in (oldest, second, third, new)] == [True, False, True, True]


def test_a_shard_that_is_never_closed_counts_as_used_when_it_was_opened(cache):
    killed, other = Shard(1), Shard(2)
    for seconds, shard in ((20, killed), (10, other)):
        shard.keep(cache)
        shard.age(cache, seconds)
    with killed.open(cache):
        assert killed.path(cache).stat().st_mtime > other.path(cache).stat().st_mtime


def test_a_shard_counts_as_used_until_it_is_closed(tmp_path):
    cache = ShardCache(tmp_path / "cache", 2 * ROOM, CHUNK)
    long_open, other, new = (Shard(seed) for seed in range(3))
    with long_open.open(cache) as cached:
        assert long_open.ensure(cached)
        long_open.age(cache, 20)
        other.keep(cache)
        other.age(cache, 10)
    new.keep(later_job(cache))
    assert [shard.path(cache).exists() for shard in (long_open, other, new)] == [True, False, True]


def test_shards_that_are_open_are_not_evicted_however_long_ago_they_were_used(tmp_path):
    cache = ShardCache(tmp_path / "cache", 2 * ROOM, CHUNK)
    first, second, third = (Shard(seed) for seed in range(3))
    with first.open(cache) as one:
        with second.open(cache) as two:
            assert first.ensure(one)
            assert second.ensure(two)
            with third.open(later_job(cache)) as three:
                assert not third.ensure(three)
            assert third.fetched == []
        third.keep(later_job(cache))
        assert first.ensure(one)
    assert [shard.path(cache).exists() for shard in (first, second, third)] == [True, False, True]


def test_a_shard_in_use_by_another_process_is_kept_until_that_process_dies(tmp_path):
    cache = ShardCache(tmp_path / "cache", 1 * ROOM, CHUNK)
    theirs, ours = Shard(1), Shard(2)
    ready, hold = multiprocessing.Event(), multiprocessing.Event()

    def use():
        with theirs.open(cache) as cached:
            assert theirs.ensure(cached)
            ready.set()
            hold.wait()

    process = started(use)
    assert ready.wait(30)
    with ours.open(later_job(cache)) as cached:
        assert not ours.ensure(cached)
        process.kill()
        process.join()
        assert ours.ensure(cached)


def test_a_shard_is_not_evicted_between_its_opening_and_its_use(tmp_path, monkeypatch):
    cache = ShardCache(tmp_path / "cache", 1 * ROOM, CHUNK)
    shard, other, lock = Shard(1), Shard(2), fcntl.fcntl
    shard.keep(cache)
    with ThreadPoolExecutor(1) as pool, other.open(later_job(cache)) as another:

        def evict_and_then_lock(fd, command, request):
            if command == fcntl.F_OFD_SETLKW and request[8:16] == file_locks.IN_USE.to_bytes(8, "little"):
                monkeypatch.setattr(fcntl, "fcntl", lock)
                wait([pool.submit(other.ensure, another)], timeout=0.1)
            return lock(fd, command, request)

        monkeypatch.setattr(fcntl, "fcntl", evict_and_then_lock)
        with shard.open(cache) as cached:
            assert os.fstat(cached.fd).st_nlink == 1


@pytest.mark.parametrize(("spare", "fits"), [(0, False), (1, True)])
def test_a_file_may_grow_by_one_block_for_its_map_without_passing_the_limit(tmp_path, spare, fits):
    """A chunk takes its own blocks and one with the bytes that tell of chunks."""
    block = os.statvfs(tmp_path).f_frsize
    shard = Shard(size=4 * block)
    with shard.open(ShardCache(tmp_path / "cache", (4 + 1 + spare) * block, 4 * block)) as cached:
        assert shard.ensure(cached) == fits


def test_nothing_is_evicted_for_what_will_never_fit(cache):
    kept, other = Shard(1), Shard(2)
    kept.keep(cache)
    later_job(cache)
    with other.open(ShardCache(cache.folder, 2 * CHUNK, CHUNK)) as cached:
        assert not other.ensure(cached)
    assert kept.keep(cache) == []


def test_a_shard_removed_under_its_reader_and_made_anew_is_another_file(cache):
    shard = Shard()
    with shard.open(cache) as before:
        assert shard.ensure(before, 0, CHUNK)
        shard.path(cache).unlink()
        with shard.open(cache) as after:
            shard.fetched.clear()
            assert shard.ensure(after, CHUNK, 2 * CHUNK)
            assert shard.ensure(before, 0, 2 * CHUNK)
            assert shard.ensure(after, 0, 2 * CHUNK)
    assert shard.fetched == [(CHUNK, CHUNK), (CHUNK, CHUNK), (0, CHUNK)]


def test_files_of_others_in_the_folder_are_neither_counted_nor_removed(tmp_path):
    cache = ShardCache(tmp_path, 1 * ROOM, CHUNK)
    (tmp_path / "thesis.tex").write_bytes(bytes(3 * ROOM))
    Shard(1).keep(cache)
    Shard(2).keep(later_job(cache))
    assert (tmp_path / "thesis.tex").exists()
    assert not Shard(1).path(cache).exists()


# --- stores and disks that fail


def test_what_a_store_raises_goes_up_and_takes_room_once(tmp_path):
    cache = ShardCache(tmp_path / "cache", 1 * ROOM, CHUNK)
    shard = Shard()

    def refuse(start, length):
        raise StorageError("the store does not answer")

    with shard.open(cache) as cached:
        for _ in range(3):
            with pytest.raises(StorageError, match="the store does not answer"):
                cached.ensure(0, len(shard.body), refuse)
        assert shard.ensure(cached)


def test_a_store_that_gives_too_little_is_not_believed(cache):
    shard = Shard()
    with shard.open(cache) as cached:
        with pytest.raises(CacheError, match="expected 16384 bytes of a shard from byte 0, fetched 10"):
            cached.ensure(0, 10, lambda start, length: bytes(10))
        assert shard.ensure(cached)


def failing(number):
    def fail(*arguments):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite"])
def test_a_full_disk_is_said_once_and_what_is_there_stays(cache, monkeypatch, caplog, call):
    shard, other = Shard(1), Shard(2)
    with shard.open(cache) as cached:
        assert shard.ensure(cached, 0, CHUNK)
        shard.fetched.clear()
        with monkeypatch.context() as full:
            full.setattr(os, call, failing(errno.ENOSPC))
            assert not shard.ensure(cached)
            assert not shard.ensure(cached)
            assert shard.ensure(cached, 0, CHUNK)
            with other.open(cache) as another:
                assert not other.ensure(another)
        assert shard.fetched == []
        assert shard.ensure(cached)
    [sentence] = caplog.messages
    assert sentence.startswith(f"data.loader.cache.folder: {cache.folder} cannot be written (No space left on device)")


def test_a_disk_with_less_room_than_asked_for_keeps_its_last_blocks(cache, monkeypatch):
    shard = Shard()
    real = os.fstatvfs(0)
    nearly_full = os.statvfs_result((real.f_bsize, 4096, 1000, 3, 3, *tuple(real)[5:]))
    monkeypatch.setattr(os, "fstatvfs", lambda fd: nearly_full)
    with shard.open(cache) as cached:
        assert not shard.ensure(cached)
    assert taken(cache.folder) == 0


def test_a_disk_that_fills_up_within_a_write_leaves_the_chunk_missing(cache, monkeypatch):
    shard, write = Shard(), os.pwrite

    def half_then_full(fd, body, offset):
        if len(body) < CHUNK:
            return write(fd, body, offset)
        monkeypatch.setattr(os, "pwrite", failing(errno.ENOSPC))
        return write(fd, body[: CHUNK // 2], offset)

    with shard.open(cache) as cached:
        monkeypatch.setattr(os, "pwrite", half_then_full)
        assert not shard.ensure(cached)
        monkeypatch.setattr(os, "pwrite", write)
        assert shard.ensure(cached)


def test_a_disk_that_takes_only_parts_of_writes_is_written_on(cache, monkeypatch):
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, body, offset: write(fd, body[:1000], offset))
    Shard().keep(cache)


def test_a_file_cut_under_its_reader_is_filled_again(cache):
    shard = Shard()
    shard.keep(cache)
    with shard.open(cache) as cached:
        os.truncate(shard.path(cache), 0)
        assert shard.ensure(cached)


def test_a_file_size_limit_of_the_process_is_met_without_harm(cache):
    shard = Shard()

    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (CHUNK, CHUNK))
        with shard.open(cache) as cached:
            assert not shard.ensure(cached)

    assert ended_well(started(work))
    shard.keep(cache)


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL])
def test_where_blocks_cannot_be_reserved_they_are_written_before_anything_is_fetched(cache, monkeypatch, number):
    monkeypatch.setattr(os, "posix_fallocate", failing(number))
    shard = Shard()

    def fetch(start, length):
        assert taken(cache.folder) >= length
        return shard.fetch(start, length)

    with shard.open(cache) as cached:
        assert cached.ensure(0, len(shard.body), fetch)
        assert shard.ensure(cached)


def test_where_there_are_no_locks_the_bytes_are_right_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "fcntl", failing(errno.ENOLCK))
    cache = ShardCache(tmp_path / "cache", 2 * ROOM, CHUNK)
    for seed in (1, 2, 3, 1, 2, 3):
        Shard(seed).keep(later_job(cache))
    assert taken(cache.folder) <= 2 * ROOM


def test_a_folder_removed_under_a_run_is_said_once(cache, caplog):
    shutil.rmtree(cache.folder)
    for seed in (1, 2):
        with Shard(seed).open(cache) as cached:
            assert not cached.ensure(0, 10, Shard(seed).fetch)
            cached.forget(0, 10)
    [sentence] = caplog.messages
    assert f"{cache.folder} cannot be written (No such file or directory); what is not there yet is read from its" in sentence


def test_a_folder_that_takes_no_files_is_said_once(caplog):
    """No user, root among them, makes a file in /proc."""
    cache = ShardCache(Path("/proc"), PLENTY)
    for seed in (1, 2):
        with Shard(seed).open(cache) as cached:
            assert not Shard(seed).ensure(cached)
    [sentence] = caplog.messages
    assert sentence.startswith("data.loader.cache.folder: /proc cannot be written (")


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match=r"data.loader.cache.folder: .*/file/cache cannot be made \(Not a directory\); name a"):
        ShardCache(tmp_path / "file" / "cache", PLENTY)


def test_other_users_read_nothing(cache):
    shard = Shard()
    shard.keep(cache)
    assert (cache.folder.stat().st_mode & 0o777, shard.path(cache).stat().st_mode & 0o777) == (0o700, 0o600)


# --- its configuration


def test_without_a_folder_there_is_no_cache(tmp_path):
    assert CacheConfig().open() is None
    cache = CacheConfig(str(tmp_path / "cache"), 0.5).open()
    assert (cache.folder, cache.limit_bytes) == (tmp_path / "cache", 500_000_000)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"folder": ""}, "data.loader.cache.folder: expected a folder or null"),
        ({"limit_gb": 0.0}, "data.loader.cache.limit_gb: expected more than 0, found 0"),
        ({"limit_gb": float("nan")}, "data.loader.cache.limit_gb: expected more than 0, found nan"),
    ],
)
def test_a_bad_configuration_is_refused_by_its_flag(given, complaint):
    with pytest.raises(CacheError, match=complaint):
        CacheConfig(**given)
