"""What overlapping windows average, against MONAI's own inferer and a closed form."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer, sliding_window_inference

from monai_calib.inferers import ProbabilitySlidingWindowInferer
from monai_calib.inferers.sliding_window import activate_in_slabs


def network(window: torch.Tensor) -> torch.Tensor:
    """Logits that depend on where the window lies, so that windows disagree where they overlap."""
    return torch.cat([window + 40 * window.mean(), window, -window], dim=1)


def volume(*shape: int) -> torch.Tensor:
    return 2 * torch.randn(2, 1, *shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(13, 11), (9, 10, 7)])
@pytest.mark.parametrize("mode", ["constant", "gaussian"])
def test_equals_monais_inferer_with_the_activation_before_or_after(shape, mode):
    options = {"sw_batch_size": 2, "overlap": 0.5, "mode": mode}
    roi = (5,) * len(shape)
    plain = SlidingWindowInferer(roi, **options)
    x = volume(*shape)
    logits = ProbabilitySlidingWindowInferer(roi, average="logits", **options)(x, network)
    mixture = ProbabilitySlidingWindowInferer(roi, average="probabilities", **options)(x, network)
    torch.testing.assert_close(logits, plain(x, network).softmax(1))
    torch.testing.assert_close(mixture, plain(x, lambda window: network(window).softmax(1)))
    assert (logits - mixture).abs().max() > 0.05
    for prob in (logits, mixture):
        torch.testing.assert_close(prob.sum(1), torch.ones_like(prob[:, 0]))


def test_without_overlap_the_two_agree():
    x = volume(8, 8)
    one, other = (
        ProbabilitySlidingWindowInferer((4, 4), average=average, overlap=0.0)(x, network)
        for average in ("logits", "probabilities")
    )
    torch.testing.assert_close(one, other)


def test_sigmoid():
    x = volume(9, 9)
    found = ProbabilitySlidingWindowInferer((5, 5), average="logits", activation="sigmoid", overlap=0.5)(x, network)
    torch.testing.assert_close(found, sliding_window_inference(x, (5, 5), 1, network, overlap=0.5).sigmoid())


def test_headers_and_devices_are_kept():
    x = MetaTensor(volume(9, 9, 9), meta={"filename_or_obj": "scan.nii.gz"})
    found = ProbabilitySlidingWindowInferer((5, 5, 5), average="logits", device="cpu")(x, network)
    assert isinstance(found, MetaTensor)
    assert found.meta["filename_or_obj"] == "scan.nii.gz"
    torch.testing.assert_close(found.as_tensor().sum(1), torch.ones(2, 9, 9, 9))


def test_half_precision_networks_give_single_precision_probabilities():
    found = ProbabilitySlidingWindowInferer((5, 5))(volume(9, 9), lambda window: network(window).half())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.sum(1), torch.ones(2, 9, 9))


def test_slabs_equal_the_whole(monkeypatch):
    logits = torch.randn(2, 3, 17, 5, 4)
    expected = logits.softmax(1)
    monkeypatch.setattr("monai_calib.inferers.sliding_window._SLAB_VOXELS", 60)  # slabs of 3 rows, and one of 2
    found = activate_in_slabs(logits)
    assert found is logits
    torch.testing.assert_close(found, expected)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="average: expected 'probabilities' or 'logits', got 'mean'"):
        ProbabilitySlidingWindowInferer((4, 4), average="mean")
    with pytest.raises(ValueError, match="activation: expected"):
        ProbabilitySlidingWindowInferer((4, 4), activation="relu")
    with pytest.raises(TypeError, match="one tensor of logits, got tuple"):
        ProbabilitySlidingWindowInferer((4, 4))(volume(8, 8), lambda window: (window, window))
