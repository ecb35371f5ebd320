"""The table at the end: what each step did, how long it took, and its figure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Table

from appliance import clock
from appliance.errors import Trouble


@dataclass
class Step:
    """One step of the story; `figure` is what it found, in words a person can check."""

    name: str
    act: str
    seconds: float = 0.0
    result: str = "running"
    figure: str = ""


@dataclass
class Story:
    """The steps so far. A step that raises Trouble is failed; the story ends there."""

    console: Console
    act: str = "act one"
    steps: list[Step] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        step = Step(name, self.act)
        self.steps.append(step)
        self.console.print(f"[bold]{len(self.steps)}. {name}[/bold]")
        began = clock.ticks()
        try:
            yield step
            step.result = "ok" if step.result == "running" else step.result
        except Trouble as trouble:
            step.result, step.figure = "FAILED", str(trouble).splitlines()[0]
            raise
        finally:
            step.seconds = clock.ticks() - began
            if step.figure and step.result != "FAILED":
                self.console.print(
                    f"   {step.figure}  [dim]{step.seconds:.1f} s[/dim]", highlight=False, soft_wrap=True
                )

    def say(self, text: str) -> None:
        self.console.print(f"   [dim]{text}[/dim]", highlight=False)

    def table(self) -> Table:
        table = Table(title="Falaj", title_justify="left")
        for name in ("step", "result", "seconds", "figure"):
            table.add_column(name, justify="right" if name == "seconds" else "left", overflow="fold")
        for act, steps in groupby(self.steps, key=lambda step: step.act):
            total = 0.0
            for step in steps:
                colour = "green" if step.result == "ok" else "red"
                table.add_row(step.name, f"[{colour}]{step.result}[/{colour}]", f"{step.seconds:.1f}", step.figure)
                total += step.seconds
            table.add_row(act, "", f"{total:.1f}", "", style="bold", end_section=True)
        return table

    def document(self) -> list[dict[str, Any]]:
        """The same for `--json`."""
        return [
            {"act": s.act, "step": s.name, "result": s.result, "seconds": round(s.seconds, 2), "figure": s.figure}
            for s in self.steps
        ]
