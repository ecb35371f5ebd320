"""A core in this process, as owners talk to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from appliance.api import Refused
from core.answers import Answer
from core.catalog import open_catalog
from core.console import create_api
from core.orders import AnyOrder
from sync.names import DEFAULT_TENANT, TenantId
from tests.core.world import CATALOG_KEY, TENANT, World


class TwoVerbs:
    """The API's two verbs, as `appliance.api.Api` has them: on a catalog, and on whoever takes in orders."""

    def __init__(
        self,
        catalog: Path,
        key: bytes,
        ask: Callable[[Any], Answer],
        now: Callable[[], float],
        tenant: TenantId = DEFAULT_TENANT,
    ) -> None:
        self._put = ask
        app = create_api(lambda: open_catalog(catalog, key, read_only=True), ask, now, tenant=tenant)
        self._client = app.test_client()

    def get(self, path: str) -> Any:
        answer = self._client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.get_json()

    def order(self, order: AnyOrder) -> dict[str, Any]:
        """Raises Refused with the steward's own code, as the command line does."""
        answer = self._put(order)
        if not answer.ok:
            raise Refused(answer.code, answer.error, answer.hint)
        return answer.result


class Desk(TwoVerbs):
    """What owners talk to."""

    def __init__(self, world: World) -> None:
        self.world = world
        super().__init__(world.folder / "catalog.db", CATALOG_KEY, world.order, lambda: world.now, TENANT)
