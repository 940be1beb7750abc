"""Weights that lie on the Hugging Face hub, and what is said there of their images.

Needs the package `huggingface_hub` (`imgclf[hub]`), which keeps what it has downloaded.
"""

import json
import warnings
from pathlib import Path
from typing import get_args

from imgclf.errors import UserError
from imgclf.preprocess import Interpolation, Preprocess

HUB = "hf-hub:"
"""What weights that lie on the hub begin with; a repository follows, and maybe @REVISION."""

_WEIGHTS = "model.safetensors"


def weights_at(path: str) -> Path:
    """The file of the weights at `path`, downloaded where it is not here already.

    Where the hub cannot be reached, that of before is taken; a `UserError` says it if there is
    none, after one attempt.
    """
    file = _file(path, _WEIGHTS)
    if file is None:
        raise UserError(f"The weights {path!r} cannot be had: the repository has no {_WEIGHTS}")
    return file


def preprocess_at(path: str) -> Preprocess:
    """What timm's `config.json` beside the weights at `path` says of images; all else is empty.

    Raises a `UserError` as `weights_at` does, but not because a repository has no such file.
    """
    file = _file(path, "config.json")
    try:
        content = json.loads(file.read_text()) if file else {}
    except ValueError:
        content = {}
    stated = content.get("pretrained_cfg", {})
    interpolation, mode = stated.get("interpolation"), stated.get("crop_mode")
    return Preprocess(
        size=(stated.get("input_size") or [0])[-1],
        crop=stated.get("crop_pct") or 0.0,
        crop_mode=mode if mode in ("center", "squash") else "",
        interpolation=interpolation if interpolation in get_args(Interpolation) else "",
        mean=tuple(stated.get("mean") or ()),
        std=tuple(stated.get("std") or ()),
    )


def _file(path: str, name: str) -> Path | None:
    """The file of that name in the repository, None if it has none."""
    try:
        import huggingface_hub as library
        from huggingface_hub import errors
    except ImportError:
        raise UserError(
            f"The weights {path!r} need a package; get it by: pip install 'imgclf[hub]'"
        ) from None
    repository, _, said = path.removeprefix(HUB).partition("@")
    revision = said or None
    refusals = (errors.RepositoryNotFoundError, errors.RevisionNotFoundError)
    try:
        # Asked first, since hf_hub_download asks six times, with two lines on the terminal each.
        url = library.hf_hub_url(repository, name, revision=revision)
        library.get_hf_file_metadata(url, timeout=library.constants.HF_HUB_ETAG_TIMEOUT)
    except errors.EntryNotFoundError:
        return None
    except (errors.HFValidationError, *refusals) as error:
        raise _cannot_be_had(path, error) from None
    except Exception as error:  # Of a network that is not there its classes differ by version.
        found = library.try_to_load_from_cache(repository, name, revision=revision)
        if isinstance(found, str):
            return Path(found)
        weights = library.try_to_load_from_cache(repository, _WEIGHTS, revision=revision)
        if isinstance(weights, str):
            warnings.warn(
                f"Of {path!r} the weights have been downloaded before, but not {name}: images are "
                "made ready as is usual for the network",
                stacklevel=4,
            )
            return None
        raise _cannot_be_had(path, error, "; they have not been downloaded before") from None
    try:
        return Path(library.hf_hub_download(repository, name, revision=revision))
    except Exception as error:
        raise _cannot_be_had(path, error) from None


def _cannot_be_had(path: str, error: Exception, more: str = "") -> UserError:
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return UserError(f"The weights {path!r} cannot be had: {reason}{more}")
