import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgclf import models
from imgclf.errors import UserError
from imgclf.models.weights import read

SMALL = {"width": 12, "depth": 3, "heads": 2, "image_size": 64, "patch": 16}
HEADS = 2


def network_with(name, **options):
    """A network and parameters in which no number is there twice."""
    options = SMALL | options
    network = models.create(name, 5, **options)
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    params, state = jax.eval_shape(network.initialise, jax.random.key(0), images)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), params)
    return network, params, state


def flax_file(params, old=False, stacked=False, prefix=""):
    """The parameters under the names, and in the layout, of Google's code."""
    arrays = {}

    def put(name, layer):
        for last, value in layer.items():
            arrays[f"{name}/{last}"] = value

    def put_attention(name, layers):
        """Layers of queries, keys and values, each its own; and of what leaves."""
        for part, layer in layers.items():
            kernel, bias = layer["kernel"], layer["bias"]
            if part == "out":
                put(f"{name}/out", {"kernel": kernel.reshape(HEADS, -1, 12), "bias": bias})
            else:
                heads = {"kernel": kernel.reshape(12, HEADS, -1), "bias": bias.reshape(HEADS, -1)}
                put(f"{name}/{part}", heads)

    def split(layer, parts):
        pieces = {last: np.split(value, len(parts), -1) for last, value in layer.items()}
        return {p: {last: pieces[last][i] for last in pieces} for i, p in enumerate(parts)}

    put("embedding", params["patch_embed"]["proj"])
    put("Transformer/encoder_norm", params["norm"])
    put("head", params["head"])
    arrays["Transformer/posembed_input/pos_embedding" if old else "pos_embedding"] = params[
        "pos_embed"
    ]
    if "cls_token" in params:
        arrays["cls"] = params["cls_token"]
    attention, mlp, norm2 = (1, 3, 2) if old else (0, 0, 1)
    for i, block in params["blocks"].items():
        place = f"Transformer/encoderblock_{i}"
        put(f"{place}/LayerNorm_0", block["norm1"])
        put(f"{place}/LayerNorm_{norm2}", block["norm2"])
        put_attention(
            f"{place}/MultiHeadDotProductAttention_{attention}",
            split(block["attn"]["qkv"], ("query", "key", "value")) | {"out": block["attn"]["proj"]},
        )
        put(f"{place}/MlpBlock_{mlp}/Dense_0", block["mlp"]["fc1"])
        put(f"{place}/MlpBlock_{mlp}/Dense_1", block["mlp"]["fc2"])
    if "attn_pool" in params:
        pool = params["attn_pool"]
        arrays["MAPHead_0/probe"] = pool["latent"]
        put("MAPHead_0/LayerNorm_0", pool["norm"])
        put("MAPHead_0/MlpBlock_0/Dense_0", pool["mlp"]["fc1"])
        put("MAPHead_0/MlpBlock_0/Dense_1", pool["mlp"]["fc2"])
        put_attention(
            "MAPHead_0/MultiHeadDotProductAttention_0",
            {"query": pool["q"]} | split(pool["kv"], ("key", "value")) | {"out": pool["proj"]},
        )
    if stacked:
        first = "Transformer/encoderblock_0/"
        for name in [name for name in arrays if name.startswith(first)]:
            inner = name.removeprefix(first)
            arrays[f"Transformer/encoderblock/{inner}"] = np.stack(
                [arrays.pop(f"Transformer/encoderblock_{i}/{inner}") for i in params["blocks"]]
            )
    return {prefix + name: value for name, value in arrays.items()}


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("vit_base_patch16_224", {"old": True}),
        ("vit_base_patch16_224", {"old": True, "prefix": "opt/target/"}),
        ("vit_base_patch16_gap_224", {"prefix": "params/"}),
        ("vit_base_patch16_siglip_224", {"prefix": "params/img/"}),
        ("vit_base_patch16_siglip_224", {"prefix": "params/", "stacked": True}),
    ],
)
@pytest.mark.parametrize("scan", [False, True])
def test_googles_files_are_recognised_and_read_to_the_bit(tmp_path, name, form, scan):
    network, params, _ = network_with(name)
    beside = {"params/txt/head/kernel": np.zeros(3)} if "img" in form.get("prefix", "") else {}
    np.savez(tmp_path / "w.npz", **flax_file(params, **form), **beside)
    loaded, found, _ = models.load(name, tmp_path / "w.npz", scan=scan, **SMALL)
    assert loaded.num_classes == network.num_classes
    if scan:
        params, _ = models.stack(loaded, params, {})
    jax.tree.map(np.testing.assert_array_equal, found, params)


def test_class_tokens_without_a_position_get_one_of_zeros(tmp_path):
    _, params, _ = network_with("vit_base_patch16_224", prefix_positions=False)
    np.savez(tmp_path / "w.npz", **flax_file(params))
    _, found, _ = models.load("vit_base_patch16_224", tmp_path / "w.npz", **SMALL)
    positions = np.asarray(found["pos_embed"])
    assert not positions[:, 0].any()
    np.testing.assert_array_equal(positions[:, 1:], params["pos_embed"])


def test_a_head_behind_a_layer_that_networks_lack_is_left_out(tmp_path):
    _, params, _ = network_with("vit_base_patch16_224")
    layer = {"pre_logits/kernel": np.ones((12, 12)), "pre_logits/bias": np.ones(12)}
    np.savez(tmp_path / "w.npz", **flax_file(params, old=True), **layer)
    with pytest.warns(match="The classifier begins anew"):
        _, found, _ = models.load("vit_base_patch16_224", tmp_path / "w.npz", 7, **SMALL)
    assert found["head"]["kernel"].shape == (12, 7)


def test_numbers_of_16_bits_are_read(tmp_path):
    _, params, _ = network_with("vit_base_patch16_siglip_224")
    half = {name: value.astype(jnp.bfloat16) for name, value in flax_file(params).items()}
    np.savez(tmp_path / "w.npz", **half)
    assert read(tmp_path / "w.npz")["embedding/kernel"].dtype == "V2"
    _, found, _ = models.load("vit_base_patch16_siglip_224", tmp_path / "w.npz", **SMALL)
    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16).astype(np.float32), params)
    jax.tree.map(np.testing.assert_array_equal, found, rounded)


def test_what_is_not_known_is_said_by_its_name(tmp_path):
    _, params, _ = network_with("vit_base_patch16_224")
    np.savez(tmp_path / "w.npz", **flax_file(params), **{"Transformer/gate/kernel": np.ones(3)})
    with pytest.raises(UserError, match=r"1 unexpected \(Transformer/gate/kernel\)"):
        models.load("vit_base_patch16_224", tmp_path / "w.npz", **SMALL)
