"""A family of Hugging Face: one model type, and how its files correspond to a Shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sparsedial.shape.hugging_face.core import read_core, written_core
from sparsedial.shape.hugging_face.limits import Limit
from sparsedial.shape.hugging_face.rope import rope_table
from sparsedial.shape.hugging_face.routing import EXPERT_COUNTS
from sparsedial.shape.hugging_face.values import Config, Fields
from sparsedial.shape.hugging_face.window import check_layer_types
from sparsedial.shape.rules import Rule
from sparsedial.shape.shape import ROUTED, Shape

MOST_LAYERS = 10_000
MODULES = "num_nextn_predict_layers"  # of multi-token prediction


@dataclass(frozen=True, kw_only=True)
class Family:
    """One model type: reading and writing its fields, what it cannot express, and its names of tensors."""

    model_type: str
    aliases: tuple[str, ...] = ()  # other model types of the same class
    architecture: str  # the class in `transformers`
    defaults: Fields  # of fields that a config.json leaves out, as in `transformers` 5
    only: Mapping[str, tuple[Any, ...]]  # fields that change the model, and the values of them that we support
    experts: str = ""  # its name for the number of routed experts
    read: Callable[[Config], Fields]  # fields of a Shape in addition to those of every family
    written: Callable[[Shape], Fields]  # fields of a config.json in addition to those of every family
    limits: tuple[Limit, ...]  # what it cannot express
    ties: bool = True  # whether all programs share tied tables; vLLM 0.32 does not, and needs a copy in the files
    tensors: tuple[Rule, ...]  # its names; a part is written by the first rule that holds only this part

    def shape(self, config: Config) -> Shape:
        """The Shape that a configuration of this family describes.

        Raises: UserError, by the name of the field.
        """
        config = config.with_defaults(self.defaults, self._synonyms)
        stated = {**config.values, **rope_table(config)}
        for field, allowed in self.only.items():
            if stated.get(field) not in allowed:
                raise config.error(f"{field}={stated.get(field)!r} is not supported for {config.get('model_type')}")
        if config.whole("num_hidden_layers") > MOST_LAYERS:
            raise config.error(f"num_hidden_layers={config.get('num_hidden_layers')} is more than {MOST_LAYERS:,}")
        check_layer_types(config)
        values = {**read_core(config), **self.read(config)}
        dense = values.get("dense_layers", 0) + len(values.get("dense_places", ()))
        if values.get("experts") and not dense:
            values["d_ff"] = 0  # stated, but no layer has it
        if values.get("experts") == 0:
            if dense < values["layers"]:
                raise config.error(f"{self.experts}=0, but layers from {values.get('dense_layers', 0)} on are sparse")
            values = {name: value for name, value in values.items() if name not in ROUTED}
        return Shape(**values)

    @property
    def _synonyms(self) -> dict[str, str]:
        counts = dict.fromkeys(EXPERT_COUNTS, self.experts) if self.experts else {}
        return {"num_mtp_layers": MODULES, **counts}

    def config(self, shape: Shape, dtype: str, end_token: int | None) -> Fields:
        """The `config.json` of a Shape that it can express."""
        modules = {MODULES: shape.mtp_layers} if shape.mtp_layers or MODULES in self.defaults else {}
        return {
            "architectures": [self.architecture],
            "model_type": self.model_type,
            **written_core(shape, dtype, end_token),
            **modules,
            **self.written(shape),
        }

    def lacks(self, shape: Shape) -> list[Limit]:
        """What it cannot express of a Shape; empty where it fits."""
        return [limit for limit in self.limits if not limit.allows(shape)]

    def rules(self, config: Config) -> tuple[Rule, ...]:
        """The rules for its tensors in one configuration."""
        return switched(self.tensors, config)


def switched(rules: tuple[Rule, ...], config: Config) -> tuple[Rule, ...]:
    """The rules for one configuration, which may switch their layout off."""
    off = {rule.switch for rule in rules if rule.switch in config.values and not config.get(rule.switch)}
    return tuple(replace(rule, layout="plain") if rule.switch in off else rule for rule in rules)
