"""Read this package's docstrings as griffe's sections.

``Example:`` becomes ``Examples:``, whose doctests are shown as code, and ``Raises: a sentence`` stays a sentence.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension

EXAMPLE = re.compile(r"^( *)Example:$", re.MULTILINE)
SENTENCE = re.compile(r"^( *)(Raises|Returns|Yields|Source|Sources|Note): (?=\S)", re.MULTILINE)


class Docstrings(Extension):
    """Rewrite each docstring before it is parsed."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        if obj.docstring:
            text = EXAMPLE.sub(r"\1Examples:", obj.docstring.value)
            obj.docstring.value = SENTENCE.sub(r"\n\1**\2:** ", text)
