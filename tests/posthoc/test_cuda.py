"""Every correction is fitted on a GPU as on the CPU, and stays on the device of its input."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cases import drawn_cases

from monai_calib.posthoc import METHODS, NoCorrection, PerChannel, answer, build_calibrator, fit, fit_federated

ARGUMENTS = {"local_temperature": {"epochs": 2}}


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_fit_on_cuda_is_that_on_the_cpu(method: str) -> None:
    cases = [replace(case, image=case.logits[:1]) for case in drawn_cases(2)]
    on_device = [
        replace(case, logits=case.logits.cuda(), label=case.label.cuda(), image=case.logits[:1].cuda())
        for case in cases
    ]
    here, there = (build_calibrator(method, 3, "all", ARGUMENTS.get(method)) for _ in range(2))
    fit([here], cases)
    fit([there], on_device)
    expected = here.apply(cases[0].logits[None], cases[0].logits[None, :1]).softmax(1)
    found = there.apply(on_device[0].logits[None], on_device[0].logits[None, :1]).softmax(1)
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), expected, rtol=0.02, atol=0.005)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("method", ["vector", "isotonic"])
def test_sigmoid_channels_fitted_on_cuda_go_with_their_input(method: str) -> None:
    cases = [replace(case, logits=case.logits.cuda(), label=case.label.cuda()) for case in drawn_cases(2, 2)]
    part = build_calibrator(method, 2, "all")
    fit([part], cases)
    both = PerChannel({"fitted": part, "as it is": NoCorrection(2)})
    z = torch.randn(1, 2, 4, 4, 4)
    found = both.apply(z.cuda())
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), both.apply(z), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[:, 1].cpu(), z[:, 1])


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("method", ["temperature", "vector", "boundary_temperature", "isotonic"])
def test_sites_with_and_without_a_gpu_fit_one_correction(method: str) -> None:
    cases = drawn_cases(2)
    on_device = replace(cases[1], logits=cases[1].logits.cuda(), label=cases[1].label.cuda())
    pooled, federated = (build_calibrator(method, 3) for _ in range(2))
    fit([pooled], cases)
    sites = {"cpu": cases[:1], "gpu": [on_device], "none": []}
    fit_federated(federated, lambda asked: {name: answer(asked, theirs) for name, theirs in sites.items()})
    expected, found = (one.apply(cases[0].logits[None]).softmax(1) for one in (pooled, federated))
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.005)
