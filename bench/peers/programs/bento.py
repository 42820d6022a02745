"""BentoML."""

import bentoml
from columns import Trees


@bentoml.service(workers=1, traffic={"timeout": 60}, metrics={"enabled": False}, logging={"access": {"enabled": False}})
class Flights:
    def __init__(self) -> None:
        self.trees = Trees()

    @bentoml.api
    async def predict(self, columns: dict) -> dict:
        return {"probability": self.trees.probabilities(columns).tolist()}
