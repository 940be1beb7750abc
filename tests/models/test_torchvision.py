"""Files of torchvision's networks, whose names there are not timm's, read as timm's."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from imgclf import models
from imgclf.errors import UserError
from imgclf.models.convnext import ConvNeXt
from imgclf.models.efficient_blocks import (
    ConvBlock,
    DepthwiseSeparable,
    EdgeResidual,
    InvertedResidual,
    Row,
    Style,
)
from imgclf.models.efficient_network import BlockNetwork
from imgclf.models.regnet import RegNet
from imgclf.models.sizes import kept
from imgclf.models.swin import SwinTransformer
from imgclf.models.torchvision import preprocess_of
from imgclf.models.vision_transformer import VisionTransformer
from imgclf.models.weights import read
from imgclf.preprocess import IMAGENET, Preprocess

SMALL = {"stem_width": 8, "head_width": 16}
SEPARABLE = (Row(DepthwiseSeparable, 1, 3, 1, 8),)
INVERTED = (Row(InvertedResidual, 2, 3, 2, 8, 2),)
SQUEEZED = (Row(InvertedResidual, 1, 3, 2, 8, 2, 0.25),)

mobilenet_v2 = partial(BlockNetwork, table=(SEPARABLE, INVERTED), style=Style("relu6"), **SMALL)
MOBILENET_V2 = """
features.0.0          conv_stem
features.0.1          bn1
features.1.conv.0.0   blocks.0.0.conv_dw
features.1.conv.0.1   blocks.0.0.bn1
features.1.conv.1     blocks.0.0.conv_pw
features.1.conv.2     blocks.0.0.bn2
features.2.conv.0.0   blocks.1.0.conv_pw
features.2.conv.0.1   blocks.1.0.bn1
features.2.conv.1.0   blocks.1.0.conv_dw
features.2.conv.1.1   blocks.1.0.bn2
features.2.conv.2     blocks.1.0.conv_pwl
features.2.conv.3     blocks.1.0.bn3
features.3.conv.0.0   blocks.1.1.conv_pw
features.3.conv.0.1   blocks.1.1.bn1
features.3.conv.1.0   blocks.1.1.conv_dw
features.3.conv.1.1   blocks.1.1.bn2
features.3.conv.2     blocks.1.1.conv_pwl
features.3.conv.3     blocks.1.1.bn3
features.4.0          conv_head
features.4.1          bn2
classifier.1          classifier
"""
mobilenet_v3 = partial(
    BlockNetwork,
    table=(
        (Row(DepthwiseSeparable, 1, 3, 2, 8, 1, 0.25),),
        SQUEEZED,
        (Row(ConvBlock, 1, 1, 1, 8),),
    ),
    style=Style("hard_swish"),
    pool_first=True,
    head_norm=False,
    head_bias=True,
    **SMALL,
)
MOBILENET_V3 = """
features.0.0            conv_stem
features.0.1            bn1
features.1.block.0.0    blocks.0.0.conv_dw
features.1.block.0.1    blocks.0.0.bn1
features.1.block.1.fc1  blocks.0.0.se.conv_reduce
features.1.block.1.fc2  blocks.0.0.se.conv_expand
features.1.block.2.0    blocks.0.0.conv_pw
features.1.block.2.1    blocks.0.0.bn2
features.2.block.0.0    blocks.1.0.conv_pw
features.2.block.0.1    blocks.1.0.bn1
features.2.block.1.0    blocks.1.0.conv_dw
features.2.block.1.1    blocks.1.0.bn2
features.2.block.2.fc1  blocks.1.0.se.conv_reduce
features.2.block.2.fc2  blocks.1.0.se.conv_expand
features.2.block.3.0    blocks.1.0.conv_pwl
features.2.block.3.1    blocks.1.0.bn3
features.3.0            blocks.2.0.conv
features.3.1            blocks.2.0.bn1
classifier.0            conv_head
classifier.3            classifier
"""
efficientnet_v2 = partial(
    BlockNetwork,
    table=((Row(ConvBlock, 1, 3, 1, 8),), (Row(EdgeResidual, 1, 3, 2, 8, 4),), SQUEEZED),
    style=Style("silu"),
    **SMALL,
)
EFFICIENTNET_V2 = """
features.0.0              conv_stem
features.0.1              bn1
features.1.0.block.0.0    blocks.0.0.conv
features.1.0.block.0.1    blocks.0.0.bn1
features.2.0.block.0.0    blocks.1.0.conv_exp
features.2.0.block.0.1    blocks.1.0.bn1
features.2.0.block.1.0    blocks.1.0.conv_pwl
features.2.0.block.1.1    blocks.1.0.bn2
features.3.0.block.0.0    blocks.2.0.conv_pw
features.3.0.block.0.1    blocks.2.0.bn1
features.3.0.block.1.0    blocks.2.0.conv_dw
features.3.0.block.1.1    blocks.2.0.bn2
features.3.0.block.2.fc1  blocks.2.0.se.conv_reduce
features.3.0.block.2.fc2  blocks.2.0.se.conv_expand
features.3.0.block.3.0    blocks.2.0.conv_pwl
features.3.0.block.3.1    blocks.2.0.bn3
features.4.0              conv_head
features.4.1              bn2
classifier.1              classifier
"""
mnasnet = partial(BlockNetwork, table=(SEPARABLE, INVERTED[:1]), **SMALL)
MNASNET = """
layers.0             conv_stem
layers.1             bn1
layers.3             blocks.0.0.conv_dw
layers.4             blocks.0.0.bn1
layers.6             blocks.0.0.conv_pw
layers.7             blocks.0.0.bn2
layers.8.0.layers.0  blocks.1.0.conv_pw
layers.8.0.layers.1  blocks.1.0.bn1
layers.8.0.layers.3  blocks.1.0.conv_dw
layers.8.0.layers.4  blocks.1.0.bn2
layers.8.0.layers.6  blocks.1.0.conv_pwl
layers.8.0.layers.7  blocks.1.0.bn3
layers.8.1.layers.0  blocks.1.1.conv_pw
layers.8.1.layers.1  blocks.1.1.bn1
layers.8.1.layers.3  blocks.1.1.conv_dw
layers.8.1.layers.4  blocks.1.1.bn2
layers.8.1.layers.6  blocks.1.1.conv_pwl
layers.8.1.layers.7  blocks.1.1.bn3
layers.14            conv_head
layers.15            bn2
classifier.1         classifier
"""
regnet_y = partial(RegNet, depths=(2, 1), widths=(8, 16), group_size=8, se_ratio=0.25, stem_width=8)
REGNET_Y = """
stem.0                                   stem.conv
stem.1                                   stem.bn
trunk_output.block1.block1-0.proj.0      s1.b1.downsample.conv
trunk_output.block1.block1-0.proj.1      s1.b1.downsample.bn
trunk_output.block1.block1-0.f.a.0       s1.b1.conv1.conv
trunk_output.block1.block1-0.f.a.1       s1.b1.conv1.bn
trunk_output.block1.block1-0.f.b.0       s1.b1.conv2.conv
trunk_output.block1.block1-0.f.b.1       s1.b1.conv2.bn
trunk_output.block1.block1-0.f.se.fc1    s1.b1.se.fc1
trunk_output.block1.block1-0.f.se.fc2    s1.b1.se.fc2
trunk_output.block1.block1-0.f.c.0       s1.b1.conv3.conv
trunk_output.block1.block1-0.f.c.1       s1.b1.conv3.bn
trunk_output.block1.block1-1.f.a.0       s1.b2.conv1.conv
trunk_output.block1.block1-1.f.a.1       s1.b2.conv1.bn
trunk_output.block1.block1-1.f.b.0       s1.b2.conv2.conv
trunk_output.block1.block1-1.f.b.1       s1.b2.conv2.bn
trunk_output.block1.block1-1.f.se.fc1    s1.b2.se.fc1
trunk_output.block1.block1-1.f.se.fc2    s1.b2.se.fc2
trunk_output.block1.block1-1.f.c.0       s1.b2.conv3.conv
trunk_output.block1.block1-1.f.c.1       s1.b2.conv3.bn
trunk_output.block2.block2-0.proj.0      s2.b1.downsample.conv
trunk_output.block2.block2-0.proj.1      s2.b1.downsample.bn
trunk_output.block2.block2-0.f.a.0       s2.b1.conv1.conv
trunk_output.block2.block2-0.f.a.1       s2.b1.conv1.bn
trunk_output.block2.block2-0.f.b.0       s2.b1.conv2.conv
trunk_output.block2.block2-0.f.b.1       s2.b1.conv2.bn
trunk_output.block2.block2-0.f.se.fc1    s2.b1.se.fc1
trunk_output.block2.block2-0.f.se.fc2    s2.b1.se.fc2
trunk_output.block2.block2-0.f.c.0       s2.b1.conv3.conv
trunk_output.block2.block2-0.f.c.1       s2.b1.conv3.bn
fc                                       head.fc
"""
convnext = partial(ConvNeXt, depths=(1, 2), widths=(8, 16))
CONVNEXT = """
features.0.0              stem.0
features.0.1              stem.1
features.1.0.layer_scale  stages.0.blocks.0.gamma
features.1.0.block.0      stages.0.blocks.0.conv_dw
features.1.0.block.2      stages.0.blocks.0.norm
features.1.0.block.3      stages.0.blocks.0.mlp.fc1
features.1.0.block.5      stages.0.blocks.0.mlp.fc2
features.2.0              stages.1.downsample.0
features.2.1              stages.1.downsample.1
features.3.0.layer_scale  stages.1.blocks.0.gamma
features.3.0.block.0      stages.1.blocks.0.conv_dw
features.3.0.block.2      stages.1.blocks.0.norm
features.3.0.block.3      stages.1.blocks.0.mlp.fc1
features.3.0.block.5      stages.1.blocks.0.mlp.fc2
features.3.1.layer_scale  stages.1.blocks.1.gamma
features.3.1.block.0      stages.1.blocks.1.conv_dw
features.3.1.block.2      stages.1.blocks.1.norm
features.3.1.block.3      stages.1.blocks.1.mlp.fc1
features.3.1.block.5      stages.1.blocks.1.mlp.fc2
classifier.0              head.norm
classifier.2              head.fc
"""
swin = partial(SwinTransformer, width=8, depths=(1, 1), heads=(1, 2), windows=(2, 2))
SWIN = """
features.0.0                                    patch_embed.proj
features.0.2                                    patch_embed.norm
features.1.0.norm1                              layers.0.blocks.0.norm1
features.1.0.attn.relative_position_bias_table  layers.0.blocks.0.attn.relative_position_bias_table
features.1.0.attn.qkv                           layers.0.blocks.0.attn.qkv
features.1.0.attn.proj                          layers.0.blocks.0.attn.proj
features.1.0.norm2                              layers.0.blocks.0.norm2
features.1.0.mlp.0                              layers.0.blocks.0.mlp.fc1
features.1.0.mlp.3                              layers.0.blocks.0.mlp.fc2
features.2.reduction                            layers.1.downsample.reduction
features.2.norm                                 layers.1.downsample.norm
features.3.0.norm1                              layers.1.blocks.0.norm1
features.3.0.attn.relative_position_bias_table  layers.1.blocks.0.attn.relative_position_bias_table
features.3.0.attn.qkv                           layers.1.blocks.0.attn.qkv
features.3.0.attn.proj                          layers.1.blocks.0.attn.proj
features.3.0.norm2                              layers.1.blocks.0.norm2
features.3.0.mlp.0                              layers.1.blocks.0.mlp.fc1
features.3.0.mlp.3                              layers.1.blocks.0.mlp.fc2
norm                                            norm
head                                            head.fc
"""
vit = partial(VisionTransformer, patch=16, width=8, depth=1, heads=2, image_size=32)
VIT = """
class_token                                           cls_token
conv_proj                                             patch_embed.proj
encoder.pos_embedding                                 pos_embed
encoder.layers.encoder_layer_0.ln_1                   blocks.0.norm1
encoder.layers.encoder_layer_0.self_attention.in_proj_weight  blocks.0.attn.qkv.weight
encoder.layers.encoder_layer_0.self_attention.in_proj_bias    blocks.0.attn.qkv.bias
encoder.layers.encoder_layer_0.self_attention.out_proj        blocks.0.attn.proj
encoder.layers.encoder_layer_0.ln_2                           blocks.0.norm2
encoder.layers.encoder_layer_0.mlp.0                          blocks.0.mlp.fc1
encoder.layers.encoder_layer_0.mlp.3                          blocks.0.mlp.fc2
encoder.ln                                                    norm
heads.head                                                    head
"""
OLD_VIT = VIT.replace("mlp.0", "mlp.linear_1").replace("mlp.3", "mlp.linear_2")
EVERY = {
    "mobilenet_v2": (mobilenet_v2, MOBILENET_V2),
    "mobilenet_v3": (mobilenet_v3, MOBILENET_V3),
    "efficientnet_v2": (efficientnet_v2, EFFICIENTNET_V2),
    "mnasnet": (mnasnet, MNASNET),
    "regnet_y": (regnet_y, REGNET_Y),
    "convnext": (convnext, CONVNEXT),
    "swin": (swin, SWIN),
    "vit": (vit, VIT),
    "vit of an old file": (vit, OLD_VIT),
}


def made(network):
    """(network, params, model_state), no two of whose numbers are the same."""
    network = models.create(network, 5)
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    shapes = jax.eval_shape(network.initialise, jax.random.key(0), images)
    random = np.random.default_rng(0)
    return network, *jax.tree.map(lambda x: random.random(x.shape, np.float32), shapes)


def written_as(names, ours, path):
    """Writes `ours` under the names of the left column, in the shapes that torchvision has."""
    theirs = {right: left for left, right in (line.split() for line in names.split("\n") if line)}
    arrays = {}
    for name, array in ours.items():
        module, _, last = name.rpartition(".")
        place = theirs[name] if name in theirs else f"{theirs[module]}.{last}"
        if place.endswith(".layer_scale"):
            array = array[:, None, None]
        if place == "classifier.0.weight" and array.ndim == 4:  # of MobileNetV3
            array = array[:, :, 0, 0]
        arrays[place] = np.ascontiguousarray(array)
    save_file(arrays, path)


@pytest.mark.parametrize("name", EVERY)
def test_every_array_of_torchvisions_comes_to_its_place(name, tmp_path):
    function, names = EVERY[name]
    network, params, model_state = made(function)
    models.save_weights(network, params, model_state, tmp_path / "ours.safetensors")
    written_as(names, read(tmp_path / "ours.safetensors"), tmp_path / "theirs.safetensors")

    found, found_state, note = models.load_weights(
        network, params, model_state, tmp_path / "theirs.safetensors"
    )
    assert not note
    jax.tree.map(np.testing.assert_array_equal, found, params)
    more = 1e-3 - 1e-5 if name in ("mobilenet_v3", "efficientnet_v2") else 0.0
    for (path, value), ours in zip(
        jax.tree.leaves_with_path(found_state), jax.tree.leaves(model_state), strict=True
    ):
        added = more if path[-1].key == "var" else 0.0
        np.testing.assert_allclose(value, ours + added, rtol=1e-6, atol=0, err_msg=str(path))
    assert preprocess_of(read(tmp_path / "ours.safetensors")) == Preprocess()
    stated = preprocess_of(read(tmp_path / "theirs.safetensors"))
    assert stated == Preprocess(mean=IMAGENET.mean, std=IMAGENET.std)


def test_the_second_swins_biases_of_queries_keys_and_values_are_taken_apart(tmp_path):
    network, params, model_state = made(partial(swin, second=True))
    models.save_weights(network, params, model_state, tmp_path / "ours.safetensors")
    theirs = dict(read(tmp_path / "ours.safetensors"))
    for name in [name for name in theirs if name.endswith(".q_bias")]:
        query, value = theirs.pop(name), theirs.pop(name.replace("q_bias", "v_bias"))
        # torchvision has one for keys, too, and takes it for zero.
        theirs[name.replace("q_bias", "qkv.bias")] = np.concatenate([query, 9 + query, value])
        theirs[name.replace("q_bias", "relative_coords_table")] = np.ones((1, 3, 3, 2), np.float32)
    save_file(theirs, tmp_path / "theirs.safetensors")
    found, _, note = models.load_weights(
        network, params, model_state, tmp_path / "theirs.safetensors"
    )
    assert not note
    jax.tree.map(np.testing.assert_array_equal, found, params)


def test_a_network_that_pads_as_tensorflow_does_refuses_them(tmp_path):
    network, params, model_state = made(mobilenet_v2)
    models.save_weights(network, params, model_state, tmp_path / "ours.safetensors")
    written_as(MOBILENET_V2, read(tmp_path / "ours.safetensors"), tmp_path / "theirs.safetensors")
    same = partial(mobilenet_v2, style=Style("relu6", padding="SAME"))
    with pytest.raises(UserError, match=r"missing.*unexpected"):
        models.load_weights(
            models.create(same, 5), params, model_state, tmp_path / "theirs.safetensors"
        )


def test_images_are_normalised_as_torchvisions_weights_were_trained(tmp_path):
    network, params, model_state = made(vit)
    models.save_weights(network, params, model_state, tmp_path / "ours.safetensors")
    written_as(VIT, read(tmp_path / "ours.safetensors"), tmp_path / "theirs.safetensors")
    stated = models.preprocess_with(tmp_path / "theirs.safetensors", Preprocess(crop=0.9))
    assert stated == Preprocess(crop=0.9, mean=IMAGENET.mean, std=IMAGENET.std)
    grey = models.preprocess_with(tmp_path / "theirs.safetensors", Preprocess(), in_channels=1)
    assert grey.mean == pytest.approx([0.449]) and grey.std == pytest.approx([0.226])
    wrapped = {f"module.{name}": x for name, x in read(tmp_path / "theirs.safetensors").items()}
    save_file(wrapped, tmp_path / "wrapped.safetensors")
    stated = models.preprocess_with(tmp_path / "wrapped.safetensors", Preprocess())
    assert stated == Preprocess(mean=IMAGENET.mean, std=IMAGENET.std)
    assert models.preprocess_with(tmp_path / "absent.npz", Preprocess()) == Preprocess()
    own = Preprocess(mean=(0.5,), std=(0.5,))
    assert models.preprocess_with(tmp_path / "theirs.safetensors", own) == own


@pytest.mark.parametrize(
    ("name", "parameters"),  # torchvision's documentation of its weights has the numbers
    [
        ("mnasnet1_3", 6282256),
        ("regnetx_004_tv", 5495976),
        ("regnety_008_tv", 6432512),
        ("regnety_080_tv", 39381472),
    ],
)
def test_networks_of_torchvisions_own_widths_are_as_large_as_there(name, parameters):
    assert kept()[name][0] == parameters
