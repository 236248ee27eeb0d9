"""From labels to prompts: each prompt once, and which labels point at it.

Prompts are kept in the labels' temporary database, so that memory never holds a list of them.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import compress, islice
from typing import Any, TypeVar

from tqdm import tqdm

from cache.corpus import Corpus
from cache.keys import as_keys
from cache.memories import Memories, key_of_packed, packed
from pipeline.encoder import Encoder
from pipeline.labels import Labels

PAGE = 1 << 14  # labels or prompts handled at a time
T = TypeVar("T")
TABLES = """
    DROP TABLE IF EXISTS prompts; CREATE TABLE prompts (number INTEGER PRIMARY KEY, key BLOB UNIQUE, ids BLOB);
    DROP TABLE IF EXISTS pointers; CREATE TABLE pointers (number INTEGER PRIMARY KEY, key BLOB);
    DROP TABLE IF EXISTS held; CREATE TABLE held (number INTEGER PRIMARY KEY);
"""


class Prompts:
    """The prompts of all labels that fit into the encoder's context.

    `labels` is the number of these labels; `dropped` counts the lines of all others, by reason. `len` is the number of
    prompts, and `bytes` the size of their states on disk.
    """

    def __init__(self, labels: Labels, encoder: Encoder) -> None:
        """DptrError for a label that cannot be stored in the encoder's layout."""
        self._labels = labels  # kept, because their database closes with them
        self._database = labels.database
        self._database.executescript(TABLES)
        self._encoder = encoder
        self._sizes = [encoder.rows(range(n)) * encoder.width * 2 for n in range(encoder.context + 1)]
        self.labels = 0
        self.dropped: Counter[str] = Counter()
        rows = self._database.execute("SELECT number, label, count FROM labels ORDER BY number")
        with tqdm(total=len(labels), desc="tokenise", unit="word", delay=2, leave=False) as progress:
            for page in pages(rows):
                self._add(page)
                progress.update(len(page))
        lengths = Counter(n for (n,) in self._database.execute("SELECT length(ids) / 4 FROM prompts"))
        self._length = lengths.total()
        self.bytes = self._total(lengths)

    def __len__(self) -> int:
        return self._length

    def size(self, ids: bytes) -> int:
        """Bytes of a prompt's states on the disk, from its packed token ids."""
        return self._sizes[len(ids) // 4]

    def missing(self, memories: Memories) -> Iterator[tuple[bytes, bytes]]:
        """(key, packed token ids) of prompts that are not in the cache, in the order of their labels."""
        return self._missing(memories, "ids")

    def missing_size(self, memories: Memories) -> tuple[int, int]:
        """How many prompts are not in the cache, and the bytes of their states."""
        lengths = Counter(length for _, length in self._missing(memories, "length(ids) / 4"))
        return lengths.total(), self._total(lengths)

    def _missing(self, memories: Memories, value: str) -> Iterator[tuple[bytes, Any]]:
        for page in pages(self._database.execute(f"SELECT key, {value} FROM prompts ORDER BY number")):
            found = memories.find(as_keys([key for key, _ in page]))
            yield from compress(page, (found < 0).tolist())

    def _total(self, lengths: Counter[int]) -> int:
        """Bytes of all prompts, from how many there are of each number of tokens."""
        return sum(count * self._sizes[n] for n, count in lengths.items())

    def hold(self, corpus: Corpus) -> int:
        """Note which labels the corpus has, for `pointers`; returns how many."""
        for labels in corpus.label_shards():
            hold = "INSERT INTO held SELECT number FROM pointers JOIN labels USING (number) WHERE label = ?"
            self._database.executemany(hold, ((label,) for label in labels))
        ((count,),) = self._database.execute("SELECT count(*) FROM held")
        return int(count)

    def pointers(self, held: bool) -> Iterator[tuple[str, bytes, int]]:
        """(label, key, occurrences) of all labels, or of those that are not held."""
        return self._database.execute(
            "SELECT label, key, count FROM pointers JOIN labels USING (number) "
            f"WHERE {held:d} OR number NOT IN (SELECT number FROM held) ORDER BY number"
        )

    def _add(self, page: list[tuple[int, str, int]]) -> None:
        prompts, pointers = [], []
        for number, label, count in page:
            ids = self._encoder.prompt.ids(label)
            if len(ids) > self._encoder.context:
                self.dropped["with a prompt longer than the encoder's context"] += count
                continue
            if self._encoder.layout != "full":
                self._encoder.prompt.check(label, ids)
            data = packed(ids)
            key = key_of_packed(data)
            prompts.append((key, data))
            pointers.append((number, key))
        self._database.executemany("INSERT OR IGNORE INTO prompts (key, ids) VALUES (?, ?)", prompts)
        self._database.executemany("INSERT INTO pointers VALUES (?, ?)", pointers)
        self.labels += len(pointers)


def pages(items: Iterable[T]) -> Iterator[list[T]]:
    """Lists of up to PAGE items."""
    items = iter(items)
    while page := list(islice(items, PAGE)):
        yield page
