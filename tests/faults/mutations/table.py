"""Tables of text."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from .generic import Mutation


def table_cell(content: bytes, random: Random) -> bytes:
    rows = [line.split(",") for line in content.decode().splitlines()]
    row = random.choice(rows)
    cells = ["", "\r=1+1", "a" * 140_000, "\0", '"', "../x", "/etc/passwd", "\ud7ff", "nan", "=1+1", '"a\nb"', "é"]
    row[random.randrange(len(row))] = random.choice(cells)
    return "\n".join(",".join(line) for line in rows).encode()


def table_shape(content: bytes, random: Random) -> bytes:
    lines = content.decode().splitlines()
    changes: list[Callable[[], list[str]]] = [
        lambda: lines[1:],
        lambda: [lines[0], *lines],
        lambda: lines + lines[-1:],
        lambda: [line.rpartition(",")[0] for line in lines],
        lambda: [line.replace(",", ";") for line in lines],
        lambda: lines[:1],
        lambda: [*lines, ",,,,,,,,"],
        lambda: ["," + line for line in lines],
    ]
    return "\n".join(random.choice(changes)()).encode(random.choice(["utf-8", "utf-16", "utf-8-sig"]))


TABLE: tuple[Mutation, ...] = (table_cell, table_cell, table_cell, table_shape, table_shape)
