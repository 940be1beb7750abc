"""The arrays of a weights file as a network's parameters, and what does not fit.

The map is mechanical, since modules carry PyTorch's names: the parameter
`layer1 / 0 / conv1 / kernel` is the file's `layer1.0.conv1.weight`, transposed from
(height, width, in, out) to (out, in, height, width); the statistics `bn1 / mean` and `bn1 / var`
are `bn1.running_mean` and `bn1.running_var`. A `factor` here is a `scale` there. Files of Google's
vision transformers are brought to these names first (`big_vision.py`).
"""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from imgclf.errors import UserError
from imgclf.models.big_vision import as_pytorch
from imgclf.models.classifier import classifiers
from imgclf.models.depth import stack, unstack
from imgclf.models.network import Network, Tree, stem_pixels

Shapes = Mapping[str, tuple[int, ...]]
"""Of a network's parameters and statistics, by their names in a file and in its layout."""
_LAST_NAMES = {
    "kernel": "weight",
    "scale": "weight",
    "factor": "scale",
    "mean": "running_mean",
    "var": "running_var",
}


def fitted(
    network: Network,
    given: tuple[Tree, Tree],
    stored: Mapping[str, np.ndarray],
    path: str | Path,
) -> tuple[dict, dict, str]:
    """(params, model_state, note) of `network` from the arrays of the file `path`.

    Of `given`, params and model_state or their shapes, is taken what begins anew: a classifier of
    other classes. `note` says that, and which stems are adapted to other channels; all else that
    does not fit is a `UserError`.
    """
    stacked = is_stacked(network)
    if stacked:
        shapes_only = isinstance(jax.tree.leaves(given)[0], jax.ShapeDtypeStruct)
        apart = partial(unstack, network)
        given = jax.eval_shape(apart, *given) if shapes_only else apart(*given)
    leaves = flatten_dict({"params": given[0], **given[1]})
    wanted = {stored_name(keys): _stored_shape(keys, leaf.shape) for keys, leaf in leaves.items()}
    stored = adapted(network, stored)
    anew = _begun_anew(network, wanted, stored, path)
    stored, of_stems = _with_stems(network, wanted, stored, path)
    _check_fit(network, _without(anew, wanted), _without(anew, stored), path)

    values: dict[tuple[str, ...], Any] = {}
    for keys, leaf in leaves.items():
        values[keys], name = leaf, stored_name(keys)
        if name not in anew:
            array = stored[name].transpose(np.argsort(stored_axes(keys, leaf.ndim)))
            values[keys] = jnp.asarray(array, leaf.dtype)
    model_state = unflatten_dict(values)
    params = model_state.pop("params", {})
    if stacked:
        params, model_state = stack(network, params, model_state)
    notes = anew | of_stems
    said = dict.fromkeys(notes[name] for name in wanted if name in notes)
    return params, model_state, "; ".join(said)


def _without(names: Collection[str], values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _begun_anew(
    network: Network, wanted: Shapes, stored: Mapping[str, np.ndarray], path: str | Path
) -> dict[str, str]:
    """Why the parameters of classifiers begin anew that the file has for other classes, or not."""
    heads = tuple(f"{head}." for head in classifiers(network.module))
    every = [name for name in wanted if name.startswith(heads)]
    if not any(name.startswith(heads) for name in stored):
        return dict.fromkeys(every, f"The classifier begins anew: {str(path)!r} has none")

    def is_for_others(name: str) -> bool:
        found, want = stored[name].shape, wanted[name]
        return len(found) == len(want) and found[1:] == want[1:] and found != want

    anew: dict[str, str] = {}
    for head in heads:
        names = [name for name in every if name.startswith(head) and name in stored]
        if not names or not all(map(is_for_others, names)):
            continue
        classes, *more = {stored[name].shape[0] for name in names}
        if not more:
            note = (
                f"The classifier `{head[:-1]}` begins anew: {str(path)!r} has {classes} classes, "
                f"the network {network.num_classes}"
            )
            anew |= dict.fromkeys(names, note)
    return anew


def _with_stems(
    network: Network, wanted: Shapes, stored: Mapping[str, np.ndarray], path: str | Path
) -> tuple[Mapping[str, np.ndarray], dict[str, str]]:
    """The arrays, those of stems for images of other channels adapted; and a note for each."""
    arrays, notes, pixels = dict(stored), {}, stem_pixels(network.module)
    for stem in _stems(network.module):
        name = f"{stem}.weight"
        if name not in stored or name not in wanted:
            continue
        found, want = stored[name].shape, wanted[name]
        alike = len(found) == len(want) and found[:1] + found[2:] == want[:1] + want[2:]
        if alike and found != want and found[1] % pixels == 0:
            theirs, ours = found[1] // pixels, want[1] // pixels
            arrays[name] = _with_inputs(stored[name], ours, pixels)
            notes[name] = (
                f"The stem `{stem}` is adapted: {str(path)!r} has {theirs} channels, "
                f"the images {ours}"
            )
    return arrays, notes


def _check_fit(
    network: Network, wanted: Shapes, stored: Mapping[str, np.ndarray], path: str | Path
) -> None:
    misfits = {
        "missing": [name for name in wanted if name not in stored],
        "unexpected": [name for name in stored if name not in wanted],
        "of another shape": [
            f"{name}: {stored[name].shape} where {shape} is wanted"
            for name, shape in wanted.items()
            if name in stored and stored[name].shape != shape
        ],
    }
    if not any(misfits.values()):
        return
    said = (
        f"{len(which)} {what} ({', '.join(which)})"
        for what, which in sorted(misfits.items(), key=lambda each: len(each[1]))
        if which
    )
    advice = (
        "; if the weights are for images of another size, on which its parameters depend, that "
        "must be the `image_shape` or `preprocess.size`"
    )
    raise UserError(
        f"The `weights` of `{network.name}` must have its names and shapes; got {str(path)!r} "
        f"with {', '.join(said)}{advice if getattr(network.module, 'by_size', False) else ''}"
    )


def _stems(module: nn.Module) -> tuple[str, ...]:
    """The dotted paths of the convolutions that read the images: a main one, and any beside it."""
    return (getattr(module, "stem", ""), *getattr(module, "other_stems", ()))


def _with_inputs(kernel: np.ndarray, channels: int, pixels: int) -> np.ndarray:
    """The kernel (outputs, inputs, height, width) for other channels, with as large an answer.

    Its inputs are the channels of one pixel after another. Of grey images the one channel is taken
    for all; else the inputs come in turn, as in timm.
    """
    outputs, inputs, *window = kernel.shape
    inputs //= pixels
    kernel = kernel.reshape(outputs, pixels, inputs, *window)
    if channels == 1:
        kernel = kernel.sum(2)
    else:
        kernel = kernel[:, :, np.arange(channels) % inputs] * (inputs / channels)
    return kernel.reshape(outputs, pixels * channels, *window)


def is_stacked(network: Network) -> bool:
    """Whether its parameters are those of equal blocks together, which files never have."""
    return bool(getattr(network.module, "scan", False))


def adapted(network: Network, stored: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """The arrays of a file as the network's family knows them, where it knows several forms."""
    stored = as_pytorch(stored)
    adapt = getattr(network.module, "from_file", None)
    return adapt(stored) if adapt else stored


def stored_name(keys: Sequence[str]) -> str:
    """What a file calls the leaf at these keys, the first of which is its collection.

    >>> stored_name(("batch_stats", "layer1", "0", "bn1", "var"))
    'layer1.0.bn1.running_var'
    """
    _, *modules, last = keys
    return ".".join([*modules, _LAST_NAMES.get(last, last)])


def stored_axes(keys: Sequence[str], ndim: int) -> tuple[int, ...]:
    """The order of the leaf's axes in a file: PyTorch's kernels have outputs and inputs first."""
    if keys[-1] != "kernel":
        return tuple(range(ndim))
    return (ndim - 1, ndim - 2, *range(ndim - 2))


def _stored_shape(keys: Sequence[str], shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(shape[axis] for axis in stored_axes(keys, len(shape)))
