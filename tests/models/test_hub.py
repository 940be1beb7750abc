"""Weights on the hub: a small one on the loopback, one that cannot be reached, and the cache."""

import dataclasses
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import pytest

import imgclf
from imgclf import models
from imgclf.preprocess import PLAIN, Preprocess

STATED = {"input_size": [3, 8, 8], "crop_pct": 0.9, "mean": [0.4], "interpolation": "random"}
CONFIG = json.dumps({"pretrained_cfg": STATED}).encode()
AS_STATED = Preprocess(size=8, crop=0.9, mean=(0.4,))
LOAD = """
from imgclf import models
network, params, _ = models.load("cnn", "hf-hub:timm/small.one", width=4)
print(network.num_classes, float(params["fc"]["bias"][0]), network.preprocess)
"""
SIZED = """
from imgclf.models import preprocess_with
from imgclf.preprocess import Preprocess
of = "hf-hub:timm/small.one"
stated, asked = preprocess_with(of, Preprocess()), preprocess_with(of, Preprocess(), 3, 16)
print(stated.size, asked.size, preprocess_with(of, Preprocess(32), 3, 16).size)
"""
FETCH = """
from imgclf.errors import UserError
from imgclf.models.hub import preprocess_at, weights_at
try:
    print(preprocess_at("hf-hub:timm/small.one"))
    print(weights_at("hf-hub:timm/small.one").read_bytes())
except UserError as error:
    print(error)
"""
Done = subprocess.CompletedProcess


class Hub:
    """A program's hub and its cache of downloaded files."""

    def __init__(self, folder: Path) -> None:
        self.snapshot = folder / "models--timm--small.one" / "snapshots" / "1234"
        refs = self.snapshot.parent.parent / "refs"
        for path in (self.snapshot, refs):
            path.mkdir(parents=True)
        for name in ("main", "v1"):
            (refs / name).write_text("1234")
        self.folder = folder

    def run(self, program: str, **env: str) -> Done:
        """What the program did, without a network but for the loopback."""
        env |= {"HF_HUB_CACHE": str(self.folder), "HF_HUB_DISABLE_TELEMETRY": "1"}
        env |= {"PYTHONPATH": str(Path(imgclf.__file__).parent.parent), "NO_PROXY": "127.0.0.1"}
        command = [sys.executable, "-c", program]
        return subprocess.run(command, env=os.environ | env, capture_output=True, text=True)


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    return Hub(tmp_path / "hub")


@contextmanager
def served(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address at which requests are handled so."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class HangsUp(BaseHTTPRequestHandler):
    """Ends every connection, and keeps from where they came."""

    made: ClassVar[list[Any]] = []

    def handle(self) -> None:
        self.made.append(self.client_address)


def serving(files: dict[str, bytes]) -> type[BaseHTTPRequestHandler]:
    """A hub where every repository has these files."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            content = files.get(self.path.rpartition("/")[2])
            self.send_response(404 if content is None else 200)
            self.send_header("X-Repo-Commit", "5" * 40)
            if content is None:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("ETag", f'"{len(content or b"")}"')
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(files.get(self.path.rpartition("/")[2], b""))

        def log_message(self, *args: Any) -> None:
            pass

    return Handler


def test_weights_of_the_hub_are_taken_from_its_own_cache(hub: Hub) -> None:
    network = models.create("cnn", 10, width=4)
    images = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
    params, model_state = network.initialise(jax.random.key(1), images)
    models.save_weights(network, params, model_state, hub.snapshot / "model.safetensors")
    (hub.snapshot / "config.json").write_bytes(CONFIG)
    found = hub.run(LOAD, HF_HUB_OFFLINE="1")
    bias = float(params["fc"]["bias"][0])
    preprocess = dataclasses.replace(PLAIN, size=8, crop=0.9, mean=(0.4,))
    assert found.stdout == f"10 {bias} {preprocess}\n", found.stderr
    assert hub.run(SIZED, HF_HUB_OFFLINE="1").stdout == "8 16 32\n"
    revised = hub.run(LOAD.replace("small.one", "small.one@v1"), HF_HUB_OFFLINE="1")
    assert revised.stdout == found.stdout, revised.stderr
    (hub.snapshot / "config.json").unlink()
    assert hub.run(LOAD, HF_HUB_OFFLINE="1").stdout == f"10 {bias} {PLAIN}\n"
    other = hub.run(LOAD.replace("small.one", "other"), HF_HUB_OFFLINE="1")
    assert "The weights 'hf-hub:timm/other' cannot be had: " in other.stderr.splitlines()[-1]


def test_a_hub_that_cannot_be_reached_is_tried_once_and_said_in_one_line(hub: Hub) -> None:
    HangsUp.made.clear()
    with served(HangsUp) as address:
        done = hub.run(FETCH, HF_ENDPOINT=address)
    assert done.stdout.startswith("The weights 'hf-hub:timm/small.one' cannot be had: ")
    assert done.stdout.endswith("; they have not been downloaded before\n")
    assert (done.stdout.count("\n"), done.stderr) == (1, "")
    assert len(HangsUp.made) == 1


@pytest.mark.parametrize("stated", [True, False])
def test_what_was_downloaded_is_used_when_the_hub_cannot_be_reached(hub: Hub, stated: bool) -> None:
    (hub.snapshot / "model.safetensors").write_bytes(b"weights")
    if stated:
        (hub.snapshot / "config.json").write_bytes(CONFIG)
    with served(HangsUp) as address:
        done = hub.run(FETCH, HF_ENDPOINT=address)
    assert done.stdout == f"{AS_STATED if stated else Preprocess()}\nb'weights'\n"
    warning = "the weights have been downloaded before, but not config.json: images are made ready"
    assert (warning in done.stderr) == (not stated)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"model.safetensors": b"new weights", "config.json": CONFIG},
            f"{AS_STATED}\nb'new weights'\n",
        ),
        ({"model.safetensors": b"new weights"}, f"{Preprocess()}\nb'new weights'\n"),
        ({"model.safetensors": b"new weights", "config.json": b"{"}, f"{Preprocess()}\nb'new"),
        (
            {"config.json": CONFIG},
            f"{AS_STATED}\nThe weights 'hf-hub:timm/small.one' cannot be had: the repository has "
            "no model.safetensors\n",
        ),
    ],
)
def test_a_hub_is_asked_for_newer_files_and_may_have_no_config(
    hub: Hub, files: dict[str, bytes], said: str
) -> None:
    (hub.snapshot / "model.safetensors").write_bytes(b"weights")
    with served(serving(files)) as address:
        done = hub.run(FETCH, HF_ENDPOINT=address)
    assert done.stdout.startswith(said), done.stderr


@pytest.mark.parametrize("code", ["RepoNotFound", "RevisionNotFound"])
def test_what_the_hub_says_is_not_there_is_not_taken_from_before(hub: Hub, code: str) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", code)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    for name in ("model.safetensors", "config.json"):
        (hub.snapshot / name).write_bytes(CONFIG)
    with served(Handler) as address:
        done = hub.run(FETCH, HF_ENDPOINT=address)
    assert done.stdout.startswith("The weights 'hf-hub:timm/small.one' cannot be had: 404")
    assert "downloaded before" not in done.stdout


def test_a_repository_of_no_such_name_is_said(hub: Hub) -> None:
    done = hub.run(FETCH.replace("timm/small.one", "a/b/c"))
    assert done.stdout.startswith("The weights 'hf-hub:a/b/c' cannot be had: Repo id must be ")
