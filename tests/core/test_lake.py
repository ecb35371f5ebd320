"""The lake: what is written comes back, encrypted at rest, under names that survive reruns and notice exchanges."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from core.handoffs import LakeFile
from core.lake import Lake, LakeError, content_digest, snapshot_id
from sync.names import BadName, Digest

DAY = 86_400.0


def lake_in(folder: Path, key: bytes | None = None) -> Lake:
    cipher = AESGCM(key or bytes(32))

    def wrap(plain: bytes) -> bytes:
        nonce = secrets.token_bytes(12)
        return nonce + cipher.encrypt(nonce, plain, b"lake")

    return Lake(folder, wrap, lambda wrapped: cipher.decrypt(wrapped[:12], wrapped[12:], b"lake"))


def readings(times: list[float], name: str = "readings-of-a-watch") -> pa.Table:
    values = [float(i) for i in range(len(times))]
    return pa.table({"ts": times, "x": pa.array(values, pa.float32()), "who": [name] * len(times)})


def test_rows_come_back_by_day_in_order_of_names(tmp_path: Path) -> None:
    lake = lake_in(tmp_path)
    files = lake.append("watch", readings([0.0, DAY + 1, 2.0, -1.0]), "ts", "batch")
    assert [Path(file.name).parent.name for file in files] == [
        "day=1969-12-31",
        "day=1970-01-01",
        "day=1970-01-02",
    ]
    assert [file.rows for file in files] == [1, 2, 1]
    back = lake.read("watch", [file.name for file in reversed(files)], ["x", "ts"])
    assert back.column_names == ["x", "ts"]
    assert back.column("ts").to_pylist() == [-1.0, 0.0, 2.0, DAY + 1]


def test_nothing_on_disk_is_readable_without_the_key(tmp_path: Path) -> None:
    (file,) = lake_in(tmp_path).append("watch", readings([0.0] * 50), "ts", "batch")
    path = tmp_path / "watch" / file.name
    stored = path.read_bytes()
    assert b"readings-of-a-watch" not in stored and b"who" not in stored
    with pytest.raises(OSError, match="encrypt"):
        pq.read_table(path)


def test_another_key_and_a_flipped_bit_do_not_open(tmp_path: Path) -> None:
    (file,) = lake_in(tmp_path).append("watch", readings([0.0] * 50), "ts", "batch")
    with pytest.raises(LakeError, match="does not open with this tenant's key"):
        lake_in(tmp_path, bytes(31) + b"\1").read("watch", [file.name], ["x"])
    path = tmp_path / "watch" / file.name
    stored = bytearray(path.read_bytes())
    stored[40] ^= 1
    path.write_bytes(stored)
    with pytest.raises(LakeError, match="restore it from the backup"):
        lake_in(tmp_path).read("watch", [file.name], ["ts", "x", "who"])


def test_exchanged_files_are_noticed(tmp_path: Path) -> None:
    lake = lake_in(tmp_path)
    (one,) = lake.append("watch", readings([0.0, 1.0]), "ts", "one")
    (two,) = lake.append("watch", readings([0.0, 2.0]), "ts", "two")
    os.replace(tmp_path / "watch" / two.name, tmp_path / "watch" / one.name)
    with pytest.raises(LakeError, match="is really watch/"):
        lake.read("watch", [one.name], ["x"])
    with pytest.raises(LakeError, match="is missing"):
        lake.read("watch", [two.name], ["x"])


def test_the_same_rows_of_the_same_batch_are_the_same_file(tmp_path: Path) -> None:
    lake = lake_in(tmp_path)
    first = lake.append("watch", readings([0.0, 1.0]), "ts", "one")
    assert lake.append("watch", readings([0.0, 1.0]), "ts", "one") == first
    (other,) = lake.append("watch", readings([0.0, 1.0]), "ts", "two")
    assert other.name != first[0].name and other.content == first[0].content


def test_what_a_crash_left_behind_is_not_read(tmp_path: Path) -> None:
    lake = lake_in(tmp_path)
    (kept,) = lake.append("watch", readings([0.0]), "ts", "one")
    lake.append("watch", readings([1.0, 2.0]), "ts", "never committed")
    (tmp_path / "watch" / "day=1970-01-01" / "half.parquet.tmp").write_bytes(b"PAR1 half a fi")
    assert lake.read("watch", [kept.name], ["ts"]).num_rows == 1


@pytest.mark.parametrize("name", ["../../etc/passwd", "day=1970-01-01/../x.parquet", "/abs", ""])
def test_a_name_never_leaves_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(LakeError):
        lake_in(tmp_path).read("watch", [name], ["x"])
    with pytest.raises(BadName):
        lake_in(tmp_path).append("../up", readings([0.0]), "ts", "batch")


def test_times_without_a_day_and_absent_columns_are_refused(tmp_path: Path) -> None:
    lake = lake_in(tmp_path)
    with pytest.raises(ValueError, match="years 1 to 9999"):
        lake.append("watch", readings([float("nan")]), "ts", "batch")
    (file,) = lake.append("watch", readings([0.0]), "ts", "batch")
    with pytest.raises(LakeError, match="no column y; it has ts, x, who"):
        lake.read("watch", [file.name], ["y"])
    with pytest.raises(ValueError, match="no files"):
        lake.read("watch", [], ["x"])


def test_a_type_may_widen_but_not_change(tmp_path: Path) -> None:
    lake = lake_in(tmp_path)
    (old,) = lake.append("watch", pa.table({"ts": [0.0], "x": [1]}), "ts", "old")
    (new,) = lake.append("watch", pa.table({"ts": [0.0], "x": [1.5]}), "ts", "new")
    (odd,) = lake.append("watch", pa.table({"ts": [0.0], "x": ["1"]}), "ts", "odd")
    assert sorted(lake.read("watch", [old.name, new.name], ["x"]).column("x").to_pylist()) == [1.0, 1.5]
    with pytest.raises(LakeError, match="under a new source"):
        lake.read("watch", [old.name, odd.name], ["x"])


def test_content_ignores_chunks_and_sees_nulls_values_and_names() -> None:
    whole = pa.table({"a": [1, 2, 3], "b": ["x", "", "z"]})
    parts = pa.concat_tables([whole.slice(0, 1), whole.slice(1)])
    assert content_digest(parts) == content_digest(whole)
    others = [
        pa.table({"a": [1, 2, 3], "b": ["x", None, "z"]}),
        pa.table({"a": [1, None, 3], "b": ["x", "", "z"]}),
        pa.table({"a": [1, 2, 3], "b": ["", "x", "z"]}),
        pa.table({"a": [1, 2, 3], "c": ["x", "", "z"]}),
        pa.table({"a": [1.0, 2.0, 3.0], "b": ["x", "", "z"]}),
        whole.slice(0, 2),
    ]
    assert len({content_digest(table) for table in [whole, *others]}) == 7


@given(st.lists(st.integers(0, 9), min_size=1, unique=True), st.randoms(use_true_random=False))
def test_a_snapshot_is_a_set_of_files(numbers: list[int], chance: object) -> None:
    files = [LakeFile(f"f{i}", i, Digest(f"{i:064x}")) for i in numbers]
    mixed = list(files)
    chance.shuffle(mixed)  # type: ignore[attr-defined]
    assert snapshot_id(mixed) == snapshot_id(files)
    assert snapshot_id(files[1:]) != snapshot_id(files)
