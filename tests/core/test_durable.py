"""Files that are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

from core.durable import write_whole


def test_a_write_leaves_no_half_file_behind_and_nobody_else_reads_it(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", b"one")
    (tmp_path / "a.tmp").write_bytes(b"left by a power cut")
    write_whole(tmp_path / "a", b"two")
    assert [(f.name, f.read_bytes()) for f in tmp_path.iterdir()] == [("a", b"two")]
    assert (tmp_path / "a").stat().st_mode & 0o077 == 0
