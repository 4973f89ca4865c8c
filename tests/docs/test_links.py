"""Every relative link of the written pages leads to a file, and every anchor to a heading."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from written_pages import PAGES, anchors, name_of, prose


def _links(page: Path) -> list[tuple[Path, str, str]]:
    """Return file, anchor and the link itself of every link within the repository."""
    links = [link for link in re.findall(r"\]\(<?([^)\s>]+)>?[^)]*\)", prose(page)) if not re.match(r"[a-z]+:", link)]
    parts = [(link, *link.partition("#")[::2]) for link in links]
    return [(page.parent / name if name else page, anchor, link) for link, name, anchor in parts]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_lead_to_files(page: Path) -> None:
    assert not [link for path, _, link in _links(page) if not path.exists()]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_anchors_lead_to_headings(page: Path) -> None:
    asked = [(path, anchor, link) for path, anchor, link in _links(page) if anchor and path.suffix == ".md"]
    assert not [link for path, anchor, link in asked if anchor not in anchors(path)]


def test_a_broken_link_and_a_broken_anchor_are_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A `word`, and more\n\n# One\n\n# One\n\n[a](gone.md) [b](#one-1) [c](#two)\n`[d](gone.md)`\n")
    assert anchors(page) == {"a-word-and-more", "one", "one-1"}
    assert [(path.name, anchor) for path, anchor, _ in _links(page)] == [
        ("gone.md", ""),
        ("page.md", "one-1"),
        ("page.md", "two"),
    ]
