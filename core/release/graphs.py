"""Opens a finished graph on this machine, as devices do: one thread, the CPU, from bytes alone."""

from __future__ import annotations

import onnxruntime as ort


def open_session(model: bytes) -> ort.InferenceSession:
    """A graph on one thread of the CPU, from bytes: a file beside it could not be found even if it were
    named.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
