"""The command line: one thin file a verb. `main` finds the verb; nothing heavy is imported here."""

import importlib
import io
import os
import sys
from collections.abc import Sequence

from imgclf import __version__
from imgclf.errors import UserError, unknown

VERBS = {
    "train": "RECIPE [--run DIR] [--field VALUE ...]   train, or go on where a run was left",
    "evaluate": "RUN [--data PATH] | RECIPE --model.weights FILE  how good",
    "predict": "RUN IMAGE ... [--json]                 classes and probabilities of images",
    "export": "RUN FILE.safetensors                    the weights of a run, in timm's layout",
    "recipes": "                                       the shipped recipes",
    "models": "[NAME] [--filter PATTERN]               the networks, or the layers of one",
    "data": "prepare|check|show SOURCE ...              write, check, look at a data set",
    "show": "RECIPE [--field VALUE ...]                what a recipe comes to, without training",
}


def usage() -> str:
    """What `imgclf --help` prints."""
    lines = [f"  imgclf {verb:<9} {text}" for verb, text in VERBS.items()]
    return "\n".join(
        [
            f"imgclf {__version__}: trains, evaluates and studies image classifiers",
            "",
            *lines,
            "",
            "`imgclf train RECIPE --help` lists every field of a recipe, `imgclf VERB --help` the",
            "options of a verb. First steps: imgclf train digits",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status.

    0 done, 1 an error of ours, 2 a person's mistake or what the machine denied, 75 another process
    of the run is gone, 128 + n stopped by signal n after saving.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if words else 2
    if words[0] == "--version":
        print(f"imgclf {__version__}")
        return 0
    try:
        if words[0] not in VERBS:
            raise unknown("command", words[0], VERBS)
        _quiet_libraries()
        if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may be no text
            sys.stdout.reconfigure(errors="backslashreplace")
        return importlib.import_module(f"imgclf.commands.{words[0]}").run(words[1:])
    except UserError as error:
        print(f"imgclf: {error}", file=sys.stderr)
        return 2
    except RuntimeError as error:  # JAX's, which is not imported here
        if not any(words in str(error) for words in ("RESOURCE_EXHAUSTED", "Out of memory")):
            raise
        reason = str(error).splitlines()[0].rstrip(".")
        print(
            f"imgclf: The device has not enough memory ({reason}); less is needed with a smaller "
            "--data.batch_size, --accumulate 2 or more, --model.recompute True or "
            "--model.dtype bfloat16",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("imgclf: stopped", file=sys.stderr)
        exec("")  # an interrupt within an `exec` would be what `python -m` ends by, caught or not
        return 130
    except ImportError as error:
        if not isinstance(error.__cause__ or error.__context__, KeyboardInterrupt):
            raise
        print("imgclf: stopped", file=sys.stderr, flush=True)
        os._exit(130)  # half of a compiled module is there: Python could not end well
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _quiet_libraries() -> None:
    """Keeps the libraries' own logs out of a person's sight, unless they were asked for."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("ABSL_MIN_LOG_LEVEL", "2")
