import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from imgclf import models
from imgclf.errors import UserError
from imgclf.models.weights import read
from imgclf.preprocess import Preprocess

OPTIONS = {"width": 4}
IMAGES = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)


@pytest.fixture(scope="module")
def small():
    network = models.create("cnn", 10, **OPTIONS)
    return network, *network.initialise(jax.random.key(1), IMAGES)


@pytest.fixture
def file(small, tmp_path):
    models.save_weights(*small, tmp_path / "small.safetensors")
    return tmp_path / "small.safetensors"


@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
def test_what_is_saved_comes_back_to_the_bit(small, tmp_path, suffix):
    network, params, model_state = small
    path = tmp_path / f"small.{suffix}"
    models.save_weights(network, params, model_state, path)
    again = models.load("cnn", path, **OPTIONS)
    assert again[0] == network
    jax.tree.map(np.testing.assert_array_equal, again[1:], (params, model_state))
    assert [p.name for p in tmp_path.iterdir()] == [path.name], "nothing unfinished is left"


def test_names_and_layouts_are_pytorchs(file):
    stored = load_file(file)
    assert stored["stage1.conv1.weight"].shape == (4, 3, 3, 3)
    assert stored["stage2.conv1.weight"].shape == (8, 4, 3, 3)
    assert stored["fc.weight"].shape == (10, 8)
    assert {name.rsplit(".", 1)[1] for name in stored if ".bn1." in name} == {
        "weight",
        "bias",
        "running_mean",
        "running_var",
    }


def test_the_export_of_a_pytorch_file_is_that_file(shared, tmp_path):
    path = shared / "data" / "weights" / "cifar10_resnet20.safetensors"
    models.save_weights(*models.load("cifar_resnet20", path), tmp_path / "again.safetensors")
    ours, theirs = load_file(tmp_path / "again.safetensors"), load_file(path)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)


def test_every_misfit_is_in_one_line(small, file):
    stored = load_file(file)
    absent = ("fc.bias", *(f"stage1.bn1.{name}" for name in ("bias", "weight", "running_var")))
    for name in absent:
        del stored[name]
    stored["extra.weight"] = np.zeros(3, np.float32)
    stored["stage1.conv2.weight"] = np.zeros((4, 1, 3, 3), np.float32)
    save_file(stored, file)
    with pytest.raises(UserError) as error:
        models.load_weights(*small, file)
    message = str(error.value)
    assert "\n" not in message
    assert "with 1 unexpected (extra.weight), 1 of another shape (stage1.conv2.weight: " in message
    assert ": (4, 1, 3, 3) where (4, 4, 3, 3) is wanted), 4 missing (" in message
    assert all(name in message for name in absent)


def test_another_number_of_classes_keeps_the_new_classifier_and_says_so(small, file):
    network = models.create("cnn", 3, **OPTIONS)
    params, model_state = network.initialise(jax.random.key(2), IMAGES)
    fitted, _, note = models.load_weights(network, params, model_state, file)
    assert note == (f"The classifier `fc` begins anew: {str(file)!r} has 10 classes, the network 3")
    np.testing.assert_array_equal(fitted["fc"]["kernel"], params["fc"]["kernel"])
    kernel = small[1]["stage1"]["conv1"]["kernel"]
    np.testing.assert_array_equal(fitted["stage1"]["conv1"]["kernel"], kernel)
    with pytest.warns(match="begins anew"):
        _, loaded, _ = models.load("cnn", file, num_classes=3, **OPTIONS)
    assert loaded["fc"]["kernel"].shape == (8, 3)


@pytest.mark.parametrize(
    ("part", "shape", "said"),
    [
        ("bias", (3,), r"1 of another shape \(fc.bias: \(3,\) where \(10,\) is wanted\)"),
        ("weight", (3, 8), r"1 of another shape \(fc.weight: \(3, 8\) where \(10, 8\) is wanted\)"),
    ],
)
def test_half_a_classifier_of_other_classes_is_a_misfit(small, file, part, shape, said):
    save_file(load_file(file) | {f"fc.{part}": np.zeros(shape, np.float32)}, file)
    with pytest.raises(UserError, match=f"with {said}"):
        models.load_weights(*small, file)


def test_a_classifier_of_differing_classes_is_a_misfit_as_a_whole(small, file):
    halves = {"fc.weight": np.zeros((3, 8), np.float32), "fc.bias": np.zeros(4, np.float32)}
    save_file(load_file(file) | halves, file)
    with pytest.raises(UserError, match=r"2 of another shape \(fc.bias: .*fc.weight: "):
        models.load_weights(*small, file)


def test_a_full_fit_says_nothing(small, file):
    assert models.load_weights(*small, file)[2] == ""


def test_counters_are_passed_over_and_float16_becomes_float32(small, file):
    stored = {name: value.astype(np.float16) for name, value in load_file(file).items()}
    stored["stage1.bn1.num_batches_tracked"] = np.array(7)
    save_file(stored, file)
    params, model_state, _ = models.load_weights(*small, file)
    assert {leaf.dtype for leaf in jax.tree.leaves((params, model_state))} == {np.dtype("float32")}
    np.testing.assert_array_equal(
        params["fc"]["bias"], np.float16(small[1]["fc"]["bias"]).astype(np.float32)
    )


def test_loading_never_unpickles(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("code from a weights file ran",))

    (tmp_path / "w.pth").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UserError, match=r"convert it to safetensors first"):
        read(tmp_path / "w.pth")
    for content in (Trap(), np.array([Trap()], object)):
        (tmp_path / "w.npz").write_bytes(pickle.dumps(content))
        with pytest.raises(UserError, match="must be a readable npz file"):
            read(tmp_path / "w.npz")


@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
def test_a_damaged_file_is_named_in_one_line(small, tmp_path, suffix):
    path = tmp_path / f"w.{suffix}"
    with pytest.raises(UserError, match="not there"):
        read(path)
    models.save_weights(*small, path)
    content = path.read_bytes()
    for damaged in (content[:-500], content[:200], b""):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=f"must be a readable {suffix} file; got .*w.{suffix}"):
            read(path)


def test_the_number_of_classes_must_be_said_where_the_file_does_not_tell(file):
    stored = load_file(file)
    del stored["fc.weight"]
    save_file(stored, file)
    with pytest.raises(UserError, match="The `num_classes` of `cnn` must be given"):
        models.load("cnn", file, **OPTIONS)


@pytest.mark.parametrize(
    ("channels", "share"), [(1, [1, 1, 1]), (2, [1.5, 1.5, 0]), (5, [1.2, 1.2, 0.6])]
)
def test_a_stem_for_other_channels_has_answers_as_large(small, file, channels, share):
    with pytest.warns(match=rf"The stem `stage1.conv1` is adapted: .* 3 channels, .* {channels}$"):
        _, params, _ = models.load("cnn", file, in_channels=channels, **OPTIONS)
    kernel = np.asarray(small[1]["stage1"]["conv1"]["kernel"])
    found = np.asarray(params["stage1"]["conv1"]["kernel"])
    assert found.shape[2] == channels
    # An image whose channels are all the same gives what that share of the old ones would.
    np.testing.assert_allclose(found.sum(2), (kernel * np.reshape(share, (3, 1))).sum(2), rtol=1e-5)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.module.", "model.module._orig_mod."])
def test_what_a_network_was_wrapped_in_and_buffers_that_nothing_uses_are_left_out(
    small, file, prefix
):
    stored = load_file(file) | {"blocks.0.attn.relative_position_index": np.zeros((4, 4), np.int64)}
    save_file({prefix + name: array for name, array in stored.items()}, file)
    network, params, _ = models.load("cnn", file, **OPTIONS)
    assert network.num_classes == 10
    jax.tree.map(np.testing.assert_array_equal, params, small[1])


def test_a_file_of_other_names_or_a_folder_that_is_not_there_is_said(small, file):
    save_file({"a.weight": np.zeros(3, np.float32)}, file)
    with pytest.raises(UserError, match=r"has no fc.weight, but 1 arrays \(a.weight\)$"):
        models.load("cnn", file, **OPTIONS)
    with pytest.raises(UserError, match=r"The folder of a weights file must be there; got '.*/no/"):
        models.save_weights(*small, file.parent / "no" / "small.safetensors")


def test_a_file_that_cannot_be_written_is_said_and_leaves_nothing(small, tmp_path):
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / ".full.npz.unfinished").symlink_to("/dev/full")
    for name, said in (
        ("weights.pth", "A weights file must end in .safetensors or .npz; got '.*weights.pth'$"),
        ("folder.npz", "A weights file must be a file; got '.*', a folder$"),
        ("full.npz", "Cannot write the weights file '.*full.npz': .*No space left on device"),
    ):
        with pytest.raises(UserError, match=said):
            models.save_weights(*small, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.npz"]
    models.save_weights(*small, tmp_path / "LOUD.NPZ")
    assert "fc.weight" in read(tmp_path / "LOUD.NPZ")
    with np.load(tmp_path / "LOUD.NPZ") as stored:
        assert all(name.count(".") for name in stored)


@pytest.mark.parametrize(
    ("name", "options", "with_advice"),
    [("cnn", {}, True), ("lstm", {}, True), ("gru", {"tokens": "patches", "patch": 2}, False)],
)
def test_where_parameters_depend_on_the_size_of_images_a_misfit_says_how_to_give_it(
    name, options, with_advice, tmp_path, weights
):
    path = tmp_path / "w.safetensors"
    network = models.create(name, 10, width=4, **options)
    images = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    models.save_weights(network, *weights(network, images), path)
    other = options | ({} if with_advice else {"patch": 4})
    with pytest.raises(UserError) as error:
        models.load(name, path, width=4, **other)
    advice = (
        "; if the weights are for images of another size, on which its parameters depend, "
        "that must be the `image_shape` or `preprocess.size`"
    )
    assert str(error.value).endswith(advice) == with_advice
    for given in ({"image_shape": (16, 16, 3)}, {"preprocess": Preprocess(size=16)}):
        models.load(name, path, width=4, **options, **given)
