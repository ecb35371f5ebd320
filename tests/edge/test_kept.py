"""Small sealed files, one a model: replaced whole, bound to their purpose, and never in anybody's way."""

from __future__ import annotations

from pathlib import Path
from secrets import token_bytes

from edge.kept import Kept
from sync.names import ModelName, TenantId

MODEL, OTHER = ModelName("motion"), ModelName("other")
TENANT = TenantId("default")


class Desk:
    """A folder of kept files and what was reported of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.reports = folder, []  # type: ignore[var-annotated]

    def kept(self, purpose: str = "trial", tenant: TenantId = TENANT, key: bytes = bytes(32)) -> Kept:
        return Kept(self.folder, tenant, key, purpose, token_bytes, lambda code, text: self.reports.append(code))


def test_what_is_saved_is_there_in_another_life_and_only_the_last_of_it(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "trials")
    assert desk.kept().load(MODEL) is None
    desk.kept().save(MODEL, b"first")
    desk.kept().save(MODEL, b"second")
    desk.kept().save(OTHER, b"of another")
    assert desk.kept().load(MODEL) == b"second" and desk.kept().load(OTHER) == b"of another"
    desk.kept().remove(MODEL)
    desk.kept().remove(MODEL)
    assert desk.kept().load(MODEL) is None and desk.kept().load(OTHER) == b"of another"
    assert desk.reports == []


def test_on_disk_it_is_sealed_and_for_the_owner_alone(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "trials")
    desk.kept().save(MODEL, b"a very readable text")
    file = desk.folder / MODEL
    assert b"readable" not in file.read_bytes() and file.stat().st_mode & 0o077 == 0
    assert [path.name for path in desk.folder.iterdir()] == [MODEL], "no half is left behind"


def test_a_file_of_another_model_purpose_tenant_or_key_does_not_pass(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "trials")
    desk.kept().save(MODEL, b"content")
    (desk.folder / OTHER).write_bytes((desk.folder / MODEL).read_bytes())
    assert desk.kept().load(OTHER) is None
    assert desk.kept(purpose="drift").load(MODEL) is None
    assert desk.kept(tenant=TenantId("rival")).load(MODEL) is None
    assert desk.kept(key=bytes([1]) * 32).load(MODEL) is None
    assert desk.reports == ["trial-state-lost", "drift-state-lost", "trial-state-lost", "trial-state-lost"]
    assert desk.kept().load(MODEL) == b"content"


def test_an_unreadable_file_is_as_good_as_none_and_is_replaced(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "trials")
    for garbage in (b"", b"short", bytes(200)):
        desk.kept().save(MODEL, b"content")
        (desk.folder / MODEL).write_bytes(garbage)
        assert desk.kept().load(MODEL) is None
    assert desk.reports == ["trial-state-lost"] * 3
    desk.kept().save(MODEL, b"again")
    assert desk.kept().load(MODEL) == b"again"


def test_a_disk_that_refuses_is_said_once_until_it_works_again(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "trials")
    kept = desk.kept()
    obstacle = desk.folder / f"{MODEL}.tmp"
    obstacle.mkdir()
    kept.save(MODEL, b"one")
    kept.save(MODEL, b"two")
    assert desk.reports == ["disk-refused"] and kept.load(MODEL) is None
    obstacle.rmdir()
    kept.save(MODEL, b"three")
    assert kept.load(MODEL) == b"three" and desk.reports == ["disk-refused"]
    obstacle.mkdir()
    kept.save(MODEL, b"four")
    assert kept.load(MODEL) == b"three" and desk.reports == ["disk-refused"] * 2
