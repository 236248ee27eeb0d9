"""Temporary tables on the disk for what would grow with the source: a database of SQLite in a file without a name.

The file is gone when the process is, however it ends. SQLITE_TMPDIR or TMPDIR say where it lies (otherwise /var/tmp).
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from cache.errors import DptrError

PAGES = "PRAGMA journal_mode = OFF; PRAGMA cache_size = -32768;"  # at most 32 MiB in memory, and nothing to roll back


def scratch(tables: str) -> sqlite3.Connection:
    """A connection to new tables, which nobody else sees."""
    database = sqlite3.connect("", check_same_thread=False)  # whichever thread collects the garbage closes it
    database.executescript(PAGES + tables)
    return database


@contextmanager
def telling() -> Iterator[None]:
    """Turns a refusal of the database, which is nearly always a full disk, into a sentence."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise DptrError(
            f"the list of words did not fit into temporary files ({error}): "
            "set SQLITE_TMPDIR to a folder with more room. The cache is as it was."
        ) from error
