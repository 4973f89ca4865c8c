"""Names from files as cells of a table that a spreadsheet opens, and does not run."""

from __future__ import annotations

import unicodedata

__all__ = ["cell"]

_FORMULA = ("=", "+", "-", "@")


def cell(text: str) -> str:
    """The text on one line, behind an apostrophe where a spreadsheet would take it for a formula.

    Control characters become blanks: a reader of CSV may begin a row at a carriage return, whose first cell would be
    what follows it. What counts is the first character after blanks, in its plain form.

    Args:
        text: whatever a file or a person is called.

    Source: https://owasp.org/www-community/attacks/CSV_Injection

    Example:
        >>> cell("case\\r=1+1"), cell(" =1+1"), cell("\\uff1d1+1"), cell("case=1")
        ('case =1+1', "' =1+1", "'＝1+1", 'case=1')
    """
    plain = "".join(character if character.isprintable() else " " for character in text)
    first = unicodedata.normalize("NFKC", plain).lstrip()[:1]
    return f"'{plain}" if first in _FORMULA else plain
