"""The least that answers over MQTT: paho, JSON, one ORT call.

    python -m benchmarks.rivals.paho_loop FOLDER PORT USER PASSWORD_FILE

It answers every graph of the folder on `falaj/local/bench/infer/{graph}`, at the response topic.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import orjson
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

OPTIONS = ort.SessionOptions()
OPTIONS.intra_op_num_threads = 1


def main() -> None:
    folder, port, user, password = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]).read_text()
    sessions = {
        file.stem: ort.InferenceSession(str(file), OPTIONS, providers=["CPUExecutionProvider"])
        for file in folder.glob("*.onnx")
    }

    def answer(client: paho.Client, data: Any, message: paho.MQTTMessage) -> None:
        tensor = orjson.loads(message.payload)["inputs"][0]
        x = np.array(tensor["data"], np.float32).reshape(tensor["shape"])
        (y,) = sessions[message.topic.rpartition("/")[2]].run(["y"], {"x": x})
        output = {"name": "y", "datatype": "FP32", "shape": y.shape, "data": y.ravel().tolist()}
        properties = Properties(PacketTypes.PUBLISH)
        properties.CorrelationData = message.properties.CorrelationData
        told = orjson.dumps({"model_name": "m", "outputs": [output]})
        client.publish(message.properties.ResponseTopic, told, message.qos, properties=properties)

    client = paho.Client(CallbackAPIVersion.VERSION2, "loop", protocol=paho.MQTTv5)
    client.username_pw_set(user, password)
    client.on_connect = lambda *told: client.subscribe("falaj/local/bench/infer/+", 1)
    client.on_message = answer
    client.connect("127.0.0.1", port)
    client.loop_forever()


if __name__ == "__main__":
    main()
