"""Whether options of a network are such as its function takes."""

import inspect
import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args, get_origin

from imgclf.errors import UserError, unknown
from imgclf.kinds import fits, in_words

_TIMMS = {
    "drop_path_rate": "stochastic_depth",
    "embed_dim": "width",
    "global_pool": "pool",
    "in_chans": "in_channels",
}
"""Options that are called otherwise there."""
_RATES = {"drop_rate", "stochastic_depth"}
_PER_STAGE = {"depths", "heads", "inner_widths", "widths"}
_LONG_ENOUGH = {"mixers", "trained_windows", "windows"}
"""May have values for further stages."""
_POSITIVE = {
    "base_width",
    "batch_groups",
    "cardinality",
    "depth",
    "depths",
    "groups",
    "growth",
    "heads",
    "hidden",
    "image_size",
    "inner_widths",
    "layers",
    "mlp_ratio",
    "patch",
    "reduce_first",
    "shortcut_kernel",
    "squeezed",
    "stem_layer",
    "stem_width",
    "stem_widths",
    "width",
    "widths",
    "windows",
}


def check(name: str, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Raises a `UserError` for an option that the function lacks, or that is of another kind."""
    parameters = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    # Linen adds `parent` and `name` to every module; they are not for a recipe to set.
    accepted = [p for p in parameters if p not in ("num_classes", "parent", "name")]
    for option, value in options.items():
        if option not in accepted:
            ours = _TIMMS.get(option)
            if ours in (*accepted, "in_channels"):
                raise UserError(f"Unknown option of {name} {option!r}; did you mean {ours!r}?")
            raise unknown(f"option of {name}", option, accepted)
        hint = parameters[option].annotation
        is_choice = get_origin(hint) is Literal
        if is_choice and isinstance(value, str) and value not in get_args(hint):
            raise unknown(f"{option} of {name}", value, get_args(hint))
        if (is_choice or hint in (bool, int, float, str)) and not fits(value, hint):
            raise UserError(f"The `{option}` of {name} must be {in_words(hint)}; got {value!r}")
        if option in _RATES and not (fits(value, float) and 0 <= value < 1):
            raise UserError(
                f"The `{option}` of {name} must be a share, at least 0 and less than 1; "
                f"got {value!r}"
            )


def check_values(name: str, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Raises a `UserError` for an option of a network of the table that can have no such value."""
    parameters = inspect.signature(function).parameters
    for option, value in options.items():
        hint = parameters[option].annotation
        if not fits(value, hint):
            raise UserError(f"The `{option}` of {name} must be {in_words(hint)}; got {value!r}")
        given = _numbers(value)
        if not all(map(math.isfinite, given)):
            raise UserError(f"The `{option}` of {name} must be finite; got {value!r}")
        least = min(given, default=1)
        if (option in _POSITIVE and least <= 0) or least < 0:
            wanted = "more than 0" if option in _POSITIVE else "at least 0"
            raise UserError(f"The `{option}` of {name} must be {wanted}; got {value!r}")

    usual = {p: each.default for p, each in parameters.items() if isinstance(each.default, tuple)}
    staged = {p: options.get(p, usual[p]) for p in usual if p in _PER_STAGE | _LONG_ENOUGH}
    more = {p: len(value) - len(usual[p]) for p, value in staged.items()}
    stages = {more[p] for p in more.keys() & _PER_STAGE}
    enough = min((more[p] for p in more.keys() & _LONG_ENOUGH), default=0) >= min(stages, default=0)
    if len(stages) > 1 or not enough:
        raise UserError(f"The options of {name} must have a value for each stage; got {staged}")


def with_tuples(value: Any) -> Any:
    """Lists, as the command line and JSON have them, as the tuples that fields of a module are.

    >>> with_tuples([[1, 2], "mean"])
    ((1, 2), 'mean')
    """
    return tuple(map(with_tuples, value)) if isinstance(value, list | tuple) else value


def _numbers(value: Any) -> list[Any]:
    if isinstance(value, tuple):
        return [number for each in value for number in _numbers(each)]
    return [value] if isinstance(value, numbers.Real) else []
