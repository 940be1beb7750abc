"""Whole runs, through the loop: resumed, stopped, averaged, streamed, with a loss that blows up."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import imgclf
from imgclf import Average, Checkpoint, Data, Epochs, Log, Model, Never, Recipe, Steps, UserError
from imgclf.augmentation import Mixup, Translate
from imgclf.data import Digits, Folder
from imgclf.losses import CrossEntropy, Loss
from imgclf.optimizers import LAMB, AdamW
from imgclf.schedules import Constant, Cosine
from imgclf.tasks import Classify
from imgclf.training.feed import Evaluation
from imgclf.training.loop import Options, train
from imgclf.training.program import Stepwise
from imgclf.training.run import sole_trainer
from imgclf.training.step import train_step

from .runs import lines, same_run, weights

RECIPE = Recipe(
    data=Data(Digits(), {"test": Digits("test")}, batch_size=128),
    model=Model("cnn", dtype="float32"),
    augment=(Translate(1),),
    schedule=Cosine(peak=0.05, warmup=Steps(2)),
    length=Steps(20),
    evaluate_every=Steps(8),
    checkpoint=Checkpoint(every=Steps(5), keep=3),
    log=Log(every=Steps(3), tensorboard=False),
)
QUIET = Options(quiet=True)


class KilledError(Exception):
    pass


def dies_at(step: int) -> Any:
    """A step function whose run ends, without a word, before dispatch `step` + 1."""
    count = 0

    def stop(*_: Any) -> bool:
        nonlocal count
        count += 1
        if count > step:
            raise KilledError
        return True

    return stop


@pytest.mark.parametrize(
    "recipe",
    [
        RECIPE,
        dataclasses.replace(
            RECIPE,
            accumulate=2,
            average=Average(0.9),
            augment=(Translate(1), Mixup()),
            optimizer=AdamW(),
            clip_norm=1.0,
            schedule=Cosine(peak=1e-3),
            data=dataclasses.replace(RECIPE.data, resident="no"),
        ),
    ],
    ids=["plain, resident", "accumulated, averaged, mixed, clipped, streamed"],
)
def test_a_killed_run_ends_to_the_bit_as_one_that_was_not(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(recipe, tmp_path / "whole", options=QUIET)
    run, alive = Stepwise.run, dies_at(12)
    with monkeypatch.context() as patch:
        patch.setattr(Stepwise, "run", lambda *words: alive() and run(*words))
        with pytest.raises(KilledError):
            train(recipe, tmp_path / "killed", options=QUIET)
    assert len(lines(tmp_path / "killed")) < len(lines(tmp_path / "whole"))
    train(recipe, tmp_path / "killed", options=QUIET)
    same_run(tmp_path / "whole", tmp_path / "killed")
    steps = [line["step"] for line in lines(tmp_path / "whole")]
    assert steps == [3, 6, 8, 8, 9, 12, 15, 16, 16, 18, 20, 20]


def test_resident_and_streamed_runs_are_the_same(tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, length=Steps(6))
    streamed = dataclasses.replace(recipe, data=dataclasses.replace(RECIPE.data, resident="no"))
    train(recipe, tmp_path / "a", options=QUIET)
    train(streamed, tmp_path / "b", options=QUIET)
    same_run(tmp_path / "a", tmp_path / "b")


def test_many_steps_in_a_dispatch_see_the_same_examples_and_learn_the_same(tmp_path: Path) -> None:
    model = Model(flat, dtype="float32")
    recipe = dataclasses.replace(RECIPE, model=model, dispatch="step")
    scanned = dataclasses.replace(recipe, dispatch="scan")
    train(recipe, tmp_path / "a", options=QUIET)
    train(scanned, tmp_path / "b", options=QUIET)
    a, b = lines(tmp_path / "a"), lines(tmp_path / "b")
    assert [line.keys() for line in a] == [line.keys() for line in b]
    for x, y in zip(a, b, strict=True):
        for name in x:
            assert x[name] == pytest.approx(y[name], rel=1e-3, abs=1e-3), name


@dataclass(frozen=True)
class Telling(Classify):
    """A task with a metric for each example."""

    def loss(self, *words: Any, **more: Any) -> Any:
        loss, (model_state, metrics) = super().loss(*words, **more)
        return loss, (model_state, metrics | {"each": jnp.zeros(3)})


@pytest.mark.parametrize("dispatch", ["step", "scan"])
def test_a_metric_that_is_no_scalar_is_refused_before_a_step_is_made(
    tmp_path: Path, dispatch: Any
) -> None:
    model = Model(flat, dtype="float32")
    recipe = dataclasses.replace(RECIPE, model=model, task=Telling(), dispatch=dispatch)
    with pytest.raises(UserError, match="The metric 'each' of a step must be a scalar"):
        train(recipe, tmp_path / "run", options=QUIET)


def flat(num_classes: int) -> Any:
    class Flat(nn.Module):
        @nn.compact
        def __call__(self, images: Any, train: bool) -> Any:
            return nn.Dense(num_classes)(images.reshape(len(images), -1))

    return Flat()


def test_a_finished_run_tells_its_result_again_and_a_longer_one_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = dataclasses.replace(RECIPE, length=Steps(6))
    first = train(recipe, tmp_path / "run", options=QUIET)
    before = lines(tmp_path / "run")
    again = train(recipe, tmp_path / "run")
    assert again["accuracy"] == first["accuracy"] and lines(tmp_path / "run") == before
    assert "compiling" not in capsys.readouterr().out
    longer = train(dataclasses.replace(recipe, length=Steps(9)), tmp_path / "run")
    assert longer["steps"] == 9 and lines(tmp_path / "run")[: len(before)] == before
    said = capsys.readouterr().out
    assert "length was 6steps, is now 9steps" in said and "going on after step 6 of 9" in said


def test_a_run_of_another_recipe_is_refused_with_the_difference(tmp_path: Path) -> None:
    train(dataclasses.replace(RECIPE, length=Steps(2)), tmp_path / "run", options=QUIET)
    other = dataclasses.replace(RECIPE, seed=1, optimizer=LAMB())
    with pytest.raises(UserError) as error:
        train(other, tmp_path / "run", options=QUIET)
    assert "seed is 0 there, 1 here" in str(error.value) and "optimizer is" in str(error.value)


@dataclass(frozen=True)
class Explodes(Loss):
    def __call__(self, outputs: Any, batch: Any) -> Any:
        return outputs.logits.sum(-1) * 1e15


def test_a_loss_that_is_not_finite_stops_the_run_and_names_what_is_good(tmp_path: Path) -> None:
    recipe = dataclasses.replace(
        RECIPE,
        model=Model(flat, dtype="float32"),
        task=Classify(Explodes()),
        schedule=Constant(1e3),
        checkpoint=Checkpoint(every=Steps(1)),
    )
    with pytest.raises(UserError) as error:
        train(recipe, tmp_path / "run", options=QUIET)
    said = str(error.value)
    assert "at step" in said and "learning rate 1000" in said and "last good checkpoint is" in said
    assert "\n" not in said


@dataclass(frozen=True)
class BadGradient(Loss):
    def __call__(self, outputs: Any, batch: Any) -> Any:
        return outputs.logits.sum(-1) * 0 + jnp.sqrt(jnp.abs(outputs.logits * 0)).sum(-1)


def test_a_gradient_that_is_not_finite_is_never_saved(tmp_path: Path) -> None:
    recipe = dataclasses.replace(
        RECIPE,
        model=Model(flat, dtype="float32"),
        task=Classify(BadGradient()),
        checkpoint=Checkpoint(every=Steps(1)),
    )
    with pytest.raises(UserError, match=r"The gradient norm is nan at step 1 .*nothing is saved"):
        train(recipe, tmp_path / "run", options=QUIET)
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_a_signal_during_the_last_evaluation_leaves_it_for_the_next_sitting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = dataclasses.replace(RECIPE, length=Steps(8), evaluate_every=Steps(4))
    train(recipe, tmp_path / "whole", options=QUIET)
    calls = []

    def interrupted(self: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return batches(self)

    batches = Evaluation.batches
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as left:
        patch.setattr(Evaluation, "batches", interrupted)
        train(recipe, tmp_path / "run", options=QUIET)
    assert left.value.code == 143 and not (tmp_path / "run" / "result.json").exists()
    train(recipe, tmp_path / "run", options=QUIET)
    same_run(tmp_path / "whole", tmp_path / "run")
    best = json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]["best"]
    assert best["test/accuracy"] >= 0


def test_a_kill_after_an_evaluation_that_a_signal_had_put_off_changes_no_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = dataclasses.replace(
        RECIPE,
        model=Model(flat, dtype="float32"),
        length=Steps(8),
        evaluate_every=Steps(4),
        checkpoint=Checkpoint(every=Never()),
    )
    train(recipe, tmp_path / "whole", options=QUIET)
    batches, alive = Evaluation.batches, dies_at(0)

    def interrupted(self: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return batches(self)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Evaluation, "batches", interrupted)
        train(recipe, tmp_path / "run", options=QUIET)
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(Stepwise, "run", lambda *words: alive())
        train(recipe, tmp_path / "run", options=QUIET)
    train(recipe, tmp_path / "run", options=QUIET)
    same_run(tmp_path / "whole", tmp_path / "run")


@dataclass(frozen=True)
class Worse(Loss):
    """What is learned is to be wrong."""

    def __call__(self, outputs: Any, batch: Any) -> Any:
        return -CrossEntropy()(outputs, batch)


WORSE = dataclasses.replace(
    RECIPE,
    model=Model(flat, dtype="float32"),
    task=Classify(Worse()),
    schedule=Constant(0.003),
    best="test/loss",
    evaluate_every=Steps(5),
)
"""Its losses rise from one evaluation to the next."""


def test_the_best_of_a_run_is_that_of_all_its_evaluations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = dataclasses.replace(WORSE, checkpoint=Checkpoint(every=Steps(10), keep=1, best=0))
    result = train(recipe, tmp_path / "whole", options=QUIET)
    losses = [line["test/loss"] for line in lines(tmp_path / "whole") if "test/loss" in line]
    assert result["metrics"]["best"]["test/loss"] == min(losses) < losses[-1]
    run, alive = Stepwise.run, dies_at(13)
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(Stepwise, "run", lambda *words: alive() and run(*words))
        train(recipe, tmp_path / "run", options=QUIET)
    assert train(recipe, tmp_path / "run", options=QUIET)["metrics"] == result["metrics"]


@pytest.mark.parametrize("evaluation", [1, 3], ids=["step 5", "step 15"])
def test_what_a_signal_has_saved_is_not_the_best_of_a_run_that_would_not_have_saved_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evaluation: int
) -> None:
    recipe = dataclasses.replace(WORSE, checkpoint=Checkpoint(every=Steps(4), keep=3))
    train(recipe, tmp_path / "whole", options=QUIET)
    losses = [line["test/loss"] for line in lines(tmp_path / "whole") if "test/loss" in line]
    assert losses == sorted(losses), "what is saved early would be the best"
    batches, calls = Evaluation.batches, []

    def interrupted(self: Any) -> Any:
        calls.append(1)
        if len(calls) == evaluation:
            os.kill(os.getpid(), signal.SIGTERM)
        return batches(self)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as left:
        patch.setattr(Evaluation, "batches", interrupted)
        train(recipe, tmp_path / "run", options=QUIET)
    assert left.value.code == 143
    folders = (tmp_path / "run" / "checkpoints").glob("*/manifest.json")
    assert max(int(file.parent.name) for file in folders) == 5 * evaluation
    train(recipe, tmp_path / "run", options=QUIET)
    same_run(tmp_path / "whole", tmp_path / "run")


NOTED: list[tuple[Any, Any]] = []
"""What JAX had been told when a network was traced."""


class Noting(nn.Module):
    @nn.compact
    def __call__(self, images: Any, train: bool) -> Any:
        NOTED.append((jax.config.jax_default_matmul_precision, jax.config.jax_default_prng_impl))
        return nn.Dense(10)(images.reshape(len(images), -1))


@pytest.mark.parametrize("resident", ["yes", "no"])
def test_all_is_traced_in_the_context_of_the_caller(tmp_path: Path, resident: Any) -> None:
    recipe = dataclasses.replace(
        RECIPE,
        model=Model(lambda num_classes: Noting(), dtype="float32"),
        data=dataclasses.replace(RECIPE.data, resident=resident),
        length=Steps(2),
    )
    NOTED.clear()
    with jax.default_matmul_precision("highest"), jax.default_prng_impl("rbg"):
        train(recipe, tmp_path / "run", options=QUIET)
    assert len(NOTED) >= 3, "the first state, the step and the prediction"
    assert set(NOTED) == {("highest", "rbg")}


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    train(dataclasses.replace(RECIPE, length=Steps(2)), tmp_path / "run", options=QUIET)
    with (
        sole_trainer(tmp_path / "run"),
        pytest.raises(UserError, match="Another process is training in the run folder"),
    ):
        train(dataclasses.replace(RECIPE, length=Steps(2)), tmp_path / "run", options=QUIET)


def test_debug_nans_names_the_operation(tmp_path: Path) -> None:
    recipe = dataclasses.replace(
        RECIPE, model=Model(flat, dtype="float32"), task=Classify(NotANumber()), length=Steps(2)
    )
    with pytest.raises(UserError, match="A NaN was made: invalid value"):
        train(recipe, tmp_path / "run", options=Options(debug_nans=True, quiet=True))


@dataclass(frozen=True)
class NotANumber(Loss):
    def __call__(self, outputs: Any, batch: Any) -> Any:
        return jnp.log(-1 - jnp.square(outputs.logits)).sum(-1)


def test_steps_are_traced_on_request(tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, model=Model(flat), length=Steps(4), evaluate_every=Never())
    train(recipe, tmp_path / "run", options=Options(profile=(1, 3), quiet=True))
    assert list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))


def test_another_step_can_be_given_to_the_same_loop(tmp_path: Path) -> None:
    def frozen(state: Any, batch: Any, **words: Any) -> Any:
        new, metrics = train_step(state, batch, **words)
        return dataclasses.replace(new, params=state.params), metrics

    recipe = dataclasses.replace(RECIPE, model=Model(flat, dtype="float32"), length=Steps(4))
    train(recipe, tmp_path / "a", step=frozen, options=QUIET)
    longer = dataclasses.replace(recipe, length=Steps(8))
    train(longer, tmp_path / "b", step=frozen, options=QUIET)
    for x, y in zip(weights(tmp_path / "a"), weights(tmp_path / "b"), strict=True):
        np.testing.assert_array_equal(x, y)


def photographs(root: Path, **changes: Any) -> Recipe:
    """A recipe of sixteen and eight photographs, of which one in either part cannot be read."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 4)):
        for name in ("cats", "dogs"):
            folder = root / "photos" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 255, (20 + i, 30, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.jpg")
        broken = root / "photos" / part / "dogs" / "2.jpg"
        broken.write_bytes(broken.read_bytes()[:200])
    photos = root / "photos"
    recipe = Recipe(
        data=Data(
            Folder(str(photos / "train")), {"val": Folder(str(photos / "val"))}, batch_size=4
        ),
        model=Model("cnn", dtype="float32", preprocess=imgclf.Preprocess(size=16)),
        schedule=Constant(0.01),
        length=Epochs(2),
        log=Log(tensorboard=False),
    )
    return dataclasses.replace(recipe, **changes)


def test_unreadable_photographs_are_replaced_masked_and_listed(tmp_path: Path) -> None:
    recipe = photographs(tmp_path)
    result = imgclf.train(recipe, tmp_path / "run", options=QUIET)
    assert result["metrics"]["last"]["val/total"] == 7
    listed = (tmp_path / "run" / "bad_records.jsonl").read_text().splitlines()
    bad = [json.loads(line) for line in listed]
    assert {each["name"] for each in bad} == {"dogs/2.jpg"} and all(each["reason"] for each in bad)
    places = [(each["source"], each["position"], each["step"]) for each in bad]
    assert places == [("train", 11, 3), ("val", 6, 0)]  # though training met it twice


@contextlib.contextmanager
def without_room(file: Path, dispatches: range) -> Iterator[None]:
    """While entered, nothing can be written to `file` during those dispatches of a run."""
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    count, dispatch, away = 0, Stepwise.run, file.with_name("away")

    def run(*words: Any) -> Any:
        nonlocal count
        if count == dispatches.start:
            if file.exists():
                file.rename(away)
            file.symlink_to("/dev/full")
        if count == dispatches.stop:
            file.unlink()
            if away.exists():
                away.rename(file)
        count += 1
        return dispatch(*words)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stepwise, "run", run)
        yield


def test_a_run_that_may_go_on_lists_bad_records_when_there_is_room_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    may_go_on = Checkpoint(on_failure="continue")
    recipe = photographs(tmp_path, length=Epochs(6), checkpoint=may_go_on)
    imgclf.train(recipe, tmp_path / "whole", options=QUIET)
    listed = tmp_path / "run" / "bad_records.jsonl"
    capsys.readouterr()
    with without_room(listed, range(1, 6)):
        imgclf.train(recipe, tmp_path / "run", options=QUIET)
    said = [line for line in capsys.readouterr().err.splitlines() if "No space left" in line]
    assert said and all(f"Could not write to {listed}: " in line for line in said)
    assert sorted(listed.read_text().splitlines()) == sorted(
        (tmp_path / "whole" / "bad_records.jsonl").read_text().splitlines()
    )
    same_run(tmp_path / "whole", tmp_path / "run")


def test_a_run_that_may_not_go_on_stops_when_bad_records_cannot_be_listed(tmp_path: Path) -> None:
    listed = tmp_path / "run" / "bad_records.jsonl"
    with (
        without_room(listed, range(1, 100)),
        pytest.raises(UserError, match=f"Could not write to {listed}: No space left on device"),
    ):
        imgclf.train(photographs(tmp_path, length=Epochs(6)), tmp_path / "run", options=QUIET)


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_leaves_with_its_status_and_the_run_goes_on(
    tmp_path: Path, sent: signal.Signals, status: int
) -> None:
    words = ["train", "digits", "--run", "run", "--length", "2000epochs", "--log.every", "5steps"]
    words += ["--log.tensorboard", "False", "--checkpoint.every", "never"]
    with subprocess.Popen(
        [sys.executable, "-m", "imgclf", *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(imgclf.__file__).parent.parent)},
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        while not process.stdout.readline().startswith("step "):
            assert process.poll() is None
        process.send_signal(sent)
        process.stdout.read()
        said = process.stderr.read().splitlines()
    assert process.returncode == status
    assert len(said) == 2 and f"{sent.name}: saved step" in said[1]
    saved = [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()]
    assert len(saved) == 1 and int(saved[0]) >= 5
