"""What the documents describe as numpy holds it: the datatypes of tensors, and readings in a model's units. Apart from
`sync.features`, so that trust and delivery, which read those documents, load no numpy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from sync.features import Datatype, Unit

DTYPES: Mapping[Datatype, np.dtype[np.generic]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(np.object_),
}  # as numpy holds them, and ONNX Runtime takes them; BYTES are texts
NAMES: Mapping[np.dtype[np.generic], Datatype] = {dtype: name for name, dtype in DTYPES.items()}


def text_of(element: object) -> str:
    """An element of BYTES as text. A graph may say what is no UTF-8: it is told as far as it is text."""
    return element.decode(errors="replace") if isinstance(element, bytes) else str(element)


def in_units(rows: npt.ArrayLike, channels: tuple[str, ...], units: Mapping[str, Unit]) -> npt.NDArray[np.float32]:
    """Rows (n, channels) in the model's units, float32; beyond what 32 bits hold a number is infinite.

    Training and serving call exactly this. A number is first rounded to 32 bits, so that it does not matter how it
    came: as text, as JSON, or raw.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        given = np.asarray(rows, np.float32)
        if not units:
            return given
        each = [units.get(channel, Unit()) for channel in channels]
        scale, offset = ([getattr(unit, part) for unit in each] for part in ("scale", "offset"))
        found: npt.NDArray[np.float32] = (given.astype(np.float64) * scale + offset).astype(np.float32)
        return found
