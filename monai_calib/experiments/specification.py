"""A loss or a correction after training as one writes it on a command line: ``mbls:margin=5|10,alpha=0.1``."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Named", "variants"]


@dataclass(frozen=True)
class Named:
    """A name with arguments, such as a loss.

    Example:
        >>> Named("dice_ce+nacl_outer", {"alpha": 1.0}).key
        'dice_ce+nacl_outer_alpha=1.0'
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The name of its folder: arguments appended in the order of their names."""
        parts = [self.name, *(f"{name}={value}" for name, value in sorted(self.arguments.items()))]
        plain = "_".join(parts).replace(": ", "=").replace(", ", ",")
        return re.sub(r"[^\w.,+=-]", "", plain)


def variants(text: str) -> tuple[Named, ...]:
    """Reads ``name:argument=value,...``; an argument with several values, ``a=1|2``, gives one variant for each.

    Values are Python literals; a bare word is a string.

    Raises:
        ValueError: if the text cannot be read so.

    Example:
        >>> [variant.key for variant in variants("mbls:margin=5.0|10.0,alpha=0.1")]
        ['mbls_alpha=0.1_margin=5.0', 'mbls_alpha=0.1_margin=10.0']
    """
    name, _, rest = text.partition(":")
    try:
        call = ast.parse(f"f({rest})", mode="eval").body
        assert isinstance(call, ast.Call)
        if not name.strip() or call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError("no name, or a value without its argument")
        options = {str(keyword.arg): _options(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise ValueError(
            f"cannot read {text!r}: {error}. Expected NAME or NAME:ARGUMENT=VALUE,..., with '|' between the values of "
            "which validation chooses one, such as mbls:margin=5.0|10.0"
        ) from error
    return tuple(
        Named(name.strip(), dict(zip(options, chosen, strict=True))) for chosen in itertools.product(*options.values())
    )


def _options(node: ast.expr) -> list[Any]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return [*_options(node.left), *_options(node.right)]
    return [node.id if isinstance(node, ast.Name) else ast.literal_eval(node)]
