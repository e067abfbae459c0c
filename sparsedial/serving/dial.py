"""The dial of a served checkpoint: from what a request says of it to one setting."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from msgspec.structs import replace

from sparsedial.errors import UserError, about
from sparsedial.records.dial_file import DialFile, DialPoint
from sparsedial.records.serving import DialRequest, ServedModel, ServedModels
from sparsedial.records.setting import Setting
from sparsedial.serving.refused import Refused, refused
from sparsedial.serving.settings import resolve
from sparsedial.shape.shape import Shape
from sparsedial.shape.turned import Turned, parse_turned

UNMEASURED = "not measured: no dial.json of this checkpoint has it"


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A setting, as the engine takes it and as answers name it, and why it is the one."""

    turned: Turned
    setting: Setting
    reason: str


@dataclass(frozen=True, kw_only=True)
class Dial:
    """What a server knows of its checkpoint's settings."""

    name: str  # of the model
    created: int  # seconds since 1970
    shape: Shape
    length: int  # tokens of a prompt and its answer together
    default: Chosen  # of requests that say nothing
    measured: DialFile | UserError  # the error says how it is measured
    usual: tuple[Turned, ...]  # that are named where nothing was measured
    chat: bool | None = None  # whether the checkpoint has a chat template; null: its tokenizer is not loaded yet

    def chosen(self, model: str | None, asked: DialRequest | None) -> Chosen:
        """The setting that a request asks for, by the name of its model or its dial.

        Raises: Refused for another model, a setting that the checkpoint cannot have, or a budget that no setting keeps.
        """
        named = self._setting_in(model)
        given = () if asked is None else asked.given
        try:
            if named is not None and given:
                raise UserError(f"goes without the setting in model '{model}': both choose it", field="dial")
            return self._resolved(asked, given) if asked and given else self._named(named)
        except UserError as error:
            missing = isinstance(self.measured, UserError) and error.problem == self.measured.problem
            raise refused(error, code="dial_not_measured" if missing else "invalid_dial") from error

    def models(self) -> ServedModels:
        """The measured settings, or the usual ones where none was measured; the default is always among them."""
        default = self.default.setting
        return ServedModels(data=tuple(({default.name: self._model(default)} | self._known()).values()))

    def model(self, name: str) -> ServedModel:
        """A model by its name, with or without a setting.

        Raises: Refused where there is none.
        """
        setting = self.chosen(name, None).setting
        return replace(self._known().get(setting.name) or self._model(setting), id=name)

    def identity(self, setting: Setting) -> str:
        """The name of the model at a setting."""
        return f"{self.name}:{setting.name}"

    def _setting_in(self, model: str | None) -> str | None:
        """The setting that the name of a model has."""
        if model is None or model == self.name:
            return None
        setting = model.removeprefix(f"{self.name}:")
        if setting == model:
            known = f"{self.name}, or with a setting {self.identity(self.default.setting)}"
            words = f"no model is named '{model}'; this server has {known}"
            raise Refused(404, words, code="model_not_found", param="model")
        return setting

    def _named(self, setting: str | None) -> Chosen:
        if setting is None:
            return self.default
        try:
            return self._at(*resolve(self.shape, setting, {}, self._measured))
        except UserError as error:
            raise UserError(*error.marked, field="model") from error

    def _at(self, turned: Turned, reason: str) -> Chosen:
        return chosen_at(turned, self.shape, reason)

    def _resolved(self, asked: DialRequest, given: tuple[str, ...]) -> Chosen:
        """The setting of a dial: from its parts, which go together, or from its name or a budget, which go alone."""
        alone = [key for key in given if key not in asked.PARTS]
        if alone and len(given) > 1:
            other = next(key for key in given if key != alone[0])
            raise UserError(f"goes without dial.{alone[0]}: both choose the setting", field=f"dial.{other}")
        if alone:
            try:
                return self._at(*resolve(self.shape, asked.setting, asked.budgets, self._measured))
            except UserError as error:
                raise UserError(*error.marked, field=f"dial.{alone[0]}") from error
        for key in given:  # each by itself, so that an error names it
            with about(f"dial.{key}"):
                DialRequest(**{key: asked[key]}).turned.shape(self.shape)
        with about("dial"):
            return self._at(asked.turned, "asked")

    def _measured(self, kind: str) -> DialFile:
        return require_measured(self.measured)

    def _known(self) -> dict[str, ServedModel]:
        """The settings that are named, by name."""
        if isinstance(self.measured, UserError):
            found = [self._model(chosen_at(turned, self.shape, "").setting) for turned in self.usual]
        else:
            found = [self._model(point.setting, point) for point in self.measured.settings]
        return {model.dial.name: model for model in found}

    def _model(self, setting: Setting, point: DialPoint | None = None) -> ServedModel:
        losses = point.costs.loss.values() if point and point.costs else ()
        return ServedModel(
            id=self.identity(setting),
            created=self.created,
            default=setting.name == self.default.setting.name,
            chat=self.chat,
            max_model_len=self.length,
            dial=setting,
            loss=next((scored.loss for scored in losses), None),
            loss_increase=point and point.loss_increase,
            loss_increase_reason=UNMEASURED if point is None else point.loss_increase_reason,
        )


def require_measured(measured: DialFile | UserError) -> DialFile:
    """The measured settings of a checkpoint.

    Raises: UserError where there are none.
    """
    if isinstance(measured, UserError):
        raise UserError(*measured.marked)
    return measured


@functools.lru_cache(maxsize=256)
def chosen_at(turned: Turned, shape: Shape, reason: str) -> Chosen:
    """A setting of a checkpoint of this Shape, in its full spelling: equal settings are the same to the engine.

    Raises: UserError for a setting that the checkpoint cannot have.
    """
    setting = Setting.of(turned, shape)
    return Chosen(turned=parse_turned(setting.name), setting=setting, reason=reason)
