"""Recipes: the names a project file may use, and the network each of them asks for. Pure; no torch here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sync.features import WindowSpec


class RecipeError(ValueError):
    """A recipe that cannot be cooked with this window; the message says which size would do."""

    code = "recipe-unfit"


@dataclass(frozen=True)
class Convolution:
    """One convolution over time, without padding, followed by a ReLU."""

    outputs: int
    kernel: int
    stride: int


@dataclass(frozen=True)
class NetworkSpec:
    """A small convolutional classifier over windows of (size, channels)."""

    size: int
    channels: int
    classes: int
    convolutions: tuple[Convolution, ...]
    dropout: float


def cnn1d(window: WindowSpec, classes: int) -> NetworkSpec:
    """Two strided convolutions and an average over time: quick on one core, and sound in int8."""
    layers = (Convolution(32, 5, 2), Convolution(64, 5, 2))
    smallest = 1
    for layer in reversed(layers):
        smallest = (smallest - 1) * layer.stride + layer.kernel
    if window.size < smallest:
        raise RecipeError(f"recipe cnn1d needs windows of at least {smallest} rows, not {window.size}")
    return NetworkSpec(window.size, len(window.channels), classes, layers, 0.2)


RECIPES: dict[str, Callable[[WindowSpec, int], NetworkSpec]] = {"cnn1d": cnn1d}


def network_for(recipe: str, window: WindowSpec, classes: int) -> NetworkSpec:
    """The network `recipe` asks for; raises RecipeError for an unknown name or an unfit window."""
    if recipe not in RECIPES:
        raise RecipeError(f"recipe {recipe!r} is not known; known are: {', '.join(sorted(RECIPES))}")
    return RECIPES[recipe](window, classes)
