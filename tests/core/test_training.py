"""Training: the recipe's network, reproducible weights, and the quality it must reach on real recordings."""

from __future__ import annotations

import csv
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from core.features.views import build
from core.handoffs import Dataset, Split
from core.project import Model, ModelGates, Rollout, Training, View
from core.training.loop import Trained, TrainingFailed, statistics, train
from core.training.networks import build as build_network
from core.training.recipes import RecipeError, network_for
from sync.features import WindowSpec
from sync.names import Digest

WATCH = Path(__file__).parents[3] / "shared" / "data" / "watch_har"
CHANNELS = ("ax", "ay", "az", "wx", "wy", "wz")


def waves(count: int, seed: int, noise: float = 0.1) -> Split:
    """Windows of two classes: a slow and a quick wave on a large offset, one channel constant."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % 2
    steps = np.arange(32)[None] * (0.2 + 0.6 * y[:, None]) + rng.uniform(0, 6, (count, 1))
    x = np.stack([100 + np.sin(steps), np.full(steps.shape, 5.0)], axis=2)
    x[..., 0] += rng.normal(0, noise, steps.shape)
    return Split(x.astype(np.float32), y.astype(np.int64), np.array(["w"] * count))


@pytest.fixture
def dataset() -> Dataset:
    window = WindowSpec(32, 16, 0.02, ("x", "still"))
    return Dataset("v", "s", Digest("0" * 64), ("slow", "quick"), window, waves(96, 1), waves(40, 2))


def accuracy(trained: Trained, split: Split) -> float:
    with torch.inference_mode():
        scores = trained.network(torch.from_numpy((split.x - trained.mean) / trained.deviation))
    return float((scores.argmax(1).numpy() == split.y).mean())


def weights(trained: Trained) -> bytes:
    return b"".join(p.detach().numpy().tobytes() for p in trained.network.state_dict().values())


SHORT = Training(epochs=12, batch=32)


def test_the_same_seed_gives_the_same_weights_and_another_does_not(dataset: Dataset) -> None:
    heard: list[float] = []
    first = train(dataset, SHORT, heard.append, device="cpu")
    torch.manual_seed(99)
    torch.rand(7)
    again = train(dataset, SHORT, heard.append, device="cpu")
    other = train(dataset, msgspec.structs.replace(SHORT, seed=8), heard.append, device="cpu")
    assert weights(first) == weights(again) != weights(other)
    assert heard[:12] == [pytest.approx((i + 1) / 12) for i in range(12)]
    assert accuracy(first, dataset.gate) > 0.95
    assert not first.network.training


def test_training_leaves_torchs_global_state_as_it_was(dataset: Dataset) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    train(dataset, msgspec.structs.replace(SHORT, epochs=1, threads=threads + 1), lambda _done: None, device="cpu")
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_weights_that_are_no_numbers_are_no_result(dataset: Dataset) -> None:
    wild = msgspec.structs.replace(SHORT, learning_rate=1e30)
    with pytest.raises(TrainingFailed, match="lower `learning_rate`"):
        train(dataset, wild, lambda _done: None, device="cpu")


def test_statistics_are_per_channel_and_spare_constant_ones(dataset: Dataset) -> None:
    mean, deviation = statistics(dataset.fit.x)
    assert mean.shape == deviation.shape == (2,) and mean.dtype == np.float32
    assert mean[1] == 5.0 and deviation[1] == 1.0
    np.testing.assert_allclose(deviation[0], dataset.fit.x[..., 0].std(), rtol=1e-4)


def test_a_recipe_tells_the_smallest_window_it_takes() -> None:
    def window(size: int) -> WindowSpec:
        return WindowSpec(size, 1, 1.0, ("x",))

    with pytest.raises(RecipeError, match="at least 13 rows, not 12"):
        network_for("cnn1d", window(12), 3)
    network = build_network(network_for("cnn1d", window(13), 3))
    assert network(torch.zeros(2, 13, 1)).shape == (2, 3)
    with pytest.raises(RecipeError, match="known are: cnn1d"):
        network_for("transformer", window(13), 3)


@pytest.mark.skipif(not WATCH.is_dir(), reason=f"the smartwatch recordings are not in {WATCH}")
def test_real_watches_are_recognised_in_the_rest_of_their_recordings() -> None:
    with (WATCH / "recordings.csv").open() as file:
        facts = {int(row["recording"]): row for row in csv.DictReader(file)}
    samples = pq.read_table(WATCH / "watch_samples.parquet")
    of = [facts[int(r)] for r in samples.column("recording").to_pylist()]
    table = samples.append_column("ts", pa.array(samples.column("i").to_numpy() * 0.02))
    table = table.append_column("right", pa.array([int(f["right_side"]) for f in of]))
    table = table.append_column("subject", pa.array([int(f["subject"]) for f in of]))
    table = table.append_column("exercise", pa.array([f["exercise"] for f in of]))
    view = View(source="watch", entity="recording", label="exercise", window=WindowSpec(100, 50, 0.02, CHANNELS))
    model = Model(
        view="watch",
        where={"right": 1, "subject": (1, 2, 3, 4, 5, 6)},
        fit=(0.0, 0.6),
        gate=(0.75, 1.0),
        gates=ModelGates(min_accuracy=0.94),
        rollout=Rollout(canary=()),
    )
    dataset = build(view, "view", "snapshot", table, model, "ts")
    assert (len(dataset.fit.x), len(dataset.gate.x), len(dataset.classes)) == (725, 266, 7)
    trained = train(dataset, model.training, lambda _done: None, device="cpu")
    assert accuracy(trained, dataset.gate) >= 0.94
