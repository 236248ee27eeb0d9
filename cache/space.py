"""A space: all that one encoder produced. A cache is a folder of spaces; features of two spaces never meet."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cache.bank import Bank
from cache.corpus import Corpus
from cache.errors import DptrError, WrongUse
from cache.files import make_folder, plain_name, write_whole
from cache.fingerprint import FORMAT, Fingerprint
from cache.memories import Memories
from cache.shard import write_shard


class Space:
    """One encoder's folder in a cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / "space.json"
        try:
            text = path.read_text()
        except OSError as error:
            raise WrongUse(f"{folder} is no space: {path.name} cannot be read ({error.strerror}).") from error
        try:
            self.fingerprint = Fingerprint.from_json(text)
        except (ValueError, TypeError, KeyError) as error:
            raise DptrError(f"{path} is damaged ({error}): restore it from a copy, or delete the space.") from error
        if self.fingerprint.format != FORMAT:
            raise DptrError(
                f"{folder} has cache format {self.fingerprint.format}, and this dptr reads format {FORMAT}: "
                "embed again into a new cache, or use the dptr that made it."
            )

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def digest(self) -> str:
        return self.fingerprint.digest

    def memories(self) -> Memories:
        return Memories(self.folder / "memories")

    def corpus(self, name: str) -> Corpus:
        """A corpus by name, empty if there is none yet."""
        return Corpus(self.folder / "corpora" / plain_name("corpus", name))

    def bank(self, name: str) -> Bank:
        """A bank by name, empty if there is none yet."""
        return Bank(self.folder / "banks" / plain_name("bank", name))

    def existing_corpus(self, name: str) -> Corpus:
        """A corpus that has labels; WrongUse, listing those there are, otherwise."""
        return _existing(self.corpus(name), f"corpus '{name}'", self, self.corpora(), "embed-text")

    def existing_bank(self, name: str) -> Bank:
        """A bank that has photographs; WrongUse, listing those there are, otherwise."""
        return _existing(self.bank(name), f"bank '{name}'", self, self.banks(), "embed-images")

    def corpora(self) -> list[str]:
        return _folders(self.folder / "corpora")

    def banks(self) -> list[str]:
        return _folders(self.folder / "banks")

    def constants(self) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
        """Prefix states (P, D) that every compact memory starts with, and the text projection (D, E)."""
        path = self.folder / "constants.h5"
        try:
            with h5py.File(path, "r") as file:
                return file["prefix"][:], file["text_projection"][:]
        except (OSError, KeyError) as error:
            raise DptrError(f"{path} cannot be read ({error}): restore it from a copy, or delete the space.") from error


def _existing(found: Any, what: str, space: Space, others: list[str], command: str) -> Any:
    if not found.entries:
        have = f"it has {', '.join(others)}" if others else "it has none"
        raise WrongUse(f"there is no {what} in {space.folder} ({have}): make it with dptr {command}.")
    return found


def _folders(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []


def spaces(cache: Path) -> list[Space]:
    """All spaces of a cache, by name."""
    return [Space(cache / name) for name in _folders(cache) if (cache / name / "space.json").exists()]


def open_space(cache: Path, name: str | None = None) -> Space:
    """The space called `name` (or beginning so), or the only one. WrongUse if there is none, or more than one."""
    found = [s for s in spaces(cache) if name is None or s.name.startswith(name)]
    if not found:
        what = f"no space '{name}'" if name else "no space"
        raise WrongUse(f"there is {what} in {cache}: make one with dptr embed-text, or name another --cache.")
    if len(found) > 1:
        raise WrongUse(f"{cache} has several spaces: choose one with --space: {', '.join(s.name for s in found)}.")
    return found[0]


def create_space(
    cache: Path, fingerprint: Fingerprint, prefix: NDArray[np.float16], text_projection: NDArray[np.float32]
) -> Space:
    """Make the folder of a new space: prefix (P, D), text_projection (D, E)."""
    folder = cache / fingerprint.folder
    make_folder(folder)
    # space.json comes last: a folder without it is no space yet
    write_shard(folder / "constants.h5", {"prefix": prefix, "text_projection": text_projection})
    write_whole(folder / "space.json", fingerprint.to_json())
    return Space(folder)
