"""The least that a Python process around onnxruntime can do: `python -m benchmarks.rivals.glue FOLDER PORT`.

asyncio's loop, httptools, orjson and the graph: nothing is checked, limited, counted or watched, and the one request it
knows is the one it is sent. What an agent takes more than this is the agent's; what this takes more than the graph, no
server in Python takes away.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import httptools
import numpy as np
import onnxruntime as ort
import orjson

OPTIONS = ort.SessionOptions()
OPTIONS.intra_op_num_threads = 1
OK = "HTTP/1.1 200 OK\r\ncontent-type: {}\r\n{}content-length: {}\r\n\r\n"
Sessions = dict[bytes, ort.InferenceSession]


class Glue(asyncio.BufferedProtocol):
    """One connection; what it reads lies in a buffer that all share."""

    buffer = memoryview(bytearray(256 * 1024))

    def __init__(self, sessions: Sessions) -> None:
        self.sessions, self.parser = sessions, httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.parser.feed_data(self.buffer[:nbytes])

    def on_message_begin(self) -> None:
        self.body, self.length = b"", 0

    def on_url(self, url: bytes) -> None:
        self.session = self.sessions[url]

    def on_header(self, name: bytes, value: bytes) -> None:
        if name == b"Inference-Header-Content-Length":
            self.length = int(value)

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.transport.write(binary(self.session, self.body, self.length) if self.length else json(self))
        if not self.parser.should_keep_alive():
            self.transport.close()


def json(asked: Glue) -> bytes:
    tensor = orjson.loads(asked.body)["inputs"][0]
    x = np.array(tensor["data"], np.float32).reshape(tensor["shape"])
    (y,) = asked.session.run(["y"], {"x": x})
    output = {"name": "y", "datatype": "FP32", "shape": y.shape, "data": y.ravel().tolist()}
    answer = orjson.dumps({"model_name": "m", "outputs": [output]})
    return OK.format("application/json", "", len(answer)).encode() + answer


def binary(session: ort.InferenceSession, body: bytes, length: int) -> bytes:
    shape = orjson.loads(body[:length])["inputs"][0]["shape"]
    (y,) = session.run(["y"], {"x": np.frombuffer(body, np.float32, offset=length).reshape(shape)})
    output = {"name": "y", "datatype": "FP32", "shape": y.shape, "parameters": {"binary_data_size": y.nbytes}}
    head, piece = orjson.dumps({"model_name": "m", "outputs": [output]}), y.tobytes()
    stated = f"inference-header-content-length: {len(head)}\r\n"
    return OK.format("application/octet-stream", stated, len(head) + len(piece)).encode() + head + piece


async def serve(folder: Path, port: int) -> None:
    sessions = {
        f"/v2/models/{file.stem}/infer".encode(): ort.InferenceSession(
            str(file), OPTIONS, providers=["CPUExecutionProvider"]
        )
        for file in folder.glob("*.onnx")
    }
    server = await asyncio.get_running_loop().create_server(lambda: Glue(sessions), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
