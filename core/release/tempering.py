"""Puts a temperature into a graph: what goes into its last Softmax is divided by one number."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

# With an underscore, which no lookup has: its name is one of an input.
_TEMPERATURE, _TEMPERED = "scores_temperature", "scores_tempered"


def ends_in_softmax(model: bytes) -> bool:
    """Whether what a graph gives comes out of a Softmax, so that there are scores that can be divided."""
    return _last_softmax(onnx.load_model_from_string(model).graph) is not None


def temper(graph: onnx.GraphProto, temperature: float) -> None:
    """In place; raises ValueError for a graph that does not end in a Softmax."""
    place = _last_softmax(graph)
    if place is None:
        raise ValueError("a graph that does not end in a Softmax has no scores for a temperature")
    last = graph.node[place]
    scores, last.input[0] = last.input[0], _TEMPERED
    graph.initializer.append(numpy_helper.from_array(np.array(temperature, np.float32), _TEMPERATURE))
    graph.node.insert(place, helper.make_node("Div", [scores, _TEMPERATURE], [_TEMPERED], name="temper"))


def _last_softmax(graph: onnx.GraphProto) -> int | None:
    """The place of the node that gives the first output, if it is a Softmax."""
    last = [i for i, node in enumerate(graph.node) if graph.output[0].name in node.output]
    return last[0] if last and graph.node[last[0]].op_type == "Softmax" else None
