import errno
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from imgclf.errors import UserError
from imgclf.training import saved as afterwards
from imgclf.training.checkpoints import (
    Checkpoints,
    Saved,
    newest,
    restore,
    restore_evaluated,
    score,
)
from imgclf.training.manifest import verify
from imgclf.training.run import Run
from imgclf.training.state import State


def state(value: float, averaged: bool = False) -> State:
    params = {"dense": {"kernel": jnp.full((3, 2), value), "bias": jnp.full(2, value)}}
    params = jax.tree.map(jnp.float32, params)
    model_state = {"batch_stats": {"mean": jnp.full(2, value, jnp.float32)}}
    average = jax.tree.map(lambda x: x + 100, (params, model_state)) if averaged else None
    optimizer_state = optax.sgd(0.1, momentum=0.9).init(params)
    return State(jnp.int32(value), params, model_state, optimizer_state, average)


def metadata(accuracy: float | None = None) -> dict[str, Any]:
    return {"evaluation": {} if accuracy is None else {"test/accuracy": accuracy}}


def opened(folder: Path, **choices: Any) -> Checkpoints:
    folder.mkdir(exist_ok=True)
    return Checkpoints(folder, score=lambda m: score(m, "test/accuracy"), **choices)


def steps(checkpoints: Checkpoints) -> list[int]:
    return [saved.step for saved in checkpoints.all()]


@pytest.mark.parametrize("averaged", [False, True])
def test_what_is_saved_comes_back_to_the_bit(tmp_path: Path, averaged: bool) -> None:
    checkpoints = opened(tmp_path)
    checkpoints.save(state(3, averaged), 3, metadata() | {"x": [1, 2]})
    checkpoints.close()
    (saved,) = checkpoints.all()
    back = restore(saved, state(0, averaged))
    assert jax.tree.structure(back) == jax.tree.structure(state(3, averaged))
    jax.tree.map(np.testing.assert_array_equal, back, state(3, averaged))
    assert saved.metadata["x"] == [1, 2] and saved.metadata["format"] == 1
    pair = restore_evaluated(saved, (state(0).params, state(0).model_state))
    jax.tree.map(np.testing.assert_array_equal, pair, state(3, averaged).evaluated)


def test_saves_in_a_row_are_all_made_and_the_last_and_best_are_kept(tmp_path: Path) -> None:
    checkpoints = opened(tmp_path, keep=2, best=1)
    for step, accuracy in ((1, 0.2), (2, 0.9), (3, 0.3), (4, None), (5, 0.1)):
        checkpoints.save(state(step), step, metadata(accuracy))
    checkpoints.close()
    assert steps(checkpoints) == [2, 4, 5]
    best = checkpoints.best()
    assert best is not None and best.step == 2


def test_more_best_ones_are_wanted_than_there_are(tmp_path: Path) -> None:
    checkpoints = opened(tmp_path, keep=1, best=3)
    for step in range(1, 6):
        checkpoints.save(state(step), step, metadata(step / 10))
        checkpoints.wait()
        assert steps(checkpoints) == list(range(max(1, step - 2), step + 1))
    checkpoints.close()


def test_a_score_that_is_not_a_number_is_none() -> None:
    assert score({"evaluation": {"test/loss": float("nan")}}, "test/loss") is None
    assert score({"evaluation": {"test/loss": 2.0}}, "test/loss") == -2.0
    assert score({"evaluation": {}}, "test/accuracy") is None


def test_a_checkpoint_can_be_given_an_evaluation_afterwards(tmp_path: Path) -> None:
    checkpoints = opened(tmp_path)
    checkpoints.save(state(1), 1, metadata())
    checkpoints.annotate(1, metadata(0.7))
    (saved,) = checkpoints.all()
    assert saved.metadata["evaluation"] == {"test/accuracy": 0.7} and verify(saved.folder) == ""
    checkpoints.close()


def test_a_donated_state_does_not_change_what_is_being_saved(tmp_path: Path) -> None:
    checkpoints = opened(tmp_path)
    add = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    now = add(state(0))
    checkpoints.save(now, 1, metadata())
    for _ in range(20):
        now = add(now)
    checkpoints.close()
    back = restore(checkpoints.all()[0], state(0))
    np.testing.assert_array_equal(back.params["dense"]["kernel"], np.ones((3, 2)))


def test_a_checkpoint_without_its_manifest_is_none(tmp_path: Path) -> None:
    checkpoints = opened(tmp_path)
    checkpoints.save(state(1), 1, metadata())
    checkpoints.close()
    (tmp_path / "00000001" / "manifest.json").unlink()
    assert checkpoints.all() == []
    again = opened(tmp_path)
    again.sweep()
    assert list(tmp_path.iterdir()) == []
    again.save(state(1), 1, metadata())  # the step is free again
    again.close()
    assert steps(again) == [1]


def test_a_flipped_bit_in_any_file_is_found_and_the_one_before_taken(tmp_path: Path) -> None:
    checkpoints = opened(tmp_path)
    for step in (1, 2):
        checkpoints.save(state(step), step, metadata())
    checkpoints.close()
    folder = tmp_path / "00000002"
    files = [file for file in folder.rglob("*") if file.is_file() and file.stat().st_size]
    assert len(files) > 5
    for file in files:
        whole = file.read_bytes()
        file.write_bytes(bytes([whole[0] ^ 4]) + whole[1:])
        assert file.name in verify(folder), file
        file.write_bytes(whole)
    assert verify(folder) == ""
    files[0].write_bytes(files[0].read_bytes()[:-1])
    warned: list[str] = []
    saved = newest(checkpoints, warned.append)
    assert saved is not None and saved.step == 1
    assert "00000002 is not used" in warned[0] and (tmp_path / "bad-00000002").is_dir()


@pytest.mark.parametrize(
    ("like", "said"),
    [
        (state(0, averaged=True), "average/model_state/batch_stats/mean is not in the checkpoint"),
        (
            State(jnp.int32(0), {"dense": {"kernel": jnp.zeros((3, 3)), "bias": jnp.zeros(2)}},
                  state(0).model_state, state(0).optimizer_state, None),
            "weights/params/dense/kernel is float32[3, 2] there, float32[3, 3] in this run",
        ),
        (
            State(jnp.int32(0), jax.tree.map(lambda x: x.astype(jnp.bfloat16), state(0).params),
                  state(0).model_state, state(0).optimizer_state, None),
            "is float32[2] there, bfloat16[2] in this run",
        ),
    ],
)  # fmt: skip
def test_a_misfit_names_the_leaf(tmp_path: Path, like: State, said: str) -> None:
    checkpoints = opened(tmp_path)
    checkpoints.save(state(1), 1, metadata())
    checkpoints.close()
    with pytest.raises(UserError) as error:
        restore(checkpoints.all()[0], like)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_save_that_fails_is_told_at_the_next_and_what_is_left_named(tmp_path: Path) -> None:
    checkpoints = opened(tmp_path / "in")
    checkpoints.save(state(1), 1, metadata())
    checkpoints.wait()
    (tmp_path / "in").rename(tmp_path / "away")
    (tmp_path / "in").write_text("a file where the folder was")
    with pytest.raises(UserError, match="Could not save checkpoint"):
        checkpoints.save(state(2), 2, metadata())
        checkpoints.wait()


def test_an_older_checkpoint_that_cannot_be_removed_is_no_failed_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = shutil.rmtree

    def denied(folder: Path, ignore_errors: bool = False) -> None:
        if Path(folder).name == "00000001" and not ignore_errors:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(folder))
        if Path(folder).name != "00000001":
            remove(folder, ignore_errors=ignore_errors)

    warned: list[str] = []
    checkpoints = opened(tmp_path / "in", keep=1, warn=warned.append)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", denied)
        for step in (1, 2, 3):
            checkpoints.save(state(step), step, metadata())
            checkpoints.wait()
            assert not checkpoints.failed
        assert steps(checkpoints) == [3] and (tmp_path / "in" / "00000001").is_dir()
    checkpoints.close()
    assert [folder.name for folder in (tmp_path / "in").iterdir()] == ["00000003"]
    assert warned == []


def test_a_checkpoint_of_another_format_says_so(tmp_path: Path) -> None:
    checkpoints = opened(tmp_path)
    checkpoints.save(state(1), 1, metadata())
    checkpoints.close()
    checkpoints.annotate(1, metadata() | {"format": 99})
    with pytest.raises(UserError, match="has format 99; this version reads format 1"):
        restore(checkpoints.all()[0], state(0))


def test_where_no_checkpoint_was_evaluated_none_is_the_best(tmp_path: Path) -> None:
    checkpoints = opened(tmp_path / "checkpoints")
    checkpoints.save(state(2), 2, metadata())
    checkpoints.close()
    with pytest.raises(UserError, match=r"No checkpoint of .* was evaluated.* the steps 2$"):
        afterwards._find(Run(tmp_path), "test/accuracy", "best")


def test_a_checkpoint_that_the_run_deletes_while_it_is_read_gives_way_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = [Saved(step, Path(f"{step:08d}"), {}) for step in (8, 12, 12)]

    def restored(saved: Saved, like: object) -> int:
        if saved.step < 12:
            raise FileNotFoundError(saved.folder)
        return saved.step

    monkeypatch.setattr(afterwards, "_find", lambda *_: there.pop(0))
    monkeypatch.setattr(afterwards, "restore_evaluated", restored)
    assert afterwards._restored(Run(Path("run")), "", "last", {}) == (12, 12)
    there[:] = [Saved(4, Path("00000004"), {})] * 2  # it is there, and cannot be read
    with pytest.raises(FileNotFoundError):
        afterwards._restored(Run(Path("run")), "", "last", {})
