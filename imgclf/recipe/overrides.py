"""Fields of a recipe changed by words of the command line: `--length 10epochs`."""

import ast
import contextlib
import dataclasses
import io
import itertools
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from imgclf import units
from imgclf.data import KINDS, Images, Relabelled, Source, Split, class_list, located
from imgclf.data.guess import guess, whole
from imgclf.data.remote import absolute
from imgclf.errors import UserError, nearest
from imgclf.kinds import in_words
from imgclf.recipe.files import LoadedRecipe
from imgclf.recipe.value import Data, Recipe

_OF_SOURCES = re.compile(r"data[.](train|evaluate|unlabelled)\b|(kind|classes)$")

MORE_HELP = f"""
Sources are given as a path or URL; what lies there is guessed, or said by --kind:
  --data.train PATH           train (and evaluate) on PATH
  --data.evaluate.NAME PATH   evaluate on PATH
  --data.unlabelled PATH      images below PATH, without labels, for a task that has a use for them
  --kind KIND                 {", ".join(KINDS)}
  --classes imagenet1k        the classes found there keep their places in this list

How often each training example comes, and what an epoch is, is `data.sampling`; another kind is
given in the recipe's file: Data(sampling=Balanced()), from imgclf.data.

What the network's function takes, such as the `width` of cnn, is given by its name:
  --model.options.NAME VALUE"""


def override(
    loaded: LoadedRecipe,
    words: Sequence[str],
    *,
    sources: bool = True,
    options: Sequence[str] = (),
) -> LoadedRecipe:
    """The recipe with the fields that `words` name, and lines that say what was guessed.

    Without `sources`, paths of data are passed over, and nothing is looked for there. `options` are
    other words of the command, which a misspelt field may have been meant to be.

    Raises a `UserError` that names the nearest field for an unknown one, and what is allowed for a
    value that does not fit.
    """
    recipe, pairs = loaded.recipe, _pairs(words)
    said: list[str] = []
    for name, values in pairs:
        if name == "seed":  # it chooses what is held out, so it comes before the sources
            recipe = _set(recipe, name, values)
    if sources:
        recipe, pairs, said = _sources(recipe, pairs)
    else:
        pairs = [pair for pair in pairs if not _OF_SOURCES.match(pair[0])]
    recipe, pairs = _new_options(recipe, pairs)
    fields = set(_fields(recipe))
    for name, _ in pairs:
        if name not in fields:
            close = nearest(name, [*fields, *options])
            hint = f"; did you mean --{close}?" if close else "; see --help for all fields"
            raise UserError(f"The recipe has no field --{name}{hint}")
    for name, values in pairs:
        recipe = _set(recipe, name, values)
    return dataclasses.replace(loaded, recipe=recipe, overrides=tuple(words), said=tuple(said))


def print_help(recipe: Recipe, program: str) -> None:
    """Prints every field of `recipe` with its docstring and value."""
    import tyro

    with _registry(), contextlib.suppress(SystemExit):
        tyro.cli(
            Recipe,
            default=recipe,
            args=["--help"],
            prog=program,
            description="Fields of the recipe, with the values that it gives them.",
            use_underscores=True,
            config=(tyro.conf.FlagConversionOff,),
        )
    print(MORE_HELP)


def _set(recipe: Recipe, name: str, values: list[str]) -> Recipe:
    import tyro

    box = io.StringIO()
    try:
        with _registry(), contextlib.redirect_stderr(box), contextlib.redirect_stdout(box):
            return tyro.cli(
                Recipe,
                default=recipe,
                args=[f"--{name}", *values],
                use_underscores=True,
                config=(tyro.conf.FlagConversionOff,),
            )
    except SystemExit:
        wanted = _wanted(recipe, name)
        got = " ".join(values) or "nothing"
        raise UserError(f"The value of `--{name}` must be {wanted}; got {got!r}") from None
    except UserError as error:
        raise UserError(f"The value of `--{name}` is not right. {error}") from None


def _pairs(words: Sequence[str]) -> list[tuple[str, list[str]]]:
    """`--a.b 1 2 --c=3` as [("a.b", ["1", "2"]), ("c", ["3"])]; `-` and `_` are one in names."""
    pairs: list[tuple[str, list[str]]] = []
    for word in words:
        if word.startswith("--") and len(word) > 2:
            name, *value = word[2:].split("=", 1)
            pairs.append((name.replace("-", "_"), value))
        elif not pairs:
            raise UserError(f"Fields of the recipe are given as --field VALUE; got {word!r}")
        else:
            pairs[-1][1].append(word)
    return pairs


def _sources(
    recipe: Recipe, pairs: list[tuple[str, list[str]]]
) -> tuple[Recipe, list[tuple[str, list[str]]], list[str]]:
    given = {name: values for name, values in pairs if _names_source(name)}
    kind, classes = (
        next((values[0] for name, values in pairs if name == option and values), "")
        for option in ("kind", "classes")
    )
    rest = [each for each in pairs if each[0] not in (*given, "kind", "classes")]
    said = []
    for name in given:
        if len(given[name]) != 1:
            raise UserError(f"`--{name}` takes one path; got {' '.join(given[name]) or 'nothing'}")
    data = recipe.data
    if "data.unlabelled" in given:
        path = absolute(given.pop("data.unlabelled")[0])
        data = dataclasses.replace(data, unlabelled=Images(path))
        said.append(f"the {len(data.unlabelled):,} images below {path} without labels")
    if "data.train" in given:
        found = guess(absolute(given["data.train"][0]), kind, recipe.seed)
        train, evaluate = found.train, found.evaluate
        if isinstance(train, Split) and len(given) > 1:  # nothing needs to be held out
            train, evaluate = train.source, {}
            said.append(f"all {len(train):,} images of {given['data.train'][0]} for training")
        else:
            said.append(found.said)
        evaluate = {name: _listed(held_out, classes) for name, held_out in evaluate.items()}
        data = dataclasses.replace(data, train=_listed(train, classes), evaluate=evaluate)
    elif (kind or classes) and not given:
        option = "--kind" if kind else "--classes"
        raise UserError(f"`{option}` says what lies at `--data.train PATH`, which is not given")
    for name in [name for name in given if name != "data.train"]:
        path = absolute(given[name][0])
        source, line = whole(path, kind, class_list(classes) if classes else _known_classes(data))
        name = name.removeprefix("data.evaluate.")
        data = dataclasses.replace(data, evaluate={**data.evaluate, name: _listed(source, classes)})
        said.append(line)
    return dataclasses.replace(recipe, data=data), rest, said


def _listed(source: Source, classes: str) -> Source:
    """The source with its classes at their places in the list `classes`, where one is given."""
    if not classes or tuple(source.classes) == class_list(classes):
        return source
    return Relabelled(source, to=classes)


def _known_classes(data: Data) -> tuple[str, ...]:
    """The classes of the training source where it can be opened: evaluating needs none."""
    try:
        return tuple(located(data.train, data.root).classes)
    except UserError:
        return ()


def _names_source(name: str) -> bool:
    if name in ("data.train", "data.unlabelled"):
        return True
    return name.startswith("data.evaluate.") and name.count(".") == 2


def _new_options(
    recipe: Recipe, pairs: list[tuple[str, list[str]]]
) -> tuple[Recipe, list[tuple[str, list[str]]]]:
    """Takes out `--model.options.NAME VALUE`: any name may be given, whatever the recipe has."""
    options, rest = dict(recipe.model.options), []
    for name, values in pairs:
        if name.startswith("model.options.") and len(values) == 1:
            try:
                options[name.removeprefix("model.options.")] = ast.literal_eval(values[0])
            except (ValueError, SyntaxError):
                options[name.removeprefix("model.options.")] = values[0]
        else:
            rest.append((name, values))
    model = dataclasses.replace(recipe.model, options=options)
    return dataclasses.replace(recipe, model=model), rest


def _fields(value: Any, path: str = "") -> list[str]:
    """The dotted names of all that can be set in `value`."""
    if isinstance(value, units.Unit):
        return [path]
    if dataclasses.is_dataclass(value):
        items = [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)]
    elif isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, tuple) and any(dataclasses.is_dataclass(item) for item in value):
        items = [(str(i), item) for i, item in enumerate(value)]
    else:
        return [path]
    inner = ((f"{path}.{key}" if path else str(key), item) for key, item in items)
    return list(itertools.chain.from_iterable(_fields(item, key) for key, item in inner))


def _wanted(recipe: Recipe, name: str) -> str:
    """What the field `name` takes, in words."""
    value: Any = recipe
    *path, last = name.split(".")
    for part in path:
        if isinstance(value, Mapping):
            value = value[part]
        else:
            value = value[int(part)] if isinstance(value, tuple) else getattr(value, part)
    if not dataclasses.is_dataclass(value):
        return "of the kind of the value it replaces"
    return in_words(typing.get_type_hints(type(value))[last])


def _registry() -> Any:
    """Tyro's rules for the two leaves of ours: durations, and a network's name or function."""
    import tyro

    registry = tyro.constructors.ConstructorRegistry()
    spec = tyro.constructors.PrimitiveConstructorSpec

    @registry.primitive_rule
    def duration(info: Any) -> Any:
        if not (isinstance(info.type, type) and issubclass(info.type, units.Unit)):
            return None
        return spec(
            nargs=1,
            metavar="DURATION",
            instance_from_str=lambda words: units.parse(words[0]),
            is_instance=lambda value: isinstance(value, units.Unit),
            str_from_instance=lambda value: [str(value)],
        )

    @registry.primitive_rule
    def network(info: Any) -> Any:
        if info.type != str | Callable[..., Any] or not isinstance(info.type, types.UnionType):
            return None
        return spec(
            nargs=1,
            metavar="NAME",
            instance_from_str=lambda words: words[0],
            is_instance=lambda value: isinstance(value, str) or callable(value),
            str_from_instance=lambda value: [getattr(value, "__name__", value)],
        )

    return registry
