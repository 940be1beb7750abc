import json
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from imgclf import models
from imgclf.models.sizes import kept

sys.path.insert(0, str(Path(__file__).parent))
import timms

ANSWERS = json.loads(timms.ANSWERS.read_text())
FAST = ("convnext_tiny_hnf", "vit_base_patch32_clip_quickgelu_224")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in timms.CASES],
)
def test_a_small_form_answers_as_timms(name, answer, weights, tmp_path):
    wanted, images = ANSWERS[name], timms.images(name)
    options = timms.CASES[name][0]
    network = models.create(name, timms.CLASSES, **options)
    made, stored = tmp_path / "made.safetensors", tmp_path / "stored.safetensors"
    models.save_weights(network, *weights(network, images), made)
    save_file(
        {key: timms.weight(key, array.shape) for key, array in load_file(made).items()}, stored
    )
    network, params, state = models.load(
        name, stored, num_classes=timms.CLASSES, image_shape=images.shape[1:], **options
    )
    assert models.count_parameters(params) == wanted["parameters"]
    outputs = answer(network, params, state, images)
    logits = np.array(wanted["logits"])
    np.testing.assert_allclose(outputs.logits, logits, atol=1e-5 * np.abs(logits).max())
    features = np.array(wanted["features"])
    np.testing.assert_allclose(
        outputs.features[:, :5], features, atol=1e-5 * np.abs(features).max()
    )


def test_every_network_has_as_many_parameters_as_timms():
    lines = Path(__file__).with_name("timms_parameters.csv").read_text().splitlines()
    counts = {name: int(count) for name, count in (line.split(",") for line in lines)}
    ours = {name: parameters for name, (parameters, _) in kept().items()}
    assert {name: ours[name] for name in counts} == counts
    assert len(ours) - len(counts) < 40  # networks of torchvision, and our own
