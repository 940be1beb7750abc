"""How a process joins others: what is detected, what is mistaken, and when nobody comes."""

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from imgclf.errors import UserError
from imgclf.training import join as joining
from imgclf.training.cluster import GONE, place
from imgclf.training.join import join

DETECTED = ("SLURM_JOB_ID", "OMPI_MCA_orte_hnp_uri", "KUBERNETES_SERVICE_HOST")


@pytest.fixture(autouse=True)
def undetected(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in DETECTED:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def used_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_process_by_itself_joins_nothing() -> None:
    join()
    join("localhost:1", 1, 0)
    assert place() == (0, 1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("localhost", 2, 0), "`--coordinator` must be HOST:PORT; got 'localhost'"),
        (("localhost:http", 2, 0), "`--coordinator` must be HOST:PORT; got 'localhost:http'"),
        (("localhost:1", 2, 2), r"`--process` must lie from 0 to 1.*\(=2\); got 2"),
        (("localhost:1", 0, 0), "`--process` must lie"),
        (("no-such-host.invalid:1", 2, 1), "Could not join the other processes: .*[Nn]ame"),
    ],
)
def test_a_mistake_is_told_in_a_line(words: tuple[str, int, int], said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        join(*words)
    assert "\n" not in str(error.value)


def test_a_port_that_another_program_uses_is_named(
    used_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "_LINGER", 0.5)
    with pytest.raises(UserError, match=f"port {used_port} of .* in use by another program"):
        join(f"127.0.0.1:{used_port}", 2, 0)


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        (
            {
                "SLURM_JOB_ID": "4097",
                "SLURM_STEP_NODELIST": "node[007-012],other",
                "SLURM_NTASKS": "8",
                "SLURM_PROCID": "3",
                "SLURM_LOCALID": "1",
            },
            ("node007:61441", 8, 3),
        ),
        (
            {
                "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
                "OMPI_COMM_WORLD_SIZE": "4",
                "OMPI_COMM_WORLD_RANK": "0",
                "OMPI_COMM_WORLD_LOCAL_RANK": "0",
            },
            ("10.96.0.1:62624", 4, 0),
        ),
        ({}, ("", 0, -1)),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, ("", 0, -1)),
    ],
    ids=["SLURM", "Open MPI", "nothing", "a pod without the package kubernetes"],
)
def test_a_cluster_is_detected_by_the_environment_of_its_scheduler(
    environment: dict[str, str], found: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert joining._detected()[:3] == found


@pytest.mark.parametrize("process", [0, 1])
def test_a_process_to_which_nobody_comes_leaves_with_a_line(process: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    program = (
        "from imgclf.training import join\n"
        "join._JOIN = 2\n"
        f"join.join('127.0.0.1:{port}', 2, {process})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == GONE and done.stdout == ""
    assert done.stderr.startswith(
        f"imgclf: not all of the 2 processes have come to 127.0.0.1:{port}"
    )
    assert done.stderr.count("\n") == 1
