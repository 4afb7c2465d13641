"""A store keeps its word over a bad network and a bad server: the right bytes, or one clear sentence before the deadline."""

import os
import pickle
import random
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.local import object_store
from shards import storage
from shards.storage import MissingObject, Patience, StorageError, Store
from tests.shards.faults.proxy import Counts, Fault, Plan, Proxy, faulty

BODY = random.Random(0).randbytes(300_000)
QUICK = Patience(deadline_s=60, attempt_s=20, first_wait_s=0.01, longest_wait_s=0.05)
WATCHFUL = Patience(deadline_s=60, attempt_s=1, least_rate=1e9, first_wait_s=0.01, longest_wait_s=0.05)
SHORT = Patience(deadline_s=1, attempt_s=0.3, least_rate=1e9, first_wait_s=0.02, longest_wait_s=0.2)
SPOILT_BODIES = [Fault.RESET, Fault.CUT, Fault.DRIP]
PASSING = [Fault.SERVER_ERROR, Fault.SLOW_DOWN, Fault.HANG, Fault.SHORT, Fault.LOST_REPLY, *SPOILT_BODIES]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with object_store.serve(tmp_path_factory.mktemp("s3")) as server, mock.patch.dict(os.environ, server.environment):
        yield server


@pytest.fixture(scope="module")
def lasting_proxy(server):
    with faulty() as proxy:
        yield proxy


@pytest.fixture
def proxy(server, lasting_proxy):
    """A proxy before the real server, with `prefix/a` on it; what came to pass is counted from here on."""
    lasting_proxy.plan = Plan()
    lasting_proxy.listen()
    store_of(server).put("a", BODY)
    lasting_proxy.counts = Counts()
    return lasting_proxy


def store_of(server, patience=QUICK) -> Store:
    return Store(f"{server.uri}/prefix", patience)


def attempts_said(failure) -> int:
    return int(re.search(r"failed in (\d+) attempts?", str(failure.value)).group(1))


@pytest.mark.parametrize("fault", PASSING)
def test_a_range_is_right_at_the_second_attempt_after(fault, server, proxy: Proxy):
    proxy.plan = Plan.listed({1: fault}, "GET")
    patience = WATCHFUL if fault in (Fault.HANG, Fault.DRIP) else QUICK
    assert store_of(server, patience).get_range("a", 1000, 5000) == BODY[1000:6000]
    assert (proxy.counts.requests["GET"], proxy.counts.faults[fault]) == (2, 1)


@pytest.mark.parametrize("fault", SPOILT_BODIES)
def test_a_whole_object_and_a_download_are_right_after(fault, server, proxy, tmp_path):
    store = store_of(server, WATCHFUL)
    proxy.plan = Plan.listed({1: fault}, "GET")
    assert store.get("a") == BODY
    proxy.plan = Plan.listed({1: fault}, "GET")
    store.download("a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == BODY
    assert (proxy.counts.requests["GET"], proxy.counts.faults[fault]) == (4, 2)


@pytest.mark.parametrize(
    ("kind", "ask", "answer"),
    [
        ("HEAD", lambda store: store.size("a"), len(BODY)),
        ("LIST", lambda store: store.list("folder"), ["folder/b"]),
        ("PUT", lambda store: store.put("a", BODY), None),
        ("DELETE", lambda store: store.delete("absent"), None),
        ("POST", lambda store: store.delete_folder("folder"), None),
    ],
)
@pytest.mark.parametrize("fault", [Fault.SLOW_DOWN, Fault.HANG])
def test_every_kind_of_request_is_made_again(kind, ask, answer, fault, server, proxy):
    store_of(server).put("folder/b", b"b")
    proxy.counts, proxy.plan = Counts(), Plan.listed({1: fault}, kind)
    assert ask(store_of(server, WATCHFUL)) == answer
    assert (proxy.counts.requests[kind], proxy.counts.faults[fault]) == (2, 1)


@pytest.mark.parametrize("fault", PASSING)
def test_at_the_deadline_one_sentence_says_how_often_it_was_tried(fault, server, proxy):
    proxy.plan = Plan.always(fault, "GET")
    with pytest.raises(
        StorageError, match="prefix/a: the request failed in .* over .* s, at last by .*; check AWS_ENDPOINT_URL"
    ) as failure:
        store_of(server, SHORT).get_range("a", 0, 5000)
    assert "\n" not in str(failure.value)
    assert attempts_said(failure) == proxy.counts.requests["GET"] > 1


def test_no_client_tries_again_behind_our_back(server, proxy):
    once = Patience(deadline_s=30, attempt_s=30, first_wait_s=100, longest_wait_s=100)
    for kind, ask in {
        "GET": lambda store: store.get_range("a", 0, 10),
        "HEAD": lambda store: store.size("a"),
        "LIST": lambda store: store.list(),
        "PUT": lambda store: store.put("a", BODY),
    }.items():
        proxy.plan = Plan.always(Fault.SLOW_DOWN, kind)
        with pytest.raises(StorageError, match="failed in 1 attempt over"):
            ask(store_of(server, once))
        assert proxy.counts.requests[kind] == 1


def test_whether_an_object_exists_is_not_answered_by_a_store_that_does_not_answer(server, proxy):
    proxy.plan = Plan.always(Fault.SERVER_ERROR, "HEAD")
    with pytest.raises(StorageError, match="the request failed in"):
        store_of(server, SHORT).exists("a")


def test_what_is_absent_is_said_at_once(server, proxy):
    with pytest.raises(MissingObject, match="prefix/b: no such object"):
        store_of(server).get_range("b", 0, 10)
    with pytest.raises(MissingObject, match="no-bucket/b: the bucket does not exist"):
        Store("s3://no-bucket", QUICK).get("b")
    assert proxy.counts.requests["GET"] == 2


def test_an_object_that_is_really_shorter_is_asked_for_once(server, proxy):
    with pytest.raises(StorageError, match="expected 10 bytes from byte 299995, found 5") as failure:
        store_of(server).get_range("a", len(BODY) - 5, 10)
    assert not isinstance(failure.value, MissingObject)
    with pytest.raises(StorageError, match="expected 10 bytes from byte 400000, found 0"):
        store_of(server).get_range("a", 400_000, 10)
    assert proxy.counts.requests["GET"] == 2


def test_too_few_rights_are_said_after_the_keys_were_read_again_once(server, proxy):
    proxy.plan = Plan.always(Fault.ACCESS_DENIED)
    with pytest.raises(StorageError, match="the store refused the request .*check AWS_ACCESS_KEY_ID"):
        store_of(server).get("a")
    assert proxy.counts.requests["GET"] == 2


def test_an_expired_token_that_was_renewed_is_no_failure(server, proxy):
    proxy.plan = Plan.listed({1: Fault.EXPIRED_TOKEN}, "GET", "PUT")
    store = store_of(server)
    assert store.get_range("a", 0, 10) == BODY[:10]
    store.put("a", BODY)
    assert proxy.counts.faults[Fault.EXPIRED_TOKEN] == 2


def test_threads_that_meet_expired_keys_together_all_go_on(server, proxy):
    proxy.plan = Plan.listed(dict.fromkeys(range(1, 5), Fault.EXPIRED_TOKEN), "GET")
    store, together = store_of(server), threading.Barrier(4)

    def read(place):
        together.wait()
        return store.get_range("a", place, 10) == BODY[place : place + 10]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(4)))


def test_a_server_that_restarts_with_other_keys_is_followed_by_way_of_the_file(tmp_path, monkeypatch):
    credentials = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)

    def hand_out(environment):
        keys = {name: environment[name.upper()] for name in ("aws_access_key_id", "aws_secret_access_key")}
        credentials.write_text("[default]\n" + "".join(f"{name} = {value}\n" for name, value in keys.items()))
        return keys

    with object_store.serve(tmp_path / "s3") as first, faulty(first.environment) as proxy:
        hand_out(first.environment)
        store = store_of(first)
        store.put("a", BODY)
        proxy.refuse()
        with object_store.serve(tmp_path / "s3") as second:
            keys = hand_out(second.environment)
            proxy.upstream = second.environment["AWS_ENDPOINT_URL"]
            threading.Timer(0.5, proxy.listen).start()
            assert store.get_range("a", 0, 10) == BODY[:10]
            store.put("b", b"b")
            assert store.get("b") == b"b"
        credentials.write_text("[default]\naws_access_key_id = AKIAWRONG\naws_secret_access_key = wrong-secret\n")
        proxy.upstream = first.environment["AWS_ENDPOINT_URL"]
        with pytest.raises(StorageError, match="the store refused the request .* or the file of credentials") as failure:
            store.get("a")
    said = str(failure.value) + repr(failure.value.__cause__)
    assert not [key for key in (*keys.values(), "AKIAWRONG", "wrong-secret") if key in said]


def test_connections_that_are_refused_for_a_while_are_waited_for(server, proxy):
    store = store_of(server)
    assert store.get_range("a", 0, 10) == BODY[:10]
    proxy.refuse()
    threading.Timer(0.5, proxy.listen).start()
    assert store.get_range("a", 0, 10) == BODY[:10]
    proxy.refuse()
    with pytest.raises(StorageError, match="failed in .* attempts .*check AWS_ENDPOINT_URL"):
        store_of(server, SHORT).get_range("a", 0, 10)


def test_flipped_bytes_pass_unseen_and_are_for_checksums_to_find(server, proxy):
    proxy.plan = Plan.listed({1: Fault.CORRUPT}, "GET")
    store = store_of(server)
    assert store.get_range("a", 0, 100) != BODY[:100]
    assert store.get_range("a", 0, 100) == BODY[:100]


def test_a_large_body_has_the_time_that_its_size_allows(server, proxy):
    body = bytes(16 * 2**20)
    proxy.plan = Plan.always(Fault.SLOW_INTAKE, "PUT")
    store_of(server, Patience(deadline_s=10, attempt_s=1, least_rate=1e6)).put("slow", body)
    assert proxy.counts.requests["PUT"] == 1
    with pytest.raises(StorageError, match="no whole reply within"):
        store_of(server, Patience(deadline_s=1.5, attempt_s=1, least_rate=1e12)).put("slow", body)


class TestPartsOfALargeObject:
    @pytest.fixture(autouse=True)
    def small_parts(self, monkeypatch):
        monkeypatch.setattr(storage, "PART_BYTES", 100_000)

    def test_only_the_part_that_failed_is_sent_again(self, server, proxy, tmp_path):
        (tmp_path / "large").write_bytes(BODY[:250_000])
        for ask in (lambda s: s.upload(tmp_path / "large", "large"), lambda s: s.put("large", BODY[:250_000])):
            proxy.counts, proxy.plan = Counts(), Plan.listed({2: Fault.SLOW_DOWN, 3: Fault.LOST_REPLY}, "PUT")
            ask(store_of(server))
            assert proxy.counts.requests == {"POST": 2, "PUT": 5}
            assert store_of(server).get("large") == BODY[:250_000]

    def test_only_the_part_that_failed_is_fetched_again(self, server, proxy, tmp_path):
        proxy.plan = Plan.listed({2: Fault.RESET}, "GET")
        store_of(server).download("a", tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == BODY
        assert proxy.counts.requests["GET"] == 4

    def test_a_lost_reply_to_the_last_request_is_no_failure(self, server, proxy):
        proxy.plan = Plan.listed({2: Fault.LOST_REPLY}, "POST")
        store_of(server).put("large", BODY)
        assert store_of(server).get("large") == BODY

    def test_an_upload_that_fails_leaves_the_old_object_and_takes_its_parts_away(self, server, proxy):
        store_of(server).put("large", b"old")
        proxy.counts, proxy.plan = Counts(), Plan.always(Fault.SERVER_ERROR, "PUT")
        with pytest.raises(StorageError, match="the request failed in"):
            store_of(server, SHORT).put("large", BODY)
        assert (proxy.counts.requests["DELETE"], store_of(server).get("large")) == (1, b"old")


def test_hundreds_of_ranges_by_four_threads_with_a_tenth_of_faults_are_all_right(server, proxy):
    faults = [Fault.SERVER_ERROR, Fault.SLOW_DOWN, Fault.RESET, Fault.CUT, Fault.SHORT, Fault.LOST_REPLY]
    proxy.plan = Plan.at_random(7, {Fault.HANG: 0.003, Fault.EXPIRED_TOKEN: 0.002, **dict.fromkeys(faults, 0.017)})
    store = store_of(server, WATCHFUL)

    def right(number):
        draw = random.Random(number)
        length = draw.randrange(1, 20_000)
        start = draw.randrange(len(BODY) - length)
        return store.get_range("a", start, length) == BODY[start : start + length]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(right, range(500)))
    assert sum(proxy.counts.faults.values()) > 40


def test_patience_goes_with_pickled_stores_and_with_folders(tmp_path):
    store = Store(str(tmp_path), SHORT)
    assert (pickle.loads(pickle.dumps(store)).patience, store.child("x").patience) == (SHORT, SHORT)
    assert Store(str(tmp_path)).patience == Patience()


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"deadline_s": 0}, "data.loader.patience.deadline_s: expected a number above 0, found 0"),
        ({"least_rate": float("nan")}, "data.loader.patience.least_rate: expected a number above 0, found nan"),
        ({"deadline_s": 10, "attempt_s": 20}, "data.loader.patience.attempt_s: expected at most deadline_s (10), found 20"),
    ],
)
def test_patience_that_makes_no_sense_is_refused(fields, complaint):
    with pytest.raises(StorageError, match=re.escape(complaint)):
        Patience(**fields)


@given(failures=st.integers(1, 10_000), first=st.floats(0.001, 10), longest=st.floats(0.001, 100))
def test_waits_grow_up_to_the_longest_and_are_never_zero(failures, first, longest):
    wait = Patience(first_wait_s=first, longest_wait_s=longest).wait(failures)
    assert 0 < wait <= longest
    assert wait <= first * 2.0 ** min(failures - 1, 60)
