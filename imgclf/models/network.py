"""`Network`: the only thing that the rest of the code knows of a model, and what it answers."""

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax
import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict

from imgclf.errors import UserError, unknown
from imgclf.models.recomputation import recomputed_blocks
from imgclf.preprocess import Preprocess

Tree = Mapping[str, Any]
_UNFIT = (
    flax.errors.ApplyScopeInvalidVariablesStructureError,
    flax.errors.ScopeCollectionNotFound,
    flax.errors.ScopeParamNotFoundError,
    flax.errors.ScopeParamShapeError,
    flax.errors.ScopeVariableNotFoundError,
    TypeError,  # as the next: statistics of other shapes, which Flax does not check
    ValueError,
)
"""What comes of parameters that are another network's."""
_OURS = __name__.removesuffix("network")
"""What the modules are named by that hold the table's networks."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("logits", "features", "auxiliary", "captured"),
    meta_fields=(),
)
@dataclass(frozen=True)
class Outputs:
    """What a network answers to a batch of images."""

    logits: jax.Array
    """float32 (b, k); (b, h, w, k) of a network that is `dense`."""
    features: jax.Array | None = None
    """(b, d): what goes into the classifier, where the module says."""
    auxiliary: tuple[jax.Array, ...] = ()
    """float32 (b, k) each: the logits of further heads."""
    captured: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What the submodules named in `capture` returned: an array, but for some (such as heads) that
    return several; in the network's computation type, but for heads, which return float32."""


def channels_of(module: nn.Module, params: Tree) -> int | None:
    """Channels of the images that the parameters are for; None where `stem` does not say which."""
    found: Any = params
    for part in (*getattr(module, "stem", "").split("."), "kernel"):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found.shape[-2] // stem_pixels(module)


def stem_pixels(module: nn.Module) -> int:
    """How many pixels the stem reads as the channels of one place (see `space_to_depth`)."""
    return getattr(module, "stem_block", 1) ** 2


@dataclass(frozen=True)
class Network:
    """A Linen module as a pair of pure functions, with what belongs to it. Hashes by value.

    The module has `__call__(images, train)`, returns logits or `Outputs`, and draws from the one
    random stream `dropout`. Its parameters and statistics are float32.
    """

    module: nn.Module
    preprocess: Preprocess
    """Every field filled: how images are to be made ready for this network."""
    num_classes: int
    name: str
    minimum_size: int = 1
    """The least height and width, in px, of the images it takes; a module may say so itself."""
    dtype: str = "float32"
    """Type in which images enter the module; logits leave it as float32."""
    in_channels: int = 3
    """Channels of its images, where nothing else says how many."""
    recompute: bool = False
    """Whether training works out twice what is inside a block, instead of keeping it."""

    @property
    def stages(self) -> tuple[str, ...]:
        """Submodules whose outputs are the maps, or tokens, after each stage, for `capture`."""
        return tuple(getattr(self.module, "stages", ()))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the images that it is meant for."""
        side = self.preprocess.size or self.minimum_size
        return side, side, self.in_channels

    @property
    def dense(self) -> bool:
        """Whether it classifies every place: logits (b, h, w, k), a map of classes."""
        return bool(getattr(self.module, "dense", False))

    def initialise(self, key: jax.Array, images_bhwc: Any) -> tuple[dict, dict]:
        """Fresh (params, model_state); of the images only the shape counts, not what is in them.

        Raises a `UserError` for images that are smaller than the network takes.
        """
        shape = self._checked(images_bhwc)
        if min(shape[1:3]) < self.minimum_size:
            raise UserError(
                f"The `images` of `{self.name}` must be at least {self.minimum_size} x "
                f"{self.minimum_size} px; got {shape[1]} x {shape[2]}"
            )
        try:
            variables = _initial_variables(self.module, shape, self.dtype, key)
        except (*_UNFIT, ArithmeticError, flax.errors.NameInUseError, StopIteration) as error:
            if not type(self.module).__module__.startswith(_OURS):
                raise
            raise UserError(
                f"The options of `{self.name}` must fit each other, and images of {shape[1:]}; got "
                f"{type(error).__name__}: {' '.join(str(error).split())}"
            ) from error
        return variables.pop("params", {}), variables

    def _checked(self, images_bhwc: Any) -> tuple[int, ...]:
        shape = tuple(images_bhwc.shape)
        if len(shape) != 4:
            raise UserError(f"The `images` of `{self.name}` must be (b, h, w, c); got {shape}")
        return shape

    def _check_given(
        self, params: Tree, model_state: Tree, images_bhwc: jax.Array, capture: Sequence[str]
    ) -> None:
        for what, tree in (("params", params), ("model_state", model_state)):
            if not isinstance(tree, Mapping):
                raise UserError(
                    f"The `{what}` of `{self.name}` must be a dict, as `initialise` gives it; got "
                    f"{type(tree).__name__}"
                )
        channels = channels_of(self.module, params)
        if channels not in (None, images_bhwc.shape[-1]):
            raise UserError(
                f"The `images` of `{self.name}` must be (b, h, w, {channels}), as its `params`; "
                f"got {images_bhwc.shape}"
            )
        if not jnp.issubdtype(images_bhwc.dtype, jnp.floating):
            raise UserError(
                f"The `images` of `{self.name}` must be normalised already, as floats; "
                f"got {images_bhwc.dtype}"
            )
        if isinstance(capture, str):
            raise UserError(f"The `capture` must be several names, [{capture!r}]; got {capture!r}")

    def _misfit(self, params: Tree, model_state: Tree, images_bhwc: jax.Array) -> UserError | None:
        wanted = jax.eval_shape(self.initialise, jax.random.key(0), images_bhwc)
        given = flatten_dict({"params": params, **model_state})
        for keys, leaf in flatten_dict({"params": wanted[0], **wanted[1]}).items():
            name, got = ".".join(keys[1:]), ""
            if keys not in given:
                got = f"none called {name}"
            elif given[keys].shape != leaf.shape:
                got = f"{name} of the shape {given[keys].shape} where {leaf.shape} is wanted"
            if got:
                return UserError(
                    f"The `params` and `model_state` of `{self.name}` must be its own, for images "
                    f"of {images_bhwc.shape[1:]}; got {got}"
                )
        return None

    def apply(
        self,
        params: Tree,
        model_state: Tree,
        images_bhwc: jax.Array,
        *,
        train: bool,
        key: jax.Array | None = None,
        capture: Sequence[str] = (),
    ) -> tuple[Outputs, Tree]:
        """(outputs, model_state after them) for images that are already normalised.

        `key` feeds dropout and is only needed in training. `capture` names submodules by their
        path, such as "layer1" or "layer2.0"; what they returned is in `outputs.captured`. Raises a
        `UserError` for `params` and `model_state` of another network, or for images of another size
        where they depend on it.
        """
        shape = self._checked(images_bhwc)
        self._check_given(params, model_state, images_bhwc, capture)
        images_bhwc = jnp.asarray(images_bhwc, self.dtype)
        submodules: set[str] = set()

        def is_captured(module: nn.Module, method: str) -> bool:
            path = ".".join(module.path)
            submodules.update({path} - {""})
            return method == "__call__" and path in capture

        mutable = (list(model_state) if train else []) + ["intermediates"] * bool(capture)
        try:
            with recomputed_blocks(self.name) if self.recompute and train else nullcontext():
                answer, changed = self.module.apply(
                    {"params": params, **model_state},
                    images_bhwc,
                    train=train,
                    rngs=None if key is None else {"dropout": key},
                    mutable=mutable,
                    capture_intermediates=is_captured if capture else False,
                )
        except flax.errors.InvalidRngError:
            if key is not None:
                raise
            raise UserError(
                f"The `key` must be given to apply `{self.name}` in training: it drops at random"
            ) from None
        except _UNFIT:
            misfit = self._misfit(params, model_state, images_bhwc)
            if not misfit:
                raise
            raise misfit from None
        changed = dict(changed)
        captured = _by_path(changed.pop("intermediates", {}))
        grown = flatten_dict(changed).keys() - flatten_dict(model_state).keys()  # made by Linen
        if grown and (misfit := self._misfit(params, model_state, images_bhwc)):
            raise misfit
        for name in capture:
            if name not in captured:
                raise unknown("submodule", name, submodules | captured.keys())
        outputs = answer if isinstance(answer, Outputs) else Outputs(answer)
        wanted = (images_bhwc.shape[0], self.num_classes)
        shape = outputs.logits.shape
        if (shape[0], shape[-1]) != wanted or len(shape) != (4 if self.dense else 2):
            places = ", with the places between them, since it is `dense`" if self.dense else ""
            raise UserError(
                f"The logits of `{self.name}` must have the shape {wanted}, examples by classes"
                f"{places}; got {shape}"
            )
        outputs = dataclasses.replace(
            outputs,
            logits=outputs.logits.astype(jnp.float32),
            auxiliary=tuple(logits.astype(jnp.float32) for logits in outputs.auxiliary),
            captured={**outputs.captured, **{name: captured[name] for name in capture}},
        )
        return outputs, {**model_state, **changed} if train else model_state


def _initial_variables(
    module: nn.Module, shape: tuple[int, ...], dtype: str, key: jax.Array
) -> dict[str, Any]:
    def initial(key: jax.Array) -> dict[str, Any]:
        # In training mode, so that heads and statistics used only there are made too.
        streams = {"params": key, "dropout": key}
        variables = dict(module.init(streams, jnp.zeros(shape, dtype), train=True))
        variables.pop("intermediates", None)
        return variables

    if isinstance(key, jax.core.Tracer):  # Under the caller's own jit or eval_shape.
        return initial(key)
    # Compiled, since XLA then drops the forward pass, whose results nobody asks for. What is left
    # runs once, and on the CPU optimising it takes several times longer than that saves.
    on_cpu = jax.default_backend() == "cpu"
    options: dict[str, Any] = {"xla_backend_optimization_level": 1} if on_cpu else {}
    return jax.jit(initial).lower(key).compile(options)(key)


def _by_path(intermediates: Tree) -> dict[str, jax.Array]:
    # Linen keeps {"layer1": {"0": {"__call__": (value of each call, ...)}}}, and what a module
    # sows under a name of its own as {"layer1": {"that name": (value, ...)}}.
    return {
        ".".join(part for part in path if part != "__call__"): values[-1]
        for path, values in flatten_dict(intermediates).items()
    }
