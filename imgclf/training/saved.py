"""A run used afterwards: `evaluate` and `predict`, and a recipe evaluated without training."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from imgclf.data import Files, checked_labels, located
from imgclf.data.pipeline import Problem
from imgclf.data.source import Source, fixed_shape
from imgclf.errors import UserError
from imgclf.evaluation import Predictions
from imgclf.evaluation import evaluate as measure
from imgclf.models import load_weights
from imgclf.models.network import Network
from imgclf.recipe.description import describe
from imgclf.recipe.resolution import build, check_classes, rebuild
from imgclf.recipe.value import Data, Mesh, Recipe
from imgclf.tasks import Batch, ModelState, Params, Task
from imgclf.training import finish
from imgclf.training.backend import compiler_options, use_compilation_cache
from imgclf.training.checkpoints import (
    Checkpoints,
    Saved,
    newest,
    restore_evaluated,
    score,
)
from imgclf.training.evaluate import Evaluated, Predictor
from imgclf.training.feed import Evaluation
from imgclf.training.manifest import verify
from imgclf.training.mesh import batch_sharding, make_mesh, replicated
from imgclf.training.program import quick_compilation
from imgclf.training.run import Run, check_writable, open_to_read


@dataclass(frozen=True)
class Classifier:
    """A network with weights: what a run or a weights file comes to."""

    network: Network
    task: Task
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    params: Params
    model_state: ModelState
    data: Data
    checkpoint: int | None = None
    """The step of the checkpoint that the weights are of; None where they are a file's."""

    def predictions(
        self, source: Source, classes: Sequence[str], problems: list[Problem]
    ) -> tuple[Predictions, int]:
        """Predictions for every image of `source` that can be read, and how many cannot."""
        mesh = make_mesh(Mesh())
        feed = Evaluation(
            source,
            self.data,
            self.network.preprocess,
            self.image_shape[2],
            batch_sharding(mesh),
            problems.extend,
        )
        predictor = Predictor(self.task, self.network, mesh, compiler_options(False))
        return predictor(self.params, self.model_state, feed, classes)


def load_classifier(
    run: str | os.PathLike[str], checkpoint: str = "last", *, sources: bool = False
) -> tuple[Run, Recipe, Classifier]:
    """The classifier of a run, as it is evaluated (the averaged weights where there are some).

    `checkpoint` is "last", "best" or a step. Nothing but the run folder is needed, unless the
    `sources` that were given on the command line are to be found again, too.
    """
    use_compilation_cache()
    opened, loaded = open_to_read(run, sources=sources)
    content = json.loads(opened.resolved.read_text())
    data = dataclasses.replace(loaded.recipe.data, root=content["data_root"])
    recipe = dataclasses.replace(loaded.recipe, data=data)
    network, classes, image_shape = rebuild(recipe, content)
    make = partial(recipe.task.initialise, network)
    shapes = jax.eval_shape(make, jax.random.key(0), _blank(image_shape))
    whole = replicated(make_mesh(Mesh()))
    placed = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), shapes)
    step, (params, model_state) = _restored(opened, content["best"], checkpoint, placed)
    classifier = Classifier(
        network, recipe.task, classes, image_shape, params, model_state, recipe.data, step
    )
    return opened, recipe, classifier


def _restored(
    run: Run, best: str, checkpoint: str, like: Any
) -> tuple[int, tuple[Params, ModelState]]:
    saved = _find(run, best, checkpoint)
    while True:
        try:
            return saved.step, restore_evaluated(saved, like)
        except UserError:
            raise
        except Exception:
            tried, saved = saved, _find(run, best, checkpoint)
            if saved.step == tried.step:
                raise
            # The run goes on, and has deleted that checkpoint meanwhile.


def evaluate(
    run: str | os.PathLike[str],
    data: Source | None = None,
    *,
    checkpoint: str | int = "last",
    name: str = "",
    present_classes: bool = False,
) -> list[Evaluated]:
    """Evaluates the run folder `run` on its recipe's evaluation sources, or on `data`.

    With `present_classes` only the classes that occur among a source's labels can be said.
    Predictions, plots and numbers are written into the run's `predictions/`, those of an earlier
    checkpoint than the last into folders with its step in their name.
    """
    opened, recipe, classifier = load_classifier(run, str(checkpoint), sources=data is None)
    check_writable(opened)
    sources = {name or "data": data} if data is not None else dict(recipe.data.evaluate)
    found = [_evaluate(classifier, *each, present_classes) for each in sources.items()]
    last = Checkpoints(opened.checkpoints).all()[-1].step
    for each in found:
        step = "" if classifier.checkpoint == last else f"-{classifier.checkpoint:08d}"
        folder = opened.predictions / f"{each.name}{step}"
        if data is not None and _holds_another(folder, each):
            digest = hashlib.sha256(json.dumps(each.of["data"]).encode()).hexdigest()
            folder = folder.with_name(f"{folder.name}-{digest[:8]}")
        finish.write_evaluation(folder, each)
    return found


def _holds_another(folder: Path, evaluated: Evaluated) -> bool:
    """Whether the folder has the evaluation of other data."""
    file = folder / "evaluated.json"
    return file.is_file() and json.loads(file.read_text())["data"] != evaluated.of["data"]


def evaluate_weights(recipe: Recipe, *, present_classes: bool = False) -> list[Evaluated]:
    """Evaluates a recipe's network with its `model.weights`, without any training.

    With `present_classes` only the classes that occur among a source's labels can be said.
    """
    if not recipe.model.weights:
        raise UserError("Evaluating a recipe needs --model.weights FILE; for a run give its folder")
    use_compilation_cache()
    sources = recipe.data.evaluate
    if not sources:
        raise UserError("The recipe has no evaluation source; give --data.evaluate.test PATH")
    first = located(next(iter(sources.values())), recipe.data.root)
    classes = tuple(first.classes)
    network, image_shape = build(recipe.model, len(classes), fixed_shape(first))
    make = jax.jit(partial(recipe.task.initialise, network), compiler_options=quick_compilation())
    fresh = make(jax.random.key(0), _blank(image_shape))
    params, model_state, note = load_weights(network, fresh[0], fresh[1], recipe.model.weights)
    if note:
        raise UserError(f"{recipe.model.weights} cannot be evaluated without training: {note}")
    classifier = Classifier(
        network, recipe.task, classes, image_shape, params, model_state, recipe.data
    )
    return [_evaluate(classifier, *each, present_classes) for each in sources.items()]


def predict(
    run: str | os.PathLike[str],
    images: Sequence[str | os.PathLike[str] | np.ndarray],
    *,
    checkpoint: str | int = "last",
) -> tuple[Predictions, list[Problem]]:
    """What the classifier of `run` says of images: paths of files, or uint8 (h, w, c) arrays.

    Returns predictions (all labels 0) for the images that could be read, and what was wrong with
    the others.
    """
    _, _, classifier = load_classifier(run, str(checkpoint))
    problems: list[Problem] = []
    if not images:
        raise UserError("There is nothing to predict: give one image or more")
    predictions, _ = classifier.predictions(Files(tuple(images)), classifier.classes, problems)
    return predictions, problems


def _evaluate(
    classifier: Classifier, name: str, source: Source, present_classes: bool
) -> Evaluated:
    source = located(source, classifier.data.root)
    classes = tuple(source.classes)
    check_classes(name, classes, classifier.classes)
    checked_labels(source)
    problems: list[Problem] = []
    predictions, unread = classifier.predictions(source, classes, problems)
    if not len(predictions.ids):
        raise UserError(f"None of the {unread} images of {name!r} could be read")
    if present_classes:
        name, predictions = f"{name}-present", predictions.of_present_classes()
    of = {"data": _described(source), "checkpoint": classifier.checkpoint}
    return Evaluated(name, predictions, measure(predictions), unread, of)


def _described(source: Source) -> Any:
    try:
        return describe(source)
    except UserError:  # a script's own, which no recipe could hold
        return {"kind": type(source).__name__}


def _blank(image_shape: tuple[int, int, int]) -> Batch:
    return {
        "image": jnp.zeros((1, *image_shape), jnp.uint8),
        "label": jnp.zeros((1,), jnp.int32),
        "mask": jnp.ones((1,), bool),
    }


def _find(run: Run, best: str, checkpoint: str) -> Saved:
    checkpoints = Checkpoints(run.checkpoints, score=lambda metadata: score(metadata, best))
    steps = {str(saved.step): saved for saved in checkpoints.all()}
    if not steps:
        raise UserError(f"The run {run.folder} has no checkpoint yet")
    if checkpoint == "last":
        lost: list[str] = []
        found = newest(checkpoints, lost.append, move=False)
        if found is None:
            raise UserError(f"No checkpoint of {run.folder} is whole: {'; '.join(lost)}")
        return found
    found = checkpoints.best() if checkpoint == "best" else steps.get(checkpoint)
    if found is None and checkpoint == "best":
        raise UserError(
            f"No checkpoint of {run.folder} was evaluated, so that none is the best; there are "
            f"last and the steps {', '.join(steps)}"
        )
    if found is None:
        raise UserError(
            f"`--checkpoint` must be last, best or one of the steps {', '.join(steps)}; got "
            f"{checkpoint!r}"
        )
    if wrong := verify(found.folder):
        raise UserError(f"The checkpoint {found.folder} cannot be used: {wrong}")
    return found
