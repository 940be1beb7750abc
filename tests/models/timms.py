"""Small forms of variants, and what timm answers: `python tests/models/timms.py` writes it anew.

Needs timm, torch and NumPy. All weights follow from their names in timm's layout and their shapes;
a name that differs, or a shape, gives other weights and so another answer.
"""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

ANSWERS = Path(__file__).with_name("timms.json")
CLASSES = 5
_SHALLOW = ({"depths": (1, 1, 1, 1)}, {"layers": (1, 1, 1, 1)})
_VIT = (
    {"width": 32, "depth": 2, "heads": 2, "image_size": 64, "zero_init_head": False},
    {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 64},
)
_VIT_14 = ({**_VIT[0], "image_size": 56}, {**_VIT[1], "img_size": 56})
_CONVNEXT = (
    {"depths": (1, 1, 2, 1), "widths": (8, 16, 32, 64)},
    {"depths": (1, 1, 2, 1), "dims": (8, 16, 32, 64)},
)
_TRESNET = (
    {"depths": (1, 2, 2, 1), "width": 16},
    {"layers": (1, 2, 2, 1), "width_factor": 0.25},
)
_SWIN = (
    {"width": 16, "depths": (2, 2), "heads": (2, 4)},
    {"embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4), "img_size": 64},
)

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "convnext_large_mlp": (
        {**_CONVNEXT[0], "head_hidden": 24},
        {**_CONVNEXT[1], "head_hidden_size": 24},
    ),
    "convnext_tiny_hnf": _CONVNEXT,
    "convnext_xxlarge": _CONVNEXT,
    "densenetblur121d": (
        {"depths": (2, 1), "growth": 8, "stem_widths": (8, 8, 16)},
        {"block_config": (2, 1), "growth_rate": 8},
    ),
    "eca_vovnet39b": ({"depths": (1, 1, 1, 2)}, {"block_per_stage": (1, 1, 1, 2)}),
    "ecaresnetlight": _SHALLOW,
    "eva_large_patch14_196": _VIT_14,
    "flexivit_base": _VIT,
    "nf_ecaresnet50": ({"depths": (1, 1, 1, 1)}, {"depths": (1, 1, 1, 1)}),
    "resnet10t": _SHALLOW,
    "resnet50_gn": _SHALLOW,
    "resnetrs50": _SHALLOW,
    "resnetv2_50d_gn": _SHALLOW,
    "resnetv2_50t": _SHALLOW,
    "senet154": _SHALLOW,
    "seresnetaa50d": _SHALLOW,
    "swinv2_base_window12to16_192to256": (
        {**_SWIN[0], "windows": (16, 16), "trained_windows": (12, 6)},
        {**_SWIN[1], "window_size": 16, "pretrained_window_sizes": (12, 6)},
    ),
    "swinv2_tiny_window8_256": (
        {**_SWIN[0], "windows": (4, 4)},
        {**_SWIN[1], "window_size": 4},
    ),
    "tinynet_e": ({}, {}),
    "tresnet_m": _TRESNET,
    "tresnet_v2_l": _TRESNET,
    "vit_base_patch32_clip_quickgelu_224": _VIT,
    "vit_giantopt_patch16_siglip_256": _VIT,
    "vit_huge_patch14_clip_224": _VIT_14,
    "vit_medium_patch16_gap_256": _VIT,
    "vit_medium_patch16_reg4_gap_256": _VIT,
    "vit_so150m2_patch16_reg1_gap_256": _VIT,
    "vit_so150m_patch16_reg4_map_256": _VIT,
    "vit_so400m_patch14_siglip_gap_384": _VIT_14,
}
"""For each name our options and timm's arguments."""


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The float32 array of that name and shape in a state dict of timm's."""
    # RandomState: its stream never changes.
    draws = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    last = name.rsplit(".", 1)[-1]
    if last == "running_var":
        draws = 1 + 0.5 * np.tanh(draws)
    elif last == "weight" and len(shape) > 1:
        draws *= (shape[0] / draws.size) ** 0.5
    elif last in ("weight", "gain", "gamma"):
        draws = 0.6 + 0.2 * np.tanh(draws)
    else:
        draws *= 0.2
    return draws.astype(np.float32)


def images(name: str) -> np.ndarray:
    """Images (2, h, w, 3), float32, for the network of that name."""
    side = CASES[name][0].get("image_size", 64)
    return np.random.RandomState(side).standard_normal((2, side, side, 3)).astype(np.float32)


def _answers(name: str) -> dict[str, Any]:
    import timm
    import torch

    network = timm.create_model(name, num_classes=CLASSES, **CASES[name][1]).eval()
    state = {
        key: value if key.endswith("num_batches_tracked") else weight(key, tuple(value.shape))
        for key, value in network.state_dict().items()
    }
    network.load_state_dict({key: torch.as_tensor(value) for key, value in state.items()})
    with torch.no_grad():
        features = network.forward_features(torch.from_numpy(images(name).transpose(0, 3, 1, 2)))
        logits = network.forward_head(features)
        into = network.forward_head(features, pre_logits=True)
    return {
        "parameters": sum(each.numel() for each in network.parameters()),
        "logits": logits.tolist(),
        "features": into.reshape(2, -1)[:, :5].tolist(),
    }


if __name__ == "__main__":
    lines = (f'"{name}": {json.dumps(_answers(name))}' for name in CASES)
    ANSWERS.write_text("{\n" + ",\n".join(lines) + "\n}\n")
