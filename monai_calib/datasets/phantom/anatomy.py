"""The population of bent two-part shapes, and the probability of each label in each voxel that they imply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from .fields import gaussian_field

__all__ = ["REFERENCE_EXTENT", "Anatomy", "draw_anatomy"]

# The field of view, in mm, for which the sizes below are meant; other fields of view scale the anatomy with them.
REFERENCE_EXTENT = (36.0, 50.0, 36.0)

_POINTS = 20
_UNION_SMOOTHNESS = 0.6  # mm; rounds the seams between the balls that make up the shape


@dataclass(frozen=True)
class Anatomy:
    """One subject: what is where, before any image is taken.

    Attributes:
        posterior: ``(X, Y, Z, 3)``, the probability of background, anterior and posterior part in each voxel.
        cavity: ``(X, Y, Z)``, the fraction of each voxel filled by the dark, fluid-like tube beside the shape.
    """

    posterior: NDArray[np.float64]
    cavity: NDArray[np.float64]


def _rotation(rng: np.random.Generator) -> NDArray[np.float64]:
    """A rotation by a few degrees about each axis in turn."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(rng.normal(0.0, 5.0, size=3))):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[[i, j], [i, j]] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    return matrix


def _tube(
    points: NDArray[np.float64], centres: NDArray[np.float64], radii: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Signed distance (mm, negative inside) to a smooth union of balls, and the ``(balls, points)`` shares in it."""
    # Single precision and one ball after the other: this is where the time goes, and memory traffic is what takes it.
    place = np.ascontiguousarray(points.T, dtype=np.float32)
    gap = np.empty((len(centres), len(points)), np.float32)
    for ball, (centre, radius) in enumerate(zip(centres.astype(np.float32), radii.astype(np.float32), strict=True)):
        gap[ball] = np.sqrt(((place - centre[:, None]) ** 2).sum(0)) - radius
    gap /= np.float32(_UNION_SMOOTHNESS)
    nearest = gap.min(axis=0)
    share = np.exp(nearest - gap, out=gap)
    total = share.sum(axis=0)
    share /= total
    return (_UNION_SMOOTHNESS * (nearest - np.log(total))).astype(np.float64), share.astype(np.float64)


def _average(fine: NDArray[np.float64], factors: Sequence[int]) -> NDArray[np.float64]:
    """Mean over blocks of ``factors`` samples: what a thick voxel sees."""
    (a, b, c), (x, y, z) = factors, fine.shape[:3]
    return fine.reshape(x // a, a, y // b, b, z // c, c, -1).mean(axis=(1, 3, 5))


def draw_anatomy(
    rng: np.random.Generator, shape: Sequence[int], spacing: Sequence[float], ambiguity: float = 0.2
) -> Anatomy:
    """Draw a subject of the population.

    The shape is a tube about an elbow-shaped centre line along the second axis, thick at its anterior end and thin
    at the other, with lumps. With ``d`` the signed distance to its surface and ``s`` the position along the centre
    line, both in mm, a point is

    ``p(foreground) = sigmoid(-d / t)`` and ``p(anterior | foreground) = sigmoid((s0 - s) / (2 t))``

    where the softness ``t`` is ``ambiguity`` times a factor of the subject, growing towards the thin end. Voxels
    thicker than 1 mm average over finer points: partial volume.

    Args:
        rng: source of randomness.
        shape: voxels along the three axes.
        spacing: voxel size in mm.
        ambiguity: softness of the boundary in mm, larger is more ambiguous; raters then disagree by about
            1.8 times as many mm (the standard deviation of the logistic distribution).

    Example:
        >>> anatomy = draw_anatomy(np.random.default_rng(0), (18, 25, 18), (2.0, 2.0, 2.0))
        >>> anatomy.posterior.shape
        (18, 25, 18, 3)
    """
    factors = [max(1, round(step)) for step in spacing]
    fine_shape = [n * f for n, f in zip(shape, factors, strict=True)]
    fine_spacing = [step / f for step, f in zip(spacing, factors, strict=True)]
    scale = min(n * step / full for n, step, full in zip(shape, spacing, REFERENCE_EXTENT, strict=True))
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(fine_shape, fine_spacing, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3) / scale

    t = np.linspace(0.0, 1.0, _POINTS)
    length, elbow, lift = rng.normal(33.0, 1.5), rng.normal(0.45, 0.03), rng.normal(13.0, 2.0)
    side, sweep = rng.choice([-1.0, 1.0]), rng.normal(10.0, 2.0)
    rise = np.sqrt((t - elbow) ** 2 + 0.02)
    line = np.stack([side * sweep * ((t - 0.4) ** 2 - 0.1), length * (0.5 - t), lift * (rise - rise.mean())], axis=1)
    head, tail = rng.normal(5.8, 0.35), rng.normal(4.3, 0.2)
    radii = tail + (head - tail) * expit((elbow - t) / 0.08)
    turn, shift = _rotation(rng), rng.normal(0.0, 1.0, size=3)
    distance, share = _tube(points, line @ turn.T + shift, radii)
    distance = distance + 0.4 * gaussian_field(rng, fine_shape, [step / scale for step in fine_spacing], 4.0).reshape(
        -1
    )

    along = t @ share
    softness = ambiguity * np.exp(rng.normal(0.0, 0.25)) * (1.0 + 0.6 * along) / scale
    foreground = expit(-distance / softness)
    anterior = expit((elbow - along) * length / (2.0 * softness))
    posterior = np.stack([1.0 - foreground, foreground * anterior, foreground * (1.0 - anterior)], axis=-1)

    beside = line + np.array([-side * 9.0, 0.0, 4.0])
    cavity = expit(-_tube(points, beside @ turn.T + shift, radii * 0.5)[0] / 0.4) * (1.0 - foreground)
    return Anatomy(
        posterior=_average(posterior.reshape(*fine_shape, 3), factors),
        cavity=_average(cavity.reshape(*fine_shape, 1), factors)[..., 0],
    )
