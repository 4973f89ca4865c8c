"""One slice of every evaluated case, small enough to keep: what the report shows next to the metrics."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.handlers import from_engine
from numpy.typing import NDArray

from monai_calib.files import atomic_path
from monai_calib.handlers.cases import Case, cases_of_iteration, index_map
from monai_calib.labels import as_plain_tensor

__all__ = ["SlicePreviewHandler", "cut_preview", "save_preview"]

_GREY_PERCENTILES = (1.0, 99.0)


class SlicePreviewHandler:
    """Writes the slice with most foreground of each case to ``output_dir/previews/<case>.npz``.

    A file holds ``image``, ``label``, ``prediction`` (uint8), ``confidence`` (uint8, per cent), ``spacing`` (mm, along
    rows, columns and, for a volume, slices) and ``slice_index``. Slices are cut along the last axis; a 2D image is its
    own slice; without foreground in the label the prediction decides, and without any the middle slice is taken. The
    case is named by its image file, without folder and extension; nothing else of the header is kept.

    Args:
        output_dir: folder of the evaluation, usually ``run_dir/eval``.
        output_transform: takes the engine's output to ``image, label, pred, prob``: each a list with one channel-first
            item a case. Label and prediction are an index map or one-hot; of a multi-channel image the first channel
            is shown; ``prob`` holds one probability a class.

    Shape: image ``(C, *spatial)``, label and pred ``(1 or K, *spatial)``, prob ``(K, *spatial)``, with 2 or 3 spatial
    axes.
    Raises: ``ValueError`` naming the case if shapes differ, a label exceeds 255 or ``prob`` is not a probability.

    Example:
        >>> import tempfile
        >>> from ignite.engine import Engine
        >>> label = torch.ones(1, 4, 4)
        >>> case = {"image": torch.rand(1, 4, 4), "label": label, "pred": label, "prob": torch.full((2, 4, 4), 0.5)}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     evaluator = Engine(lambda engine, batch: batch)
        ...     SlicePreviewHandler(folder).attach(evaluator)
        ...     _ = evaluator.run([[case]])
        ...     int(np.load(f"{folder}/previews/case_0001.npz")["confidence"][0, 0])
        50
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        output_transform: Callable[[Any], Sequence[Any]] | None = None,
    ) -> None:
        self.folder = Path(output_dir) / "previews"
        self.output_transform = output_transform or from_engine(["image", "label", "pred", "prob"])
        self._num_cases = 0

    def attach(self, engine: Engine) -> None:
        """Writes after every iteration of ``engine``."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def _start(self, engine: Engine) -> None:
        self._num_cases = 0

    def __call__(self, engine: Engine) -> None:
        images, labels, predictions, probabilities = self.output_transform(engine.state.output)
        cases = cases_of_iteration(engine.state.batch, probabilities, labels, first=self._num_cases + 1)
        for case, image, prediction in zip(cases, images, predictions, strict=True):
            preview = cut_preview(case, as_plain_tensor(image), as_plain_tensor(prediction))
            save_preview(self.folder / f"{case.name}.npz", preview)
        self._num_cases += len(cases)


def cut_preview(case: Case, image: torch.Tensor, prediction: torch.Tensor) -> dict[str, NDArray[Any]]:
    """The arrays of a preview: one slice of a case, as the head of :class:`SlicePreviewHandler` says.

    Args:
        case: its prediction holds one probability a class.
        image: ``(C, *spatial)``.
        prediction: ``(1 or K, *spatial)`` class numbers or one-hot.
    """
    shapes = {"image": image.shape[1:], "pred": prediction.shape[1:], "prob": case.prediction.shape[1:]}
    if len(set(shapes.values())) != 1 or len(shapes["image"]) not in (2, 3):
        raise ValueError(
            f"case {case.name}: a preview expects image, label, pred and prob, channel first, on one grid of 2 or 3 "
            f"axes; got { ({name: tuple(shape) for name, shape in shapes.items()}) }; "
            "take the four from the same stage of the postprocessing"
        )
    truth, decision, grey = index_map(case.label).cpu(), index_map(prediction).cpu(), image[0].cpu()
    top, position = case.prediction.max(dim=0).values.cpu(), 0
    if truth.ndim == 3:
        position = _slice_index(truth, decision)
        truth, decision, grey, top = (part[..., position] for part in (truth, decision, grey, top))
    confidence = top.float().numpy()
    if not (np.isfinite(confidence).all() and confidence.min() >= -1e-4 and confidence.max() <= 1.0 + 1e-4):
        raise ValueError(
            f"case {case.name}: prob must lie in [0, 1], got {confidence.min():.4g} to {confidence.max():.4g}; "
            "copy the softmaxed prediction to 'prob' before AsDiscrete turns 'pred' into labels"
        )
    largest = max(int(truth.max()), int(decision.max()))
    if largest > 255:
        raise ValueError(f"case {case.name}: a preview keeps labels up to 255, got {largest}")
    return {
        "image": _grey_levels(grey.float().numpy()),
        "label": truth.round().numpy().astype(np.uint8),
        "prediction": decision.round().numpy().astype(np.uint8),
        "confidence": np.rint(100.0 * confidence.clip(0.0, 1.0)).astype(np.uint8),
        "spacing": np.asarray(case.spacing, dtype=np.float32),
        "slice_index": np.asarray(position, dtype=np.int32),
    }


def _slice_index(truth: torch.Tensor, decision: torch.Tensor) -> int:
    for labels in (truth, decision):
        foreground = (labels > 0).sum(dim=(0, 1))
        if int(foreground.max()) > 0:
            return int(foreground.argmax())
    return truth.shape[-1] // 2


def _grey_levels(values: NDArray[Any]) -> NDArray[np.uint8]:
    low, high = np.nanpercentile(values, _GREY_PERCENTILES) if np.isfinite(values).any() else (0.0, 1.0)
    scaled = (values - low) / max(float(high - low), 1e-8)
    return np.rint(255.0 * np.nan_to_num(scaled).clip(0.0, 1.0)).astype(np.uint8)


def save_preview(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Write the arrays of a preview in one step."""
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
