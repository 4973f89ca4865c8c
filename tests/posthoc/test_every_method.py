"""What holds for every method: in 2D and 3D, on data that determine a calibration and on data that do not."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from cases import draw
from monai.inferers import SliceInferer
from torch import Tensor, nn

from monai_calib.metrics.evaluated import read_evaluated
from monai_calib.posthoc import METHODS, Calibrator, CalibratorWarning, LogitCase, build_calibrator, calibrate, fit

EVERY = sorted(METHODS)
# Four of the default eight passes of descent are enough to see that nothing breaks.
ARGUMENTS = {"local_temperature": {"epochs": 4}}


def calibrator_of(method: str, num_classes: int = 3, region: str | None = None) -> Calibrator:
    return build_calibrator(method, num_classes, region, ARGUMENTS.get(method))


def blob_cases(dims: int, num_classes: int = 3, count: int = 2) -> list[LogitCase]:
    """Nested balls of the classes with noise, three times as sure as they should be."""
    generator = torch.Generator().manual_seed(0)
    size = 40 if dims == 2 else 16
    axis = torch.linspace(-1, 1, size)
    radius = torch.stack(torch.meshgrid(*[axis] * dims, indexing="ij")).square().sum(0).sqrt()
    centres = torch.arange(num_classes).flip(0) / (num_classes - 1)
    cases = []
    for i in range(count):
        noise = torch.randn(num_classes, *radius.shape, generator=generator)
        true = -8 * (radius - centres.view(-1, *[1] * dims)).abs() + noise
        label = draw(true, generator)
        cases.append(LogitCase(f"case {i}", 3 * true, label, image=radius[None], spacing=[1.0] * dims))
    return cases


def mean_nll(calibrator: Calibrator, cases: list[LogitCase]) -> float:
    values = []
    for case in cases:
        assert case.image is not None
        logits = calibrator.apply(case.logits[None], case.image[None])
        values.append(torch.nn.functional.cross_entropy(logits.double(), case.label[None], reduction="none").flatten())
    return float(torch.cat(values).mean())


def probabilities(calibrator: Calibrator, case: LogitCase) -> Tensor:
    image = torch.zeros_like(case.logits[:1]) if case.image is None else case.image
    return calibrator.apply(case.logits[None], image[None]).softmax(1)[0]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("method", EVERY)
def test_over_confidence_is_corrected_and_labels_stay_where_they_should(method: str, dims: int) -> None:
    cases = blob_cases(dims)
    calibrator = calibrator_of(method, region="all")
    before = mean_nll(calibrator_of("temperature"), cases)
    fit([calibrator], cases)
    # Far from any boundary of so small a volume every voxel may be right.
    allowed = {"converged", "at bound"} if method.startswith("boundary") else {"converged"}
    assert calibrator.record.status in allowed
    assert calibrator.record.nll_before == pytest.approx(before, rel=1e-3)  # histograms know it to their bins
    assert mean_nll(calibrator, cases) < before - 0.1
    for case in cases:
        found = probabilities(calibrator, case)
        assert found.shape == case.logits.shape
        torch.testing.assert_close(found.sum(0), torch.ones_like(found[0]))
        if calibrator.keeps_argmax:
            assert torch.equal(found.argmax(0), case.logits.argmax(0))
    again = Calibrator.from_json(json.loads(json.dumps(calibrator.to_json(), allow_nan=False)))
    torch.testing.assert_close(probabilities(again, cases[0]), probabilities(calibrator, cases[0]))


def test_temperatures_keep_every_label() -> None:
    assert {name for name, kind in METHODS.items() if kind.keeps_argmax} == {
        "temperature",
        "boundary_temperature",
        "local_temperature",
    }


def degenerate_cases() -> dict[str, tuple[list[LogitCase], str]]:
    """Data that leave a calibration open, and what may be said of them; nothing need be said where it ends in "|"."""
    label = torch.arange(64).reshape(8, 8) % 2
    one_hot = torch.nn.functional.one_hot(label, 3).movedim(-1, 0).float()
    noisy = 3 * torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))
    background = torch.tensor([9.0, 0.0, 0.0]).view(3, 1, 1).expand(3, 8, 8)

    def case(logits: Tensor, truth: Tensor = label) -> list[LogitCase]:
        return [LogitCase("a", logits, truth, image=torch.zeros(1, 8, 8), spacing=(1.0, 1.0))]

    return {
        "constant logits": (case(torch.full((3, 8, 8), 2.5)), "equal for all classes|bears class 2"),
        "separable": (case(40 * one_hot), "separable|bears class 2"),
        "always wrong": (case(-40 * one_hot), "tell nothing of the labels|bears class 2"),
        "a class without a label": (case(noisy), "bears class 2|end of th|no better than one for all|"),
        "one label everywhere, foreseen": (case(background, torch.zeros(8, 8)), "separable|bears class 1, 2"),
        "one label everywhere, by chance": (case(noisy, torch.ones(8, 8)), "tell nothing|bears class 0, 2"),
    }


@pytest.mark.parametrize("data", degenerate_cases())
@pytest.mark.parametrize("method", EVERY)
def test_data_that_determine_nothing_leave_finite_probabilities_and_a_word(method: str, data: str) -> None:
    cases, messages = degenerate_cases()[data]
    calibrator = calibrator_of(method, region="all")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CalibratorWarning)
        fit([calibrator], cases)
    said = [str(warning.message) for warning in caught if warning.category is CalibratorWarning]
    assert said or messages.endswith("|")
    for message in said:
        assert any(part in message for part in messages.strip("|").split("|")), message
        assert calibrator.record.message in message
    for value in calibrator.head.state_dict().values():
        assert value.isfinite().all()
    found = probabilities(calibrator, cases[0])
    assert found.isfinite().all()
    torch.testing.assert_close(found.sum(0), torch.ones(8, 8))
    json.dumps(calibrator.to_json(), allow_nan=False)


@pytest.mark.parametrize("method", EVERY)
def test_no_case_and_an_empty_region_are_errors(method: str) -> None:
    with pytest.raises(ValueError, match="gave no case to calibrate on"):
        fit([calibrator_of(method)], [])
    background = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1).expand(3, 4, 4)
    empty = LogitCase("a", background, torch.zeros(4, 4), torch.zeros(1, 4, 4), (1, 1))
    with pytest.raises(ValueError, match="no voxel of 1 case lies in region union"):
        fit([calibrator_of(method, region="union")], [empty])


@pytest.mark.parametrize("method", EVERY)
def test_a_case_with_an_empty_region_among_others_changes_nothing(method: str) -> None:
    cases = blob_cases(2)
    first = cases[0]
    empty = torch.tensor([30.0, 0.0, 0.0]).view(3, 1, 1).expand_as(first.logits)
    none = LogitCase("none", empty, torch.zeros(first.label.shape), first.image, first.spacing)
    alone, with_none = calibrator_of(method, region="union"), calibrator_of(method, region="union")
    fit([alone], cases)
    fit([with_none], [*cases, none])
    torch.testing.assert_close(with_none.head.state_dict(), alone.head.state_dict())


@pytest.mark.parametrize("method", EVERY)
def test_voxels_outside_the_region_have_no_say(method: str) -> None:
    cases = blob_cases(2)
    others = []
    for case in cases:
        label = case.label.clone()
        far = case.label == 0
        label[far] = 1 + torch.arange(int(far.sum())) % 2
        others.append(LogitCase(case.name, case.logits, label, case.image, case.spacing, data={"near": ~far}))
    for case in cases:
        case.data = {"near": case.label != 0}
    one, other = calibrator_of(method, region="mask:near"), calibrator_of(method, region="mask:near")
    fit([one], cases)
    fit([other], others)
    torch.testing.assert_close(one.head.state_dict(), other.head.state_dict())


class SliceNetwork(nn.Module):
    """Logits of two classes that depend on the slice alone."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        return self.convolution(image)


@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize("method", ["boundary_temperature", "boundary_vector", "local_temperature", "isotonic"])
def test_a_head_of_a_2d_network_is_fitted_as_it_acts_inside_it(method: str, axis: int, tmp_path: Path) -> None:
    """The exported network, run slice by slice, gives the volume that the fit has seen calibrated."""
    torch.manual_seed(0)
    network = SliceNetwork()
    with torch.no_grad():
        network.convolution.weight.mul_(6)
    shape = [12, 12, 12]
    shape[axis] = 7
    inferer = SliceInferer(roi_size=(12, 12), sw_batch_size=4, spatial_dim=axis)
    image = torch.randn(2, 1, 1, *shape)
    with torch.no_grad():
        batches = [
            {"image": x, "label": draw(inferer(x, network)[0] / 2, torch.Generator().manual_seed(1))[None, None]}
            for x in image
        ]
    folders = {"models_dir": tmp_path / "models", "output_dir": tmp_path / "eval"}
    made = calibrate(
        network,
        batches,
        inferer,
        num_classes=2,
        method=method,
        force=True,
        method_args=ARGUMENTS.get(method),
        region="all",
        spacing=(1, 1, 1),
        **folders,
    )
    with torch.no_grad():
        found = inferer(image[0], torch.jit.load(made.model_path)).softmax(1)
        expected = made.calibrator.apply(inferer(image[0], network), image[0]).softmax(1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    again = Calibrator.from_json(json.loads((tmp_path / "models" / "calibration_parameters.json").read_text()))
    with torch.no_grad():
        torch.testing.assert_close(again.apply(inferer(image[0], network), image[0]).softmax(1), expected)
    before, after = (read_evaluated(made.evaluated[name]).summary["nll_all_micro"] for name in ("as_trained", method))
    with torch.no_grad():
        losses = [nn.functional.cross_entropy(inferer(b["image"], network), b["label"][0]) for b in batches]
    assert before == pytest.approx(float(torch.stack(losses).mean()), rel=1e-4)
    assert after < before
