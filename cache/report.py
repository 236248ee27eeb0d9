"""Results as people read them: in columns, counted by reason, with nothing in a label that a terminal would obey."""

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDEST = 1 << 16  # no line is cut or wrapped, wherever it goes


def columns(rows: Iterable[Sequence[str]], left: int = 1) -> list[str]:
    """Rows (at least one) as lines of plain text: the first `left` columns flush left, the others flush right.

    A column is as wide as its widest entry is in a terminal, where a Chinese character takes two cells. Entries are
    made printable.
    """
    table = Table.grid(padding=(0, 2, 0, 0))
    cells = [[Text(printable(cell)) for cell in row] for row in rows]
    for n in range(len(cells[0])):
        table.add_column(justify="left" if n < left else "right", no_wrap=True)
    for row in cells:
        table.add_row(*row)
    lines = Console(width=WIDEST).render_lines(table, pad=False)
    return ["".join(part.text for part in line).rstrip() for line in lines]


def printable(text: str) -> str:
    r"""The text with unprintable characters escaped, so that a label cannot control the terminal.

    >>> printable("a\x1b[31m")
    'a\\x1b[31m'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def counted(number: int, what: str) -> str:
    """So many of something.

    >>> counted(1, "word"), counted(1200, "word")
    ('1 word', '1,200 words')
    """
    return f"{number:,} {what}" + "s" * (number != 1)


def counts(reasons: Mapping[str, int]) -> str:
    """Counts by reason in words.

    >>> counts({"longer than 25 characters": 1200, "empty": 2})
    '1,200 longer than 25 characters, 2 empty'
    """
    return ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
