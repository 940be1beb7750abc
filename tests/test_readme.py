"""The README's examples and commands: they run as they are written there."""

import ast
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imgclf import commands
from imgclf.commands.words import split
from imgclf.recipe import load, override

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
MARKED = {
    name: (kind, text)
    for kind, name, text in re.findall(
        r"<!-- (example|script): (\w+\.py) -->\n```python\n(.*?)```", README, re.DOTALL
    )
}
EXAMPLES = [name for name, (kind, _) in MARKED.items() if kind == "example"]
SHORT = ("--length", "40steps", "--checkpoint.every", "5steps", "--evaluate_every", "20steps")
SHORT = (*SHORT, "--log.every", "5steps", "--log.tensorboard", "False")


def program(*words: str, **others: Any) -> "subprocess.Popen[str]":
    """A Python program in another process, from which this checkout is found."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, *words], text=True, env=os.environ | {"PYTHONPATH": path}, **others
    )


def killed_after_a_checkpoint(folder: Path, *words: str) -> None:
    """Runs a training in another process until it says `step 15`: step 5 is saved by then."""
    out = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with program("-m", "imgclf", *words, cwd=folder, **out) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("step 15/40 "):
                process.kill()
    assert process.returncode == -signal.SIGKILL, "".join(said)
    assert list(folder.glob("run/checkpoints/*/manifest.json"))
    assert not (folder / "run" / "result.json").exists()


def test_the_readme_has_its_five_examples_and_a_script() -> None:
    assert [
        f"my_{part}.py" for part in ("model", "loss", "source", "augmentation", "task")
    ] == EXAMPLES
    assert [name for name, (kind, _) in MARKED.items() if kind == "script"] == ["experiment.py"]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("my_model.py", "my_task.py") else pytest.mark.slow)
        for name in EXAMPLES
    ],
)
def test_an_example_is_trained_killed_resumed_evaluated_and_predicts(
    name: str, imgclf: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / name).write_text(MARKED[name][1])
    words = ("train", name, "--run", "run", *SHORT)
    killed_after_a_checkpoint(tmp_path, *words)

    ended = imgclf(*words)
    assert (ended.status, ended.err) == (0, "")
    assert re.search(r"^going on after step \d+ of 40$", ended.out, re.MULTILINE)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["steps"] == 40
    assert result["accuracy"] > 0.5, "it learns nothing"

    (tmp_path / name).unlink()  # the run folder alone is enough from here on
    ended = imgclf("evaluate", "run", "--json")
    assert (ended.status, ended.err) == (0, "")
    assert json.loads(ended.out)["test"]["accuracy"] == result["accuracy"]
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    ended = imgclf("predict", "run", "image.png")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith("image.png  ") and ended.out.count("%") >= 2


def test_the_script_runs_from_an_empty_folder_and_its_run_is_found(
    imgclf: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "experiment.py").write_text(MARKED["experiment.py"][1])
    with program("experiment.py", cwd=tmp_path, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        *_, accuracy, counted, predicted = process.stdout.read().splitlines()
    assert process.returncode == 0
    right, total = re.fullmatch(r"(\d+) of (\d+)", counted).groups()  # type: ignore[union-attr]
    assert float(accuracy) == int(right) / int(total) > 0.5
    assert predicted in "0123456789"
    ended = imgclf("evaluate", "runs/script", "--json")
    assert (ended.status, ended.err) == (0, "")
    assert json.loads(ended.out)["test"]["right"] == int(right)


def written_commands() -> list[str]:
    """Every `imgclf ...` of the README, in a shell block or within a sentence."""
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL))
    parts = re.split(r"\n|&&|#.*", blocks)
    inline = re.findall(r"`(imgclf [^`\n]+)`", re.sub(r"```.*?```", "", README, flags=re.DOTALL))
    found = [part.strip() for part in [*parts, *inline]]
    return list(dict.fromkeys(part for part in found if part.startswith("imgclf ")))


def test_the_readme_has_commands() -> None:
    assert len(written_commands()) >= 10


@pytest.mark.parametrize("command", written_commands())
def test_a_command_of_the_readme_has_an_existing_verb_recipe_fields_and_options(
    command: str, imgclf: Callable[..., Any], tmp_path: Path
) -> None:
    verb, *words = shlex.split(command)[1:]
    assert verb in commands.VERBS
    for name in EXAMPLES:
        (tmp_path / name).write_text(MARKED[name][1])
    shutil.copy(ROOT / "configs" / "digits.py", tmp_path / "my_file.py")
    if verb in ("recipes", "show") or words[-1:] == ["--help"]:
        assert imgclf(verb, *words).status == 0
    elif verb in ("models", "predict", "export", "data"):
        module = f"data.{words[0]}" if verb == "data" else verb
        known = {word.split()[0] for word in import_module(f"imgclf.commands.{module}").OPTIONS}
        assert {word for word in words if word.startswith("--")} <= known
    else:
        imgclf("recipes")  # from here on relative names are looked for in `tmp_path`
        (target,), _, fields = split(words, ("run", "profile", "data", "kind"), ("json",))
        if target != "RECIPE" and (verb == "train" or fields):
            override(load(target), fields, sources=False)


def test_the_recipe_shown_is_the_shipped_one() -> None:
    (shown,) = re.findall(r"```python\n(recipe = .*?)```", README, re.DOTALL)
    shipped = ast.parse((ROOT / "configs" / "digits.py").read_text()).body[-1]
    assert ast.dump(ast.parse(shown).body[0]) == ast.dump(shipped)
