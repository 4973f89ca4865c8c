"""JSON: values, keys and nesting that nobody wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from random import Random
from typing import Any

from .generic import Mutation

_NASTY: tuple[Any, ...] = (
    None, [], {}, -1, 0, 1, 1.5, 2**70, -(2**70), 10**9, "", "a", "x" * 5000, True, False, [None], {"a": 1},
    "../../etc/passwd", "/etc/passwd", "\ud800", "nan", "\r=1+1", "<script>", float("nan"), float("inf"), [[[]]], "é\0",
)  # fmt: skip


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(value, dict):
        for key in value:
            found += _places(value[key], (*path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value[:30]):
            found += _places(item, (*path, number))
    return found


def _changed(value: Any, path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> None:
    for key in path[:-1]:
        value = value[key]
    change(value, path[-1])


def _shallow_first(value: Any, random: Random) -> tuple[Any, ...]:
    """A place, as often near the root as deep down, where most of them are."""
    places = _places(value)
    depth = random.randint(1, max(map(len, places)))
    return random.choice([place for place in places if len(place) <= depth])


def json_value(content: bytes, random: Random) -> bytes:
    value = json.loads(content)
    new = random.choice(_NASTY)
    _changed(value, _shallow_first(value, random), lambda holder, key: holder.__setitem__(key, deepcopy(new)))
    return json.dumps(value).encode()


def json_without(content: bytes, random: Random) -> bytes:
    value = json.loads(content)
    _changed(value, _shallow_first(value, random), lambda holder, key: holder.pop(key))
    return json.dumps(value).encode()


def json_twice(content: bytes, random: Random) -> bytes:
    value = json.loads(content)

    def double(holder: Any, key: Any) -> None:
        if isinstance(holder, list):
            holder.append(deepcopy(holder[key]))
        else:
            holder[str(key) + "2"] = deepcopy(holder[key])

    _changed(value, _shallow_first(value, random), double)
    return json.dumps(value).encode()


def json_other(content: bytes, random: Random) -> bytes:
    return json.dumps(random.choice(_NASTY)).encode()


def json_deep(content: bytes, random: Random) -> bytes:
    opened = random.choice([b"[", b'{"a":'])
    return opened * 100_000


def json_deep_inside(content: bytes, random: Random) -> bytes:
    depth = random.choice([500, 5000, 100_000])
    return content.rstrip()[:-1] + b', "deep": ' + b"[" * depth + b"]" * depth + b"}"


def json_marked(content: bytes, random: Random) -> bytes:
    return b"\xef\xbb\xbf" + content


def json_latin(content: bytes, random: Random) -> bytes:
    return content.replace(b'"', '"ä'.encode("latin-1"), 2)


JSON: tuple[Mutation, ...] = (
    json_value, json_value, json_value, json_value, json_value, json_without, json_without, json_without, json_twice,
    json_other, json_deep, json_deep_inside, json_marked, json_latin,
)  # fmt: skip
