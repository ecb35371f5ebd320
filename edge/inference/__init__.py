"""Inference requests of the Open Inference Protocol v2, whatever carries them: `questions` reads and answers them,
`tensors` has their numbers on the wire."""

from edge.inference.questions import (
    RAW,
    InputTensor,
    Parameters,
    Question,
    Record,
    WantedOutput,
    answered,
    arrays_of,
    key_of,
    parse,
    unrecorded,
    whole_body,
)
from edge.inference.tensors import from_list

__all__ = [
    "RAW",
    "InputTensor",
    "Parameters",
    "Question",
    "Record",
    "WantedOutput",
    "answered",
    "arrays_of",
    "from_list",
    "key_of",
    "parse",
    "unrecorded",
    "whole_body",
]
