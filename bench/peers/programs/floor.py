"""The floor: what starlette, orjson and onnxruntime need for an answer, with nothing around it.

`/columns` takes {"columns": {name: [value, ...]}}. `/binary` takes the binary tensors of the Open Inference Protocol,
of which it reads no more than it has to: a JSON head whose length a header tells, then the tensors one after another.
"""

import struct

import numpy as np
import orjson
from columns import Trees
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

trees = Trees()


async def columns(request):
    found = trees.probabilities(orjson.loads(await request.body())["columns"])
    body = orjson.dumps({"probability": found}, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, media_type="application/json")


async def binary(request):
    body = await request.body()
    head = int(request.headers["inference-header-content-length"])
    position, feed = head, {}
    for tensor in orjson.loads(body[:head])["inputs"]:
        size = tensor["parameters"]["binary_data_size"]
        if tensor["datatype"] == "BYTES":
            feed[tensor["name"]] = texts(body, position, position + size)
        else:
            feed[tensor["name"]] = np.frombuffer(body, np.float64, size // 8, position)
        position += size
    found = trees.run(feed)
    tensor = {"name": "probability", "datatype": "FP64", "shape": found.shape}
    answer = orjson.dumps({"outputs": [{**tensor, "parameters": {"binary_data_size": found.nbytes}}]})
    headers = {"inference-header-content-length": str(len(answer))}
    return Response(answer + found.tobytes(), headers=headers, media_type="application/octet-stream")


def texts(body, position, end):
    values = []
    while position < end:
        (length,) = struct.unpack_from("<I", body, position)
        values.append(body[position + 4 : position + 4 + length].decode())
        position += 4 + length
    return np.array(values, dtype=object)


async def health(request):
    return Response(b"")


app = Starlette(
    routes=[
        Route("/columns", columns, methods=["POST"]),
        Route("/binary", binary, methods=["POST"]),
        Route("/health", health),
    ]
)
