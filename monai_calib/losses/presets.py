"""Losses by name: the papers' defaults in one word, for a command line."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, overload

from .acls import ACLSLoss
from .arguments import one_of
from .base import ConstrainedLoss, Options
from .cals import CALSLoss
from .crac import CRaCLoss
from .cross_entropy import CrossEntropyLoss
from .dice_plus_plus import DSCPlusPlusLoss
from .dice_semimetric import DiceSemimetricLoss
from .ecp import ECPLoss
from .flsd import FLSDLoss
from .focal import FocalLoss
from .l1ace import HardL1ACELoss, SoftL1ACELoss
from .label_smoothing import LabelSmoothingLoss
from .logit_norm import LogitNormLoss
from .mbls import MbLSLoss
from .mdca import MDCALoss
from .meep import MEEPLoss
from .nacl import NACLLoss
from .sigmoid import SigmoidLoss
from .svls import SVLSLoss

__all__ = ["PRESETS", "build_loss"]


PRESETS: dict[str, tuple[Callable[..., ConstrainedLoss], dict[str, Any]]] = {
    "ce": (CrossEntropyLoss, {}),
    "dice_ce": (CrossEntropyLoss, {"lambda_dice": 1.0}),
    "dice_ce_surgery": (CrossEntropyLoss, {"lambda_dice": 1.0, "dice_surgery": True}),
    "dice_ce_fading": (CrossEntropyLoss, {"lambda_dice": 1.0, "dice_fades": 0.5}),
    "focal": (FocalLoss, {}),
    "ecp": (ECPLoss, {}),
    "ls": (LabelSmoothingLoss, {}),
    "svls": (SVLSLoss, {}),
    "mbls": (MbLSLoss, {}),
    "nacl": (NACLLoss, {}),
    "nacl_outer": (NACLLoss, {"penalty_region": "outer"}),
    "recommended": (NACLLoss, {"penalty_region": "outer", "alpha": 1.0, "lambda_dice": 1.0}),
    "flsd": (FLSDLoss, {}),
    "logitnorm": (LogitNormLoss, {}),
    "dscpp": (DSCPlusPlusLoss, {}),
    "dice_semimetric": (DiceSemimetricLoss, {}),
    "crac": (CRaCLoss, {}),
    "cals": (CALSLoss, {}),
    "acls": (ACLSLoss, {}),
    "hard_l1ace": (HardL1ACELoss, {}),
    "soft_l1ace": (SoftL1ACELoss, {}),
    "meep": (MEEPLoss, {}),
    "mdca": (MDCALoss, {}),
}
"""Name: the class and what differs from its defaults, which are its paper's. ``nacl_outer`` is this package's own
variant, and ``recommended`` that with Dice and weight 1, ``"dice_ce+nacl_outer", alpha=1.0``; see studies/."""

_SHARED = frozenset(Options.__annotations__)
_OF_PENALTIES = {"penalty_region", "kernel_size"}


def _own_arguments(factory: Callable[..., ConstrainedLoss]) -> set[str]:
    named = (p.name for p in inspect.signature(factory).parameters.values() if p.kind is not p.VAR_KEYWORD)
    return set(named) - _SHARED


@overload
def build_loss(name: str, *, activation: Literal["softmax"] = ..., **overrides: Any) -> ConstrainedLoss: ...


@overload
def build_loss(name: str, *, activation: Literal["sigmoid"], **overrides: Any) -> SigmoidLoss: ...


def build_loss(name: str, *, activation: str = "softmax", **overrides: Any) -> ConstrainedLoss | SigmoidLoss:
    """Build a loss from its name, or from several joined by ``+``.

    ``"dice_ce+mbls"`` is the first loss with the penalties of the others added. An override goes to every part that
    knows it: ``build_loss("dice_ce+mbls", margin=5)``; to one part only, as a mapping under its name:
    ``build_loss("mbls+nacl", nacl={"alpha": 0.2})``.

    Args:
        name: one of :data:`PRESETS`, or several joined by ``+``, the primary objective first.
        activation: ``"softmax"`` for classes that exclude each other; ``"sigmoid"`` for channels of 0 and 1, such as
            regions that overlap, each of which is a problem of two classes (:class:`SigmoidLoss`, whose
            ``ignore_channel`` is then known too).
        overrides: arguments of the named classes and of :class:`ConstrainedLoss`.

    Raises:
        ValueError: an unknown name (answered with the list of names), an argument no part knows, or a later part
            that has no penalty to add; another activation, or ``"sigmoid"`` of a loss that is none of channels.

    Example:
        >>> build_loss("dice_ce+nacl_outer", alpha=1.0)
        NACLLoss(
          alpha=1.0, penalty_region='outer', lambda_dice=1.0
          (primary): CrossEntropy()
          (penalty): NeighborhoodPenalty()
          (dice): SoftDice()
        )
    """
    if one_of("activation", activation, ("softmax", "sigmoid")) == "sigmoid":
        ignore_channel = overrides.pop("ignore_channel", False)
        return SigmoidLoss(build_loss(name, **overrides), ignore_channel)
    parts = [part.strip() for part in name.split("+")]
    unknown = [part for part in parts if part not in PRESETS]
    if unknown:
        raise ValueError(f"Unknown loss {unknown[0]!r}; the names are {', '.join(PRESETS)}, joined by '+'.")
    own = {part: overrides.pop(part) for part in parts if isinstance(overrides.get(part), Mapping)}
    shared: dict[str, Any] = {
        key: overrides.pop(key) for key in ("reduction", "ignore_index", "include_background") if key in overrides
    }

    settings: list[dict[str, Any]] = []
    taken: set[str] = set()
    for position, part in enumerate(parts):
        factory, defaults = PRESETS[part]
        known = _own_arguments(factory) | _OF_PENALTIES
        if position == 0:
            known |= _SHARED
        general = {key: value for key, value in overrides.items() if key in known}
        taken |= set(general)
        settings.append({**defaults, **shared, **general, **own.get(part, {})})
    if set(overrides) - taken:
        taken_by_some = sorted(_SHARED.union(*(_own_arguments(PRESETS[part][0]) for part in parts)))
        wrong = ", ".join(sorted(set(overrides) - taken))
        raise ValueError(f"{name} does not take {wrong}; it takes {', '.join(taken_by_some)}.")

    for part, chosen in zip(parts, settings, strict=True):
        _check_numbers(part, PRESETS[part][0], chosen)
    loss = PRESETS[parts[0]][0](**settings[0])
    for part, chosen in zip(parts[1:], settings[1:], strict=True):
        loss = _extend(loss, part, PRESETS[part][0](**chosen))
    return loss


def _check_numbers(name: str, factory: Callable[..., ConstrainedLoss], settings: Mapping[str, Any]) -> None:
    """Refuse a text where the default is a number: a command line's ``'5'`` would end deep inside a formula."""
    for key, parameter in inspect.signature(factory).parameters.items():
        if isinstance(settings.get(key), str) and isinstance(parameter.default, (int, float)):
            raise ValueError(
                f"{name}: {key}: expected a number, got the text {settings[key]!r}. Write it without quotes."
            )


def _extend(loss: ConstrainedLoss, name: str, added: ConstrainedLoss) -> ConstrainedLoss:
    """``loss`` with the penalty of ``added``, which keeps its class so that its alpha can be scheduled by name."""
    if added.penalty is None:
        raise ValueError(f"{name} has no penalty to add; name it first, before the '+'.")
    if loss.penalty is not None:
        added.primary = loss
        return added
    # a primary without a penalty needs no level of its own
    added.primary, added.dice = loss.primary, loss.dice
    added.lambda_ce, added.lambda_dice, added.weight = loss.lambda_ce, loss.lambda_dice, loss.weight
    return added
