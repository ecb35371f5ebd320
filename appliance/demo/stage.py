"""What all scenes of act two stand on: the machines that act one left behind, the people, and what can be asked."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from appliance import clock
from appliance.core import owner
from appliance.core.project_file import read_project
from appliance.demo.fleet import Machines, StoryFailed, wait_until
from appliance.demo.people import Wearer
from appliance.demo.story import ACTOR, MODEL, Cast
from appliance.demo.summary import Story
from core.handoffs import ROLLOUT_ENDED
from core.orders import ApplyProject

MOVED = (1, 2)  # subjects whose watch changes wrists
SEED = 11
LEAD = 3600.0  # seconds of event time behind act one, whose readings outran the clock


@dataclass
class Stage:
    """Open it with `with`: the watches are connected then, and still and closed afterwards."""

    machines: Machines
    story: Story
    cast: Cast
    people: tuple[Wearer, ...] = ()
    _opened: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        found = []
        for device in self.machines.devices:
            subject = int(device.name.removeprefix("watch-"))
            own = tuple(r for r in self.cast.recordings if r.subject == subject)
            wearer = Wearer(device, MODEL, own, clock.now() + LEAD, (SEED, subject))
            self._opened.callback(wearer.close)
            wearer.connect()
            found.append(wearer)
        self.people = tuple(found)
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    @property
    def moved(self) -> tuple[Wearer, ...]:
        return tuple(self.person(f"watch-{subject}") for subject in MOVED)

    def person(self, name: str) -> Wearer:
        return next(w for w in self.people if w.name == name)

    def account(self) -> None:
        """The sum of act two: every phase was checked as it ended."""
        windows = sum(w.windows for w in self.people)
        with self.story.step("act two in sum") as step:
            step.figure = f"{windows:,} windows sent, every one answered under one id: 0 lost, 0 failed"

    # --- what can be asked ---

    def model(self, wearer: Wearer) -> dict[str, Any]:
        """The device's own word on the model; raises StoryFailed if it does not answer."""
        found = (wearer.device.status() or {}).get("models", {}).get(MODEL)
        if not found:
            raise StoryFailed(f"{wearer.name} does not answer; see {wearer.device.log}")
        return dict(found)

    def drift(self, wearer: Wearer) -> dict[str, Any]:
        """The device's own word on its drift; raises StoryFailed if it has none."""
        found = self.model(wearer)["drift"]
        if not found:
            raise StoryFailed(f"{wearer.name} does not watch for drift; see {wearer.device.log}")
        return dict(found)

    def told(self, code: str) -> set[str]:
        """Who told the core of this, as far as it is committed there."""
        events = self.machines.api.get("/v1/events?limit=200")["events"]
        return {str(e["source"]) for e in events if e["code"] == code}

    def rollout(self) -> dict[str, Any]:
        """The newest rollout."""
        return dict(self.machines.api.get("/v1/rollouts")["rollouts"][0])

    def await_rollout(self, number: int, states: tuple[str, ...], patience: float) -> dict[str, Any]:
        """Waits until the rollout of `number` is in one of `states`; raises StoryFailed if it ends elsewhere."""

        def there() -> bool:
            found = self.rollout()
            here = found["number"] == number and found["state"] in states
            if found["number"] == number and not here and found["state"] in ROLLOUT_ENDED:
                raise StoryFailed(f"release {number} is {found['state']}: {found['reason']}")
            return here

        wait_until(there, patience, f"release {number} to be {' or '.join(states)}")
        return self.rollout()

    # --- what the two people of the core do ---

    def approve(self, number: int) -> None:
        """The owner signs a release; the plan says what its evidence needs."""
        signed = owner.approve(self.machines.api, self.machines.home / "owner-keys", MODEL, number, ACTOR, clock.now())
        if signed.needs:
            self.story.say(str(signed.needs["text"]))

    def apply(self, change: Callable[[str], str]) -> None:
        """The operator edits the project file and applies it."""
        path = self.machines.home / "falaj.toml"
        path.write_text(change(path.read_text()))
        order = ApplyProject(actor=ACTOR, project=read_project(path), folder=str(self.machines.home))
        self.machines.api.order(order)


def replaced(text: str, pattern: str, value: str) -> str:
    """The text with the one line that matches `pattern` set to `value`; raises StoryFailed if it is not one."""
    changed, count = re.subn(pattern, value, text, flags=re.MULTILINE)
    if count != 1:
        raise StoryFailed(f"{Path('falaj.toml')}: {count} lines like {pattern!r}, one was expected")
    return changed
