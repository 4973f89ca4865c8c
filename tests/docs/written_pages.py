"""The pages that people read, and the blocks of code in them."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FENCE", "PAGES", "ROOT", "Block", "anchors", "blocks", "commands", "name_of", "prose"]

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "studies").glob("*.md")),
    *sorted((ROOT / "bundles").glob("*/docs/README.md")),
]
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, ``""`` if it names none, its text, and its first line's number."""

    language: str
    text: str
    line: int


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(match["language"], textwrap.dedent(match["text"]), text.count("\n", 0, match.start("text")) + 1)
        for match in FENCE.finditer(text)
    ]


def prose(page: Path) -> str:
    """Return the page without its code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text(encoding="utf-8")))


def commands(page: Path) -> list[str]:
    """Return the lines of a page's command blocks, continued lines joined."""
    texts = [block.text for block in blocks(page) if block.language in ("", "bash", "sh")]
    return [line.strip() for text in texts for line in re.sub(r"\\\n\s*", " ", text).splitlines()]


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives a page's headings: lower case, no punctuation, hyphens for blanks."""
    found: dict[str, int] = {}
    result = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        seen = found.get(slug, 0)
        found[slug] = seen + 1
        result.add(f"{slug}-{seen}" if seen else slug)
    return result
