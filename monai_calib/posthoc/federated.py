"""One correction fitted on the cases of several sites, of which only sums leave.

A fit needs of the cases no more than sums over their voxels: the likelihood, its gradient and its Hessian at the
parameters of each pass, or a histogram. Sums of sites add up. So a server asks, each site answers with its sums at
those parameters, and the server draws the conclusion, pass by pass: the fit ends where that on all cases in one place
would have. Images, labels, logits and names of cases stay where they are.

Questions and answers are plain values, fit for JSON; how they travel is the caller's affair. Of what one site answers
the server needs the total alone, so that secure aggregation can be put between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from monai_calib.posthoc.base import Calibrator
from monai_calib.posthoc.methods import build_calibrator
from monai_calib.posthoc.stream import LogitCase
from monai_calib.words import counted

__all__ = ["answer", "fit_federated", "question"]

_FORMAT = "monai_calib/question/1"


def question(calibrator: Calibrator) -> dict[str, Any]:
    """The question of the next pass: which method, and the parameters at which its sums are taken.

    Example:
        >>> from monai_calib.posthoc import HistogramBinning
        >>> asked = question(HistogramBinning(2, region="union"))
        >>> asked["method"], asked["settings"]["region"]
        ('histogram_binning', 'union')
    """
    return {
        "format": _FORMAT,
        "method": calibrator.method,
        "settings": calibrator.settings(),
        "slice_axis": calibrator.slice_axis,
        "place": calibrator.place(),
    }


def answer(asked: Mapping[str, Any], cases: Iterable[LogitCase], least_subjects: int = 1) -> dict[str, Any]:
    """The sums of one site: numbers of cases and voxels, and a fixed number of sums over these voxels.

    Args:
        asked: what :func:`question` gave.
        cases: of this site, the same ones each time; it may have none.
        least_subjects: refuse to answer for fewer. Sums over one patient are that patient's: the number of voxels of
            a class is a volume.

    Raises: ``ValueError`` for a question of another format, an unknown method, fewer subjects, or a broken case.

    Example:
        >>> from monai_calib.posthoc import TemperatureScaling
        >>> case = LogitCase("a", torch.tensor([[2.0, 2.0], [0.0, 0.0]]), torch.tensor([0, 1]))
        >>> found = answer(question(TemperatureScaling(2, region="all")), [case])
        >>> found["voxels"], found["sums"]["class_voxels"]
        (2, [1, 1])
    """
    if asked.get("format") != _FORMAT:
        raise ValueError(f"question: expected format {_FORMAT!r}, got {asked.get('format')!r:.100}")
    settings = dict(asked["settings"])
    calibrator = build_calibrator(asked["method"], settings.pop("num_classes"), settings.pop("region"), settings)
    calibrator.slice_axis = asked["slice_axis"]
    calibrator.go_to(asked["place"])
    count, voxels, subjects = 0, 0, set()
    for case in cases:
        calibrator.take_in(case)
        count += 1
        voxels += case.count(calibrator.region)
        subjects.add(case.subject)
    if 0 < len(subjects) < least_subjects:
        raise ValueError(
            f"subjects: expected at least {least_subjects} for sums that may leave, got {len(subjects)}. "
            "Calibrate on more cases, or leave this site out."
        )
    sums = {name: value.tolist() for name, value in calibrator.sums().items()}
    return {"cases": count, "voxels": voxels, "settings": calibrator.settings(), "sums": sums}


def fit_federated(
    calibrator: Calibrator,
    ask: Callable[[dict[str, Any]], Mapping[str, Mapping[str, Any]]],
    max_passes: int = 40,
) -> None:
    """Fit a correction on the cases of all sites, by questions.

    Args:
        calibrator: of any method whose fit is a sum over voxels, which all but ``local_temperature`` are; fitted in
            place.
        ask: hands a question to every site and returns their answers by the site's name; each site gets its answer
            from :func:`answer`. The same sites must answer every time.
        max_passes: as in :func:`~monai_calib.posthoc.base.fit`.

    Raises: ``ValueError`` naming the site for answers that do not fit the question, or that are of other cases than
        those before; and if no case of any site has a voxel in the region.

    Example:
        >>> from monai_calib.posthoc import TemperatureScaling
        >>> logits = torch.tensor([[2.0, 2.0], [0.0, 0.0]])  # sure to 0.88, right to 0.75
        >>> sites = {
        ...     "north": [LogitCase("a", logits, torch.tensor([0, 0]))],
        ...     "south": [LogitCase("b", logits, torch.tensor([0, 1]))],
        ... }
        >>> scaling = TemperatureScaling(2, region="all")
        >>> fit_federated(scaling, lambda asked: {name: answer(asked, cases) for name, cases in sites.items()})
        >>> round(scaling.temperature, 4), scaling.record.passes  # 2 / log 3, as if the cases lay side by side
        (1.8205, 2)
    """
    calibrator.sums()  # a method that has none is refused before anybody is asked
    first: dict[str, tuple[int, int]] = {}
    for number in range(1, max_passes + 1):
        answers = ask(question(calibrator))
        if not answers:
            raise ValueError(f"pass {number}: expected answers of the sites, got none. Look into their logs.")
        seen = {site: (int(found["cases"]), int(found["voxels"])) for site, found in answers.items()}
        first = first or seen
        if seen != first:
            raise ValueError(f"pass {number}: expected the cases and voxels of the first, {first}, got {seen}")
        cases, voxels = (sum(column) for column in zip(*seen.values(), strict=True))
        if not voxels:
            raise ValueError(
                f"no voxel of {counted(cases, 'case')} at sites {', '.join(seen)} lies in region {calibrator.region}: "
                "there is nothing to fit on. Check that they hold foreground, or choose region='all'"
            )
        for site, found in answers.items():
            if found["cases"]:
                calibrator.learn(found["settings"], f"site {site}")
            calibrator.add_sums(_tensors(found["sums"], calibrator.sums(), site))
        record = calibrator.record
        record.cases, record.voxels, record.passes = cases, voxels, number
        if calibrator.end_pass():
            return
    calibrator.warn(
        "pass limit", f"not finished after {counted(max_passes, 'pass')} over the sites; kept the best so far"
    )


def _tensors(sums: Mapping[str, Any], like: Mapping[str, Tensor], site: str) -> dict[str, Tensor]:
    """The sums of an answer, of the kinds and shapes of one's own."""
    found = {name: torch.as_tensor(sums[name], dtype=own.dtype) for name, own in like.items() if name in sums}
    expected = {name: tuple(own.shape) for name, own in like.items()}
    got = {name: tuple(value.shape) for name, value in found.items()}
    if got != expected or set(sums) != set(expected):
        raise ValueError(f"site {site}: expected sums of shapes {expected}, got {got} of {sorted(sums)}")
    broken = [name for name, value in found.items() if not bool(value.isfinite().all())]
    if broken:
        raise ValueError(f"site {site}: expected finite sums, got NaN or infinity in {', '.join(broken)}")
    return found
