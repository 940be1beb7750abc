"""`imgclf export RUN FILE`: the weights of a run, as the field's other tools read them."""

from collections.abc import Sequence

from imgclf.commands.words import no_more, split, wants_help
from imgclf.errors import UserError

HELP = """\
imgclf export RUN FILE [options]

FILE ends in .safetensors or .npz; names and layouts in it are timm's. The averaged weights are
written where the run has some. Another run begins from them by --model.weights FILE."""
OPTIONS = {"--checkpoint WHICH": "last, best or a step"}


def run(words: Sequence[str]) -> int:
    if wants_help(words, HELP, OPTIONS):
        return 0
    bare, options, rest = split(words, ("checkpoint",), ())
    no_more(rest, ("checkpoint",))
    if len(bare) != 2:
        raise UserError("`imgclf export` takes a run folder and the file to write")
    from imgclf.models import count_parameters, save_weights
    from imgclf.models.weights import check_target
    from imgclf.training.saved import load_classifier

    check_target(bare[1])  # before a checkpoint is read
    _, _, found = load_classifier(bare[0], options.get("checkpoint", "last"))
    save_weights(found.network, found.params, found.model_state, bare[1])
    print(
        f"{found.network.name} with {len(found.classes)} classes, "
        f"{count_parameters(found.params):,} parameters: {bare[1]}"
    )
    return 0
