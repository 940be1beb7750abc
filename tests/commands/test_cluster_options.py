"""Mistakes in the options with which several processes find each other: one line each, status 2."""

from collections.abc import Callable

import pytest

Refused = Callable[..., str]
SHORT = ("--length", "1steps", "--log.tensorboard", "False", "--run", "run")
TOGETHER = "`--coordinator`, `--processes` and `--process` go together; got only "


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--coordinator here:1234", TOGETHER + "--coordinator"),
        ("--processes 2", TOGETHER + "--processes"),
        ("--process 0", TOGETHER + "--process"),
        ("--processes 2 --process 0", TOGETHER + "--processes and --process"),
        ("--coordinator here:1234 --process 0", TOGETHER + "--coordinator and --process"),
        ("--coordinator here:1234 --processes 2", TOGETHER + "--coordinator and --processes"),
        ("--coordinator", "`--coordinator` needs a value"),
        ("--coordinator here:1234 --processes 2 --process", "`--process` needs a value"),
        (
            "--coordinator here --processes 2 --process 0",
            "`--coordinator` must be HOST:PORT; got 'here'",
        ),
        (
            "--coordinator :1234 --processes 2 --process 0",
            "`--coordinator` must be HOST:PORT; got ':1234'",
        ),
        (
            "--coordinator here:port --processes 2 --process 0",
            "`--coordinator` must be HOST:PORT; got 'here:port'",
        ),
        (
            "--coordinator here:1234 --processes two --process 0",
            "`--processes` must be a whole number of 1 or more; got 'two'",
        ),
        (
            "--coordinator here:1234 --processes 0 --process 0",
            "`--processes` must be a whole number of 1 or more; got '0'",
        ),
        (
            "--coordinator here:1234 --processes 2 --process -1",
            "`--process` must be a whole number of 0 or more; got '-1'",
        ),
        (
            "--coordinator here:1234 --processes 2 --process 2",
            "`--process` must lie from 0 to 1, below `--processes` (=2); got 2",
        ),
        ("--dead-after soon", "`--dead_after` must be a whole number of 5 or more; got 'soon'"),
        ("--dead-after 4", "`--dead_after` must be a whole number of 5 or more; got '4'"),
        ("--dead-after 7.5", "`--dead_after` must be a whole number of 5 or more; got '7.5'"),
        ("--dead-after", "`--dead_after` needs a value"),
        ("--coordinater here:1234", "has no field --coordinater; did you mean --coordinator?"),
        ("--proceses 2", "has no field --proceses; did you mean --processes?"),
        ("--dead-aftr 9", "has no field --dead_aftr; did you mean --dead_after?"),
    ],
)
def test_a_wrong_option_of_a_cluster_is_answered_by_what_is_allowed(
    refused: Refused, options: str, said: str
) -> None:
    assert said in refused("train", "digits", *SHORT, *options.split())
