"""A correction fitted by sums of several sites is that of all their cases in one place."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from cases import all_voxels, drawn_cases
from scipy.optimize import minimize, minimize_scalar

from monai_calib.posthoc import (
    METHODS,
    BoundaryTemperature,
    Calibrator,
    LocalTemperature,
    LogitCase,
    TemperatureScaling,
    VectorScaling,
    answer,
    build_calibrator,
    fit,
    fit_federated,
)

Sites = Mapping[str, Sequence[LogitCase]]
FEDERATED = sorted(set(METHODS) - {"local_temperature"})


def ask_by_mail(sites: Sites) -> Any:
    """Questions and answers go as JSON, as they would over a network."""

    def ask(asked: dict[str, Any]) -> dict[str, Any]:
        answers = {}
        for name, cases in sites.items():
            answers[name] = json.loads(json.dumps(answer(json.loads(json.dumps(asked)), cases)))
        return answers

    return ask


def unequal_sites() -> dict[str, list[LogitCase]]:
    """A site with most cases, one with a small one of other calibration, one with none."""
    return {
        "north": drawn_cases(3, temperature=2.0),
        "south": drawn_cases(1, size=7, temperature=0.7, seed=5),
        "new": [],
    }


def sites_of_classes() -> dict[str, list[LogitCase]]:
    """Sites whose labels share no class: 0 and 1 here, 2 there, and a class 3 nowhere."""
    cases = drawn_cases(2, num_classes=4, temperature=1.5, seed=2)
    first, second = cases
    few, other = first.label % 2, torch.full_like(second.label, 2)
    return {
        "a": [LogitCase("a", first.logits, few, spacing=first.spacing)],
        "b": [LogitCase("b", second.logits, other, spacing=second.spacing)],
    }


def together(sites: Sites) -> list[LogitCase]:
    return [case for cases in sites.values() for case in cases]


@pytest.mark.filterwarnings("ignore::monai_calib.posthoc.CalibratorWarning")
@pytest.mark.parametrize("make", [unequal_sites, sites_of_classes])
@pytest.mark.parametrize("method", FEDERATED)
def test_every_method_ends_where_it_ends_on_all_cases_in_one_place(method: str, make: Any) -> None:
    sites = make()
    classes = len(sites[next(iter(sites))][0].logits)
    region = "union" if method == "vector" else None
    federated, pooled = (build_calibrator(method, classes, region) for _ in range(2))
    fit_federated(federated, ask_by_mail(sites))
    fit([pooled], together(sites))
    torch.testing.assert_close(federated.head.state_dict(), pooled.head.state_dict(), rtol=1e-6, atol=1e-6)
    record, expected = federated.record, pooled.record
    assert record.nll_before == pytest.approx(expected.nll_before, rel=1e-12)
    for name in ("status", "message", "region", "cases", "voxels", "passes", "absent_classes"):
        assert getattr(record, name) == getattr(expected, name), name
    assert Calibrator.from_json(federated.to_json()).settings() == pooled.settings()


def test_temperature_is_the_optimum_of_the_likelihood_of_all_voxels() -> None:
    sites = unequal_sites()
    scaling = TemperatureScaling(3, "boundary:1mm")
    fit_federated(scaling, ask_by_mail(sites))
    logits, label = (part.numpy() for part in all_voxels(together(sites), "boundary:1mm"))

    def nll(log_t: float) -> float:
        z = logits / math.exp(log_t)
        top = z.max(1, keepdims=True)
        return float(np.mean(np.log(np.exp(z - top).sum(1)) + top[:, 0] - z[np.arange(len(z)), label]))

    best = minimize_scalar(nll, bounds=(-3, 3), method="bounded", options={"xatol": 1e-10}).x
    assert scaling.temperature == pytest.approx(math.exp(best), rel=1e-5)
    of_one_site = TemperatureScaling(3, "boundary:1mm")
    fit([of_one_site], sites["north"])
    assert abs(of_one_site.temperature - scaling.temperature) > 0.01  # or the other site would have no say


def test_vector_scaling_is_the_optimum_of_the_likelihood_of_all_voxels() -> None:
    sites = unequal_sites()
    scaling = VectorScaling(3, "all")
    fit_federated(scaling, ask_by_mail(sites))
    logits, label = (part.numpy() for part in all_voxels(together(sites), "all"))
    hit = np.eye(3)[label]

    def value_and_gradient(theta: np.ndarray) -> tuple[float, np.ndarray]:
        z = logits * theta[:3] + theta[3:]
        z = z - z.max(1, keepdims=True)
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        error = (p - hit) / len(z)
        return float(-np.mean(np.log(p[hit > 0]))), np.concatenate([(error * logits).sum(0), error.sum(0)])

    best = minimize(value_and_gradient, np.r_[np.ones(3), np.zeros(3)], jac=True, options={"gtol": 1e-10})
    found = np.concatenate([scaling.head.weight.diagonal().numpy(), scaling.head.bias.numpy()])
    assert value_and_gradient(found)[0] == pytest.approx(best.fun, abs=1e-8)
    np.testing.assert_allclose(found[:3], best.x[:3], atol=1e-3)
    np.testing.assert_allclose(np.diff(found[3:]), np.diff(best.x[3:]), atol=1e-3)  # a common shift is nothing


def test_slices_are_seen_at_the_sites_as_in_one_place() -> None:
    sites = unequal_sites()
    federated, pooled = (BoundaryTemperature(3, knots=(-2.0, 2.0)) for _ in range(2))
    federated.slice_axis = pooled.slice_axis = 2
    fit_federated(federated, ask_by_mail(sites))
    fit([pooled], together(sites))
    torch.testing.assert_close(federated.head.state_dict(), pooled.head.state_dict(), rtol=1e-6, atol=1e-6)
    assert federated.spacing == (1.0, 1.0)


@pytest.mark.parametrize("method", FEDERATED)
def test_an_answer_holds_as_many_numbers_whatever_the_number_of_voxels(method: str) -> None:
    many, few = drawn_cases(2, size=15), drawn_cases(1, size=4)

    def shapes(found: dict[str, Any]) -> dict[str, torch.Size]:
        assert set(found) == {"cases", "voxels", "settings", "sums"}
        return {name: torch.tensor(value).shape for name, value in found["sums"].items()}

    def ask(asked: dict[str, Any]) -> dict[str, Any]:
        found = answer(asked, many)
        assert shapes(found) == shapes(answer(asked, few))
        assert "case 0" not in json.dumps([asked, found])
        return {"a": found}

    fit_federated(build_calibrator(method, 3), ask)


def test_what_cannot_be_summed_is_refused() -> None:
    with pytest.raises(ValueError, match="local_temperature: the fit is no sum over voxels"):
        fit_federated(LocalTemperature(3), ask_by_mail({"a": drawn_cases(1, size=5)}))


def test_a_site_that_loses_a_case_on_the_way_is_named() -> None:
    cases = drawn_cases(2)
    shrinking = iter([cases, cases[:1]])
    with pytest.raises(ValueError, match=r"pass 2: expected the cases and voxels of the first, .*\(2, .*got .*\(1, "):
        fit_federated(TemperatureScaling(3), lambda asked: {"a": answer(asked, next(shrinking))})


def test_nothing_to_fit_on_is_told() -> None:
    with pytest.raises(ValueError, match="no voxel of 0 cases at sites a, b lies in region all"):
        fit_federated(TemperatureScaling(3, "all"), ask_by_mail({"a": [], "b": []}))
    with pytest.raises(ValueError, match="pass 1: expected answers of the sites, got none"):
        fit_federated(TemperatureScaling(3, "all"), lambda asked: {})


def test_sites_of_different_voxel_size_have_no_common_distances() -> None:
    north = drawn_cases(1)
    south = [LogitCase("s", north[0].logits, north[0].label, spacing=(2.0, 1.0, 1.0))]
    with pytest.raises(ValueError, match=r"site south: voxels of \(2.0, 1.0, 1.0\) mm, but the others have"):
        fit_federated(BoundaryTemperature(3), ask_by_mail({"north": north, "south": south}))
    counted_alike = BoundaryTemperature(3, spacing=(1.0, 1.0, 1.0))
    fit_federated(counted_alike, ask_by_mail({"north": north, "south": south}))
    assert counted_alike.record.cases == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found["sums"].pop("count"), "site a: expected sums of shapes"),
        (lambda found: found["sums"].update(more=1.0), "site a: expected sums of shapes"),
        (lambda found: found["sums"].update(class_voxels=[1, 2]), "site a: expected sums of shapes"),
        (lambda found: found["sums"]["derivatives"][0].__setitem__(0, math.nan), "site a: expected finite sums"),
        (lambda found: found["settings"].update(region="union"), "site a: expected temperature with"),
    ],
)
def test_a_wrong_answer_is_refused_by_the_name_of_its_site(change: Any, message: str) -> None:
    cases = drawn_cases(1)

    def ask(asked: dict[str, Any]) -> dict[str, Any]:
        found = answer(asked, cases)
        change(found)
        return {"a": found}

    with pytest.raises(ValueError, match=message):
        fit_federated(TemperatureScaling(3), ask)


def test_a_wrong_question_is_refused() -> None:
    with pytest.raises(ValueError, match="question: expected format"):
        answer({"format": "other"}, [])
    wrong = {"format": "monai_calib/question/1", "settings": {"num_classes": 3, "region": "all"}, "slice_axis": None}
    with pytest.raises(ValueError, match="unknown method 'magic'"):
        answer({**wrong, "method": "magic", "place": {}}, [])
    with pytest.raises(ValueError, match="isotonic: expected no parameters of a pass, got temperature"):
        answer({**wrong, "method": "isotonic", "place": {"temperature": 1.0}}, [])
    with pytest.raises(ValueError, match="case case 0: expected 4 channels of logits, got 3"):
        answer(
            {**wrong, "method": "isotonic", "place": {}, "settings": {"num_classes": 4, "region": "all"}},
            drawn_cases(1),
        )


def test_a_site_can_refuse_to_tell_of_few_patients() -> None:
    one = [LogitCase(name, torch.zeros(2, 3), torch.zeros(3), subject="s") for name in ("a", "b")]
    asked = {"format": "monai_calib/question/1", "method": "isotonic", "slice_axis": None, "place": {}}
    asked["settings"] = {"num_classes": 2, "region": "all"}
    with pytest.raises(ValueError, match="subjects: expected at least 2 for sums that may leave, got 1"):
        answer(asked, one, least_subjects=2)
    assert answer(asked, [], least_subjects=2)["cases"] == 0
    one[1].subject = "t"
    assert answer(asked, one, least_subjects=2)["voxels"] == 6
