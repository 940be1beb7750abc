"""What all tests share: the command line, small data sets on disk, and real data where they are."""

import io
import json
import os
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imgclf.commands import main

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--turn",
        metavar="I/N",
        help="of the tests of networks each N-th alone, from the I-th, counted from 0",
    )


@pytest.hookimpl(trylast=True)  # after -m and -k have taken out theirs
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    turn = config.getoption("--turn")
    if not turn:
        return
    i, n = map(int, turn.split("/"))
    networks = (ROOT / "tests" / "models", ROOT / "tests" / "contracts" / "test_models.py")
    theirs = [item for item in items if any(map(item.path.is_relative_to, networks))]
    left_out = {*theirs} - {*theirs[i::n]}
    config.hook.pytest_deselected(items=[item for item in items if item in left_out])
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compiled programs are kept for the tests of one session, and nowhere else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module", autouse=True)
def release() -> Iterator[None]:
    """Frees the programs that a module's tests compiled; together they would take gigabytes."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()


@pytest.fixture(scope="session")
def quickly() -> Callable[..., Callable[..., Any]]:
    """`jax.jit` for what runs a few times: on CPU it compiles some four times faster, to the same
    values but for rounding."""
    import jax

    if jax.default_backend() != "cpu":
        return jax.jit
    options = {"xla_backend_optimization_level": 0, "xla_cpu_parallel_codegen_split_count": 1}
    older = options | {"xla_cpu_use_fusion_emitters": False}
    try:
        jax.jit(jax.numpy.negative, compiler_options=older)(0)
    except jax.errors.JaxRuntimeError:  # JAX 0.12 has no such option
        return partial(jax.jit, compiler_options=options)
    return partial(jax.jit, compiler_options=older)


@pytest.fixture
def imgclf(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ended]:
    """Runs a command line in this process, from an empty folder: `imgclf("train", "digits")`."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Ended:
        capfd.readouterr()
        status = main(words)
        out, err = capfd.readouterr()
        return Ended(status, out, err)

    return run


@pytest.fixture
def refused(imgclf: Callable[..., Ended]) -> Callable[..., str]:
    """Runs a command that a person got wrong: one line on standard error, status 2."""

    def run(*words: str) -> str:
        ended = imgclf(*words)
        lines = ended.err.splitlines()
        assert ended.status == 2, ended
        assert len(lines) == 1 and lines[0].startswith("imgclf: "), ended.err
        return lines[0].removeprefix("imgclf: ")

    return run


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real images, weights and reference answers: `IMGCLF_SHARED`, or `../shared`."""
    folder = Path(os.environ.get("IMGCLF_SHARED", ROOT.parent / "shared")).resolve()
    if not (folder / "data").is_dir():
        pytest.skip(f"no shared test inputs at {folder} (set IMGCLF_SHARED)")
    return folder


@pytest.fixture
def cifar10(shared: Path, tmp_path: Path) -> Path:
    """The folder in which a part of CIFAR-10's binary files lies."""
    with tarfile.open(shared / "data" / "cifar10_subset.tar.xz") as archive:
        safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Python 3.11.4
        archive.extractall(tmp_path / "data", **safe)
    return tmp_path / "data"


Example = tuple[bytes, int | float]
CLASSES = ("ant", "bee", "cat")


def encoded(seed: int) -> bytes:
    """A small image of noise, the same for the same seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6 + seed % 3, 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_records(file: Path, examples: Sequence[Example]) -> None:
    """One ArrayRecord shard of tf.train.Example messages."""
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.proto import tf_example_pb2

    writer = ArrayRecordWriter(str(file), "group_size:1")
    for image, label in examples:
        example = tf_example_pb2.Example()
        example.features.feature["image"].bytes_list.value.append(image)
        values = example.features.feature["label"]
        numbers = values.int64_list if isinstance(label, int) else values.float_list
        numbers.value.append(label)
        writer.write(example.SerializeToString())
    writer.close()


def write_tfds(folder: Path, splits: Mapping[str, Sequence[Sequence[Example]]]) -> None:
    """A prepared TFDS data set `insects`: each split is a list of shards."""
    folder.mkdir(parents=True)
    described = []
    for name, shards in splits.items():
        for number, shard in enumerate(shards):
            ending = f"{number:05d}-of-{len(shards):05d}"
            write_records(folder / f"insects-{name}.array_record-{ending}", shard)
        described.append({"name": name, "shardLengths": [str(len(shard)) for shard in shards]})
    info = {
        "name": "insects",
        "version": folder.name,
        "fileFormat": "array_record",
        "splits": described,
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "features.json").write_text(json.dumps(_FEATURES))
    (folder / "label.labels.txt").write_text("\n".join(CLASSES) + "\n")


_PACKAGE = "tensorflow_datasets.core.features"
_FEATURES = {
    "type": f"{_PACKAGE}.features_dict.FeaturesDict",
    "content": {
        "features": {
            "image": {
                "pythonClassName": f"{_PACKAGE}.image_feature.Image",
                "image": {"shape": {"dimensions": ["-1", "-1", "3"]}, "dtype": "uint8"},
            },
            "label": {
                "pythonClassName": f"{_PACKAGE}.class_label_feature.ClassLabel",
                "classLabel": {"numClasses": str(len(CLASSES))},
            },
        }
    },
    "proto_cls": "tensorflow_datasets.FeaturesDict",
}


@pytest.fixture(scope="session")
def examples() -> list[Example]:
    """Sixteen encoded images with labels 0, 1, 2, 0, ..."""
    return [(encoded(i), i % 3) for i in range(16)]


@pytest.fixture
def insects(tmp_path: Path, examples: list[Example]) -> Path:
    """A TFDS data set: twelve examples for training in two shards, and four for testing."""
    shards = {"train": [examples[:7], examples[7:12]], "test": [examples[12:]]}
    write_tfds(tmp_path / "insects" / "1.0.0", shards)
    return tmp_path / "insects"


@pytest.fixture
def shards(tmp_path: Path, examples: list[Example]) -> Path:
    """A folder of two ArrayRecord shards with seven and five examples."""
    (tmp_path / "shards").mkdir()
    write_records(tmp_path / "shards" / "a.array_record-00000-of-00002", examples[:7])
    write_records(tmp_path / "shards" / "a.array_record-00001-of-00002", examples[7:12])
    return tmp_path / "shards"


@pytest.fixture
def class_folders(tmp_path: Path, examples: list[Example]) -> Callable[..., Path]:
    """`class_folders("train", ant=4, bee=2)` makes train/ant/0.png .. train/bee/1.png."""

    def make(name: str, **counts: int) -> Path:
        for label, count in counts.items():
            (tmp_path / name / label).mkdir(parents=True)
            for i in range(count):
                (tmp_path / name / label / f"{i}.png").write_bytes(examples[i][0])
        return tmp_path / name

    return make


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    """CIFAR-10's files with thirty and ten records; record i has label i % 10."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for name, count in (("data_batch_1", 20), ("data_batch_3", 10), ("test_batch", 10)):
        rows = np.random.default_rng(count).integers(0, 256, (count, 3073), np.uint8)
        rows[:, 0] = np.arange(count) % 10
        rows.tofile(folder / f"{name}.bin")
    return folder
