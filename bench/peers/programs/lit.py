"""LitServe."""

import os

import litserve as ls
from columns import Trees


class Api(ls.LitAPI):
    def setup(self, device):
        self.trees = Trees()

    def decode_request(self, request):
        return request["columns"]

    def predict(self, columns):
        return self.trees.probabilities(columns)

    def encode_response(self, output):
        return {"probability": output.tolist()}


if __name__ == "__main__":
    server = ls.LitServer(Api(), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1",
        port=int(os.environ["BENCH_PORT"]),
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
    )
