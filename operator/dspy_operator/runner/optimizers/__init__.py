"""The optimizers: one module each, all of one shape. A new one is a file here and its options in `api`."""

from __future__ import annotations

from dspy_operator.api.optimizationrun import OptimizerOptions, Stage, StagesOptions
from dspy_operator.runner.optimizers.bootstrap_few_shot import BootstrapFewShot
from dspy_operator.runner.optimizers.copro import COPRO
from dspy_operator.runner.optimizers.evaluate import Evaluate
from dspy_operator.runner.optimizers.gepa import GEPA
from dspy_operator.runner.optimizers.infer_rules import InferRules
from dspy_operator.runner.optimizers.labeled_few_shot import LabeledFewShot
from dspy_operator.runner.optimizers.mipro_v2 import MIPROv2
from dspy_operator.runner.optimizers.random_search import BootstrapFewShotWithRandomSearch
from dspy_operator.runner.optimizers.shape import Optimizer, Part, Sizes
from dspy_operator.runner.optimizers.simba import SIMBA
from dspy_operator.runner.optimizers.stages import Stages

OPTIMIZERS: dict[str, Optimizer] = {
    "Evaluate": Evaluate(),
    "LabeledFewShot": LabeledFewShot(),
    "BootstrapFewShot": BootstrapFewShot(),
    "BootstrapFewShotWithRandomSearch": BootstrapFewShotWithRandomSearch(),
    "MIPROv2": MIPROv2(),
    "GEPA": GEPA(),
    "COPRO": COPRO(),
    "InferRules": InferRules(),
    "SIMBA": SIMBA(),
}
"""By the `type` of the spec; Stages is made of these."""


def optimizer_of(type_: str, options: OptimizerOptions) -> Optimizer:
    """The optimizer of this type."""
    if isinstance(options, StagesOptions):
        return Stages([(stage.type, OPTIMIZERS[stage.type], stage.options) for stage in options.stages])
    return OPTIMIZERS[type_]


def parts_of(type_: str, optimizer: Optimizer, options: OptimizerOptions, sizes: Sizes) -> list[Part]:
    """Its stages, or itself."""
    if isinstance(optimizer, Stages):
        return optimizer.parts(sizes)
    return [Part(type_, optimizer, options, sizes, f"spec.optimizer.{Stage.MEMBERS.get(type_, 'type')}")]
