"""Lists of classes that go by a name, in the order in which models know them."""

import functools
from importlib import resources

from imgclf.errors import unknown

LISTS = {"imagenet1k": "imagenet1k.txt"}
"""The file beside this one that holds each list, a class a line: ILSVRC 2012's 1,000 synsets, as
their WordNet ids (such as n01440764), sorted."""


@functools.cache
def class_list(name: str) -> tuple[str, ...]:
    """The classes of the list `name`; raises a `UserError` where there is none.

    >>> classes = class_list("imagenet1k")
    >>> len(classes), classes[:2]
    (1000, ('n01440764', 'n01443537'))
    """
    if name not in LISTS:
        raise unknown("list of classes", name, LISTS)
    text = (resources.files("imgclf.data") / LISTS[name]).read_text(encoding="ascii")
    return tuple(text.split())
