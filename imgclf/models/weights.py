"""Weights in and out: safetensors and npz files in PyTorch's names and layouts, never pickle.

The map is mechanical, since modules carry PyTorch's names: the parameter
`layer1 / 0 / conv1 / kernel` is the file's `layer1.0.conv1.weight`, transposed from
(height, width, in, out) to (out, in, height, width); the statistics `bn1 / mean` and `bn1 / var`
are `bn1.running_mean` and `bn1.running_var`. A `factor` here is a `scale` there. Files of Google's
vision transformers are brought to these names first (`big_vision.py`).
"""

import dataclasses
import os
import warnings
import zlib
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from imgclf.errors import UserError
from imgclf.models import create
from imgclf.models.big_vision import as_pytorch
from imgclf.models.classifier import classifiers
from imgclf.models.depth import stack, unstack
from imgclf.models.hub import HUB, preprocess_at, weights_at
from imgclf.models.network import Network, Tree, stem_pixels
from imgclf.models.torchvision import preprocess_of
from imgclf.preprocess import Preprocess

Shapes = Mapping[str, tuple[int, ...]]
"""Of a network's parameters and statistics, by their names in a file and in its layout."""

_LAST_NAMES = {
    "kernel": "weight",
    "scale": "weight",
    "factor": "scale",
    "mean": "running_mean",
    "var": "running_var",
}
_WRAPPERS = ("_orig_mod.", "state_dict.", "module.", "model.")
_BUFFERS = (
    "num_batches_tracked",
    "relative_position_index",  # of Swin, as the next two
    "relative_coords_table",
    "attn_mask",
    "mask_token",  # of DINOv2's own training
)
_DAMAGED = (SafetensorError, OSError, EOFError, ValueError, TypeError, BadZipFile, zlib.error)


def load(
    name: str,
    path: str | Path,
    num_classes: int | None = None,
    dtype: str = "float32",
    preprocess: Preprocess = Preprocess(),
    in_channels: int = 3,
    image_shape: Sequence[int] = (),
    **options: Any,
) -> tuple[Network, dict, dict]:
    """(network, params, model_state) of the network called `name`, with the weights in `path`.

    `path` may be `hf-hub:timm/NAME` or `hf-hub:timm/NAME@REVISION`, which downloads them
    (`imgclf[hub]`); empty fields of `preprocess` come from there, too. Without `num_classes`, as
    many as the file has; with another number the classifier begins anew, from a fixed key, with
    a warning. So it is with `in_channels`: the stem's weights are shared out over them.
    `image_shape` (h, w, c) matters only where the parameters depend on it; without it: the
    network's own size.

        network, params, model_state = load("resnet50", "resnet50.safetensors")
        outputs, _ = network.apply(params, model_state, images_bhwc, train=False)
    """
    stored = read(path)
    if num_classes is None:
        num_classes = _classes_in(stored, create(name, 1, **options), path)
    preprocess = preprocess_with(path, preprocess)
    network = create(name, num_classes, dtype, preprocess, in_channels, **options)
    images = jax.ShapeDtypeStruct((1, *(image_shape or network.image_shape)), jnp.float32)

    key = jax.random.key(0)
    template = jax.eval_shape(network.initialise, key, images)
    params, model_state, note = _fitted(network, template, stored, path)
    if note:  # Then some of the initial values are needed, and worth compiling for.
        warnings.warn(note, stacklevel=2)
        initial = network.initialise(key, images)
        params, model_state, _ = _fitted(network, initial, stored, path)
    return network, params, model_state


def load_weights(
    network: Network, params: Tree, model_state: Tree, path: str | Path
) -> tuple[dict, dict, str]:
    """(params, model_state, note): all values taken from the file; of what is given, the shapes.

    Where the file has another number of classes, the classifier stays as given, and where it has
    another of channels, the stem's weights are shared out over those of the network; `note` says
    so, else it is empty. Any other misfit, missing, unexpected or of another shape, is a
    `UserError` that names them all.
    """
    return _fitted(network, (params, model_state), read(path), path)


def save_weights(network: Network, params: Tree, model_state: Tree, path: str | Path) -> None:
    """Writes a .safetensors or .npz file that PyTorch's implementation of the network can load.

    What `load_weights` read from a float32 file is written back to the bit.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise UserError(f"The folder of a weights file must be there; got {str(path)!r}")
    arrays: dict[str, np.ndarray] = {}
    if _is_stacked(network):
        params, model_state = unstack(network, params, model_state)
    for keys, value in flatten_dict({"params": params, **model_state}).items():
        value, name = np.asarray(value), _stored_name(keys)
        if name in arrays:
            raise UserError(
                f"The names of `{network.name}` must differ in a file; got {name} twice"
            )
        arrays[name] = np.asarray(value.transpose(_stored_axes(keys, value.ndim)), order="C")
    unfinished = path.with_name(f".{path.name}.unfinished")
    if path.suffix == ".safetensors":
        save_file(arrays, unfinished, metadata={"format": "pt", "network": network.name})
    elif path.suffix == ".npz":
        with open(unfinished, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
    else:
        raise _not_a_format(path)
    os.replace(unfinished, path)


def read(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a .safetensors or .npz file, under the names and in the layout they have there.

    Left out are buffers that nothing uses, such as PyTorch's counters (`num_batches_tracked`), and
    a prefix that all names have in common from what the network was wrapped in (`module.`).
    """
    path = weights_at(str(path)) if str(path).startswith(HUB) else Path(path)
    try:
        if path.suffix.lower() == ".safetensors":
            arrays = load_file(path)
        elif path.suffix.lower() == ".npz":
            with open(path, "rb") as file:
                arrays = dict(np.load(file, allow_pickle=False))
        else:
            raise _not_a_format(path)
    except FileNotFoundError as error:
        raise UserError(f"The `weights` must be a file; got {str(path)!r}, not there") from error
    except _DAMAGED as error:
        raise UserError(
            f"The `weights` must be a readable {path.suffix[1:]} file; got {str(path)!r}: "
            f"{' '.join(str(error).split())}"
        ) from error
    arrays = dict(zip(_unwrapped(list(arrays)), arrays.values(), strict=True))
    return {k: v for k, v in arrays.items() if k.rpartition(".")[2] not in _BUFFERS}


def _unwrapped(names: list[str]) -> list[str]:
    for wrapper in _WRAPPERS:
        if all(name.startswith(wrapper) for name in names):
            names = [name.removeprefix(wrapper) for name in names]
    return names


def _fitted(
    network: Network,
    given: tuple[Tree, Tree],
    stored: Mapping[str, np.ndarray],
    path: str | Path,
) -> tuple[dict, dict, str]:
    stacked = _is_stacked(network)
    if stacked:
        shapes_only = isinstance(jax.tree.leaves(given)[0], jax.ShapeDtypeStruct)
        apart = partial(unstack, network)
        given = jax.eval_shape(apart, *given) if shapes_only else apart(*given)
    leaves = flatten_dict({"params": given[0], **given[1]})
    wanted = {_stored_name(keys): _stored_shape(keys, leaf.shape) for keys, leaf in leaves.items()}
    stored = _adapted(network, stored)
    anew, of_classes = _begun_anew(network, wanted, stored, path)
    stored, of_channels = _with_stems(network, wanted, stored, path)
    _check_fit(network, _without(anew, wanted), _without(anew, stored), path)

    values: dict[tuple[str, ...], Any] = {}
    for keys, leaf in leaves.items():
        values[keys], name = leaf, _stored_name(keys)
        if name not in anew:
            array = stored[name].transpose(np.argsort(_stored_axes(keys, leaf.ndim)))
            values[keys] = jnp.asarray(array, leaf.dtype)
    fitted = unflatten_dict(values)
    params = fitted.pop("params", {})
    if stacked:
        params, fitted = stack(network, params, fitted)
    return params, fitted, "; ".join([*of_classes, *of_channels])


def _without(names: Collection[str], values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _begun_anew(
    network: Network, wanted: Shapes, stored: Mapping[str, np.ndarray], path: str | Path
) -> tuple[set[str], list[str]]:
    """Parameters of classifiers of which the file has none, or all for other classes; and notes."""
    heads = tuple(f"{head}." for head in classifiers(network.module))
    every = {name for name in wanted if name.startswith(heads)}
    if not any(name.startswith(heads) for name in stored):
        return every, [f"The classifier begins anew: {str(path)!r} has none"] if every else []

    def is_for_others(name: str) -> bool:
        found, want = stored[name].shape, wanted[name]
        return len(found) == len(want) and found[1:] == want[1:] and found != want

    anew: set[str] = set()
    notes = []
    for head in heads:
        names = {name for name in every & stored.keys() if name.startswith(head)}
        if not names or not all(map(is_for_others, names)):
            continue
        classes, *more = {stored[name].shape[0] for name in names}
        if not more:
            anew |= names
            notes.append(
                f"The classifier `{head[:-1]}` begins anew: {str(path)!r} has {classes} classes, "
                f"the network {network.num_classes}"
            )
    return anew, notes


def _with_stems(
    network: Network, wanted: Shapes, stored: Mapping[str, np.ndarray], path: str | Path
) -> tuple[Mapping[str, np.ndarray], list[str]]:
    """The arrays, those of stems that are for images of other channels adapted; and notes."""
    adapted, notes, pixels = dict(stored), [], stem_pixels(network.module)
    for stem in _stems(network.module):
        name = f"{stem}.weight"
        if name not in stored or name not in wanted:
            continue
        found, want = stored[name].shape, wanted[name]
        alike = len(found) == len(want) and found[:1] + found[2:] == want[:1] + want[2:]
        if alike and found != want and found[1] % pixels == 0:
            theirs, ours = found[1] // pixels, want[1] // pixels
            adapted[name] = _with_inputs(stored[name], ours, pixels)
            notes.append(
                f"The stem `{stem}` is adapted: {str(path)!r} has {theirs} channels, "
                f"the images {ours}"
            )
    return adapted, notes


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
        "; its parameters depend on the size of its images: "
        "`image_shape` or `preprocess.size` must be that of the weights"
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


def preprocess_with(path: str | Path, preprocess: Preprocess) -> Preprocess:
    """`preprocess`, its empty fields as these weights were trained, so far as that is known.

    Beside weights on the hub timm's `config.json` says it; torchvision's have names that do.
    """
    if all(dataclasses.astuple(preprocess)):
        return preprocess
    if str(path).startswith(HUB):
        return preprocess.over(preprocess_at(str(path)))
    return preprocess.over(preprocess_of(_unwrapped(_names(Path(path)))))


def _names(path: Path) -> list[str]:
    """Those of a file's arrays; none if it cannot be read, which `read` says."""
    try:
        if path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return list(file)
        with safe_open(path, "numpy") as file:
            return list(file.keys())
    except _DAMAGED:
        return []


def _is_stacked(network: Network) -> bool:
    return bool(getattr(network.module, "scan", False))


def _adapted(network: Network, stored: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """The arrays of a file as the network's family knows them, where it knows several forms."""
    stored = as_pytorch(stored)
    adapt = getattr(network.module, "from_file", None)
    return adapt(stored) if adapt else stored


def _classes_in(stored: Mapping[str, np.ndarray], network: Network, path: str | Path) -> int:
    weight, stored = (
        getattr(network.module, "classifier", "") + ".weight",
        _adapted(network, stored),
    )
    if weight not in stored:
        raise UserError(
            f"The `num_classes` of `{network.name}` must be given; {str(path)!r} has no {weight}, "
            f"but {_listed('arrays', list(stored))}"
        )
    return stored[weight].shape[0]


def _stored_name(keys: Sequence[str]) -> str:
    _, *modules, last = keys  # The first is the collection: params or batch_stats.
    return ".".join([*modules, _LAST_NAMES.get(last, last)])


def _stored_axes(keys: Sequence[str], ndim: int) -> tuple[int, ...]:
    # PyTorch's kernels have outputs and inputs first.
    if keys[-1] != "kernel":
        return tuple(range(ndim))
    return (ndim - 1, ndim - 2, *range(ndim - 2))


def _stored_shape(keys: Sequence[str], shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(shape[axis] for axis in _stored_axes(keys, len(shape)))


def _listed(what: str, which: Sequence[str]) -> str:
    shown = ", ".join(which[:3]) + (", ..." if len(which) > 3 else "")
    return f"{len(which)} {what} ({shown})"


def _not_a_format(path: Path) -> UserError:
    advice = "; convert it to safetensors first" if path.suffix != "" else ""
    if path.is_dir():
        advice = f"; if that is a run: imgclf export {path} FILE"
    return UserError(
        f"The `weights` must be a .safetensors or .npz file (loading one never runs code); got "
        f"{str(path)!r}{advice}"
    )
