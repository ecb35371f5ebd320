"""A core in this process, as owners talk to it."""

from __future__ import annotations

from typing import Any

from appliance.api import Refused
from core.catalog import open_catalog
from core.console import create_api
from core.orders import Answer, AnyOrder
from tests.core.world import CATALOG_KEY, TENANT, World


class Desk:
    """A core in this process, by the API's two verbs: what owners talk to."""

    def __init__(self, world: World) -> None:
        self.world = world
        path = world.folder / "catalog.db"
        app = create_api(
            lambda: open_catalog(path, CATALOG_KEY, read_only=True), self._ask, now=lambda: world.now, tenant=TENANT
        )
        self._client = app.test_client()

    def get(self, path: str) -> Any:
        answer = self._client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.get_json()

    def order(self, order: AnyOrder) -> dict[str, Any]:
        """Raises Refused with the steward's own code, as the command line does."""
        answer = self._ask(order)
        if not answer.ok:
            raise Refused(answer.code, answer.error, answer.hint)
        return answer.result

    def _ask(self, order: AnyOrder) -> Answer:
        return self.world.order(order)
