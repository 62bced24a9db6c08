"""Code of one's own: a program or a metric that no manifest can say."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from dspy_operator.api.fields import ApiModel, DataKey, FieldClass, ForeignName, spec_field
from dspy_operator.api.rules import Rule

INPUT = FieldClass.INPUT

Image = Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[a-z0-9][-a-zA-Z0-9._:/@]*$")]
"""Reference of a container image."""


class CodeConfigMap(ApiModel):
    """A file in a ConfigMap of the same namespace."""

    name: ForeignName = spec_field(INPUT, "Name of the ConfigMap.")
    key: DataKey = spec_field(INPUT, "Key whose value is the file, for example program.py.")


class CodeRef(ApiModel):
    """Python code and where it begins: either a ConfigMap or an image has it."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            id="code-in-one-place",
            cel="has(self.configMap) != has(self.image)",
            message="exactly one of configMap, image is required",
        ),
        Rule(
            id="code-key-is-its-module",
            cel="!has(self.configMap) || self.entrypoint.startsWith((self.configMap.key + ':').replace('.py:', ':')) && "
            "self.configMap.key.endsWith('.py')",
            message="""'"' + self.entrypoint + '" does not begin with the module of key "' + self.configMap.key + """
            """'": metric.py has the module metric'""",
            computed=True,
            field=".entrypoint",
        ),
    )

    config_map: CodeConfigMap | None = spec_field(INPUT, "A ConfigMap with the code.", default=None)
    image: Image | None = spec_field(
        INPUT,
        "A container image with the code, made from the runner's, which the pod then runs in; unset where a ConfigMap has it.",
        default=None,
    )
    entrypoint: Annotated[
        str, Field(min_length=3, max_length=253, pattern=r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$")
    ] = spec_field(
        INPUT, 'Module and function, for example "metric:score"; of a ConfigMap the module is the key without its .py.'
    )

    @model_validator(mode="after")
    def _in_one_place(self) -> Self:
        if (self.config_map is None) == (self.image is None):
            raise PydanticCustomError("exactly_one", "exactly one of configMap, image is required")
        if self.config_map is not None and f"{self.module}.py" != self.config_map.key:
            raise PydanticCustomError(
                "range",
                '"{entrypoint}" does not begin with the module of key "{key}": metric.py has the module metric',
                {"entrypoint": self.entrypoint, "key": self.config_map.key},
            )
        return self

    @property
    def module(self) -> str:
        """What is imported."""
        return self.entrypoint.partition(":")[0]

    @property
    def unpinned(self) -> bool:
        """Whether an image is named by what may mean another one tomorrow."""
        return self.image is not None and "@sha256:" not in self.image
