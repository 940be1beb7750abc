"""Weights in and out: safetensors and npz files in PyTorch's names and layouts, never pickle."""

import contextlib
import dataclasses
import os
import warnings
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from imgclf.errors import UserError
from imgclf.models import create
from imgclf.models.depth import unstack
from imgclf.models.fitting import adapted, fitted, is_stacked, stored_axes, stored_name
from imgclf.models.hub import HUB, preprocess_at, weights_at
from imgclf.models.network import Network, Tree
from imgclf.models.torchvision import preprocess_of
from imgclf.preprocess import Preprocess

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
    preprocess = preprocess_with(path, preprocess, in_channels, options.get("image_size", 0))
    network = create(name, num_classes, dtype, preprocess, in_channels, **options)
    images = jax.ShapeDtypeStruct((1, *(image_shape or network.image_shape)), jnp.float32)

    key = jax.random.key(0)
    template = jax.eval_shape(network.initialise, key, images)
    params, model_state, note = fitted(network, template, stored, path)
    if note:  # Then some of the initial values are needed, and worth compiling for.
        warnings.warn(note, stacklevel=2)
        initial = network.initialise(key, images)
        params, model_state, _ = fitted(network, initial, stored, path)
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
    return fitted(network, (params, model_state), read(path), path)


def save_weights(network: Network, params: Tree, model_state: Tree, path: str | Path) -> None:
    """Writes a .safetensors or .npz file that PyTorch's implementation of the network can load.

    What `load_weights` read from a float32 file is written back to the bit. Raises a `UserError`
    where it cannot be written.
    """
    check_target(path)
    arrays: dict[str, np.ndarray] = {}
    if is_stacked(network):
        params, model_state = unstack(network, params, model_state)
    for keys, value in flatten_dict({"params": params, **model_state}).items():
        value, name = np.asarray(value), stored_name(keys)
        if name in arrays:
            raise UserError(
                f"The names of `{network.name}` must differ in a file; got {name} twice"
            )
        arrays[name] = np.asarray(value.transpose(stored_axes(keys, value.ndim)), order="C")
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        if path.suffix.lower() == ".safetensors":
            save_file(arrays, unfinished, metadata={"format": "pt", "network": network.name})
        else:
            with open(unfinished, "wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
        os.replace(unfinished, path)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise UserError(f"Cannot write the weights file {str(path)!r}: {error}") from error


def check_target(path: str | Path) -> None:
    """Raises a `UserError` unless `save_weights` can write a file of that name and place."""
    path = Path(path)
    if path.suffix.lower() not in (".safetensors", ".npz"):
        raise UserError(f"A weights file must end in .safetensors or .npz; got {str(path)!r}")
    if not path.parent.is_dir():
        raise UserError(f"The folder of a weights file must be there; got {str(path)!r}")
    if path.is_dir():
        raise UserError(f"A weights file must be a file; got {str(path)!r}, a folder")


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
        if names and all(name.startswith(wrapper) for name in names):
            return _unwrapped([name.removeprefix(wrapper) for name in names])
    return names


def preprocess_with(
    path: str | Path, preprocess: Preprocess, in_channels: int = 3, image_size: int = 0
) -> Preprocess:
    """`preprocess`, its empty fields as these weights were trained, so far as that is known.

    Beside weights on the hub timm's `config.json` says it; torchvision's have names that do. For
    images of `in_channels` it is what `Preprocess.for_channels` makes of that. Where the network
    has an option `image_size`, that is the size.
    """
    preprocess = preprocess.over(Preprocess(image_size))
    if all(dataclasses.astuple(preprocess)):
        return preprocess
    if str(path).startswith(HUB):
        theirs = preprocess_at(str(path))
    else:
        theirs = preprocess_of(_unwrapped(_names(Path(path))))
    return preprocess.over(theirs.for_channels(in_channels))


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


def _classes_in(stored: Mapping[str, np.ndarray], network: Network, path: str | Path) -> int:
    classifier, stored = getattr(network.module, "classifier", ""), adapted(network, stored)
    weight = f"{classifier}.weight"
    if weight not in stored:
        raise UserError(
            f"The `num_classes` of `{network.name}` must be given; {str(path)!r} has no {weight}, "
            f"but {_listed('arrays', list(stored))}"
        )
    return stored[weight].shape[0]


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
