"""Durations that carry their unit: `Steps`, `Epochs`, `Examples`, `Fraction`, `Never`."""

import abc
import math
import re
from dataclasses import dataclass

from imgclf.errors import UserError


@dataclass(frozen=True)
class Unit(abc.ABC):
    """A duration of training, or the distance between two events of it."""

    amount: float

    @abc.abstractmethod
    def in_steps(self, steps_per_epoch: float, *, batch_size: int = 0, steps: int = 0) -> float:
        """The duration in (possibly broken) steps, of a run of `steps` updates in all."""

    def __str__(self) -> str:
        return f"{self.amount!r}{type(self).__name__.lower()}"


@dataclass(frozen=True)
class Steps(Unit):
    """So many updates of the parameters."""

    def in_steps(self, steps_per_epoch: float, *, batch_size: int = 0, steps: int = 0) -> float:
        return self.amount


@dataclass(frozen=True)
class Epochs(Unit):
    """So many times the length of the training data."""

    def in_steps(self, steps_per_epoch: float, *, batch_size: int = 0, steps: int = 0) -> float:
        return self.amount * steps_per_epoch


@dataclass(frozen=True)
class Examples(Unit):
    """So many training examples seen, repeats included."""

    def in_steps(self, steps_per_epoch: float, *, batch_size: int = 0, steps: int = 0) -> float:
        if not batch_size:
            raise UserError(f"{self} must be given in steps, epochs or as a fraction here")
        return self.amount / batch_size


@dataclass(frozen=True)
class Fraction(Unit):
    """A share of the whole run, 0 to 1."""

    def in_steps(self, steps_per_epoch: float, *, batch_size: int = 0, steps: int = 0) -> float:
        if not steps:
            raise UserError(f"{self} must be given in steps, epochs or examples here")
        return self.amount * steps


@dataclass(frozen=True)
class Never(Unit):
    """Not at all."""

    amount: float = math.inf

    def in_steps(self, steps_per_epoch: float, *, batch_size: int = 0, steps: int = 0) -> float:
        return math.inf

    def __str__(self) -> str:
        return "never"


_KINDS: dict[str, type[Unit]] = {
    "step": Steps,
    "epoch": Epochs,
    "example": Examples,
    "fraction": Fraction,
}


def parse(text: str) -> Unit:
    """The duration that `text` says: `10epochs`, `500steps`, `1e6examples`, `0.1fraction`, `never`.

    >>> parse("10epochs")
    Epochs(amount=10)
    """
    if text == "never":
        return Never()
    match = re.fullmatch(r"([0-9.]+(?:e[+-]?[0-9]+)?) *(step|epoch|example|fraction)s?", text)
    try:
        amount = float(match[1]) if match else math.nan
    except ValueError:
        amount = math.nan
    if not match or math.isnan(amount):
        raise UserError(
            f"A duration must be a number with its unit, such as 10epochs, 500steps, 1e6examples, "
            f"0.1fraction, or never; got {text!r}"
        )
    return _KINDS[match[2]](int(amount) if amount.is_integer() else amount)
