"""One sitting of a run: what happens from the newest checkpoint to the end, or to a signal."""

import contextlib
import gc
import math
import signal
import time
from bisect import bisect
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import jax

from imgclf.errors import UserError
from imgclf.evaluation import evaluate as measure
from imgclf.models.summary import count_parameters
from imgclf.recipe.description import describe
from imgclf.recipe.resolution import Resolved
from imgclf.training import finish
from imgclf.training.backend import compiler_options, facts
from imgclf.training.bad_records import BadRecords
from imgclf.training.checkpoints import Checkpoints, newest, restore, score
from imgclf.training.clock import Clock
from imgclf.training.cluster import Cluster
from imgclf.training.display import Display
from imgclf.training.evaluate import Evaluated, Predictor
from imgclf.training.feed import Evaluation, Resident, Streamed, is_resident
from imgclf.training.mesh import batch_sharding, check_batch, make_mesh
from imgclf.training.meter import Meter, take
from imgclf.training.program import Program, Scanned, Step, Stepwise, use_scan
from imgclf.training.run import Run
from imgclf.training.signals import Signals, Stopped
from imgclf.training.state import State
from imgclf.training.writers import make_writers

AHEAD = 2
"""Dispatches that may be under way while the host goes on."""


class Session:
    """One sitting of a run: from the newest checkpoint to the end, or to a signal."""

    def __init__(
        self,
        resolved: Resolved,
        run: Run,
        display: Display,
        signals: Signals,
        cluster: Cluster,
        profile: tuple[int, int] | None = None,
    ):
        recipe = resolved.recipe
        self._resolved, self._run, self._display, self._clock = resolved, run, display, Clock()
        self._signals, self._cluster, self._profile = signals, cluster, profile
        self._stopping: signal.Signals | None = None
        self._mesh = make_mesh(recipe.mesh)
        for name, stream in resolved.streams.items():
            check_batch(self._mesh, name, stream.batch_size)
        self._bad_records = BadRecords(
            run.bad_records,
            {name: stream.batch_size for name, stream in resolved.streams.items()},
            recipe.data.bad_share,
            display,
            cluster,
            self._not_written,
        )
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
            cluster=cluster,
            warn=display.warn,
        )
        cluster.wishes += [lambda: signals.received is not None, lambda: self._checkpoints.failed]
        self._saving_steps = resolved.cadence(recipe.checkpoint.every) | {resolved.steps}
        self._writers = make_writers(recipe.log, run.folder, display.warn) if cluster.main else []
        self._meter = Meter()
        self._history: list[dict[str, Any]] = []
        self._values: dict[str, float] = {}
        self._best: dict[str, float] = {}
        self._tracing = False
        self._runner: Stepwise | Scanned | None = None
        self._evaluated: dict[str, Evaluated] = {}

    def run(self, step_function: Step, before: float, *, donate: bool) -> dict[str, Any]:
        """Trains to the end; `before` is when the program began, by `time.perf_counter`."""
        resolved, recipe, clock = self._resolved, self._resolved.recipe, self._clock
        program = Program(resolved, self._mesh, step_function, donate)
        self._predictor = Predictor(
            recipe.task, resolved.network, self._mesh, compiler_options(recipe.deterministic)
        )
        resident = is_resident(resolved)
        scan = use_scan(recipe.dispatch, resident)
        self._facts = facts(self._mesh, "scan" if scan else "step", recipe.deterministic)
        self._introduce(program, resident)
        state, start = self._first_state(program)
        clock.add("start", time.perf_counter() - before)
        if start in self._evaluation_steps() and not self._is_evaluated(start):
            self._evaluate(state, start)  # a signal came in between
            changed = ("evaluation", "best", "history", "meter")
            learned = {name: self._metadata(start)[name] for name in changed}
            self._attempt(lambda: self._checkpoints.annotate(start, learned))
        if start < resolved.steps:
            sharding, reports = batch_sharding(self._mesh), self._bad_records.of_stream
            feed = (
                Resident(resolved, sharding)
                if resident
                else Streamed(resolved, sharding, reports, self._display.warn)
            )
            self._display.say("compiling the step ...")
            with clock("compile"):
                self._runner = program.compile(feed, scan)
            self._display.say(f"compiled in {clock.seconds['compile']:.1f} s")
            state = self._steps(program, self._runner, state, start)
        return self._finish(state, max(start, resolved.steps))

    def close(self) -> None:
        """Waits for the last save, and closes what is open."""
        self._display.stop()
        self._checkpoints.close()
        for writer in self._writers:
            with contextlib.suppress(OSError):  # it was said when it was written
                writer.close()

    def _introduce(self, program: Program, resident: bool) -> None:
        resolved, (height, width, channels) = self._resolved, self._resolved.image_shape
        devices, processes = jax.devices(), self._cluster.count
        pool = sum(len(stream.source) for stream in resolved.streams.values()) - len(resolved.train)
        self._display.say(
            f"{len(resolved.train):,} training images of {height} x {width} x {channels}"
            f"{f' and {pool:,} without labels' if pool else ''}, "
            f"{len(resolved.classes)} classes; {resolved.network.name} "
            f"in {resolved.network.dtype}, "
            f"{count_parameters(program.state.params):,} parameters; "
            f"{len(devices)} {devices[0].device_kind} device{'s' if len(devices) > 1 else ''}"
            f"{f' of {processes} processes' if processes > 1 else ''}"
            f"{', data on the device' if resident else ''}"
        )

    def _first_state(self, program: Program) -> tuple[State, int]:
        step = self._cluster.by_main(self._newest)
        if step is None:
            if self._cluster.main:
                self._cut(0, evaluated=True)
            state, note = program.initial()
            if note:
                self._display.say(note)
            return state, 0
        saved = next(each for each in self._checkpoints.all() if each.step == step)
        state = restore(saved, program.state)
        self._history = list(saved.metadata["history"])
        best = self._checkpoints.best()  # those of earlier versions do not say it themselves
        self._best = saved.metadata.get("best") or (best.metadata["evaluation"] if best else {})
        if self._cluster.main:
            self._cut(saved.step, evaluated=self._is_evaluated(saved.step))
        self._meter = Meter(**saved.metadata["meter"])
        self._bad_records.resume(saved.metadata.get("unread", 0))
        self._clock.resume(saved.metadata["seconds"])
        then = saved.metadata["facts"]
        other = [f"{k} {then[k]!r} -> {v!r}" for k, v in self._facts.items() if then.get(k, v) != v]
        if other:
            self._display.say(f"bits may differ from the run so far: {', '.join(other)}")
        if saved.step < self._resolved.steps:
            self._display.say(f"going on after step {saved.step} of {self._resolved.steps}")
        return state, saved.step

    def _newest(self) -> int | None:
        """The step of the newest whole checkpoint; only the main process looks for it."""
        saved = newest(self._checkpoints, self._display.warn)
        bad = any(self._run.checkpoints.glob("bad-*"))
        if saved is None and (bad or self._checkpoints.mark.exists()):
            what = "whole (see checkpoints/bad-*)" if bad else "there any more"
            raise UserError(
                f"No checkpoint of {self._run.folder} is {what}; give another --run to start anew"
            )
        self._checkpoints.sweep()
        return saved.step if saved else None

    def _steps(
        self, program: Program, runner: Stepwise | Scanned, state: State, start: int
    ) -> State:
        resolved, recipe, last = self._resolved, self._resolved.recipe, self._resolved.steps
        evaluated = self._evaluation_steps()
        saved = self._saving_steps
        logged = resolved.cadence(recipe.log.every) | evaluated
        watched = logged | saved
        self._rates = program.rates(logged)
        traced = (self._cluster.main and self._profile) or (-1, -1)
        halts = sorted(evaluated | saved | set(traced))
        self._display.start(start, last)
        runner.start(start, last)
        self._signals.learns()
        done = start
        gc.collect()
        gc.freeze()  # a collection among all that tracing has left behind takes a tenth of a second
        try:
            while done < last:
                if done in watched and (why := self._bad_records.too_many(done)):
                    self._collect(program, logged, done, keep=0)
                    if done not in saved and done != start:
                        self._save(state, done)
                    self._checkpoints.wait()
                    raise UserError(f"{why}; {self._checkpoints.said_last()}")
                self._trace(done, traced)
                stop = min(done + runner.size, halts[bisect(halts, done)])
                with self._clock("step"):
                    state, metrics = runner.run(state, done, stop)
                    self._meter.add(done, stop, metrics)
                    self._meter.throttle(AHEAD)
                    done, stopping = stop, self._attend()
                    if done in evaluated or done in saved or stopping:
                        self._collect(program, logged, done, keep=0)
                    elif self._meter.holds(logged, keep=AHEAD):
                        self._collect(program, logged, done, keep=AHEAD)
                if done in evaluated and not stopping:
                    self._evaluate(state, done)
                if done in saved or self._stopping:
                    self._save(state, done)
                if self._stopping and (done < last or not self._is_evaluated(done)):
                    self._checkpoints.wait()
                    name = self._stopping.name
                    self._display.warn(f"{name}: saved step {done} of {last} and stopped")
                    raise Stopped(self._stopping, agreed=True)
        finally:
            gc.unfreeze()
            runner.close()
            self._trace(traced[1], traced)
        if self._profile and not (self._run.folder / "profile").exists():
            self._display.warn(f"nothing was traced: the run went from step {start} to {last}")
        return state

    def _attend(self) -> signal.Signals | None:
        """The signal for which the run stops now; asked once a dispatch, and the same in all."""
        if self._stopping is None and self._cluster.due():
            if why := self._checkpoints.failure():
                self._not_saved(why)
            received = self._signals.received
            names = self._cluster.exchange(received.name if received else "")
            self._stopping = next((signal.Signals[name] for name in names if name), None)
        return self._stopping

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
                    step, resolved.steps, epoch, done, resolved.images_per_step, means
                )
                line = {f"train/{name}": value for name, value in means.items()}
                line |= {"epoch": epoch, "learning_rate": self._rates[step]}
                line |= {"images_per_second": speed}
                self._write(step, line)

    def _not_finite(self, step: int, name: str, value: float, rate: float) -> str:
        with contextlib.suppress(UserError):
            self._checkpoints.wait()
        return (
            f"The {name.replace('_', ' ')} is {value} at step {step} (learning rate {rate:.4g}); "
            f"{self._checkpoints.said_last()}. A lower --schedule.peak, a longer --schedule.warmup "
            "or --clip_norm 1 may help; --debug-nans finds the operation"
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
        if not self._evaluate_all(state, step):
            return
        row: dict[str, float] = {}
        self._values = {}
        for name, found in self._evaluated.items():
            loss = found.metrics.loss
            self._values |= finish.numbers(found)
            row |= {f"{name}_loss": loss, f"{name}_accuracy": found.accuracy}
            self._display.say(f"epoch {epoch:.4g}: {name} {finish.said(found)}, loss {loss:.4f}")
        self._best = self._better()
        self._display.pause_clock(time.perf_counter() - before)
        means = take(self._meter.since_evaluation)
        learned = {f"train_{k}": means[k] for k in ("loss", "accuracy") if k in means}
        self._write(step, self._values)
        self._history.append({"epoch": epoch, "step": step} | learned | row)

    def _better(self) -> dict[str, float]:
        """The best evaluation so far, this one included; the later of equals."""
        both = [{"evaluation": values} for values in (self._best, self._values)]
        old, new = (score(each, self._resolved.best) for each in both)
        return self._values if new is not None and (old is None or new >= old) else self._best

    def _evaluate_all(self, state: State, step: int) -> bool:
        """Whether all sources were evaluated, or a signal came before."""
        found: dict[str, Evaluated] = {}
        with self._clock("evaluate"):
            for name, feed in self._evaluations.items():
                predictions, unread = self._predictor(
                    *state.evaluated,
                    feed,
                    self._resolved.classes,
                    lambda: self._attend() is not None,
                )
                if self._stopping:
                    return False
                of = {"data": describe(self._resolved.evaluate[name]), "checkpoint": step}
                found[name] = Evaluated(name, predictions, measure(predictions), unread, of)
        self._evaluated = found
        return True

    def _save(self, state: State, step: int) -> None:
        self._bad_records.gather()
        last = step == self._resolved.steps or self._stopping is not None
        with self._clock("save"):
            self._attempt(self._checkpoints.wait)  # for the one before, not the one that is due
            save = partial(self._checkpoints.save, state, step, self._metadata(step))
            save() if last else self._attempt(save)

    def _attempt(self, save: Callable[[], None]) -> None:
        """Saves; where that fails the run stops, or goes on as the recipe says."""
        try:
            save()
        except UserError as error:
            self._not_saved(str(error))

    def _not_written(self, where: str, error: OSError) -> None:
        last = self._checkpoints.said_last()
        self._not_saved(f"Could not write to {where}: {error.strerror}; {last}")

    def _not_saved(self, why: str) -> None:
        if self._resolved.recipe.checkpoint.on_failure == "stop":
            raise UserError(why)
        self._display.warn(f"{why}; going on, as --checkpoint.on_failure says")

    def _metadata(self, step: int) -> dict[str, Any]:
        """What a checkpoint holds beside the state; a value of its own, since it is saved later.

        One that a signal has asked for has no evaluation: it must not be the best of a run that
        would not have it without the signal.
        """
        competes = step in self._saving_steps and self._is_evaluated(step)
        return {
            "evaluation": dict(self._values) if competes else {},
            "best": dict(self._best),
            "history": list(self._history),
            "meter": self._meter.as_json(),
            "unread": self._bad_records.unread(step),
            "facts": self._facts,
            "seconds": self._seconds(),
        }

    def _seconds(self) -> dict[str, float]:
        """Where the time went; the steps' own without what they waited for input."""
        waited = self._runner.waited if self._runner else 0.0
        clock = Clock(dict(self._clock.seconds))
        clock.add("input wait", waited)
        clock.add("step", -waited)
        return clock.seconds

    def _finish(self, state: State, step: int) -> dict[str, Any]:
        if not self._evaluated and not self._evaluate_all(state, step):
            assert self._stopping is not None
            self._display.warn(f"{self._stopping.name}: stopped before the result was written")
            raise Stopped(self._stopping, agreed=True)
        with self._clock("save"):
            self._checkpoints.wait()
        self._bad_records.gather()
        self._display.stop()
        return self._cluster.by_main(lambda: self._finished(step))

    def _finished(self, step: int) -> dict[str, Any]:
        return finish.finish(
            self._run,
            self._resolved,
            step,
            self._evaluated,
            self._history,
            self._best,
            self._seconds(),
            self._display,
        )

    def _write(self, step: int, values: dict[str, float]) -> None:
        for writer in self._writers:
            try:
                writer.write(step, values)
            except OSError as error:
                self._not_written(error.filename or type(writer).__name__, error)

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

    def _cut(self, step: int, evaluated: bool) -> None:
        """Forgets what was written down for later steps, and evaluations after the checkpoint."""

        def kept(at: int, names: Collection[str]) -> bool:
            return at < step or (at == step and (evaluated or any(map(_is_learned, names))))

        for writer in self._writers:
            writer.cut(kept)
        self._bad_records.cut(lambda at, names: at <= step)


def _is_learned(name: str) -> bool:
    return name.startswith("train/")
