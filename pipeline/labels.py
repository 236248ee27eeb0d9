"""From raw text to labels: cleaned as in the released DPTR code or kept in Unicode, every loss counted by reason.

Labels are counted in a temporary database on disk, so a source may be larger than memory.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from cache.errors import DptrError
from sources.cleaning import MAX_LENGTH, clean, clean_unicode
from sources.missing import NoText


class Labels:
    """Unique labels in order of first appearance, and what became of the rest.

    Iterating gives (label, occurrences). `read` counts the lines read, `dropped` the lines lost, by reason, `altered`
    the lines kept with characters removed or replaced, and `made_up` the labels that are of no line.
    """

    def __init__(self, texts: Iterable[str], max_length: int, keep_unicode: bool, keep_spaces: bool) -> None:
        self._clean, self._spaces = clean_unicode if keep_unicode else clean, keep_spaces
        self.read, self.altered, self.made_up = 0, 0, 0
        self.dropped: Counter[str] = Counter()
        self.database = scratch("CREATE TABLE labels (number INTEGER PRIMARY KEY, label TEXT UNIQUE, count INTEGER)")
        self.add(self._cleaned(texts, max_length))

    def add(self, labels: Iterable[str]) -> None:
        """Count labels that need no cleaning."""
        count = "INSERT INTO labels (label, count) VALUES (?, 1) ON CONFLICT (label) DO UPDATE SET count = count + 1"
        with telling():
            self.database.executemany(count, ((label,) for label in labels))
            ((self._length,),) = self.database.execute("SELECT count(*) FROM labels")

    def __del__(self) -> None:
        self.database.close()

    def __len__(self) -> int:
        return int(self._length)

    def __iter__(self) -> Iterator[tuple[str, int]]:
        yield from self.database.execute("SELECT label, count FROM labels ORDER BY number")

    def report(self) -> str:
        """A one-line summary for the user."""
        losses = [f"{self.made_up:,} of them made up"] * bool(self.made_up)
        losses += [f"{n:,} {reason}" for reason, n in self.dropped.items()]
        losses += [f"{self.altered:,} altered by folding to ASCII"] * bool(self.altered)
        return f"{self.read:,} read, {len(self):,} different labels" + "".join(f"; {x}" for x in losses)

    def _cleaned(self, texts: Iterable[str], max_length: int) -> Iterator[str]:
        from tqdm import tqdm  # here, because the command line needs MAX_LENGTH before anything is loaded

        for text in tqdm(texts, "read", unit="word", delay=2, leave=False):
            self.read += 1
            label = self._clean(text, self._spaces)
            if isinstance(text, NoText):
                self.dropped[text.why] += 1
            elif not label:
                self.dropped["empty" if not text.strip() else "without any ASCII character"] += 1
            elif len(label) > max_length:
                self.dropped[f"longer than {max_length} characters"] += 1
            else:
                self.altered += label != text and label != clean_unicode(text, self._spaces)
                yield label


def collect(
    texts: Iterable[str], max_length: int = MAX_LENGTH, keep_unicode: bool = False, keep_spaces: bool = False
) -> Labels:
    """Clean and count `texts`; those empty after cleaning or longer than `max_length` characters are dropped."""
    return Labels(texts, max_length, keep_unicode, keep_spaces)


PAGES = "PRAGMA journal_mode = OFF; PRAGMA cache_size = -131072;"  # at most 128 MiB in memory, and nothing to roll back


def scratch(tables: str) -> sqlite3.Connection:
    """A connection to new tables in a temporary database of its own."""
    database = sqlite3.connect("", check_same_thread=False)  # closed by whichever thread collects the garbage
    database.executescript(PAGES + tables)
    return database


@contextmanager
def telling() -> Iterator[None]:
    """Turns an error of the database, nearly always a full disk, into a DptrError that says what to do."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise DptrError(
            f"the list of words did not fit into temporary files ({error}): "
            "set SQLITE_TMPDIR to a folder with more room. The cache is unchanged."
        ) from error
