"""Fault 11: killed in the middle of a new root (a key is replaced) or of a schema that is brought up to date. The old
one holds or the new one, never neither and never a mixture."""

from __future__ import annotations

from pathlib import Path

from tests.faults.nth import told


def test_11_killed_at_any_touch_while_a_root_is_adopted(ram: Path) -> None:
    assert told("rotation", 1, ram) >= 3


def test_11_killed_at_any_touch_while_a_catalog_is_migrated(ram: Path) -> None:
    assert told("migration", 3, ram) >= 10
