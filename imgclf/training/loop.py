"""The loop: from a recipe to a trained, evaluated classifier in a run folder."""

import contextlib
import math
import os
import shlex
import time
from bisect import bisect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from imgclf.errors import UserError
from imgclf.evaluation import evaluate as measure
from imgclf.models.summary import count_parameters
from imgclf.recipe.files import LoadedRecipe, from_script
from imgclf.recipe.files import folder as shipped
from imgclf.recipe.resolution import Resolved, resolve
from imgclf.recipe.value import Recipe
from imgclf.training import finish
from imgclf.training.backend import (
    Signals,
    Stopped,
    facts,
    library_logs,
    use_compilation_cache,
)
from imgclf.training.bad_records import BadRecords
from imgclf.training.checkpoints import Checkpoints, newest, restore, score, write_whole
from imgclf.training.clock import Clock
from imgclf.training.display import Display
from imgclf.training.evaluate import Evaluated, Predictor
from imgclf.training.feed import Evaluation, Resident, Streamed, is_resident
from imgclf.training.mesh import batch_sharding, check_batch, make_mesh
from imgclf.training.meter import Meter, take
from imgclf.training.program import Program, Scanned, Step, Stepwise, use_scan
from imgclf.training.run import Run, new_folder, open_to_train, sole_trainer
from imgclf.training.state import State
from imgclf.training.step import train_step
from imgclf.training.writers import make_writers

AHEAD = 2
"""Dispatches that may be under way while the host goes on."""


@dataclass(frozen=True)
class Options:
    """How a run is looked at; nothing here changes what is learned."""

    debug_nans: bool = False
    """Stop at the first operation that makes a NaN (slow: nothing is donated)."""
    profile: tuple[int, int] | None = None
    """Steps, the first and the one after the last, that are traced into `profile/`."""
    quiet: bool = False
    """Show nothing but warnings."""


def train(
    recipe: Recipe | LoadedRecipe,
    run: str | Path | None = None,
    *,
    step: Step = train_step,
    options: Options = Options(),
) -> dict[str, Any]:
    """Trains `recipe` in the folder `run`, going on where it was left; returns its result.

    The result is what `result.json` holds: `accuracy`, `steps`, `metrics`, `seconds` and `run`.
    Without `run` a new folder below `runs/` is made. Raises a `UserError` for mistakes, and
    `Stopped` after a signal, when the state has been saved.
    """
    loaded = recipe if isinstance(recipe, LoadedRecipe) else from_script(recipe)
    display, clock = Display(options.quiet), Clock()
    before = time.perf_counter()
    use_compilation_cache()
    folder = Path(run) if run is not None else new_folder(loaded.name)
    with Signals() as signals:
        resolved = resolve(loaded.recipe)
        opened, changed = open_to_train(folder, loaded)
        display.log_to(opened.log)
        display.say(f"run {folder}; if stopped, go on with: {again(loaded, folder)}")
        for line in (*loaded.said, *changed):
            display.say(line)
        write_whole(opened.resolved, resolved.as_json())
        with sole_trainer(folder), library_logs(opened.log), jax.debug_nans(options.debug_nans):
            session = Session(resolved, opened, display, clock, signals, options)
            try:
                return session.run(step, before)
            except FloatingPointError as error:
                display.log_error()
                why = str(error).splitlines()[0]
                raise UserError(f"A NaN was made: {why}; the place is in {opened.log}") from error
            finally:
                session.close()


class Session:
    """One sitting of a run: from the newest checkpoint to the end, or to a signal."""

    def __init__(
        self,
        resolved: Resolved,
        run: Run,
        display: Display,
        clock: Clock,
        signals: Signals,
        options: Options,
    ):
        recipe = resolved.recipe
        self._resolved, self._run, self._display = resolved, run, display
        self._clock, self._signals, self._options = clock, signals, options
        self._mesh = make_mesh(recipe.mesh)
        check_batch(self._mesh, "`batch_size` of `Data`", recipe.data.batch_size)
        self._bad_records = BadRecords(run.bad_records, recipe.data.batch_size, display)
        self._evaluations = {
            name: Evaluation(
                source,
                recipe.data,
                resolved.network.preprocess,
                resolved.image_shape[2],
                batch_sharding(self._mesh),
                self._bad_records.of(name),
            )
            for name, source in resolved.evaluate.items()
        }
        self._checkpoints = Checkpoints(
            run.checkpoints,
            keep=recipe.checkpoint.keep,
            best=recipe.checkpoint.best,
            score=lambda metadata: score(metadata, resolved.best),
        )
        self._writers = make_writers(recipe.log, run.folder)
        self._meter = Meter()
        self._history: list[dict[str, Any]] = []
        self._values: dict[str, float] = {}
        self._tracing = False
        self._evaluated: dict[str, Evaluated] = {}

    def run(self, step_function: Step, before: float) -> dict[str, Any]:
        """Trains to the end; `before` is when the program began, by `time.perf_counter`."""
        resolved, recipe, clock = self._resolved, self._resolved.recipe, self._clock
        program = Program(resolved, self._mesh, step_function, donate=not self._options.debug_nans)
        self._predictor = Predictor(recipe.task, resolved.network, self._mesh)
        resident = is_resident(resolved)
        scan = use_scan(recipe.dispatch, resident)
        self._facts = facts(self._mesh, "scan" if scan else "step")
        self._introduce(program, resident)
        state, start = self._first_state(program)
        clock.add("start", time.perf_counter() - before)
        if start in self._evaluation_steps() and not self._is_evaluated(start):
            self._evaluate(state, start)  # a signal came in between
            self._checkpoints.annotate(start, self._metadata(start))
        if start < resolved.steps:
            feed = (
                Resident(resolved, batch_sharding(self._mesh))
                if resident
                else Streamed(resolved, batch_sharding(self._mesh), self._bad_records.of("train"))
            )
            self._display.say("compiling the step ...")
            with clock("compile"):
                runner = program.compile(feed, scan)
            self._display.say(f"compiled in {clock.seconds['compile']:.1f} s")
            state = self._steps(program, runner, state, start)
            clock.add("input wait", runner.waited)
            clock.add("step", -runner.waited)
        return self._finish(state, max(start, resolved.steps))

    def close(self) -> None:
        """Waits for the last save, and closes what is open."""
        self._display.stop()
        for writer in self._writers:
            writer.close()
        self._checkpoints.close()

    def _introduce(self, program: Program, resident: bool) -> None:
        resolved, (height, width, channels) = self._resolved, self._resolved.image_shape
        devices = jax.devices()
        self._display.say(
            f"{len(resolved.train):,} training images of {height} x {width} x {channels}, "
            f"{len(resolved.classes)} classes; {resolved.network.name} "
            f"in {resolved.network.dtype}, "
            f"{count_parameters(program.state.params):,} parameters; "
            f"{len(devices)} {devices[0].device_kind} device{'s' if len(devices) > 1 else ''}"
            f"{', data on the device' if resident else ''}"
        )

    def _first_state(self, program: Program) -> tuple[State, int]:
        self._checkpoints.sweep()
        saved = newest(self._checkpoints, self._display.warn)
        if saved is None:
            if any(self._run.checkpoints.glob("bad-*")):
                raise UserError(
                    f"No checkpoint of {self._run.folder} is whole (see checkpoints/bad-*); give "
                    "another --run to start anew"
                )
            self._cut(0)
            state, note = program.initial()
            if note:
                self._display.say(note)
            return state, 0
        state = restore(saved, program.state)
        self._cut(saved.step)
        self._history = list(saved.metadata["history"])
        self._meter = Meter(**saved.metadata["meter"])
        self._clock.resume(saved.metadata["seconds"])
        then = saved.metadata["facts"]
        other = [
            f"{k} {then.get(k)!r} -> {v!r}" for k, v in self._facts.items() if then.get(k) != v
        ]
        if other:
            self._display.say(f"bits may differ from the run so far: {', '.join(other)}")
        if saved.step < self._resolved.steps:
            self._display.say(f"going on after step {saved.step} of {self._resolved.steps}")
        return state, saved.step

    def _steps(
        self, program: Program, runner: Stepwise | Scanned, state: State, start: int
    ) -> State:
        resolved, recipe, last = self._resolved, self._resolved.recipe, self._resolved.steps
        evaluated = self._evaluation_steps()
        saved = resolved.cadence(recipe.checkpoint.every) | {last}
        logged = resolved.cadence(recipe.log.every) | evaluated
        traced = self._options.profile or (-1, -1)
        halts = sorted(evaluated | saved | set(traced))
        self._display.start(start, last)
        runner.start(start, last)
        done = start
        try:
            while done < last:
                self._trace(done, traced)
                stop = min(done + runner.size, halts[bisect(halts, done)])
                with self._clock("step"):
                    state, metrics = runner.run(state, done, stop)
                    self._meter.add(stop, metrics)
                    self._meter.throttle(AHEAD)
                done = stop
                stopping = self._signals.received
                with self._clock("step"):
                    if done in evaluated or done in saved or stopping:
                        self._collect(program, logged, done, keep=0)
                    elif self._meter.holds(logged, keep=AHEAD):
                        self._collect(program, logged, done, keep=AHEAD)
                if done in evaluated and not stopping:
                    self._evaluate(state, done)
                    stopping = self._signals.received
                if done in saved or stopping:
                    with self._clock("save"):
                        self._save(state, done)
                if stopping and (done < last or not self._is_evaluated(done)):
                    self._checkpoints.wait()
                    self._display.warn(f"{stopping.name}: saved step {done} of {last} and stopped")
                    raise Stopped(stopping)
        finally:
            runner.close()
            self._trace(traced[1], traced)
        if self._options.profile and not (self._run.folder / "profile").exists():
            self._display.warn(f"nothing was traced: the run went from step {start} to {last}")
        return state

    def _collect(self, program: Program, logged: frozenset[int], done: int, keep: int) -> None:
        """Fetches metrics but of the last `keep` dispatches, and writes the log lines due."""
        resolved = self._resolved
        for step, values in self._meter.fetch(keep):
            for name in ("loss", "gradient_norm"):
                if not math.isfinite(values.get(name, 0.0)):
                    rate = float(program.schedule(step - 1))
                    raise UserError(self._not_finite(step, name, values[name], rate))
            self._meter.count(values)
            if step in logged:
                means = take(self._meter.window)
                epoch = step / resolved.steps_per_epoch
                speed = self._display.show(
                    step, resolved.steps, epoch, done, resolved.recipe.data.batch_size, means
                )
                line = {f"train/{name}": value for name, value in means.items()}
                rate = float(program.schedule(step - 1))
                line |= {"epoch": epoch, "learning_rate": rate, "images_per_second": speed}
                self._write(step, line)

    def _not_finite(self, step: int, name: str, value: float, rate: float) -> str:
        with contextlib.suppress(UserError):
            self._checkpoints.wait()
        good = self._checkpoints.all()
        last = f"the last good checkpoint is {good[-1].folder}" if good else "nothing is saved yet"
        return (
            f"The {name.replace('_', ' ')} is {value} at step {step} (learning rate {rate:.4g}); "
            f"{last}. A lower --schedule.peak, a longer --schedule.warmup or --clip_norm 1 may "
            "help; --debug-nans finds the operation"
        )

    def _evaluation_steps(self) -> frozenset[int]:
        resolved = self._resolved
        return resolved.cadence(resolved.recipe.evaluate_every) | {resolved.steps}

    def _is_evaluated(self, step: int) -> bool:
        return bool(self._history) and self._history[-1]["step"] == step

    def _evaluate(self, state: State, step: int) -> None:
        """Evaluates every source and writes it down; a signal leaves it for the next sitting."""
        epoch = step / self._resolved.steps_per_epoch
        before = time.perf_counter()
        if not self._evaluate_all(state):
            return
        row: dict[str, float] = {}
        self._values = {}
        for name, found in self._evaluated.items():
            loss = found.metrics.loss
            self._values |= finish.numbers(found)
            row |= {f"{name}_loss": loss, f"{name}_accuracy": found.accuracy}
            self._display.say(f"epoch {epoch:.4g}: {name} {finish.said(found)}, loss {loss:.4f}")
        self._display.pause_clock(time.perf_counter() - before)
        means = take(self._meter.since_evaluation)
        learned = {f"train_{k}": means[k] for k in ("loss", "accuracy") if k in means}
        self._write(step, self._values)
        self._history.append({"epoch": epoch, "step": step} | learned | row)

    def _evaluate_all(self, state: State) -> bool:
        """Whether all sources were evaluated, or a signal came before."""
        found: dict[str, Evaluated] = {}
        with self._clock("evaluate"):
            for name, feed in self._evaluations.items():
                predictions, unread = self._predictor(
                    *state.evaluated,
                    feed,
                    self._resolved.classes,
                    lambda: self._signals.received is not None,
                )
                if self._signals.received:
                    return False
                found[name] = Evaluated(name, predictions, measure(predictions), unread)
        self._evaluated = found
        return True

    def _save(self, state: State, step: int) -> None:
        self._checkpoints.save(state, step, self._metadata(step))

    def _metadata(self, step: int) -> dict[str, Any]:
        """What a checkpoint holds beside the state; a value of its own, since it is saved later."""
        return {
            "evaluation": dict(self._values) if self._is_evaluated(step) else {},
            "history": list(self._history),
            "meter": self._meter.as_json(),
            "facts": self._facts,
            "seconds": dict(self._clock.seconds),
        }

    def _finish(self, state: State, step: int) -> dict[str, Any]:
        if not self._evaluated and not self._evaluate_all(state):
            assert self._signals.received is not None
            raise Stopped(self._signals.received)
        with self._clock("save"):
            self._checkpoints.wait()
        self._display.stop()
        best = self._checkpoints.best()
        return finish.finish(
            self._run,
            self._resolved,
            step,
            self._evaluated,
            self._history,
            best.metadata["evaluation"] if best else {},
            self._clock.seconds,
            self._display,
        )

    def _write(self, step: int, values: dict[str, float]) -> None:
        for writer in self._writers:
            writer.write(step, values)

    def _trace(self, step: int, traced: tuple[int, int]) -> None:
        if step == traced[0] and step >= 0:
            jax.profiler.start_trace(self._run.folder / "profile")
            self._tracing = True
        elif step == traced[1] and self._tracing:
            self._meter.throttle(0)
            jax.profiler.stop_trace()
            self._tracing = False
            self._display.say(
                f"traced steps {traced[0]} to {traced[1]} into {self._run.folder}/profile"
            )

    def _cut(self, step: int) -> None:
        """Forgets all that was written down for later steps than `step`."""
        for writer in self._writers:
            writer.cut(step)
        self._bad_records.cut(step)


def again(loaded: LoadedRecipe, folder: Path) -> str:
    """The command, or the call, with which a run goes on."""
    if loaded.file is None:
        return f"imgclf.train(recipe, run={str(folder)!r})"
    recipe = loaded.name if loaded.file.parent == shipped() else os.path.relpath(loaded.file)
    return shlex.join(["imgclf", "train", recipe, "--run", str(folder), *loaded.overrides])
