"""Commands that a text suggests: copied, they mean the folder that the command before was given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from appliance.cli import falaj
from appliance.cli.suggesting import PLACELESS, Given, completed, remember

CORE, EDGE = Given(Path("/srv/a core"), edge=False), Given(Path("/srv/box"), edge=True)


@pytest.mark.parametrize(
    ("text", "given", "told"),
    [
        ("see `falaj status`, then\n  `falaj trust approve m@1`", CORE,
         "see `falaj status --dir '/srv/a core'`, then\n  `falaj trust approve m@1 --dir '/srv/a core'`"),
        ("start it with `falaj edge run`", EDGE, "start it with `falaj edge run --dir /srv/box`"),
        ("the core: `falaj device token NAME`", EDGE, None),
        ("on the box: `falaj edge enrol TOKEN`", CORE, None),
        ("`falaj core run --dir /srv/other`", CORE, None),
        ("`falaj trust key NAME`, or `falaj doctor`", CORE, None),
        ("falaj status without marks, `make demo`", CORE, None),
    ],
)  # fmt: skip
def test_a_folder_is_put_where_it_lacks_and_belongs(text: str, given: Given, told: str | None) -> None:
    assert completed(text, given) == (text if told is None else told)


def test_every_command_takes_a_cores_or_an_agents_folder_or_is_known_not_to() -> None:
    def commands(of: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
        if not isinstance(of, click.Group):
            yield name, of
            return
        for one in of.list_commands(click.Context(of)):
            found = of.get_command(click.Context(of), one)
            assert found is not None
            yield from commands(found, f"{name} {one}")

    without = [name for name, one in commands(falaj, "falaj") if all(p.callback is not remember for p in one.params)]
    assert sorted(without) == sorted(PLACELESS)
