import json

import jax.numpy as jnp
import pytest

from imgclf import UserError
from imgclf.training.meter import Meter, check_metrics, take


def test_metrics_come_back_in_order_with_their_steps_and_the_last_are_left() -> None:
    meter = Meter()
    meter.add(0, 1, {"loss": jnp.float32(1.5)})
    meter.add(1, 4, {"loss": jnp.array([2.0, 3.0, 4.0, 0.0, 0.0])})
    meter.add(4, 5, {"loss": jnp.float32(9.0)})
    assert meter.fetch(keep=1) == [
        (1, {"loss": 1.5}),
        (2, {"loss": 2.0}),
        (3, {"loss": 3.0}),
        (4, {"loss": 4.0}),
    ]
    assert meter.fetch() == [(5, {"loss": 9.0})]


def test_a_window_goes_on_after_a_checkpoint_as_if_nothing_had_happened() -> None:
    whole, first = Meter(), Meter()
    values = [0.1, 0.7, 0.2, 0.9]
    for value in values:
        whole.count({"loss": value})
    for value in values[:2]:
        first.count({"loss": value})
    second = Meter(**json.loads(json.dumps(first.as_json())))
    for value in values[2:]:
        second.count({"loss": value})
    assert take(second.window) == take(whole.window)
    assert second.window == {} and take(second.window) == {}
    assert take(second.since_evaluation) == take(whole.since_evaluation)


def test_metrics_that_cannot_be_added_up_are_refused() -> None:
    check_metrics({"loss": jnp.float32(1)})
    with pytest.raises(UserError, match=r"metric 'hits' of a step must be a scalar; got .*\(2,\)"):
        check_metrics({"loss": jnp.float32(1), "hits": jnp.zeros(2)})
    with pytest.raises(UserError, match="must be called another thing than 'steps'"):
        check_metrics({"steps": jnp.float32(1)})
