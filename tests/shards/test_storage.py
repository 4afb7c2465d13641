"""One interface for files and for a real S3 server, and one sentence for each way that a store can refuse."""

import pickle

import pytest

from shards.storage import MissingObject, StorageError, Store, local_folder


@pytest.fixture(params=["file", "s3"])
def store(request, tmp_path):
    if request.param == "file":
        return Store(str(tmp_path / "files"))
    return Store(f"{request.getfixturevalue('s3')}/prefix")


def test_what_is_put_is_there(store, tmp_path):
    store.put("a/b.bin", b"0123456789")
    (tmp_path / "local").write_bytes(b"upload")
    store.upload(tmp_path / "local", "c.bin")
    assert store.get("a/b.bin") == b"0123456789"
    assert store.get_range("a/b.bin", 3, 4) == b"3456"
    assert store.list() == ["a/b.bin", "c.bin"]
    assert store.list("a") == ["a/b.bin"]
    assert store.child("a").list() == ["b.bin"]
    assert (store.exists("c.bin"), store.exists("d.bin"), store.size("c.bin")) == (True, False, 6)
    store.download("c.bin", tmp_path / "deep" / "copy")
    assert (tmp_path / "deep" / "copy").read_bytes() == b"upload"


def test_objects_are_replaced_and_deleted(store):
    store.put("a", b"old")
    store.put("a", b"new")
    assert store.get("a") == b"new"
    store.delete("a")
    store.delete("a")
    assert store.list() == []


def test_a_store_survives_pickling(store):
    store.put("a", b"1")
    assert pickle.loads(pickle.dumps(store)).get("a") == b"1"


def test_an_absent_object_is_named(store):
    for ask in (store.get, store.size, lambda name: store.get_range(name, 0, 1)):
        with pytest.raises(MissingObject, match=r"missing.bin: no such object; check the URI"):
            ask("missing.bin")


def test_a_folder_is_no_object(store):
    store.put("folder/a", b"1")
    assert not store.exists("folder")
    with pytest.raises(MissingObject, match="folder: no such object"):
        store.size("folder")


def test_a_folder_is_deleted_with_all_that_is_in_it(store):
    store.put("folder/deep/a", b"1")
    store.put("kept", b"2")
    store.delete_folder("folder")
    store.delete_folder("folder")
    assert store.list() == ["kept"]


def test_an_empty_object_and_an_empty_range_are_had(store, tmp_path):
    store.put("empty", b"")
    assert (store.get("empty"), store.get_range("empty", 0, 0), store.size("empty")) == (b"", b"", 0)
    store.download("empty", tmp_path / "empty")
    assert (tmp_path / "empty").read_bytes() == b""


def test_a_range_beyond_the_end_is_an_error(store):
    store.put("a", b"0123")
    with pytest.raises(StorageError, match="expected 10 bytes from byte 2, found 2"):
        store.get_range("a", 2, 10)


def test_wrong_keys_are_said_without_being_shown(s3, monkeypatch):
    Store(f"{s3}/x").put("a", b"1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    with pytest.raises(StorageError, match="the store refused the request .*check AWS_ACCESS_KEY_ID") as failure:
        Store(f"{s3}/y").get("a")
    assert "wrong-secret" not in str(failure.value)


def test_a_profile_that_is_not_there_is_named(s3, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StorageError, match="the settings of S3 .*nobody.*; check AWS"):
        Store(f"{s3}/x")


def test_a_bucket_that_is_not_there_is_named(s3):
    with pytest.raises(MissingObject, match="s3://no-such-bucket/x/a: the bucket does not exist"):
        Store("s3://no-such-bucket/x").get("a")


@pytest.mark.parametrize(
    ("uri", "complaint"),
    [
        ("ftpx://host/path", "scheme 'ftpx' is not available"),
        ("s3://", "expected a bucket or a folder"),
        ("file://relative/path", "expected an absolute path"),
    ],
)
def test_a_bad_uri_is_refused(uri, complaint):
    with pytest.raises(StorageError, match=complaint):
        Store(uri)


def test_a_folder_of_a_store_is_had_locally(store):
    store.put("model/config.json", b"{}")
    folder = local_folder(store.uri_of("model"))
    assert (folder / "config.json").read_bytes() == b"{}"
    with pytest.raises(StorageError, match="expected a folder with files, found nothing"):
        local_folder(store.uri_of("nothing"))
