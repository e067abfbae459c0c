"""Reading and writing Hugging Face's `config.json`, by family; shapes that no family fits have our own format."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparsedial.errors import UserError
from sparsedial.settings import fill
from sparsedial.shape.families.family import Family, switched
from sparsedial.shape.families.registry import FAMILIES
from sparsedial.shape.hugging_face.names import EMBEDDING, HEAD, OWN_GROUPED, OWN_LATENT
from sparsedial.shape.hugging_face.routing import EXPERT_COUNTS
from sparsedial.shape.hugging_face.values import Config, Fields
from sparsedial.shape.rules import Rule
from sparsedial.shape.shape import Shape

OWN = "sparsedial"  # the model type of shapes that no family fits; only Sparsedial reads it
BY_MODEL_TYPE = {name: family for family in FAMILIES.values() for name in (family.model_type, *family.aliases)}

BY_LAYER = ("layer_types", "mlp_layer_types")  # lists with an entry for each layer
# Fields that say nothing of a shape.
ABOUT_FILES = ("architectures", "model_type", "torch_dtype", "eos_token_id", "bos_token_id")

SUPPORTED = f"supported are {', '.join(BY_MODEL_TYPE)}"


def no_folder(folder: Path) -> UserError:
    """The error for a checkpoint's folder that is not there, with the way to download what may be a name on the hub."""
    on_hub = not folder.is_absolute() and len(folder.parts) == 2 and not folder.parent.exists()
    download = (
        f"models are not downloaded: if it is one of the Hugging Face Hub, `hf download {folder} --local-dir DIR`"
    )
    return UserError(f"{folder}: no such folder", hint=f"{download}, then name DIR" if on_hub else None)


def load_config(path: Path) -> Config:
    """The content of a `config.json`, or of the one in a folder.

    Raises: UserError where it is missing or not a JSON object.
    """
    file = path / "config.json" if path.is_dir() else path
    try:
        values = json.loads(file.read_text())
    except FileNotFoundError as error:
        raise UserError(f"{file}: no such file") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: not readable as JSON ({error})") from error
    if not isinstance(values, dict):
        raise UserError(f"{file}: not a configuration, which is a JSON object")
    return Config(values, str(path))


def read_config(source: Path | Config | Mapping[str, Any]) -> Shape:
    """The Shape that a `config.json`, a folder with one, or its content describes.

    Raises: UserError for another family, or a field that changes the model in a way that is not supported, by name.
    """
    if isinstance(source, Path):
        source = load_config(source)
    config = source if isinstance(source, Config) else Config(source)
    return _own_shape(config) if config.get("model_type") == OWN else _family(config).shape(config)


def _own_shape(config: Config) -> Shape:
    shape = config.get("shape")
    if not isinstance(shape, Mapping):
        raise config.error("'shape' is missing or not a table of names and values")
    return fill(Shape, shape, config.origin)


def _family(config: Config) -> Family:
    """The family that a configuration names."""
    kind = config.get("model_type")
    if kind is None:
        raise config.error("no 'model_type', so the family is unknown", hint=SUPPORTED)
    if str(kind) not in BY_MODEL_TYPE:
        raise config.error(f"model_type '{kind}' is not supported", hint=_spelled(str(kind)))
    return BY_MODEL_TYPE[str(kind)]


def _spelled(kind: str) -> str:
    """A hint with the model type of the same letters, or with all: a similar name may be another architecture."""
    letters = {"".join(filter(str.isalnum, name)): name for name in BY_MODEL_TYPE}
    known = letters.get("".join(filter(str.isalnum, kind.lower())))
    return f"did you mean '{known}'?" if known else SUPPORTED


def tensor_rules(config: Config, shape: Shape) -> tuple[Rule, ...]:
    """How the files beside a configuration name and lay out the tensors of its Shape.

    Raises: UserError for another family.
    """
    if config.get("model_type") == OWN:
        return switched(OWN_LATENT if shape.latent_attention else OWN_GROUPED, config)
    return _family(config).rules(config)


def copied_names(config: Config, shape: Shape) -> dict[str, str]:
    """Tensors that a folder of this configuration holds twice, for programs that would miss them: copy to original."""
    family = BY_MODEL_TYPE.get(str(config.get("model_type")))
    return {HEAD: EMBEDDING} if shape.tied_embeddings and family and not family.ties else {}


def fitting_family(shape: Shape) -> str | None:
    """The model type whose class computes exactly this shape, or None."""
    return next((name for name, family in FAMILIES.items() if not family.lacks(shape)), None)


def family_of(shape: Shape) -> str:
    """The model type whose class computes exactly this shape.

    Raises: UserError where no family fits; it says what the nearest families cannot express.
    """
    name = fitting_family(shape)
    if name is not None:
        return name
    lacks = {name: family.lacks(shape) for name, family in FAMILIES.items()}
    fewest = min(map(len, lacks.values()))
    nearest = [
        f"{name} cannot express {', '.join(limit.words(shape) for limit in lacking)}"
        for name, lacking in lacks.items()
        if len(lacking) == fewest
    ]
    raise UserError(f"shape: no published family fits; {'; '.join(nearest)}")


def write_config(shape: Shape, *, dtype: str = "float32", end_token: int | None = None) -> Fields:
    """The `config.json` with which `transformers` builds this shape.

    Raises: UserError where no family fits.
    """
    return FAMILIES[family_of(shape)].config(shape, dtype, end_token)


def own_config(shape: Shape, *, dtype: str = "float32", end_token: int | None = None) -> Fields:
    """The `config.json` of a checkpoint that only Sparsedial reads, for shapes that no family fits."""
    return {"model_type": OWN, "torch_dtype": dtype, "eos_token_id": end_token, "shape": shape.record()}


def changed_config(config: Config, shape: Shape, layers: Sequence[int] | None = None) -> Fields:
    """The content of a `config.json` once its model has become this Shape; all else that it says stays.

    Only fields that say something else of the new shape are changed: wherever the file has them, tables in it included,
    and under the name that it has for them. `layers` are those that stay: lists with an entry for each keep theirs.
    Where that does not say the new shape, all fields of the family are written. A shape that the family cannot express
    gets our own format, which others refuse.
    """
    if config.get("model_type") == OWN:
        return {**config.values, "shape": shape.record()}
    family, whole = _family(config), read_config(config)
    dtype = config.get("torch_dtype") or config.get("dtype")
    own = own_config(shape, dtype=str(dtype or "float32"), end_token=config.get("eos_token_id"))
    if any(limit not in family.lacks(whole) for limit in family.lacks(shape)):
        return own
    before, after = (family.config(each, "", None) for each in (whole, shape))
    changed = {name: value for name, value in after.items() if before.get(name) != value}
    counts = {name: changed[family.experts] for name in EXPERT_COUNTS if family.experts in changed}
    values = _of_these(config.values, range(whole.layers) if layers is None else layers)
    found = _with(values, {**changed, **counts})
    if counts.keys() & found.keys():  # under its own name or another
        del changed[family.experts]
    stated = {name: value for name, value in after.items() if name not in ABOUT_FILES}
    tried = ({**found, **changed}, {**found, **changed, **stated})
    return next((fields for fields in tried if _says(fields, shape)), own)


def _says(fields: Fields, shape: Shape) -> bool:
    """Whether a configuration describes this Shape."""
    try:
        return read_config(Config(fields)) == shape
    except UserError:
        return False


def _of_these(values: Mapping[str, Any], layers: Sequence[int]) -> Fields:
    """The values, with the entries of these layers in lists that have one for each."""
    return {
        name: [value[number] for number in layers] if name in BY_LAYER and isinstance(value, list) else value
        for name, value in values.items()
    }


def _with(values: Mapping[str, Any], changed: Mapping[str, Any]) -> Fields:
    """A table with other values for the fields that it has, and so the tables in it."""
    return {
        name: changed[name] if name in changed else _with(value, changed) if isinstance(value, Mapping) else value
        for name, value in values.items()
    }
