"""The same models under LitServe, one API process and one worker: `python lit.py FOLDER PORT`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import litserve
import numpy as np
import onnxruntime as ort


class Models(litserve.LitAPI):  # type: ignore[misc]  # the library is typed only where it is installed
    """LitServe has a protocol of its own; the request carries the same numbers."""

    def setup(self, device: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.sessions = {
            file.stem: ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
            for file in Path(sys.argv[1]).glob("*.onnx")
        }

    # The library reads this annotation at run time and does not understand one that is text.
    def decode_request(self, request):  # type: ignore[no-untyped-def]
        tensor = request["inputs"][0]
        return request["model"], np.array(tensor["data"], np.float32).reshape(tensor["shape"])

    def predict(self, asked: tuple[str, Any]) -> Any:
        model, x = asked
        return self.sessions[model].run(["y"], {"x": x})[0]

    def encode_response(self, output: Any) -> dict[str, Any]:
        return {"outputs": [{"name": "y", "data": output.ravel().tolist()}]}


if __name__ == "__main__":
    server = litserve.LitServer(Models(), accelerator="cpu", workers_per_device=1)
    server.run(
        port=int(sys.argv[2]), host="127.0.0.1", num_api_servers=1, generate_client_file=False, log_level="error",
        access_log=False,
    )  # fmt: skip
