"""A space: everything one encoder produced. A cache is a folder of spaces; features of two spaces never mix."""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.bank import Bank
from cache.collection import Collection
from cache.corpus import Corpus
from cache.errors import Damaged, DptrError, WrongUse
from cache.files import plain_name, write_whole
from cache.fingerprint import FORMAT, Fingerprint, OtherFormat
from cache.memories import Memories
from cache.neighbours import Neighbours
from cache.remote import local, shown

SPACE = "space.json"
JOBS = "job"  # the folder of shards that are being made elsewhere, see pipeline/workers/plan.py
KINDS = ("corpora", "banks", "crops", "neighbours")  # of collections that have names


class Space:
    """One encoder's folder in a cache."""

    def __init__(self, folder: Path) -> None:
        """WrongUse if the folder is not a space, DptrError if it has another format, Damaged if space.json is."""
        self.folder = folder
        path = folder / SPACE
        try:
            text = path.read_bytes()
        except OSError as error:
            raise WrongUse(f"{folder} is not a space: {path.name} cannot be read ({error.strerror}).") from error
        try:
            self.fingerprint = Fingerprint.from_json(text)
        except OtherFormat as error:
            raise DptrError(
                f"{folder} has cache format {error}, and this dptr reads format {FORMAT}: "
                "embed again into a new --cache, or use the dptr that made it."
            ) from error
        except (ValueError, TypeError) as error:
            raise Damaged(path, f"{error}; every shard beside it holds a copy, which a repair restores") from error

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def digest(self) -> str:
        return self.fingerprint.digest

    @cached_property
    def memories(self) -> Memories:
        """All memories, as they were at the first access."""
        return Memories(self.folder / "memories", self.fingerprint)

    def corpus(self, name: str) -> Corpus:
        """A corpus by name, empty if there is none yet."""
        return Corpus(self._named("corpora", "corpus", name), self.fingerprint)

    def bank(self, name: str) -> Bank:
        """A bank by name, empty if there is none yet."""
        return Bank(self._named("banks", "bank", name), self.fingerprint)

    def neighbours(self, bank: str) -> Neighbours:
        """The table of a bank's photographs nearest to and farthest from memories, empty if there is none yet."""
        return Neighbours(self._named("neighbours", "bank", bank), self.fingerprint)

    def crops(self, image_size: Iterable[int | str]) -> Bank:
        """The tokens of word images stretched to (H, W), empty if there are none yet: a bank without an index."""
        size = "x".join(map(str, image_size))
        return Bank(self._named("crops", "size", size), self.fingerprint)

    def _named(self, folder: str, kind: str, name: str) -> Path:
        """A collection's folder. One that is there may have any name: before, spaces and more were allowed."""
        there = name in _folders(self.folder / folder)
        return self.folder / folder / (name if there else plain_name(kind, name))

    def existing_corpus(self, name: str) -> Corpus:
        """A corpus that has labels. WrongUse, listing the corpora that exist, if there is none of that name."""
        return _existing(self.corpus(name), f"corpus '{name}'", self, self.corpora(), "embed-text")

    def existing_bank(self, name: str) -> Bank:
        """A bank that has photographs. WrongUse, listing the banks that exist, if there is none of that name."""
        return _existing(self.bank(name), f"bank '{name}'", self, self.banks(), "embed-images")

    def existing_crops(self, size: str) -> Bank:
        """Word images of a size, such as 32x128. WrongUse, listing the sizes that exist, if there are none."""
        what = f"word images of size '{size}'"
        return _existing(self.crops(size.split("x")), what, self, self.crop_sizes(), "finetune --freeze")

    def memory_numbers(self, corpus: Corpus) -> NDArray[np.int64]:
        """The number of each label's memory, (n,). DptrError if some are missing."""
        numbers = self.memories.find(corpus.keys())
        if (numbers < 0).any():
            raise DptrError(
                f"{(numbers < 0).sum():,} labels of corpus '{corpus.name}' have no memory in {shown(self.folder)}: "
                "run the embed-text command that made it again."
            )
        return numbers

    def corpora(self) -> list[str]:
        return _folders(self.folder / "corpora")

    def banks(self) -> list[str]:
        return _folders(self.folder / "banks")

    def neighbour_tables(self) -> list[str]:
        """Banks that have one."""
        return _folders(self.folder / "neighbours")

    def crop_sizes(self) -> list[str]:
        """Sizes that have word images, such as 32x128."""
        return _folders(self.folder / "crops")

    def constants(self) -> dict[str, NDArray[Any]]:
        """What is stored once per space: `prefix` (P, D) float16, the states that every compact memory starts with;
        `text_projection` (D, E) float32; and the self-test (see docs/cache-format.md). Damaged if they are.
        """
        for shard in self.constant_shards().shards():
            return {name: shard.read(name) for name in shard.entry.datasets if name != "fingerprint"}
        raise Damaged(self.folder / "constants", "it is empty")

    def constant_shards(self) -> Collection:
        """The collection whose one shard holds the constants; empty until the space is complete."""
        return Collection(self.folder / "constants", self.fingerprint)


def collections(space: Path) -> list[Path]:
    """The folders of all collections of a space."""
    named = [space / kind / name for kind in KINDS for name in _folders(space / kind)]
    return [space / "constants", space / "memories", *named]


def _existing(found: Any, what: str, space: Space, others: list[str], command: str) -> Any:
    if not found.entries:
        have = f"it has {', '.join(others)}" if others else "it has none"
        raise WrongUse(f"there is no {what} in {shown(space.folder)} ({have}): make it with dptr {command}.")
    return found


def _folders(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []


def _space_names(cache: Path) -> list[str]:
    return [name for name in _folders(cache) if (cache / name / SPACE).exists()]


def spaces(cache: Path) -> list[Space]:
    """All spaces of a cache, by name. It may be elsewhere, here and below: then raises as `cache.remote.local`."""
    cache = local(cache)
    return [Space(cache / name) for name in _space_names(cache)]


def open_space(cache: Path, name: str | None = None) -> Space:
    """The only space whose name begins with `name`, if given. WrongUse if there is none, or more than one."""
    cache = local(cache)
    names = _spaces_called(cache, name)
    if len(names) > 1:
        raise WrongUse(f"{shown(cache)} has several spaces ({', '.join(names)}): choose one with --space.")
    return Space(cache / names[0])


def space_with(
    cache: Path, name: str | None, corpora: Sequence[str], banks: Sequence[str], say: Callable[[str], None]
) -> Space:
    """As `open_space`, but of several spaces the only one that has all these corpora and banks; the choice is said."""
    cache = local(cache)
    names = _spaces_called(cache, name)
    fitting = [n for n in names if _holds(cache / n / "corpora", corpora) and _holds(cache / n / "banks", banks)]
    if len(names) == 1 or len(fitting) != 1:
        return open_space(cache, name)
    wanted = " and ".join(map(repr, (*corpora, *banks)))
    say(f"space {fitting[0]}, because of the {len(names)} in {shown(cache)} only it has {wanted}")
    return Space(cache / fitting[0])


def _holds(folder: Path, names: Sequence[str]) -> bool:
    return set(names) <= set(_folders(folder))


def _spaces_called(cache: Path, name: str | None) -> list[str]:
    """The names that begin with `name`, of which there is at least one."""
    names = _space_names(cache)
    if not names:
        raise WrongUse(
            f"{shown(cache)} holds no encoder's space: fill one with dptr embed-text, or name another --cache."
        )
    found = [n for n in names if n.startswith(name or "")]
    if not found:
        raise WrongUse(f"no space in {shown(cache)} is called '{name}': it has {', '.join(names)}.")
    return found


def complete_space(folder: Path, fingerprint: Fingerprint, constants: Callable[[], dict[str, NDArray[Any]]]) -> Space:
    """The space in `folder`, after writing whatever it lacks. Its lock must be held.

    `constants` computes what `Space.constants` returns.
    """
    if not (folder / SPACE).exists():
        write_whole(folder / SPACE, fingerprint.to_json())
    space = Space(folder)
    shards = space.constant_shards()
    if not shards.entries:
        shards.commit(shards.image(1, constants()))
    return space
