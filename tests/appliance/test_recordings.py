"""The demo's data: read by an unpickler that knows four harmless names, pinned by their digest."""

from __future__ import annotations

import csv
import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from appliance.bootstrap import demo_wheel
from appliance.demo import recordings
from appliance.demo.recordings import CHANNELS, BadRecordings, Recording


class Evil:
    """Whoever unpickles it runs a command."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def as_npy(content: object) -> bytes:
    """A .npy file around a pickle, as numpy writes arrays of objects."""
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }".ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + pickle.dumps(content)


def wheel(path: Path, member: str, content: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, content)
    return path


def test_a_pickle_that_wants_to_run_something_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    with pytest.raises(BadRecordings, match=r"asks for posix\.system: it is not what it was; refused"):
        recordings.parse(as_npy(Evil(mark)))
    assert not mark.exists()


@pytest.mark.parametrize("name", ["builtins.eval", "builtins.getattr", "subprocess.Popen", "numpy.load", "os.popen"])
def test_no_other_name_is_known_to_the_reader(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    reader = recordings._OnlyArrays(io.BytesIO(b""))
    with pytest.raises(BadRecordings, match="refused"):
        reader.find_class(module, attribute)


def test_changed_data_are_refused_before_they_are_read(tmp_path: Path) -> None:
    changed = wheel(tmp_path / "x.whl", recordings.MEMBER, as_npy(Evil(tmp_path / "ran")))
    with pytest.raises(BadRecordings, match="the recordings have changed; remove it and run `make demo` again"):
        recordings.read(changed)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"no zip", None])
def test_a_file_that_is_no_wheel_is_one_message(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.whl"
    if content is None:
        wheel(path, "other/member", b"")
    else:
        path.write_bytes(content)
    with pytest.raises(BadRecordings, match="remove it and run `make demo` again") as refused:
        recordings.read(path)
    assert refused.value.exit_code == 3


def test_a_csv_holds_what_the_core_may_see_to_the_last_digit(tmp_path: Path) -> None:
    samples = np.random.default_rng(7).normal(size=(8, 6))
    rows = recordings.write_csv((Recording("r000", 1, "left", "PEN", samples),), tmp_path)
    with (tmp_path / "r000.csv").open() as file:
        read = list(csv.DictReader(file))
    assert rows == len(read) == 6, "three quarters of eight"
    assert np.array_equal([[float(row[c]) for c in CHANNELS] for row in read], samples[:6])
    steps = np.diff([float(row["ts"]) for row in read])
    assert np.allclose(steps, recordings.PERIOD)


def test_the_real_recordings_are_what_the_demo_counts_on() -> None:
    found = demo_wheel(os.environ)
    if found is None:
        pytest.skip("the demo's data are not in the cache: `make demo` fetches them")
    read = recordings.read(found)
    assert len(read) == 140
    assert {r.subject for r in read} == set(range(1, 11))
    assert {r.exercise for r in read} == {"PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW"}
    assert all(r.samples.shape[1] == len(CHANNELS) and np.isfinite(r.samples).all() for r in read)
