"""Generators of damaged and hostile files; each yields a file's new content and a word for what was done."""

from __future__ import annotations

import io
import json
import pickle
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["ODD", "archive", "damaged", "json_text", "nifti_header", "npz", "pickled"]

ODD: list[Any] = [
    None, True, "", "abc", "\ud800", "x\r=1+1", "../../etc/passwd", -1, 0, 1.5, 1e308, float("nan"), float("inf"),
    2**70, 1_000_000_000, [], [None], {}, {"a": {}}, [[[]]],
]  # fmt: skip


class Bomb:
    """Writes a file when it is unpickled: proof that code was run."""

    def __init__(self, proof: str) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (self.proof, "w")


def damaged(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Truncate, empty, overwrite, insert, or replace by text: what disks and copies do to a file."""
    kind = rng.choice(["cut", "cut short", "empty", "flip", "zeros", "insert", "text", "doubled"])
    at = rng.randrange(max(1, len(content)))
    if kind == "cut":
        return content[:at], kind
    if kind == "cut short":
        return content[: -rng.randint(1, 9)], kind
    if kind == "empty":
        return b"", kind
    if kind == "flip":
        changed = bytearray(content)
        for _ in range(rng.choice([1, 3, 20])):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        return bytes(changed), kind
    if kind == "zeros":
        return content[:at] + bytes(min(64, len(content) - at)) + content[at + 64 :], kind
    if kind == "insert":
        return content[:at] + rng.randbytes(7) + content[at:], kind
    return (b"not what it says\n", kind) if kind == "text" else (content + content, kind)


def nifti_header(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Set one field of an uncompressed NIfTI-1 header to an odd value."""
    fields = {"sizeof_hdr": (0, "i"), "dim": (40 + 2 * rng.randrange(8), "h"), "datatype": (70, "h"),
              "bitpix": (72, "h"), "pixdim": (76 + 4 * rng.randrange(8), "f"), "vox_offset": (108, "f"),
              "scl_slope": (112, "f"), "scl_inter": (116, "f"), "qform_code": (252, "h"), "sform_code": (254, "h"),
              "quatern": (256 + 4 * rng.randrange(3), "f"), "srow": (280 + 4 * rng.randrange(12), "f"),
              "magic": (344, "i")}  # fmt: skip
    name = rng.choice(sorted(fields))
    place, form = fields[name]
    whole = [-32768, -1, 0, 1, 2, 3, 7, 32, 64, 128, 512, 1024, 1792, 2304, 32767]
    odd = [0.0, -1.0, 1e-9, 1e30, float("nan"), float("inf"), 3.0, 1000.0]
    value = rng.choice(odd) if form == "f" else rng.choice(whole)
    changed = bytearray(content)
    struct.pack_into(f"<{form}", changed, place, value)
    return bytes(changed), f"{name} at {place} = {value}"


def json_text(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Replace, remove or wrap one node of a JSON document; or nest it without end, or write it in latin-1."""
    kind = rng.choice(["replace"] * 6 + ["remove"] * 3 + ["wrap", "deep", "latin-1"])
    if kind == "deep":
        return b"[" * 100_000, kind
    if kind == "latin-1":
        return content.replace(b'"', '"\u00e4'.encode("latin-1"), 1), kind
    document = json.loads(content)
    if kind == "wrap":
        return json.dumps([document]).encode(), kind
    nodes: list[tuple[Any, Any]] = []

    def collect(node: Any, depth: int) -> None:
        if len(nodes) > 50_000:
            return
        for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            # nodes near the root decide most, and there are few of them
            nodes.extend([(node, key)] * (1 + 20 // (1 + depth) ** 3))
            collect(node[key], depth + 1)

    collect(document, 0)
    if not nodes:
        return b"null", "null"
    parent, key = rng.choice(nodes)
    if kind == "remove":
        del parent[key]
        return json.dumps(document).encode(), f"without {key!r}"
    value = rng.choice(ODD)
    parent[key] = value
    return json.dumps(document).encode(), f"{key!r} = {value!r}"


def npz(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Drop, rename, retype, reshape or fill one array of an npz file, or put an object into it."""
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        arrays: dict[str, Any] = {name: stored[name] for name in stored.files}
    name = rng.choice(sorted(arrays))
    kind = rng.choice(["drop", "float", "negative", "short", "axis", "empty", "huge", "object", "text"])
    array = arrays.pop(name)
    if kind == "float":
        arrays[name] = array.astype(np.float32) * np.nan if array.dtype.kind in "iuf" else array
    elif kind == "negative":
        arrays[name] = -np.ones_like(array, dtype=np.int64)
    elif kind == "short":
        arrays[name] = array.reshape(-1)[: max(0, array.size - 1)]
    elif kind == "axis":
        arrays[name] = array[None]
    elif kind == "empty":
        arrays[name] = np.zeros((0,), np.int64)
    elif kind == "huge":
        arrays[name] = np.full(array.shape, np.iinfo(np.int64).max)
    elif kind == "object":
        arrays[name] = np.array([{"a": 1}], dtype=object)
    elif kind == "text":
        arrays[name] = np.array(["abc"])
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue(), f"{name}: {kind}"


def pickled(proof: str) -> bytes:
    """A pickle that writes a file when it is loaded by a reader that trusts it."""
    return pickle.dumps({"model": Bomb(proof)})


def archive(rng: random.Random, proof: str) -> tuple[bytes, str, str]:
    """An archive that should not be unpacked: content, what is wrong, suffix."""
    kind = rng.choice(["up", "absolute", "link", "device", "bomb", "sparse", "twice", "zip up", "zip bomb", "zip link"])
    buffer = io.BytesIO()
    if kind.startswith("zip"):
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
            if kind == "zip up":
                packed.writestr(f"../{'../' * rng.randrange(4)}{proof.rpartition('/')[2]}", b"x")
            elif kind == "zip bomb":
                packed.writestr("dataset.json", bytes(200_000_000))
            else:
                member = zipfile.ZipInfo("imagesTr")
                member.external_attr = 0o120777 << 16
                packed.writestr(member, proof)
        return buffer.getvalue(), kind, ".zip"
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        member = tarfile.TarInfo("dataset.json")
        if kind == "up":
            member.name = f"../{'../' * rng.randrange(4)}{proof.rpartition('/')[2]}"
        elif kind == "absolute":
            member.name = proof
        elif kind == "link":
            member.type, member.linkname = tarfile.SYMTYPE, proof
        elif kind == "device":
            member.type = tarfile.CHRTYPE
        if kind in ("bomb", "sparse"):
            member.size = 200_000_000
            tar.addfile(member, io.BytesIO(bytes(member.size)))
        else:
            tar.addfile(member)
            if kind == "twice":
                tar.addfile(member)
    return buffer.getvalue(), kind, ".tar.gz"
