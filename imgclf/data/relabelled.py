"""Other names, another order or fewer classes for the examples of a source."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import final

import numpy as np

from imgclf.data.class_lists import class_list
from imgclf.data.parts import Renamed
from imgclf.data.source import Source
from imgclf.errors import UserError, nearest, unknown


@final
@dataclass(frozen=True)
class Relabelled(Renamed):
    """Another source whose classes are renamed, merged, or put in the order of a list.

    Where labels are soft or several, those of merged classes are added up, to 1 at most.
    """

    source: Source
    """What is relabelled."""
    names: Mapping[str, str] = field(default_factory=dict)
    """New names of classes, by their old ones; classes of one new name are merged."""
    to: str = ""
    """A list that the new classes take their places from, such as `imagenet1k`."""
    class_names: tuple[str, ...] = ()
    """The new classes in their order, in place of a list; a class that is not among them must have
    no examples. Empty, without a list: as their first one comes in the source's classes."""

    @property
    def classes(self) -> tuple[str, ...]:
        return self._map[0]

    def labels(self) -> np.ndarray:
        labels, (classes, places) = self.source.labels(), self._map
        if labels.ndim == 1:
            self._check_left(labels)
            return places[labels].astype(np.int32)
        self._check_left(np.unique(np.nonzero(labels)[1]))
        moved = np.zeros((len(labels), len(classes)), np.float32)
        for old, new in enumerate(places):
            if new >= 0:
                moved[:, new] += labels[:, old]
        return np.minimum(moved, 1, out=moved)

    @cached_property
    def _map(self) -> tuple[tuple[str, ...], np.ndarray]:
        """The new classes, and the new place of each old one, or -1."""
        old = self.source.classes
        for name in self.names:
            if name not in old:
                raise unknown("class in the `names` of `Relabelled`", name, old)
        if self.to and self.class_names:
            raise UserError("`Relabelled` must be given one of `to` and `class_names`; got both")
        renamed = [self.names.get(name, name) for name in old]
        listed = class_list(self.to) if self.to else self.class_names
        classes = listed or tuple(dict.fromkeys(renamed))
        place = {name: i for i, name in enumerate(classes)}
        return classes, np.array([place.get(name, -1) for name in renamed], np.int64)

    def _check_left(self, used: np.ndarray) -> None:
        classes, places = self._map
        left = used[places[used] < 0]
        if len(left):
            name = self.source.classes[left[0]]
            name = self.names.get(name, name)
            close = nearest(name, classes)
            hint = f" (is it {close!r}?)" if close else ""
            raise UserError(
                f"The classes of `Relabelled` must be among the {len(classes)} of "
                f"{self.to or '`class_names`'}; got {name!r}{hint}"
            )
