"""Index: models by all the names that mean them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count

from kolosal.engines.names import plain
from kolosal.models.entry import LibraryModel
from kolosal.models.names import preference, split_quantization, without_place


class Index:
    """Models of which no two have the same name. Never changes."""

    def __init__(self, models: Sequence[LibraryModel]) -> None:
        """Of models with the same name the first keeps it, and the others get one that says whose they are."""
        self.found = models
        """What it was made of."""
        by_name: dict[str, LibraryModel] = {}
        for model in models:
            key = plain(model.name)
            if key in by_name:
                model = replace(model, name=_free_name(model, by_name))  # noqa: PLW2901 - the same model
                key = plain(model.name)
            by_name[key] = model
        self.names: Mapping[str, str] = {key: model.name for key, model in by_name.items()}
        """All names, by their plain form."""
        self._by_name = by_name
        self.models: Sequence[LibraryModel] = tuple(by_name[key] for key in sorted(by_name))
        self._by_path = {str(model.path): model for model in self.models}
        self._by_short_name = _short_names(self.models)

    def at(self, path: str) -> LibraryModel | None:
        """The model whose file, or first part, is this one."""
        return self._by_path.get(path)

    def find(self, name: str) -> LibraryModel | None:
        """The model that a name means: its own, or a shorter one that can mean no other."""
        for key in dict.fromkeys((plain(name), plain(without_place(name)))):
            found = self._by_name.get(key) or self._by_short_name.get(key)
            if found is not None:
                return found
        return None


def _free_name(model: LibraryModel, taken: Mapping[str, LibraryModel]) -> str:
    names = (f"{model.name}@{model.source}{'' if n == 1 else f'-{n}'}" for n in count(1))
    return next(name for name in names if plain(name) not in taken)


def _short_names(models: Sequence[LibraryModel]) -> Mapping[str, LibraryModel]:
    """Names without folder, suffix or quantisation. Of several quantisations of one model the usual one is meant."""
    meanings: dict[str, list[tuple[int, str, LibraryModel]]] = {}
    for model in models:
        base, tag = _split(model.name)
        rank = preference(tag or "")
        last = model.name.rpartition("/")[2]
        file = model.path.name
        for name, group in ((last, ""), (file, ""), (base, base), (_split(last)[0], base)):
            meanings.setdefault(plain(name), []).append((rank, group, model))
    found = {}
    for key, meant in meanings.items():
        # several are meant by it: only variants of one model have an order
        alike = len({id(model) for _, _, model in meant}) == 1 or len({group for _, group, _ in meant}) == 1
        if (alike and meant[0][1]) or len({id(model) for _, _, model in meant}) == 1:
            found[key] = min(meant, key=lambda each: (each[0], each[2].name))[2]
    return found


def _split(name: str) -> tuple[str, str | None]:
    """A name and its tag: what follows a colon, or the quantisation at its end."""
    base, colon, tag = name.rpartition(":")
    return (base, tag) if colon else split_quantization(name)
