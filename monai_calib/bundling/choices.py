"""A plan: choices in their order, each with its reason, and what a bundle is rendered from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Choice", "Plan", "shown"]

FORMAT = "monai_calib/plan/1"


@dataclass(frozen=True)
class Choice:
    """A setting, its value, and why it has it."""

    name: str
    value: Any
    reason: str


@dataclass
class Plan:
    """The choices in their order, and what a bundle is rendered from.

    Attributes:
        dims: 2 or 3.
        choices: by name.
        entry: over the defaults of ``datasets.yaml``, the part of the dimension apart.
    """

    dims: int
    choices: dict[str, Choice] = field(default_factory=dict)
    entry: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, value: Any, reason: str) -> Any:
        """Make a choice, and return its value."""
        self.choices[name] = Choice(name, value, reason)
        return value

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, "choices": [vars(choice) for choice in self.choices.values()]}

    def in_words(self) -> str:
        """A line a choice for the terminal."""
        width = max(len(name) for name in self.choices)
        return "\n".join(f"{c.name:<{width}}  {shown(c.value)}: {c.reason}" for c in self.choices.values())

    def as_table(self) -> str:
        """The choices for the bundle's README, in Markdown."""
        rows = [f"| {c.name} | {shown(c.value)} | {c.reason.replace('|', '/')} |" for c in self.choices.values()]
        return "\n".join(["| what | value | why |", "|---|---|---|", *rows])


def shown(value: Any) -> str:
    """A value as one reads it.

    Example:
        >>> shown([1.5, 1.5, 3.0]), shown(True), shown(0.004)
        ('1.5 x 1.5 x 3', 'yes', '0.004')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return " x ".join(shown(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
