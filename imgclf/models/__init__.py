"""The networks: one file a family, shared layers, weights in and out, and the table of names.

What leaves this room: `Network` and `Outputs`; `names`, `entry` and `create`, which make a network
from a name of the table (`networks.csv`) or from a person's own function; `load`, `load_weights`,
`preprocess_with` and `save_weights`; `reset_classifier`, `stack`, `unstack` and `fuse`, which turn
parameters into those of another form; `count_parameters`, `multiply_adds` and `layers_of`.
Importing it imports no JAX.
"""

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from imgclf.errors import UserError
from imgclf.kinds import fits
from imgclf.models.options import check, check_values, with_tuples
from imgclf.models.table import TABLE, Entry, entry, names
from imgclf.preprocess import PLAIN, Preprocess

if TYPE_CHECKING:
    from imgclf.models.classifier import reset_classifier
    from imgclf.models.depth import stack, unstack
    from imgclf.models.network import Network, Outputs
    from imgclf.models.repvgg import fuse
    from imgclf.models.summary import count_parameters, layers_of, multiply_adds
    from imgclf.models.weights import load, load_weights, preprocess_with, save_weights

__all__ = [
    "TABLE",
    "Entry",
    "Network",
    "Outputs",
    "count_parameters",
    "create",
    "entry",
    "fuse",
    "layers_of",
    "load",
    "load_weights",
    "multiply_adds",
    "names",
    "preprocess_with",
    "reset_classifier",
    "save_weights",
    "stack",
    "unstack",
]

_LAZY = {
    "reset_classifier": "classifier",
    "stack": "depth",
    "unstack": "depth",
    "Network": "network",
    "Outputs": "network",
    "fuse": "repvgg",
    "count_parameters": "summary",
    "layers_of": "summary",
    "multiply_adds": "summary",
    "load": "weights",
    "load_weights": "weights",
    "preprocess_with": "weights",
    "save_weights": "weights",
}


def create(
    network: str | Callable[..., Any],
    num_classes: int,
    dtype: str = "float32",
    preprocess: Preprocess = Preprocess(),
    in_channels: int = 3,
    recompute: bool = False,
    **options: Any,
) -> "Network":
    """The network of that name, or of a person's function `(num_classes, **options) -> nn.Module`.

    `dtype` is the type of its computation, `float32` or `bfloat16`. Empty fields of `preprocess`
    are filled with the network's own, averaged over colours where `in_channels` is 1; for other
    numbers of channels `mean` and `std` must be given to normalise. With `recompute`, training
    takes less memory, and longer: what is inside a block is worked out twice. `options` are fields
    of its module, such as `drop_rate` and `stochastic_depth`; a list is as good as a tuple. Where
    it has an `image_size`, the images are of that size. Raises a `UserError` for an unknown name,
    type or option.
    """
    from flax import linen as nn

    from imgclf.models.network import Network

    if dtype not in ("float32", "bfloat16"):
        raise UserError(f"The `dtype` of a network must be float32 or bfloat16; got {dtype!r}")
    for what, number in (("num_classes", num_classes), ("in_channels", in_channels)):
        if not fits(number, int) or number < 1:
            raise UserError(
                f"The `{what}` of a network must be a whole number, at least 1; got {number!r}"
            )
    if (not callable(network) and not isinstance(network, str)) or isinstance(network, nn.Module):
        raise UserError(
            "A network must be a name from `imgclf models`, or a function "
            f"`(num_classes, **options) -> nn.Module`; got {network!r}"
        )
    if isinstance(network, str):
        name, line = network, entry(network)
        function = getattr(importlib.import_module(f"{__name__}.{line.family}"), name)
    else:
        name, line = getattr(network, "__name__", type(network).__name__), Entry("", PLAIN, 1)
        function = network
    options = {option: with_tuples(value) for option, value in options.items()}
    check(name, function, options)
    if isinstance(network, str):
        check_values(name, function, options)
    module = function(num_classes, **options)
    own = Preprocess(options.get("image_size", 0)).over(line.preprocess).for_channels(in_channels)
    return Network(
        module=module,
        preprocess=preprocess.over(own),
        num_classes=num_classes,
        name=name,
        minimum_size=getattr(module, "minimum_size", line.minimum_size),
        dtype=dtype,
        in_channels=in_channels,
        recompute=recompute,
    )


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
