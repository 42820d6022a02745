"""MLServer: a runtime of its own for the trees, as its documentation has it for models that it does not know."""

from columns import Trees
from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Flights(MLModel):
    async def load(self) -> bool:
        self.trees = Trees()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        found = self.trees.probabilities({tensor.name: tensor.data.root for tensor in payload.inputs})
        output = ResponseOutput(
            name="probability", shape=list(found.shape), datatype="FP64", data=found.ravel().tolist()
        )
        return InferenceResponse(model_name=self.name, outputs=[output])
