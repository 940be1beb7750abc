"""Vision transformers of Google's JAX code, `vision_transformer` and `big_vision`: their npz files.

They are recognised by their names and mapped to PyTorch's. There, each head has an axis of its own
in the attention's kernels, query, key and value are apart, and all blocks may lie in one array with
a leading axis of depth. The perceptrons there take GELU's tanh form, where timm's networks of most
of these weights take the exact one; `act="gelu_tanh"` is theirs.
"""

import re
from collections.abc import Iterator, Mapping

import jax.numpy as jnp
import numpy as np

_PREFIXES = ("opt/target/", "params/img/", "params/", "")
_SINGLE = {
    "cls": "cls_token",
    "pos_embedding": "pos_embed",
    "Transformer/posembed_input/pos_embedding": "pos_embed",
    "MAPHead_0/probe": "attn_pool.latent",
}
_LAST_NAMES = {"kernel": "weight", "scale": "weight"}
_OF_ALL_BLOCKS = re.compile(r"Transformer/encoderblock/(.*)")
# The older code numbers all submodules of a block together, the newer one each kind by itself.
_MODULES = [
    (re.compile(pattern), name)
    for pattern, name in (
        (r"embedding", "patch_embed.proj"),
        (r"Transformer/encoder_norm", "norm"),
        (r"head", "head"),
        (r"Transformer/encoderblock_(\d+)/LayerNorm_0", r"blocks.\1.norm1"),
        (r"Transformer/encoderblock_(\d+)/LayerNorm_[12]", r"blocks.\1.norm2"),
        (r"Transformer/encoderblock_(\d+)/MultiHeadDotProductAttention_[01]", r"blocks.\1.attn"),
        (r"Transformer/encoderblock_(\d+)/MlpBlock_[03]/Dense_0", r"blocks.\1.mlp.fc1"),
        (r"Transformer/encoderblock_(\d+)/MlpBlock_[03]/Dense_1", r"blocks.\1.mlp.fc2"),
        (r"MAPHead_0/LayerNorm_0", "attn_pool.norm"),
        (r"MAPHead_0/MultiHeadDotProductAttention_0", "attn_pool"),
        (r"MAPHead_0/MlpBlock_0/Dense_0", "attn_pool.mlp.fc1"),
        (r"MAPHead_0/MlpBlock_0/Dense_1", "attn_pool.mlp.fc2"),
    )
]


def as_pytorch(stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of such a file in PyTorch's names and layouts; those of any other as they are.

    A head behind a further layer, `pre_logits`, is left out together with it, since no network here
    has that layer. What is not known keeps its name.
    """
    prefix = next((p for p in _PREFIXES if f"{p}embedding/kernel" in stored), None)
    if prefix is None:
        return dict(stored)
    arrays = {
        name.removeprefix(prefix): _as_float(value)
        for name, value in stored.items()
        if name.startswith(prefix)
    }
    left_out = ("pre_logits/", "head/") if "pre_logits/kernel" in arrays else ()
    arrays = {name: value for name, value in arrays.items() if not name.startswith(left_out)}
    found: dict[str, np.ndarray] = {}
    for name, value in _block_by_block(arrays):
        found |= {_SINGLE[name]: value} if name in _SINGLE else _turned(name, value)
    return dict(_with_joined_attention(found))


def _as_float(value: np.ndarray) -> np.ndarray:
    # NumPy does not know the bfloat16 of a file, and gives it as two bytes without a meaning.
    return value.view(jnp.bfloat16).astype(np.float32) if value.dtype == "V2" else value


def _block_by_block(arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    for name, value in arrays.items():
        match = _OF_ALL_BLOCKS.fullmatch(name)
        if match:
            for i, layer in enumerate(value):
                yield f"Transformer/encoderblock_{i}/{match[1]}", layer
        else:
            yield name, value


def _turned(name: str, value: np.ndarray) -> dict[str, np.ndarray]:
    place, _, last = name.rpartition("/")
    outer, _, part = place.rpartition("/")
    if part not in ("query", "key", "value", "out"):
        outer, part = place, ""
    module = _module(outer)
    if not module:
        return {name: value}
    if last == "kernel" and part == "out":  # (heads, features of a head, outputs)
        value = value.reshape(-1, value.shape[-1])
    elif part:  # (inputs, heads, features of a head); a bias: without the first
        value = value.reshape((len(value), -1) if last == "kernel" else -1)
    if last == "kernel":
        value = value.transpose(-1, -2, *range(value.ndim - 2))
    parts = (module, "proj" if part == "out" else part, _LAST_NAMES.get(last, last))
    return {".".join(filter(None, parts)): value}


def _module(place: str) -> str:
    for pattern, name in _MODULES:
        match = pattern.fullmatch(place)
        if match:
            return match.expand(name)
    return ""


def _with_joined_attention(
    arrays: Mapping[str, np.ndarray],
) -> Iterator[tuple[str, np.ndarray]]:
    for name, value in arrays.items():
        module, _, last = name.rpartition(".")
        outer, _, part = module.rpartition(".")
        names = [f"{outer}.{p}.{last}" for p in ("query", "key", "value")]
        pooling = outer == "attn_pool"
        if part == "query" and pooling:
            yield f"{outer}.q.{last}", value
        elif part == "value" and all(n in arrays for n in names):
            joined = np.concatenate([arrays[n] for n in (names[1:] if pooling else names)])
            yield f"{outer}.{'kv' if pooling else 'qkv'}.{last}", joined
        elif part not in ("query", "key", "value"):
            yield name, value
