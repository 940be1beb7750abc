"""A person's mistakes: each is answered by one line that helps, status 2 and no traceback."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

Refused = Callable[..., str]
Photos = Callable[..., Path]
SHORT = ("--length", "1steps", "--schedule.warmup", "0steps", "--log.tensorboard", "False")
SMALL = ("--model.network", "cnn", "--model.options.width", "4", "--model.preprocess.size", "8")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("trian digits", "Unknown command 'trian'; did you mean 'train'?"),
        (
            "--versoin",
            "Unknown command '--versoin'; there are: data, evaluate, export, models, pre",
        ),
        ("train", "takes one recipe (see imgclf recipes); got none"),
        ("train digit", "Unknown recipe 'digit'; did you mean 'digits'?"),
        ("show imagenete", "Unknown recipe 'imagenete'; did you mean 'imagenette'?"),
        ("train mine.py", "There is no recipe file mine.py; shipped recipes: cifar10, digits"),
        ("train .", "Unknown recipe '.'; there are: cifar10, digits"),
        ("train ./", "is a folder; a recipe is a .py file or one of: cifar10, digits"),
        ("train digits cifar10", "takes one recipe (see imgclf recipes); got digits cifar10"),
        ("train digits --lenght 3epochs", "has no field --lenght; did you mean --length?"),
        ("show digits --sead 3", "has no field --sead; did you mean --seed?"),
        ("train digits --quite", "has no field --quite; did you mean --quiet?"),
        ("train digits --debug_nan", "has no field --debug_nan; did you mean --debug_nans?"),
        ("train digits --run", "`--run` needs a value"),
        ("train digits --run --debug-nans", "`--run` needs a value"),
        ("train digits --quiet=False", "`--quiet` takes no value; got 'False'"),
        ("train digits --data.resident no --dispatch scan", "the training images are streamed"),
        ("evaluate RUN --kind folder", "what lies at `--data PATH`, which is not given"),
        ("train digits --model.network resnt18", "'resnt18'; did you mean 'resnet18'?"),
        ("models resnt18", "Unknown network 'resnt18'; did you mean 'resnet18'?"),
        ("models --fliter x", "Unknown option '--fliter'; did you mean '--filter'?"),
        ("models cnn --filter c*", "`imgclf models` takes a name or a `--filter`; got both"),
        ("models --filter nothing*", "No network matches 'nothing*'"),
        ("models cnn --num_classes ten", "must be a whole number of 1 or more; got 'ten'"),
        ("recipes all", "Unknown option '--all'"),
        ("train digits --data.train . --kind fodler", "'fodler'; did you mean 'folder'?"),
        ("train digits --data.train nowhere", "there is nothing at"),
        ("train digits --data.train .", "must hold class folders with images"),
        ("train digits --kind folder", "`--data.train PATH`, which is not given"),
        ("train digits --profile 5", "must be FROM:TO in steps, such as 100:110; got '5'"),
        ("train digits --profile 9:5", "must be FROM:TO in steps, such as 100:110; got '9:5'"),
        ("train digits --model.options.width 4000000", "The device has not enough memory (INTER"),
        ("train digits --data.batch_size ten", "must be a whole number; got 'ten'"),
        ("train digits --data.batch_size 0", "`batch_size` of `Data` must be 1 or more; got 0"),
        ("train digits --data.exif perhaps", "must be True or False; got 'perhaps'"),
        ("train digits --schedule.peak high", "must be a number; got 'high'"),
        ("train digits --length 30", "A duration must be a number with its unit, such as 10epochs"),
        ("train digits --length 0epochs", "`length` of `Recipe` must be at least one step"),
        ("train digits --log.every 0steps", "`every` of `Log` must be greater than 0"),
        ("train digits --model.dtype float16", "'float32', 'bfloat16'; got 'float16'"),
        ("train digits --best test/acuracy", "must be one of test/accuracy, test/top5_accuracy"),
        ("train digits --data.batch_size 5000", "(=1,437); got 5000"),
        ("train digits --mesh.data 3", "must multiply to the number of devices"),
        ("evaluate nothing", "There is no run folder or recipe 'nothing'"),
        ("evaluate digit", "There is no run folder or recipe 'digit'; did you mean 'digits'?"),
        ("evaluate digits", "needs --model.weights FILE"),
        ("evaluate digits --checkpoint best", "`--checkpoint` goes with a run"),
        ("evaluate .", ". is not the folder of a run: it has no resolved.json"),
        ("evaluate RUN --checkpont best", "'--checkpont'; did you mean '--checkpoint'?"),
        ("evaluate RUN --checkpoint 7", "last, best or one of the steps 12, 24; got '7'"),
        ("evaluate RUN --data nowhere", "there is nothing at"),
        ("predict RUN", "takes a run folder and one image or more"),
        ("predict RUN nowhere.png", "There is no image nowhere.png"),
        ("predict RUN .", "There is no image in the folder ."),
        ("predict RUN x.png --tpo 3", "Unknown option '--tpo'; did you mean '--top'?"),
        ("predict RUN x.png --top none", "`--top` must be a whole number of 1 or more"),
        ("predict . x.png", ". is not the folder of a run: it has no resolved.json"),
    ],
)
def test_a_wrong_word_is_answered_by_what_was_meant_or_is_allowed(
    refused: Refused, trained: str, command: str, said: str
) -> None:
    assert said in refused(*command.replace("RUN", trained).split())


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("cifar10", "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz | tar"),
        ("imagenette", "curl -L https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz"),
        ("imagenet_resnet50", "data/imagenet/train does not exist; to get the data: log in at"),
    ],
)
def test_public_data_that_are_missing_are_said_with_what_to_type(
    refused: Refused, recipe: str, said: str
) -> None:
    assert said in refused("train", recipe)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("recipe = Recipe(\n", "mine.py, line 1: '(' was never closed"),
        ("\nrecipe = Recipe()\n", "mine.py, line 2: NameError: name 'Recipe' is not defined"),
        ("import no_such_module\n", "mine.py, line 1: ModuleNotFoundError: No module named"),
        ("recipe = 3\n", "must define `recipe`, an imgclf.Recipe"),
        ("import imgclf\nimgclf.Model(netwrok='cnn')\n", "unexpected keyword argument 'netwrok'"),
        ("import imgclf\nrecipe = imgclf.Recipe(data=3)\n", "The `data` of `Recipe` must be"),
    ],
)
def test_a_recipe_file_with_an_error_is_named_with_the_line(
    refused: Refused, tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "mine.py").write_text(text)
    assert said in refused("train", "mine.py")


IMAGES = np.zeros((40, 8, 8, 1), np.uint8)
LABELS = np.arange(40) % 2


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"images": IMAGES, "labels": LABELS[:39]}, "has 40 images and 39 labels"),
        ({"images": IMAGES, "labels": LABELS * 2 - 1}, "must lie in 0..1"),
        ({"images": IMAGES, "labels": LABELS * 0}, "must have two classes or more; got only '0'"),
        ({"images": IMAGES, "labels": LABELS / 2}, "must be whole numbers (n,) or soft labels"),
        ({"images": IMAGES, "label": LABELS}, "'labels'"),
        ({"images": IMAGES / 255, "labels": LABELS}, "must be uint8 (n, h, w, c) or (n, h, w)"),
        ({"images": IMAGES[:, :4, :4], "labels": LABELS}, "must be at least 8 x 8 px; got 4 x 4"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    refused: Refused, tmp_path: Path, arrays: dict[str, Any], said: str
) -> None:
    np.savez(tmp_path / "set.npz", **arrays)
    words = ("--data.train", "set.npz", "--data.batch_size", "16", *SHORT)
    assert said in refused("train", "digits", *words)


def test_a_damaged_array_file_is_refused(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "set.npz").write_text("these are no arrays")
    assert "is none or cut off" in refused("train", "digits", "--data.train", "set.npz")


def test_class_folders_without_what_training_needs_are_refused(
    refused: Refused, photos: Photos, tmp_path: Path
) -> None:
    train = ("train", "imagenette", *SMALL, *SHORT)
    photos("one", ant=4)
    assert "must have two classes or more; got only 'ant'" in refused(*train, "--data.train", "one")
    (photos("gap", ant=4, bee=4) / "cat").mkdir()
    assert "gap/cat holds none" in refused(*train, "--data.train", "gap")
    photos("few", ant=4, bee=4)
    assert "(=6); got 64" in refused(*train, "--data.train", "few")
    (tmp_path / "none" / "ant").mkdir(parents=True)
    (tmp_path / "none" / "ant" / "notes.txt").write_text("no image")
    assert "it holds none of them" in refused(*train, "--data.train", "none")


def test_evaluating_on_other_classes_is_refused(
    refused: Refused, photos: Photos, trained: str, tmp_path: Path
) -> None:
    photos("insects", ant=2, bee=2)
    assert "must be among the 10 classes" in refused("evaluate", trained, "--data", "insects")
    np.savez(tmp_path / "set.npz", images=IMAGES, labels=LABELS)
    said = refused("evaluate", trained, "--data", "set.npz")
    assert "has 2 classes, 10 are learned" in said
    said = refused("train", "digits", "--data.evaluate.other", "set.npz")
    assert "'other' has 2 classes, 10 are learned" in said


def test_images_that_cannot_be_read_are_counted_and_skipped_by_predict(
    imgclf: Callable[..., Any], refused: Refused, photos: Photos, trained: str, tmp_path: Path
) -> None:
    folder = photos("images", all=2)
    (tmp_path / "broken.png").write_bytes(b"this is no image")
    (tmp_path / "empty.jpg").touch()
    ended = imgclf("predict", trained, str(folder), "broken.png", "empty.jpg", "--json")
    said = ended.err.splitlines()
    assert ended.status == 0 and len(json.loads(ended.out)) == 2
    assert "imgclf: broken.png could not be read" in said[0] and "empty.jpg" in said[1]
    assert said[2:] == ["imgclf: 2 of 4 images could not be read"]
    assert "No image of `Files` can be read: broken.png: " in refused(
        "predict", trained, "broken.png"
    )


def test_images_that_cannot_be_read_are_counted_and_skipped_by_train_and_evaluate(
    imgclf: Callable[..., Any], refused: Refused, photos: Photos
) -> None:
    folder = photos("photos/train", ant=6, bee=6).parent
    photos("photos/val", ant=3, bee=3)
    for name in ("train/ant/2.jpg", "val/bee/0.jpg"):
        (folder / name).write_bytes((folder / name).read_bytes()[:300])
    words = (*SMALL, *SHORT, "--data.batch_size", "12", "--run", "run")
    ended = imgclf("train", "imagenette", "--data.train", "photos", *words)
    assert ended.status == 0 and "of 5 right" in ended.out and "Traceback" not in ended.err
    for name in ("ant/2.jpg", "bee/0.jpg"):
        assert f"warning: {name} could not be read: " in ended.err
        assert name in (folder.parent / "run" / "bad_records.jsonl").read_text()
    ended = imgclf("evaluate", "run")
    assert ended.status == 0 and "of 5 right" in ended.out
    assert "1 images of val could not be read and are not counted" in ended.out
    for file in (folder / "val").rglob("*.jpg"):
        file.write_bytes(b"no image")
    assert "No image of `Folder` can be read" in refused("evaluate", "run")


def test_training_on_images_of_which_none_can_be_read_is_refused(
    imgclf: Callable[..., Any], photos: Photos
) -> None:
    for file in photos("photos", ant=10, bee=10).rglob("*.jpg"):
        file.write_bytes(b"no image")
    words = (*SMALL, *SHORT, "--data.batch_size", "16")
    ended = imgclf("train", "imagenette", "--data.train", "photos", *words)
    assert ended.status == 2 and "Traceback" not in ended.err
    assert [line for line in ended.err.splitlines() if line.startswith("imgclf: ")]


def test_weights_that_do_not_fit_are_refused(refused: Refused, tmp_path: Path) -> None:
    save_file({"conv1.weight": np.zeros((4, 3, 3, 3), np.float32)}, tmp_path / "other.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"\x20\x00\x00")
    for name, said in (
        ("nowhere.safetensors", "must be a file; got 'nowhere.safetensors', not there"),
        ("other.safetensors", "must have its names and shapes; got 'other.safetensors' with "),
        ("cut.safetensors", "must be a readable safetensors file"),
        ("resnet18.pth", "(loading one never runs code); got 'resnet18.pth'; convert it"),
        (".", "got '.'; if that is a run: imgclf export . FILE"),
    ):
        assert said in refused("train", "digits", "--run", "run", "--model.weights", name)
        assert said in refused("evaluate", "digits", "--model.weights", name)


def test_a_run_that_saved_nothing_does_not_stand_in_the_way_of_the_corrected_command(
    imgclf: Callable[..., Any], refused: Refused
) -> None:
    words = ("train", "digits", "--run", "run", "--length", "1steps", *SMALL[2:])
    assert "must not be negative, nor longer than the run" in refused(*words)
    assert imgclf(*words, "--schedule.warmup", "0steps").status == 0


OTHER = """
from imgclf import load_recipe
from dataclasses import replace
digits = load_recipe("digits").recipe
recipe = replace(digits, optimizer=replace(digits.optimizer, momentum=0.5))
"""


def test_a_folder_of_another_recipe_or_of_something_else_is_left_as_it_is(
    refused: Refused, trained: str, tmp_path: Path
) -> None:
    before = {file: file.stat().st_mtime_ns for file in Path(trained).rglob("*")}
    words = ("--length", "24steps", "--schedule.warmup", "4steps")
    said = refused("train", "digits", "--run", trained, *words, "--seed", "3")
    assert said == f"The run {trained} holds another recipe: seed is 0 there, 3 here"
    (tmp_path / "mine.py").write_text(OTHER)
    said = refused("train", "mine.py", "--run", trained)
    assert "holds another recipe: " in said and "optimizer.momentum is 0.9 there, 0.5 here" in said
    assert before == {file: file.stat().st_mtime_ns for file in Path(trained).rglob("*")}
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("precious")
    said = refused("train", "digits", "--run", "thesis")
    assert said == "The folder thesis is not empty and holds no run; give another --run"
    said = refused("train", "digits", "--run", "thesis/thesis.tex")
    assert said == "thesis/thesis.tex is a file; --run takes a folder"
    assert [file.name for file in (tmp_path / "thesis").iterdir()] == ["thesis.tex"]


@pytest.fixture
def read_only() -> Iterator[Callable[[Path], None]]:
    """Makes a folder with all that is in it read-only, for root, too."""
    mounted: list[Path] = []

    def make(folder: Path) -> None:
        if os.geteuid():
            for each in (folder, *folder.rglob("*")):
                each.chmod(0o555 if each.is_dir() else 0o444)
            return
        for words in (["--bind", folder], ["-o", "remount,bind,ro"]):
            done = shutil.which("mount") and subprocess.run(
                ["mount", *words, folder], capture_output=True
            )
            if not done or done.returncode:
                pytest.skip("root may write everywhere, and may mount nothing here")
            mounted[:] = [folder]

    yield make
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


def test_a_read_only_folder_is_named(
    imgclf: Callable[..., Any],
    refused: Refused,
    photos: Photos,
    trained: str,
    tmp_path: Path,
    read_only: Callable[[Path], None],
) -> None:
    shutil.copytree(trained, tmp_path / "fixed" / "run")
    (tmp_path / "fixed" / "empty").mkdir()
    photos("images", all=1)
    read_only(tmp_path / "fixed")
    for name in ("new", "empty"):
        said = refused("train", "digits", "--run", f"fixed/{name}")
        assert f"Cannot write into the run folder fixed/{name}: " in said
    words = ("--length", "48steps", "--schedule.warmup", "4steps")
    said = refused("train", "digits", "--run", "fixed/run", *words)
    assert "Cannot write into the run folder fixed/run: " in said
    assert "fixed/run" in refused("evaluate", "fixed/run")
    assert imgclf("predict", "fixed/run", "images").status == 0
