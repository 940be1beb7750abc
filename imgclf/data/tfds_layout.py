"""The files by which TensorFlow Datasets, and all that reads its data sets, knows one."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from imgclf.data.source import Source, fixed_shape

_FEATURES = "tensorflow_datasets.core.features"


def name_and_version(folder: Path) -> tuple[str, str]:
    """What the data set in a folder is called: after it, or `flowers` for `flowers/1.0.0`."""
    versioned = re.fullmatch(r"\d+\.\d+\.\d+", folder.name)
    name = re.sub(r"\W+", "_", (folder.parent if versioned else folder).name.lower(), flags=re.A)
    name = name if re.match(r"[a-z]", name) else f"data_{name}"
    return name, folder.name if versioned else "1.0.0"


def described(
    folder: Path, source: Source, splits: Mapping[str, Sequence[Mapping[str, Any]]], kept: bool
) -> dict[str, str]:
    """TFDS's files by name; `dataset_info.json`, which makes the folder a data set, as the last.

    Args:
        folder: where the shards lie.
        source: one of the splits' sources, for classes, kind of labels and shape of images.
        splits: of each its files, with `examples` and `bytes`.
        kept: whether images are as they were, so that those of one shape still are.
    """
    name, version = name_and_version(folder)
    shape = fixed_shape(source)
    if shape is None or not kept:
        shape = (-1, -1, shape[2] if shape else 3)
    classes = source.classes
    if source.labels().ndim == 1:
        count = {"numClasses": str(len(classes))}
        label = _feature("class_label_feature.ClassLabel", classLabel=count)
    else:
        tensor = {"shape": _dimensions(len(classes)), "dtype": "float32", "encoding": "none"}
        label = _feature("tensor_feature.Tensor", tensor=tensor)
    image = {"shape": _dimensions(*shape), "dtype": "uint8"}
    features = {
        "type": f"{_FEATURES}.features_dict.FeaturesDict",
        "content": {
            "features": {
                "image": _feature("image_feature.Image", image=image),
                "label": label,
                "id": _feature("text_feature.Text", text={}),
            }
        },
        "proto_cls": "tensorflow_datasets.FeaturesDict",
    }
    info = {
        "name": name,
        "version": version,
        "description": "Written by imgclf data prepare.",
        "fileFormat": "array_record",
        "splits": [
            {
                "name": split,
                "shardLengths": [str(file["examples"]) for file in files],
                "numBytes": str(sum(file["bytes"] for file in files)),
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            }
            for split, files in splits.items()
        ],
    }
    return {
        "label.labels.txt": "\n".join(classes) + "\n",
        "features.json": json.dumps(features, indent=1),
        "dataset_info.json": json.dumps(info, indent=1),
    }


def _feature(kind: str, **described: Any) -> dict[str, Any]:
    return {"pythonClassName": f"{_FEATURES}.{kind}", **described}


def _dimensions(*sides: int) -> dict[str, list[str]]:
    return {"dimensions": [str(side) for side in sides]}
