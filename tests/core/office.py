"""A tenant and its people, each at a desk of their own: who owns what, and what they sign."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from appliance.core import owner
from appliance.core.key_ring import KeyRing
from core import orders
from core.release import layout as layouts
from core.release import metadata
from core.release.layout import Quorum
from sync import roles
from tests.core.desk import Desk
from tests.core.world import MODEL, World, project


class Office:
    """A tenant of profile single-owner, ready to release, and people with folders of their own."""

    def __init__(self, world: World, desk: Desk, home: Path) -> None:
        self.world, self.desk, self.home, self.api = world, desk, home, desk  # type: ignore[assignment]
        self.api: Any = desk
        owner.init(self.api, self.folder("owner"), "owner", world.now)
        world.must(orders.ApplyProject(project=project(), folder=str(world.folder)))

    def folder(self, name: str) -> Path:
        return self.home / name

    def publics(self, *names: str) -> tuple[roles.Key, ...]:
        return tuple(KeyRing(self.folder(n)).public(str(KeyRing(self.folder(n)).make(n))) for n in names)

    def sign(self, *names: str) -> tuple[str, ...]:
        lacks: tuple[str, ...] = ()
        for name in names:
            shown = owner.pending(self.api, self.folder(name))
            assert shown is not None
            lacks = owner.sign(self.api, self.folder(name), shown, name, self.world.now).lacks
        return lacks

    def harden(self) -> None:
        """Root: two of amal, badr, carim. Releases: both of dana and eve."""
        quorums = Quorum(self.publics("amal", "badr", "carim"), 2), Quorum(self.publics("dana", "eve"), 2)
        owner.harden(self.api, self.folder("owner"), *quorums, "owner", self.world.now)

    def hardened(self) -> Office:
        self.harden()
        assert self.sign("amal", "badr", "dana", "eve") == ()
        return self

    def approve(self, number: int, name: str) -> owner.Signed:
        return owner.approve(self.api, self.folder(name), MODEL, number, name, self.world.now)

    def files(self) -> dict[str, bytes]:
        return self.world.catalog.releases.trust()

    def layout(self) -> layouts.Layout:
        root = metadata.root_in_force(self.files())
        assert root is not None
        return layouts.read(root)
