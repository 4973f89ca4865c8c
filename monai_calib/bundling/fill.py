"""Put values into the places that a template names, and write JSON as one reads it.

A template names a value as ``{{name}}``. A JSON string that is nothing but ``"{{name}}"`` becomes the value itself,
whatever its type; ``"{{*name}}"`` in a list puts the items of a list value in its place, and so does
``"{{*name}}": null`` in an object; anywhere else, in JSON strings and in text files, the value is written into the
text. Values may name further values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["fill", "format_json", "is_name"]

_NAME = re.compile(r"\{\{(\*?)(\w+)\}\}")
_WIDTH = 100


def fill(template: Any, values: Mapping[str, Any]) -> Any:
    """Put the values in their places.

    Raises: ``KeyError`` for a name that is none of the values.

    Example:
        >>> fill({"roi": "{{size}}", "pad": ["{{*size}}", -1], "text": "{{dims}}D"}, {"size": [4, 6], "dims": 2})
        {'roi': [4, 6], 'pad': [4, 6, -1], 'text': '2D'}
    """
    if isinstance(template, dict):
        return dict(pair for item in template.items() for pair in _fill_pair(*item, values))
    if isinstance(template, list):
        return [filled for item in template for filled in _fill_item(item, values)]
    if not isinstance(template, str):
        return template
    whole = _NAME.fullmatch(template)
    if whole:
        return fill(_value(whole[2], values), values)
    return _NAME.sub(lambda name: str(fill(_value(name[2], values), values)), template)


def is_name(text: str) -> bool:
    """Whether a text is nothing but the name of a value."""
    return _NAME.fullmatch(text) is not None


def _fill_pair(key: str, item: Any, values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    whole = _NAME.fullmatch(key)
    if whole and whole[1]:
        return list(fill(_value(whole[2], values), values).items())
    return [(key, fill(item, values))]


def _fill_item(item: Any, values: Mapping[str, Any]) -> list[Any]:
    whole = _NAME.fullmatch(item) if isinstance(item, str) else None
    if whole and whole[1]:
        return list(fill(_value(whole[2], values), values))
    return [fill(item, values)]


def _value(name: str, values: Mapping[str, Any]) -> Any:
    if name not in values:
        raise KeyError(f"a template names {name!r}, which neither the entry of the data set nor the template defines")
    return values[name]


def format_json(item: Any, indent: int = 0, used: int = 0) -> str:
    """JSON whose short lists and objects stay on one line.

    Args:
        item: what to write.
        indent: depth in columns.
        used: columns already taken on the line by the key.

    Example:
        >>> print(format_json({"a": [1, 2], "b": {}}))
        {
            "a": [1, 2],
            "b": {}
        }
    """
    line = json.dumps(item, ensure_ascii=False)
    if not isinstance(item, (dict, list)) or not item or (indent > 0 and indent + used + len(line) <= _WIDTH):
        return line
    inner = " " * (indent + 4)
    if isinstance(item, dict):
        keys = {key: json.dumps(key, ensure_ascii=False) + ": " for key in item}
        rows = [keys[key] + format_json(value, indent + 4, len(keys[key])) for key, value in item.items()]
        return "{\n" + ",\n".join(inner + row for row in rows) + "\n" + " " * indent + "}"
    rows = [format_json(value, indent + 4) for value in item]
    return "[\n" + ",\n".join(inner + row for row in rows) + "\n" + " " * indent + "]"
