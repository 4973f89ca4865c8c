"""Damage that any file can take."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from random import Random
from typing import Any

Mutation = Callable[[bytes, Random], bytes]
"""Takes a good file's bytes and a random source, and gives damaged ones."""

CANARY = "/tmp/monai_calib_canary"
"""What a pickle bomb would make if it were run."""


class Bomb:
    def __reduce__(self) -> Any:
        return os.system, (f"touch {CANARY}",)


def truncated(content: bytes, random: Random) -> bytes:
    return content[: random.randrange(len(content) + 1)]


def cut_at_the_end(content: bytes, random: Random) -> bytes:
    return content[: -random.randint(1, 9)]


def emptied(content: bytes, random: Random) -> bytes:
    return b""


def random_bytes(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.randint(1, 15)):
        changed[random.randrange(len(changed))] = random.randrange(256)
    return bytes(changed)


def random_bytes_at_the_start(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.randint(1, 15)):
        changed[random.randrange(min(400, len(changed)))] = random.randrange(256)
    return bytes(changed)


def inserted(content: bytes, random: Random) -> bytes:
    place = random.randrange(len(content))
    return content[:place] + random.randbytes(random.randint(1, 64)) + content[place:]


def zeros(content: bytes, random: Random) -> bytes:
    return bytes(len(content))


def zeros_at_the_end(content: bytes, random: Random) -> bytes:
    kept = random.randrange(len(content))
    return content[:kept] + bytes(len(content) - kept)


def noise(content: bytes, random: Random) -> bytes:
    return random.randbytes(random.randint(1, 2000))


def a_text(content: bytes, random: Random) -> bytes:
    return "see the mail of Änne\n".encode(random.choice(["utf-8", "latin-1", "utf-16"]))


def a_page(content: bytes, random: Random) -> bytes:
    return b"<!DOCTYPE html><html><head><title>403 Forbidden</title></head></html>"


def a_pickle(content: bytes, random: Random) -> bytes:
    return pickle.dumps(Bomb())


def a_large_pointer(content: bytes, random: Random) -> bytes:
    return b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


GENERIC: tuple[Mutation, ...] = (
    truncated,
    cut_at_the_end,
    emptied,
    random_bytes,
    random_bytes_at_the_start,
    inserted,
    zeros,
    zeros_at_the_end,
    noise,
    a_text,
    a_page,
    a_pickle,
    a_large_pointer,
)
