"""`falaj edge bench MODEL.onnx...`: what models take on this board, as a table and a line of advice."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from appliance.cli.options import json_option, progress_line, show
from appliance.errors import Trouble

if TYPE_CHECKING:
    from appliance.first_hour.measuring import Measured

ROWS = (1, 8, 64)
WORTH = 1.2  # times as fast: less is worth neither another file nor another thread

Figures = Sequence[tuple[str, "Measured"]]  # (a file, one measurement of it)


@click.command()
@click.argument("models", metavar="MODEL.onnx...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--seconds", type=click.FloatRange(0.01, 600), default=3.0, show_default=True,
              help="How long each measurement lasts.")  # fmt: skip
@click.option("--input-shape", "shapes", multiple=True, metavar="[NAME=]1,3,224,224",
              help="Fills what the model leaves open of an input; may be repeated.")  # fmt: skip
@json_option
def bench(models: tuple[Path, ...], seconds: float, shapes: tuple[str, ...], as_json: bool) -> None:
    """Measure models on this board: time to load, memory, times of an answer and rows a second, by threads and by rows
    that are asked at once. A MODEL that is a folder stands for all .onnx files in it.

    Each measurement runs in a process of its own, as the agent would run the model. Use a machine that is quiet.
    """
    files = [file for given in models for file in model_files(given)]
    cores = len(os.sched_getaffinity(0))
    given = dict(map(given_shape, shapes))
    figures = list(_figures(files, seconds, given, cores, progress_line(as_json)))
    said = advice(figures)
    board = {"machine": platform.machine(), "cores": cores, "kernel": platform.release()}
    document = {"board": board, "measured": [_document(name, one) for name, one in figures], "advice": said}
    head = f"this board: {cores} cores, {board['machine']}; each line was measured for {seconds:g} s"
    show(as_json, document, [head, "", *table(figures), "", said])


def model_files(given: Path) -> list[Path]:
    """The model files that one argument means; raises Trouble if there is none."""
    if not given.exists():
        raise Trouble(f"there is no {given}: give an ONNX file, or a folder of them")
    found = sorted(given.glob("*.onnx")) if given.is_dir() else [given]
    if not found:
        raise Trouble(f"there is no .onnx file in {given}")
    return found


def short_names(files: Sequence[Path]) -> list[str]:
    """What to call each file: its own name, with the folder where two have the same."""
    own = [file.name for file in files]
    return [str(file) if own.count(file.name) > 1 else file.name for file in files]


def given_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """`NAME=1,3` or `1,3` as (name, dimensions); raises click's BadParameter."""
    name, _, numbers = text.rpartition("=")
    parts = numbers.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise click.BadParameter(
            f"{text!r} is no shape like 1,3,224,224 or image=1,3,224,224", param_hint="--input-shape"
        )
    return name, tuple(map(int, parts))


def thread_counts(cores: int) -> list[int]:
    """1, 2, 4, ... and all cores."""
    return sorted({1 << n for n in range(cores.bit_length())} | {cores})


def table(figures: Figures) -> list[str]:
    """One line a measurement, under a heading; of one file together."""
    width = max(5, *(len(name) for name, _ in figures))
    lines = [f"{'model':<{width}}  threads  rows  load ms  + MiB     p50 ms     p99 ms      rows/s"]
    for name, one in figures:
        lines.append(
            f"{name:<{width}}  {one.threads:>7}  {one.rows:>4}  {one.load_ms:>7.1f}  {one.rss_mb:>5.1f}  "
            f"{one.p50_ms:>9.3f}  {one.p99_ms:>9.3f}  {one.rows_per_s:>10,.0f}"
        )
    return lines


def advice(figures: Figures) -> str:
    """What to take of all that, in one line."""
    single = [(name, one) for name, one in figures if one.threads == 1 and one.rows == _fewest(figures, name)]
    name, best = min(single, key=lambda pair: pair[1].p50_ms)
    own = [one for other, one in figures if other == name]
    parts = [_choice(single, name, best)]
    wider = min((one for one in own if one.rows == best.rows), key=lambda one: one.p50_ms)
    if best.p50_ms > WORTH * wider.p50_ms:
        times = best.p50_ms / wider.p50_ms
        parts.append(f"{wider.threads} threads would answer {times:.1f} times as fast, and an agent uses one a run")
    else:
        parts.append("one thread is enough")
    fullest = max(own, key=lambda one: one.rows_per_s)
    if fullest.rows > best.rows and fullest.rows_per_s > WORTH * best.rows_per_s:
        gain = fullest.rows_per_s / best.rows_per_s
        parts.append(f"{fullest.rows} rows asked at once give {gain:.0f} times the rows a second")
    return "advice: " + "; ".join(parts) + "."


def _choice(single: Figures, name: str, best: Measured) -> str:
    spends = f"{best.p50_ms:.3g} ms an answer (p99 {best.p99_ms:.3g}), {best.rss_mb:.0f} MiB"
    others = [(other, one) for other, one in single if other != name]
    if not others:
        return f"{name} takes {spends}"
    second, next_best = min(others, key=lambda pair: pair[1].p50_ms)
    if next_best.p50_ms < WORTH * best.p50_ms:
        return f"{name} takes {spends}, and {second} is as fast: take the one that is right more often"
    return f"{name} is {next_best.p50_ms / best.p50_ms:.1f} times as fast as {second}: {spends}"


def _fewest(figures: Figures, name: str) -> int:
    return min(one.rows for other, one in figures if other == name)


def _figures(
    files: Sequence[Path], seconds: float, given: dict[str, tuple[int, ...]], cores: int, say: Callable[[str], None]
) -> Iterator[tuple[str, Measured]]:
    from appliance.first_hour.measuring import Unmeasured, Wish, fixed_rows, measure, read_model

    for name, file in zip(short_names(files), files, strict=True):
        model = read_model(file)

        def one(threads: int, rows: int, file: Path = file, model: bytes = model) -> Measured:
            say(f"{file}: {threads} threads, {rows} rows ...")
            try:
                return measure(Wish(model, threads, rows, seconds, given))
            except Unmeasured as error:
                raise Unmeasured(f"{file}: {error}") from error
            finally:
                say("")

        first = one(1, 1)
        yield name, first
        counts = ROWS if fixed_rows(first) is None else (first.rows,)
        for threads, rows in product(thread_counts(cores), counts):
            if (threads, rows) != (1, first.rows):
                yield name, one(threads, rows)


def _document(name: str, one: Measured) -> dict[str, Any]:
    return {
        "model": name, "threads": one.threads, "rows": one.rows, "runs": one.runs, "load_ms": one.load_ms,
        "rss_mb": one.rss_mb, "p50_ms": one.p50_ms, "p99_ms": one.p99_ms, "rows_per_s": one.rows_per_s,
    }  # fmt: skip
