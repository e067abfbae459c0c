"""What a trained token costs in each currency: by a named device's published peak, or by a measured Profile."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sparsedial.errors import UserError
from sparsedial.machine.devices import UTILISATION, Device
from sparsedial.machine.memory import StepBytes, step_bytes
from sparsedial.machine.profile import VALUE_BYTES as BYTES_OF
from sparsedial.machine.profile import Estimate, Profile
from sparsedial.records.plan import PlanMachine, TrainingCosts
from sparsedial.records.verdict import Basis
from sparsedial.shape.counts import (
    active_parameters,
    cached_values_per_token,
    total_parameters,
    training_flops_per_token,
)

NO_MACHINE = "no machine was named"
NO_PRICE = "no price was given"
MOST_DEVICES = 10_000_000
VALUE_BYTES = 2  # bf16: weights when serving, activations when training on a named device


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Costs per trained token on one kind of machine.

    `devices` are assumed to share the work perfectly, as the plan says; `dollars_per_hour` is for one device.
    """

    machine: Device | Profile | None
    devices: int = 1
    dollars_per_hour: float | None = None
    batch: int = 8  # sequences per step, for a Profile
    context: int = 2048

    def per_token(self, shapes: Any, currency: str) -> Any:
        """Cost of learning from one token, vectorised over Shapes.

        Raises: UserError where the currency needs a machine or a price that was not given.
        """
        if currency == "flops":
            return np.asarray(training_flops_per_token(shapes, self.context), dtype=float)
        seconds = self.seconds(shapes)[1]
        if currency == "seconds":
            return seconds
        if currency == "joules":
            return seconds * self.devices * self.watts
        if self.dollars_per_hour is None:
            raise UserError("dollars need the price of a device-hour", hint="for example 2.5", field="price")
        return seconds * self.devices * self.dollars_per_hour / 3600

    def seconds(self, shapes: Any) -> tuple[Any, Any, Any]:
        """Seconds per token: low, middle, high."""
        if isinstance(self.machine, Profile):
            step = self.machine.step_seconds(shapes, self.batch, self.context)
            tokens = self.batch * self.context * self.devices
            return step.low / tokens, step.value / tokens, step.high / tokens
        if self.machine is None:
            raise UserError(
                "seconds, joules and dollars need a machine", hint="for example h100, or a profile.json", field="device"
            )
        flops = np.asarray(training_flops_per_token(shapes, self.context), dtype=float)
        peak = self.machine.flops_per_second * self.devices
        sparse = np.asarray(shapes.experts) > 0
        low, middle, high = (
            flops / peak / np.where(sparse, of_sparse, of_dense)
            for of_dense, of_sparse in zip(reversed(UTILISATION["dense"]), reversed(UTILISATION["sparse"]), strict=True)
        )
        return low, middle, high

    def training_bytes(self, shapes: Any) -> Any:
        """Bytes to train, over all devices: calibrated where the Profile has such runs, else counted."""
        if isinstance(self.machine, Profile) and self.machine.memory is not None:
            return self.machine.memory.bytes(shapes, self._sequences, self.context, self._value_bytes)
        return self.memory_parts(shapes).total

    @property
    def device_bytes(self) -> float | None:
        """Memory of one device; None where it is not known."""
        if isinstance(self.machine, Profile):
            return self.machine.machine.memory_bytes if self.machine.device == "cpu" else None
        return None if self.machine is None else self.machine.memory_bytes

    def devices_for(self, shapes: Any) -> int | None:
        """The fewest devices that train a shape, or one of Shapes, with states sharded and a sequence on each.

        None where the memory of a device is not known, or no number of devices is enough.
        """
        each, count = self.device_bytes, 1
        while each is not None and count < MOST_DEVICES:
            needed = math.ceil(float(np.min(replace(self, devices=count).training_bytes(shapes))) / each)
            if needed <= count:
                return count
            count = needed
        return None

    def memory_parts(self, shapes: Any) -> StepBytes:
        """The counted bytes by part, without the process: one sequence per device, or the Profile's batch."""
        return step_bytes(shapes, self._sequences, self.context, self._value_bytes)

    @property
    def _sequences(self) -> int:
        return self.devices * (self.batch if isinstance(self.machine, Profile) else 1)

    @property
    def _value_bytes(self) -> int:
        return BYTES_OF[self.machine.dtype] if isinstance(self.machine, Profile) else VALUE_BYTES

    @property
    def memory_source(self) -> str:
        """Where the bytes of training come from, with their error where there is one."""
        if isinstance(self.machine, Profile) and self.machine.memory is not None:
            memory = self.machine.memory
            return (
                f"calibrated by {len(memory.rows)} runs of ten steps; each left out in turn was off by"
                f" {100 * memory.median_relative_error:.2g} % in the median,"
                f" {100 * memory.max_relative_error:.2g} % at most"
            )
        return "counted part by part, without the process itself; `sparsedial profile` calibrates it on a machine"

    @property
    def watts(self) -> float:
        """Power of one device at work."""
        if self.machine is None:
            raise UserError("joules need a machine", hint="for example h100, or a profile.json", field="device")
        if isinstance(self.machine, Profile):
            self.machine.require_power()
        return self.machine.watts

    @property
    def _joules_basis(self) -> Basis:
        return "measured" if isinstance(self.machine, Profile) and self.machine.metered else "estimated"

    def decoding(self, shapes: Any, positions: int) -> Any:
        """Tokens per second of one sequence, limited by reading active weights and its cache once per token.

        None without a device whose bandwidth is known.
        """
        if not isinstance(self.machine, Device):
            return None
        read = VALUE_BYTES * (active_parameters(shapes) + cached_values_per_token(shapes) * positions)
        return self.machine.bytes_per_second / read

    def record(self) -> PlanMachine | None:
        """What the plan says of the machine."""
        machine = self.machine
        if machine is None:
            return None
        if isinstance(machine, Device):
            return PlanMachine(
                name=machine.name,
                devices=self.devices,
                watts=machine.watts,
                dollars_per_hour=self.dollars_per_hour,
                peak_flops_per_second=machine.flops_per_second,
                memory_bytes=machine.memory_bytes,
                utilisation_dense=UTILISATION["dense"],
                utilisation_sparse=UTILISATION["sparse"],
                source=machine.source,
            )
        return PlanMachine(
            name="profile",
            devices=self.devices,
            watts=machine.watts,
            dollars_per_hour=self.dollars_per_hour,
            machine=machine.machine,
            median_relative_error=machine.median_relative_error,
        )

    def training_seconds(self, shape: Any, tokens: float) -> Estimate:
        """Seconds to train one shape on some tokens."""
        if isinstance(self.machine, Profile):
            whole = self.machine.seconds(shape, tokens, self.batch, self.context)
            low, middle, high = (side / self.devices for side in (whole.low, whole.value, whole.high))
        else:
            low, middle, high = (float(np.asarray(side)) * tokens for side in self.seconds(shape))
        return Estimate(value=middle, low=low, high=high)

    def of_training(self, shape: Any, tokens: int, positions: int, sequences: int) -> TrainingCosts:
        """The costs of a training run in every currency, its memory, and the memory to serve its model."""
        seconds = None if self.machine is None else self.training_seconds(shape, tokens)
        price = self.dollars_per_hour
        no_machine = NO_MACHINE if seconds is None else None
        no_joules = no_machine or (self.machine.no_power if isinstance(self.machine, Profile) else None)
        joules = None if seconds is None or no_joules else seconds.times(self.devices * self.watts)
        dollars = None if price is None or seconds is None else seconds.times(self.devices * price / 3600)
        return TrainingCosts(
            flops=float(training_flops_per_token(shape, self.context)) * tokens,
            memory_bytes=float(self.training_bytes(shape)),
            memory_parts=self.memory_parts(shape).parts,
            memory_source=self.memory_source,
            serving_memory_bytes=serving_bytes(shape, positions, sequences),
            seconds=seconds and seconds.value,
            seconds_low=seconds and seconds.low,
            seconds_high=seconds and seconds.high,
            joules=joules and joules.value,
            dollars=dollars and dollars.value,
            seconds_reason=no_machine,
            joules_reason=no_joules,
            dollars_reason=no_machine or (NO_PRICE if price is None else None),
            joules_low=joules and joules.low,
            joules_high=joules and joules.high,
            joules_basis=None if joules is None else self._joules_basis,
            dollars_low=dollars and dollars.low,
            dollars_high=dollars and dollars.high,
        )


def serving_bytes(shapes: Any, positions: int, sequences: int) -> Any:
    """Bytes to serve: every weight, and the cache of some sequences."""
    return VALUE_BYTES * (total_parameters(shapes) + cached_values_per_token(shapes) * positions * sequences)
