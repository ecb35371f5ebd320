"""A bare ASGI application that knows no protocol but the one request it is sent: `python asgi.py FOLDER PORT`."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import orjson
import uvicorn

OPTIONS = ort.SessionOptions()
OPTIONS.intra_op_num_threads = 1
SESSIONS = {
    f"/v2/models/{file.stem}/infer": ort.InferenceSession(str(file), OPTIONS, providers=["CPUExecutionProvider"])
    for file in Path(sys.argv[1]).glob("*.onnx")
}


async def app(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    tensor = orjson.loads(body)["inputs"][0]
    (y,) = SESSIONS[scope["path"]].run(["y"], {"x": np.array(tensor["data"], np.float32).reshape(tensor["shape"])})
    output = {"name": "y", "datatype": "FP32", "shape": y.shape, "data": y.ravel().tolist()}
    answer = orjson.dumps({"model_name": "m", "outputs": [output]})
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error", access_log=False, lifespan="off")
