"""A progress bar on standard error for work that takes longer than a breath."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def following(quiet: bool) -> Iterator[Callable[[str, float], None]]:
    """Gives `watch(stage, done)`: a bar where someone looks, one line a stage where nobody does, silence if quiet."""
    if quiet:
        yield lambda stage, done: None
    elif sys.stderr.isatty():
        yield from _bar()
    else:
        yield _lines()


def _bar() -> Iterator[Callable[[str, float], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<14}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("queued", total=1.0)
        yield lambda stage, done: bar.update(task, description=stage or "queued", completed=done)


def _lines() -> Callable[[str, float], None]:
    seen: set[str] = set()

    def watch(stage: str, done: float) -> None:
        if stage and stage not in seen:
            seen.add(stage)
            print(f"  {stage} ...", file=sys.stderr)

    return watch
