"""The budget of the road: counted by model and day, kept over restarts, spent where nobody knows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.budget import Budget
from sync.names import ModelName

ONE, OTHER = ModelName("motion"), ModelName("sound")
TOLD: list[str] = []


def told(code: str, text: str) -> None:
    TOLD.append(code)


@pytest.fixture
def budget(tmp_path: Path) -> Iterator[Budget]:
    TOLD.clear()
    found = Budget(tmp_path / "budget.db", 7, told)
    yield found
    found.close()


def test_bytes_are_counted_by_model_and_day(budget: Budget) -> None:
    assert budget.spent(ONE, 7) == 0
    assert (
        budget.spend(ONE, 7, 10) and budget.spend(ONE, 7, 5) and budget.spend(ONE, 8, 1) and budget.spend(OTHER, 7, 2)
    )
    assert [budget.spent(ONE, 7), budget.spent(ONE, 8), budget.spent(OTHER, 7)] == [15, 1, 2]
    budget.count(ONE, 3)
    budget.count(ONE, 4)
    assert [budget.handed(ONE), budget.handed(OTHER)] == [7, 0]


def test_it_is_told_once_a_day_that_a_budget_does_not_suffice(tmp_path: Path) -> None:
    for new in (True, False):
        first = Budget(tmp_path / "budget.db", 7, told)
        assert first.exhausted(ONE, 7) is new and not first.exhausted(ONE, 7)
        first.close()
    again = Budget(tmp_path / "budget.db", 7, told)
    assert again.exhausted(ONE, 8) and again.exhausted(OTHER, 7) and again.spent(ONE, 7) == 0
    again.close()


@pytest.mark.parametrize("spoil", ["garbage", "folder"])
def test_where_the_accounts_are_lost_today_counts_as_spent_and_tomorrow_does_not(tmp_path: Path, spoil: str) -> None:
    TOLD.clear()
    path = tmp_path / "budget.db"
    if spoil == "garbage":
        path.write_bytes(b"this is no database" * 100)
    else:
        path.mkdir()
        (path / "in the way").touch()
    found = Budget(path, 7, told)
    assert TOLD == ["budget-lost"]
    assert found.spent(ONE, 7) > 10**12 and found.spent(ONE, 8) == 0
    taken = found.spend(ONE, 8, 3)
    assert (taken, found.spent(ONE, 8)) == ((True, 3) if spoil == "garbage" else (False, 0)), "memory keeps no accounts"
    found.close()


def test_a_disk_that_fails_lets_nothing_go_and_is_told_once(budget: Budget) -> None:
    budget._db.execute("PRAGMA query_only = ON")
    assert not budget.spend(ONE, 7, 1) and not budget.exhausted(ONE, 7)
    assert TOLD == ["budget-not-kept"]
    budget._db.execute("PRAGMA query_only = OFF")
    assert budget.spend(ONE, 7, 1)
    budget._db.execute("DROP TABLE spent")
    assert budget.spent(ONE, 7) > 10**12 and TOLD == ["budget-not-kept"] * 2


def test_the_accounts_hold_again_as_soon_as_their_file_can_be_had(tmp_path: Path) -> None:
    TOLD.clear()
    path, away = tmp_path / "budget.db", tmp_path / "away.db"
    first = Budget(path, 7, told)
    assert first.spend(ONE, 7, 10)
    first.close()
    path.rename(away)
    path.mkdir()
    found = Budget(path, 7, told)
    assert found.spent(ONE, 7) > 10**12 and not found.spend(ONE, 7, 1)
    path.rmdir()
    away.rename(path)
    while found.spent(ONE, 7) > 10**12:
        pass
    assert found.spent(ONE, 7) == 10 and found.spend(ONE, 7, 5) and TOLD[0] == TOLD[-1] == "budget-lost"
    found.close()
