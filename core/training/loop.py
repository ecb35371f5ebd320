"""The training loop: AdamW under a one-cycle rate over tensors held as a whole.

The same dataset, settings (its number of threads is one) and machine give the same weights. Windows are normalised
before the network sees them; mean and deviation are handed on, for the release puts them into the graph.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from core.handoffs import Dataset
from core.project import Training
from core.training.networks import build
from core.training.recipes import network_for

Floats = npt.NDArray[np.float32]


class TrainingFailed(RuntimeError):
    """Training did not end in usable weights; the message says what to change."""

    code = "training-diverged"


@dataclass(frozen=True)
class Trained:
    """A fitted network, in evaluation mode on the CPU, for windows normalised as (x - mean) / deviation.

    `mean` and `deviation` are (channels,), of the fit windows; `loss` is the mean of the last epoch.
    """

    network: nn.Module
    mean: Floats
    deviation: Floats
    loss: float
    device: str


def train(
    dataset: Dataset,
    training: Training,
    progress: Callable[[float], None],
    device: str | None = None,
) -> Trained:
    """Fits the recipe's network to the fit windows; `progress` hears 0 to 1 after each epoch.

    `device` is taken to be CUDA if there is one. Raises RecipeError, TrainingFailed.
    """
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    spec = network_for(training.recipe, dataset.window, len(dataset.classes))
    mean, deviation = statistics(dataset.fit.x)
    with _reproducible(training.seed, training.threads, where):
        network = build(spec).to(where)
        x = torch.from_numpy((dataset.fit.x - mean) / deviation).to(where)
        y = torch.from_numpy(dataset.fit.y).to(where)
        loss = _fit(network, x, y, training, progress)
    if not np.isfinite(loss):
        raise TrainingFailed("the loss is no longer a number; lower `learning_rate` or look for extreme values")
    return Trained(network.eval().cpu(), mean, deviation, loss, where)


def statistics(x: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each channel, both (channels,); a constant channel has deviation 1."""
    rows = x.reshape(-1, x.shape[-1]).astype(np.float64)
    deviation = rows.std(axis=0)
    # Relative to its size: the deviation of a large constant is rounding, not information.
    constant = deviation <= 1e-6 * np.maximum(1.0, np.abs(rows.mean(axis=0)))
    return rows.mean(axis=0).astype(np.float32), np.where(constant, 1.0, deviation).astype(np.float32)


def _fit(
    network: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    training: Training,
    progress: Callable[[float], None],
) -> float:
    batches = -(-len(x) // training.batch)
    optimizer = torch.optim.AdamW(network.parameters(), lr=training.learning_rate)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, training.learning_rate, total_steps=training.epochs * batches)
    shuffle = torch.Generator().manual_seed(training.seed)
    network.train()
    loss = float("nan")
    for epoch in range(training.epochs):
        total = torch.zeros((), device=x.device)
        order = torch.randperm(len(x), generator=shuffle).to(x.device)
        for start in range(0, len(x), training.batch):
            chosen = order[start : start + training.batch]
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(x.device.type, torch.bfloat16, enabled=x.device.type == "cuda"):
                scores = network(x[chosen])
            step = nn.functional.cross_entropy(scores.float(), y[chosen])
            torch.autograd.backward(step)
            optimizer.step()
            rate.step()
            total += step.detach() * len(chosen)
        loss = float(total) / len(x)
        progress((epoch + 1) / training.epochs)
    return loss


@contextmanager
def _reproducible(seed: int, threads: int, device: str) -> Iterator[None]:
    """Fixes torch's global state for the length of a training and puts it back."""
    threads_before = torch.get_num_threads()
    strict_before = torch.are_deterministic_algorithms_enabled()
    lenient_before = torch.is_deterministic_algorithms_warn_only_enabled()
    cards = [torch.cuda.current_device()] if device.startswith("cuda") else []
    if cards:
        # Reproducible matrix products on CUDA can be asked for by this variable only.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with torch.random.fork_rng(devices=cards):
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(strict_before, warn_only=lenient_before)
            torch.set_num_threads(threads_before)
