"""The networks: specifications become torch modules from windows (batch, size, channels) to class scores."""

from __future__ import annotations

import torch
from torch import nn

from core.training.recipes import NetworkSpec


class ChannelsFirst(nn.Module):
    """Windows come as rows of channels, convolutions want channels of rows."""

    def forward(self, window: torch.Tensor) -> torch.Tensor:
        return window.transpose(1, 2)


def build(spec: NetworkSpec) -> nn.Sequential:
    """The network with fresh weights from torch's current generator; its outputs are logits (batch,
    classes).
    """
    layers: list[nn.Module] = [ChannelsFirst()]
    width = spec.channels
    for layer in spec.convolutions:
        layers += [nn.Conv1d(width, layer.outputs, layer.kernel, layer.stride), nn.ReLU()]
        width = layer.outputs
    layers += [
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Dropout(spec.dropout),
        nn.Linear(width, spec.classes),
    ]
    return nn.Sequential(*layers)
