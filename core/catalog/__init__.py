"""Facts and orders of one tenant: one encrypted SQLite file, opened by `open_catalog`.

The steward is the only writer; console and workers read. `schema` has the tables; each other file is one shelf of
the catalog: `projects` and jobs, `datasets` (what landed), `samples` (what came up to be learned from),
`releases`, `fleet`, `decisions` of rollouts, `events`, `failing` parts of the core itself. Documents are stored
as JSON of the types in `core.handoffs`, `core.project` and `sync.messages`.
"""

from core.catalog.catalog import Catalog, CatalogLocked, is_hosts, open_catalog

__all__ = ["Catalog", "CatalogLocked", "is_hosts", "open_catalog"]
