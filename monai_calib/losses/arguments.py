"""Checks of a loss's arguments, each of which returns the argument it has checked."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["above", "at_least", "one_of", "within"]


def one_of(name: str, value: str, known: Iterable[str]) -> str:
    """``value``, which must be one of the known names.

    Example:
        >>> one_of("distance_type", "l3", ("l1", "l2"))
        Traceback (most recent call last):
        ValueError: distance_type: expected one of l1, l2, got 'l3'.
    """
    if value not in known:
        raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}.")
    return value


def at_least(name: str, value: float, least: float) -> float:
    """``value``, which must be ``least`` or more, and no NaN.

    Example:
        >>> at_least("margin", 10.0, 0)
        10.0
    """
    if not value >= least:
        raise ValueError(f"{name}: expected at least {least}, got {value}.")
    return value


def above(name: str, value: float, limit: float) -> float:
    """``value``, which must be more than ``limit``, and no NaN.

    Example:
        >>> above("rho", 0.0, 0)
        Traceback (most recent call last):
        ValueError: rho: expected more than 0, got 0.0.
    """
    if not value > limit:
        raise ValueError(f"{name}: expected more than {limit}, got {value}.")
    return value


def within(name: str, value: float, low: float, high: float) -> float:
    """``value``, which must lie from ``low`` to ``high``, and be no NaN.

    Example:
        >>> within("threshold", 0.2, 0, 1)
        0.2
    """
    if not low <= value <= high:
        raise ValueError(f"{name}: expected {low} to {high}, got {value}.")
    return value
