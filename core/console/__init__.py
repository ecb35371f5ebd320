"""The doors for people and for new devices: reads facts, hands orders to the steward, holds no signing key.

Three Flask applications, each made by a function and served by `appliance`:

* `create_api`: the JSON API on a Unix socket; the CLI is its client (docs/openapi-core.yaml).
* `create_pages`: read-only pages on loopback, behind a token.
* `create_enrolment`: the one listener open to the network; it holds no catalog and no key.

Reading order: `replies` (what every answer looks like), `api`, `enrol`, then the pages: `facts` (what is read),
`trust_state`, `wording`, `evidence` (what pairs say), `lines`, `why_card`, `rollout_card` and `learning` (what is shown
of one thing each), `concerns` (what needs a person), `pages`. All but `replies`, `api`, `enrol`, `pages` and
`facts.gather` are pure. What does not belong: decisions; those are the steward's.
"""

from core.console.api import create_api
from core.console.enrol import create_enrolment
from core.console.pages import create_pages

__all__ = ["create_api", "create_enrolment", "create_pages"]
