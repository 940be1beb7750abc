"""The verbs as a user types them: what they print, what they leave, and what they leave alone."""

import ast
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from imgclf import __version__
from imgclf.commands import VERBS, main
from imgclf.recipe import describe, load

ROOT = Path(__file__).parent.parent.parent
Command = Callable[..., Any]
SHORT = ("--length", "2steps", "--schedule.warmup", "0steps", "--log.tensorboard", "False")
SMALL = ("--model.network", "cnn", "--model.options.width", "4", "--model.preprocess.size", "8")


def python(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)


def test_help_recipes_and_mistyped_names_import_nothing_heavy() -> None:
    code = """if True:
        import sys
        from imgclf.commands import main
        assert main(["--help"]) == main(["recipes"]) == main(["evaluate", "--help"]) == 0
        assert main([]) == main(["trian"]) == main(["train", "digit"]) == main(["show", "x"]) == 2
        heavy = {"jax", "flax", "grain", "optax", "orbax", "sklearn", "matplotlib", "numpy"}
        sys.exit(", ".join(sorted(heavy & set(sys.modules))) or 0)
    """
    done = python("-c", code)
    assert done.returncode == 0, done.stderr


def test_python_m_imgclf_is_the_same_program() -> None:
    done = python("-m", "imgclf", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"imgclf {__version__}\n", "")
    assert python("-m", "imgclf", "trian").returncode == 2


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(imgclf: Command, verb: str) -> None:
    assert f"imgclf {verb}" in imgclf("--help").out
    ended = imgclf(verb, "--help")
    assert (ended.status, ended.err) == (0, "") and f"imgclf {verb}" in ended.out


def letters(text: str) -> str:
    return re.sub(r"[\W_]+", "", text)


def docstrings(file: Path) -> Iterator[tuple[str, str]]:
    """The fields of the dataclasses in a file, each with the text below it."""
    for node in ast.parse(file.read_text()).body:
        body = node.body if isinstance(node, ast.ClassDef) else []
        for field, text in pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                yield ast.unparse(field.target), ast.literal_eval(text.value)


def test_the_help_of_a_recipe_lists_every_field_with_its_docstring(
    imgclf: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    ended = imgclf("train", "digits", "--help")
    assert (ended.status, ended.err) == (0, "")
    for word in ("--run DIR", "--debug-nans", "--profile", "--quiet", "--data.train PATH"):
        assert word in ended.out
    fields = set(dotted(describe(load("digits").recipe)))
    assert {"schedule.peak", "data.evaluate.test.split", "augment.0.pixels"} <= fields
    assert {field for field in fields if f"--{field} " not in ended.out} == set()
    assert "--model.options.NAME VALUE" in ended.out
    said = letters(ended.out)
    found = dict(docstrings(ROOT / "imgclf" / "recipe" / "value.py"))
    assert len(found) > 40
    missing = {name for name, text in found.items() if letters(text)[:40] not in said}
    assert missing == {"evaluate", "unlabelled", "augment", "options"}  # listed by what is in them


def dotted(value: Any, path: str = "") -> Iterator[str]:
    """The names of what can be given in a described recipe."""
    if isinstance(value, dict):
        items = {key: item for key, item in value.items() if key != "kind"}
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        items = {str(i): item for i, item in enumerate(value)}
    else:
        yield path
        return
    for key, item in items.items():
        yield from dotted(item, f"{path}.{key}" if path else key)


def test_show_tells_what_a_recipe_comes_to_without_training(
    imgclf: Command, tmp_path: Path
) -> None:
    ended = imgclf("show", "digits", "--data.batch_size", "100", "--model.options.width", "16")
    assert (ended.status, ended.err) == (0, "")
    resolved, _, told = ended.out.partition("\n}\n")
    assert json.loads(resolved + "}")["recipe"]["data"]["batch_size"] == 100
    for line in (
        "parameters        16,",
        "length            432 steps of 100",
        "multiply-adds",
        "mesh",
    ):
        assert line in told
    assert re.search(r"batch image +uint8 \[100, 8, 8, 1\]", told)
    assert list(tmp_path.iterdir()) == []
    ended = imgclf("show", "digits", "--json")
    assert json.loads(ended.out)["steps"] == 337


def test_models_lists_networks_and_shows_the_layers_of_one(imgclf: Command) -> None:
    heading, *listed = imgclf("models", "--filter", "c*n*").out.splitlines()
    assert heading.split() == ["network", "parameters", "GMACs", "size"]
    names = [line.split()[0] for line in listed]
    assert {"cnn", "cifar_resnet20"} <= set(names) and "resnet18" not in names
    ended = imgclf("models", "cnn", "--num_classes", "10")
    assert ended.status == 0 and "stage1.conv1" in ended.out and "fc" in ended.out


def test_evaluate_tells_numbers_and_writes_them_into_the_run(imgclf: Command, trained: str) -> None:
    result = json.loads((Path(trained) / "result.json").read_text())
    ended = imgclf("evaluate", trained)
    right = round(result["accuracy"] * 360)
    assert (ended.status, ended.err) == (0, "")
    assert f"test: {right} of 360 right" in ended.out and "precision" in ended.out
    folder = Path(trained) / "predictions" / "test"
    assert f"predictions, plots and tables are in {trained}/predictions" in ended.out
    assert (folder / "confusion.png").stat().st_size > 1000
    kept = json.loads((folder / "metrics.json").read_text())
    ended = imgclf("evaluate", trained, "--json")
    assert json.loads(ended.out) == {"test": kept} and kept["accuracy"] == result["accuracy"]


def test_evaluate_takes_the_checkpoint_that_is_asked_for(imgclf: Command, trained: str) -> None:
    lines = map(json.loads, (Path(trained) / "metrics.jsonl").read_text().splitlines())
    then = {str(line["step"]): line["test/accuracy"] for line in lines if "test/accuracy" in line}
    assert list(then) == ["12", "24"]
    for checkpoint, accuracy in (*then.items(), ("best", max(then.values()))):
        ended = imgclf("evaluate", trained, "--json", "--checkpoint", checkpoint)
        assert json.loads(ended.out)["test"]["accuracy"] == accuracy


def test_an_earlier_checkpoint_is_written_down_beside_the_last(
    imgclf: Command, trained: str
) -> None:
    folder = Path(trained) / "predictions"
    assert imgclf("evaluate", trained).status == 0
    before = (folder / "test" / "metrics.json").read_text()
    found = json.loads(imgclf("evaluate", trained, "--json", "--checkpoint", "12").out)
    assert (folder / "test" / "metrics.json").read_text() == before
    assert json.loads((folder / "test-00000012" / "metrics.json").read_text()) == found["test"]
    for name, step in (("test", 24), ("test-00000012", 12)):
        of = json.loads((folder / name / "evaluated.json").read_text())
        assert of["checkpoint"] == step and of["data"]["kind"] == "Digits"


def test_other_data_of_the_same_name_are_written_down_beside_the_first(
    imgclf: Command, trained: str, photos: Callable[..., Path]
) -> None:
    kept = []
    for name in ("a/val", "b/val", "a/val"):
        if not Path(name).exists():
            photos(name, **{"3": 1, "7": 1})
        assert imgclf("evaluate", trained, "--data", name).status == 0
        files = (Path(trained) / "predictions").glob("data-val*/evaluated.json")
        kept.append({json.loads(file.read_text())["data"]["path"] for file in files})
    assert [len(paths) for paths in kept] == [1, 2, 2]
    assert kept[-1] == {str(Path(name).resolve()) for name in ("a/val", "b/val")}


def test_a_run_in_the_home_folder_is_found_by_every_verb(
    imgclf: Command, trained: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(Path(trained).parent))
    image = str(tmp_path / "image.png")
    Image.new("L", (8, 8)).save(image)
    words = ("--length", "24steps", "--schedule.warmup", "4steps", "--log.tensorboard", "False")
    words += ("--checkpoint.every", "12steps", "--evaluate_every", "12steps")
    for command in (("evaluate", "~/run"), ("predict", "~/run", image)):
        assert imgclf(*command).status == 0
    ended = imgclf("train", "digits", "--run", "~/run", *words)
    assert ended.status == 0 and "compiling" not in ended.out
    assert not (tmp_path / "~").exists()


def test_evaluate_takes_other_data_by_their_path(
    imgclf: Command, trained: str, photos: Callable[..., Path]
) -> None:
    photos("mine", **{"3": 2, "7": 1})
    ended = imgclf("evaluate", trained, "--data", "mine")
    assert (ended.status, ended.err) == (0, "")
    assert "mine: class folders" in ended.out and "of 3 right" in ended.out
    assert (Path(trained) / "predictions" / "data-mine" / "metrics.json").is_file()


def test_exported_weights_are_evaluated_as_the_run_is(imgclf: Command, trained: str) -> None:
    ended = imgclf("export", trained, "digits.safetensors")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out == "cnn with 10 classes, 65,834 parameters: digits.safetensors\n"
    run = json.loads(imgclf("evaluate", trained, "--json").out)
    words = ("evaluate", "digits", "--model.weights", "digits.safetensors", "--json")
    assert json.loads(imgclf(*words).out) == run
    assert imgclf("export", trained, "x.bin").status == imgclf("export", trained).status == 2
    before = imgclf("export", trained, "before.npz", "--checkpoint", "12")
    assert before.status == 0
    ended = imgclf(*words[:3], "before.npz", "--json")
    assert json.loads(ended.out) != run


def test_predict_tells_the_likeliest_classes(
    imgclf: Command, trained: str, photos: Callable[..., Path]
) -> None:
    photos("images", all=3)
    ended = imgclf("predict", trained, "images", "images/all/0.jpg", "--json", "--top", "2")
    assert (ended.status, ended.err) == (0, "")
    rows = json.loads(ended.out)
    assert [row["image"][-5:] for row in rows] == ["0.jpg", "1.jpg", "2.jpg", "0.jpg"]
    for row in rows:
        (likeliest, first), (_, second) = row["probabilities"].items()
        assert row["class"] == likeliest in "0123456789" and 1 >= first >= second >= 0
    assert rows[0]["probabilities"] == rows[3]["probabilities"]
    table = imgclf("predict", trained, "images/all/0.jpg").out
    assert table.startswith(f"images/all/0.jpg  {rows[0]['class']} ") and table.count("%") == 3


def test_a_run_without_a_name_says_with_which_command_it_goes_on(
    imgclf: Command, tmp_path: Path
) -> None:
    ended = imgclf("train", "digits", *SHORT, "--model.options.width", "4")
    assert (ended.status, ended.err) == (0, "")
    first, *_, last = ended.out.splitlines()
    again = shlex.split(first.partition("go on with: imgclf ")[2])
    (run,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"digits-\d{8}-\d{6}", run.name) and f"runs/{run.name}" in again
    assert last == f"everything is in runs/{run.name} (curves.png, predictions/, result.json)"
    accuracy = json.loads((run / "result.json").read_text())["accuracy"]
    ended = imgclf(*again)
    assert (ended.status, ended.err) == (0, "") and "compiling" not in ended.out
    assert f"{round(accuracy * 360)} of 360 right" in ended.out
    assert imgclf(*again, "--quiet").out == ""


def test_class_folders_are_trained_on_by_their_path_and_found_again(
    imgclf: Command, photos: Callable[..., Path]
) -> None:
    folder = photos("insects", ant=10, bee=10)
    words = ("--data.batch_size", "8", "--run", "run", *SMALL, *SHORT)
    ended = imgclf("train", "imagenette", "--data.train", "insects", *words)
    assert (ended.status, ended.err) == (0, "")
    assert "80 % of class folders (2 classes, 16 images) for training, the rest (4)" in ended.out
    ended = imgclf("evaluate", "run")
    assert ended.status == 0 and "test: " in ended.out and "of 4 right" in ended.out
    ended = imgclf("predict", "run", str(folder / "ant"), "--json", "--top", "9")
    rows = json.loads(ended.out)
    assert len(rows) == 10 and all(set(row["probabilities"]) == {"ant", "bee"} for row in rows)
    # Where those it was trained on have moved, others can still be named.
    other = folder.rename(folder.with_name("elsewhere"))
    ended = imgclf("evaluate", "run", "--data", str(other))
    assert (ended.status, ended.err) == (0, "") and "of 20 right" in ended.out


def test_a_tfds_data_set_on_disk_is_trained_on_by_its_path(imgclf: Command, insects: Path) -> None:
    words = ("--data.batch_size", "8", "--run", "run", *SMALL, *SHORT)
    ended = imgclf("train", "imagenette", "--data.train", str(insects), *words)
    assert (ended.status, ended.err) == (0, "")
    said = "a TFDS data set (3 classes, 12 images) for training, test (4) for evaluation"
    assert said in ended.out
    ended = imgclf("evaluate", "run")
    assert ended.status == 0 and "cat" in ended.out and "of 4 right" in ended.out
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize(
    ("network", "right"),
    [("cifar_resnet20", 1833), pytest.param("cifar_resnet56", 1859, marks=pytest.mark.slow)],
)
def test_published_weights_get_their_count_of_the_cifar10_test_images(
    network: str, right: int, imgclf: Command, shared: Path, cifar10: Path
) -> None:
    weights = shared / "data" / "weights" / f"{network.replace('cifar', 'cifar10')}.safetensors"
    words = ("--model.network", network, "--model.weights", str(weights))
    ended = imgclf("evaluate", "cifar10", *words)
    assert (ended.status, ended.err) == (0, "")
    assert f"test: {right:,} of 2,000 right" in ended.out or f"{right} of 2000 right" in ended.out


def test_digits_are_learned_as_the_readme_promises(
    imgclf: Callable[..., Any], tmp_path: Path
) -> None:
    assert imgclf("train", "digits", "--run", "run", "--log.tensorboard", "False").status == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["accuracy"] >= 0.97


def test_several_labels_of_an_image_are_learned_evaluated_and_predicted_each_by_itself(
    imgclf: Command, refused: Callable[..., str], photos: Callable[..., Path]
) -> None:
    """Every image is an insect, and an ant or a bee."""
    folder = photos("insects", ant=8, bee=8)
    rows = [
        {"image": str(file.relative_to(folder)), "label": ["insect", file.parent.name]}
        for file in sorted(folder.glob("*/*.jpg"))
    ]
    table = folder / "labels.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)))
    Path("insects.py").write_text(
        f"""
from imgclf import Data, Epochs, Model, Recipe
from imgclf.data import Table
from imgclf.losses import SigmoidCrossEntropy
from imgclf.tasks import Classify

insects = Table({str(table)!r})
recipe = Recipe(
    data=Data(insects, {{"all": insects}}, batch_size=8),
    model=Model("cnn", dtype="float32"),
    task=Classify(SigmoidCrossEntropy()),
    length=Epochs(2),
)
"""
    )
    ended = imgclf("train", "insects.py", "--run", "run", "--schedule.warmup", "0steps")
    assert ended.status == 0, ended.err
    assert re.search(r"all: mean average precision [\d.]+ %, the likeliest class right", ended.out)
    ended = imgclf("evaluate", "run")
    assert re.search(r"insect +[\d.]+ +[\d.]+ +[\d.]+ +16\b", ended.out), ended.out
    ended = imgclf("predict", "run", str(folder / rows[0]["image"]), "--json")
    shares = json.loads(ended.out)[0]["probabilities"]
    assert abs(sum(shares.values()) - 1) > 0.05
    line = refused("train", "digits", "--data.train", str(table))
    assert "have several labels" in line and "SigmoidCrossEntropy" in line


def test_an_interrupt_that_an_import_makes_its_own_error_of_ends_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(name: str) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise ImportError("initialization failed") from error

    def absent(name: str) -> None:
        raise ImportError("no module")

    commands = sys.modules["imgclf.commands"]
    monkeypatch.setattr(commands, "importlib", SimpleNamespace(import_module=interrupted))
    monkeypatch.setattr("os._exit", sys.exit)
    with pytest.raises(SystemExit, match="130"):
        main(["recipes"])
    assert capsys.readouterr().err == "imgclf: stopped\n"
    monkeypatch.setattr(commands, "importlib", SimpleNamespace(import_module=absent))
    with pytest.raises(ImportError, match="no module"):
        main(["recipes"])


def test_an_interrupt_within_an_exec_ends_in_status_130(tmp_path: Path) -> None:
    """As dataclasses and named tuples have one, which an import makes by the hundred."""
    recipe = tmp_path / "recipe.py"
    recipe.write_text("exec('raise KeyboardInterrupt')")
    ended = python("-m", "imgclf", "show", str(recipe))
    assert (ended.returncode, ended.stderr) == (130, "imgclf: stopped\n")
