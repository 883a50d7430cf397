"""How the commands speak: rich in a terminal, plain and tab-separated when piped, JSON when asked.

Answers go to stdout and remarks to stderr, so that ``lambent invoke f > out.json`` holds the answer and nothing else. ``rich`` is loaded
only where something is drawn with it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import Any

from lambent.errors import LambentError

_CONTROL = re.compile(r"\x1b\[[0-9;]*m|[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # colours, then everything else but tabs and line breaks


class Trouble(LambentError):
    """An expected failure: one friendly line on stderr, exit code 1."""


def is_terminal() -> bool:
    return sys.stdout.isatty()


def say(text: str = "") -> None:
    """A line of the answer."""
    sys.stdout.write((harmless(text) if is_terminal() else text) + "\n")
    sys.stdout.flush()


def remark(text: str) -> None:
    """A line beside the answer."""
    sys.stderr.write((harmless(text) if sys.stderr.isatty() else text) + "\n")
    sys.stderr.flush()


def harmless(text: str) -> str:
    """For a terminal: what functions say may have colours, but not move the cursor, set titles or ask the terminal to type."""
    return _CONTROL.sub(lambda found: found[0] if len(found[0]) > 1 else f"\\x{ord(found[0]):02x}", text)


def show_json(value: Any) -> None:
    say(json.dumps(value, indent=2, default=str))


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], empty: str = "") -> None:
    """A table for people, or one tab-separated line per row (no header) for pipes. ``empty`` is said to people when there is no row."""
    if not is_terminal():
        for row in rows:
            say("\t".join(_flat(cell) for cell in row))
        return
    if not rows:
        remark(empty)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0), show_header=any(columns))
    for number, column in enumerate(columns):
        drawn.add_column(column, overflow="fold", no_wrap=not number)  # nothing is cut off; what names a row stays in one piece
    for row in rows:
        drawn.add_row(*(Text(harmless(_flat(cell))) for cell in row))
    Console().print(drawn)


def styled(text: str, style: str) -> None:
    """A line of the answer in ``style`` (rich's names) where a terminal shows it; the text alone elsewhere."""
    if not is_terminal():
        say(text)
        return
    from rich.console import Console
    from rich.text import Text

    Console(soft_wrap=True).print(Text(harmless(text), style=style))


def duration(seconds: float) -> str:
    """``7.2s``, ``3m 20s``, ``2h 5m``, ``4d 1h``."""
    whole = int(seconds)
    if whole < 60:
        return f"{seconds:.1f}s"
    for size, name, smaller, small_name in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            return f"{whole // size}{name} {whole % size // smaller}{small_name}"
    raise AssertionError("unreachable")


def size(count: int) -> str:
    """``812 B``, ``4.1 KB``, ``12.0 MB``, in powers of 1024."""
    amount = float(count)
    for unit in ("B", "KB", "MB"):
        if amount < 1024:
            return f"{count} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GB"


def _flat(cell: object) -> str:
    return str(cell).replace("\t", " ").replace("\n", " ")
