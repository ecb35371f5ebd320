"""The doors of a core as those who knock see them: a steward that takes orders, pages and what is read on them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from flask.testing import FlaskClient

from core.answers import Answer
from core.orders import Order

TOKEN = "a-token-of-the-console"


@dataclass
class Steward:
    """Remembers its orders and answers as it was told to, unless it is away."""

    answer: Answer = field(default_factory=lambda: Answer(True, {"done": True}))
    orders: list[Order] = field(default_factory=list)
    away: OSError | None = None

    def ask(self, order: Order) -> Answer:
        if self.away:
            raise self.away
        self.orders.append(order)
        return self.answer


def page(client: FlaskClient) -> str:
    response = client.get("/")
    assert response.status_code == 200
    return response.text


def words(html: str) -> str:
    """What is read, without markup."""
    return re.sub(r"[ \n]+", " ", re.sub(r"<[^>]*>", " ", html))


def concerns(html: str) -> str:
    return words(html.split('aria-labelledby="needs"')[1].split("</section>")[0])
