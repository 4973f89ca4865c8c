"""Evaluated runs for the report's tests: small synthetic volumes through the real handlers, no training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.handlers import MeanDice, MetricsSaver, from_engine
from monai.networks.utils import one_hot

from monai_calib.handlers.calibration import CalibrationHandler
from monai_calib.handlers.preview import SlicePreviewHandler
from monai_calib.handlers.surface import SurfaceHandler

CLASS_NAMES = ("background", "anterior", "posterior")
GRID = (24, 28, 12)


def case(number: int) -> dict[str, MetaTensor]:
    """A bent two-part ellipsoid whose size depends on the case, and a grey image of it."""
    generator = torch.Generator().manual_seed(number)
    axes = torch.meshgrid(*(torch.linspace(-1, 1, size) for size in GRID), indexing="ij")
    x, y, z = (axis + 0.25 * shift for axis, shift in zip(axes, torch.randn(3, generator=generator), strict=True))
    inside = (x + 0.4 * y.square()).square() / 0.18 + y.square() / 0.5 + z.square() / 0.4 < 0.8 + 0.02 * number
    label = torch.where(inside, torch.where(y > 0.1, 1.0, 2.0), 0.0)
    image = 100 * (label > 0) + 20 * label + 15 * torch.randn(GRID, generator=generator)
    affine = torch.diag(torch.tensor([1.0, 1.0, 2.0, 1.0], dtype=torch.float64))
    meta = {"filename_or_obj": f"/secret/hospital/case_{number:03d}.nii.gz"}
    return {
        key: MetaTensor(v[None], affine=affine, meta=dict(meta)) for key, v in {"image": image, "label": label}.items()
    }


def prediction(label: torch.Tensor, noise: float, temperature: float, seed: int, missed: int | None) -> torch.Tensor:
    """Probabilities of a network whose logits are the blurred truth plus noise, sharpened by ``1 / temperature``."""
    generator = torch.Generator().manual_seed(seed)
    truth = one_hot(label, len(CLASS_NAMES), dim=0)[None]
    blurred = torch.nn.functional.avg_pool3d(truth, 3, stride=1, padding=1, count_include_pad=False)[0]
    rough = torch.nn.functional.avg_pool3d(torch.randn(1, *truth.shape[1:], generator=generator), 3, 1, 1)[0]
    logits = (blurred.clamp(min=0.01).log() + 3 * noise * rough) / temperature
    if missed is not None:
        logits[missed] = -12.0
    return torch.softmax(logits, dim=0)


def write_run(
    folder: Path,
    settings: Mapping[str, object],
    numbers: Sequence[int] = range(8),
    noise: float = 1.0,
    temperature: float = 1.0,
    missed: int | None = None,
    protocols: Sequence[str] = ("paper", "by_region"),
    class_names: Sequence[str] = CLASS_NAMES,
) -> Path:
    """Evaluates a made-up network on the cases of these numbers, as a bundle's evaluation would."""
    seed = int(str(settings.get("seed", 0)))

    def step(engine: Engine, batch: list[dict[str, MetaTensor]]) -> list[dict[str, torch.Tensor]]:
        outputs = []
        for item in batch:
            number = engine.state.iteration - 1
            prob = prediction(item["label"].as_tensor(), noise, temperature, 1000 * seed + number, missed)
            pred = one_hot(prob.argmax(dim=0, keepdim=True), len(CLASS_NAMES), dim=0)
            outputs.append({**item, "prob": MetaTensor(prob, meta=item["image"].meta), "pred": pred})
        return outputs

    evaluator = Engine(step)
    output = folder / "eval"
    hot = lambda out: ([o["pred"] for o in out], [one_hot(o["label"].as_tensor(), 3, dim=0) for o in out])  # noqa: E731
    MeanDice(include_background=False, output_transform=hot).attach(evaluator, "mean_dice")
    SurfaceHandler(len(CLASS_NAMES), output_transform=from_engine(["pred", "label"])).attach(evaluator)
    CalibrationHandler(3, protocols, output_dir=output, class_names=class_names, run=settings).attach(evaluator)
    SlicePreviewHandler(output).attach(evaluator)
    MetricsSaver(
        str(output), "*", "*", batch_transform=lambda batch: [item["image"].meta for item in batch], delimiter=","
    ).attach(evaluator)
    evaluator.run([[case(number)] for number in numbers])
    return folder
