"""Sigmoid channels: each is a problem of two classes, corrected by itself, in one network and one file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.inferers import SliceInferer, SlidingWindowInferer
from monai.networks.nets import DynUNet, UNet
from torch import Tensor, nn

from monai_calib.inferers import FlipNetwork
from monai_calib.metrics.evaluated import read_evaluated
from monai_calib.posthoc import (
    Calibrated,
    Calibrator,
    KeptCases,
    LogitCase,
    LogitStream,
    PerChannel,
    RefusedCorrectionError,
    SigmoidStream,
    build_calibrator,
    calibrate,
    evaluate_corrections,
    fit,
    posthoc_settings,
)
from monai_calib.report import write_report

NAMES = ["core", "whole", "enhancing"]
METHODS = ["temperature", "vector", "isotonic", "boundary_temperature"]
Batches = list[dict[str, Any]]


def unet(channels: int = 3, dims: int = 3) -> UNet:
    torch.manual_seed(0)
    return UNet(dims, in_channels=1, out_channels=channels, channels=(4, 8), strides=(2,), num_res_units=1).eval()


def drawn(network: nn.Module, sharper: list[float], count: int = 3, size: int = 8, seed: int = 1) -> Batches:
    """Images, and labels drawn from the sigmoid of the network's logits divided by a number a channel."""
    generator, batches = torch.Generator().manual_seed(seed), []
    for number in range(count):
        image = torch.randn(1, 1, size, size, size, generator=generator)
        with torch.no_grad():
            probability = (network(image) / torch.tensor(sharper).reshape(1, -1, 1, 1, 1)).sigmoid()
        label = torch.bernoulli(probability, generator=generator).to(torch.uint8)
        batches.append({"image": image, "label": label, "case": [f"p{number}"]})
    return batches


def two(z: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(z), z], 1)


def run(folder: Path, network: nn.Module, batches: Batches, **more: Any) -> Calibrated:
    settings = {"num_classes": 3, "activation": "sigmoid", "models_dir": folder, "spacing": (1, 1, 1), "force": True}
    return calibrate(network, batches, **{**settings, **more})


def grey(weights: list[float]) -> nn.Module:
    network = nn.Conv3d(1, len(weights), 1)
    with torch.no_grad():
        network.weight.copy_(torch.tensor(weights).reshape(network.weight.shape))
        network.bias.zero_()
    return network


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("method", METHODS)
def test_the_file_computes_what_the_method_makes_of_each_channel_alone(
    method: str, channels: int, tmp_path: Path
) -> None:
    batches = drawn(unet(channels), [3.0, 1.5, 0.7][:channels])
    result = run(tmp_path, unet(channels), batches, num_classes=channels, method=method, region="all")
    plain, image, expected = unet(channels), torch.randn(2, 1, 8, 8, 8), []
    for k in range(channels):
        alone = build_calibrator(method, 2, "all")
        with torch.no_grad():
            cases = [
                LogitCase("a", two(plain(b["image"])[:, k : k + 1])[0], b["label"][0, k], spacing=(1, 1, 1))
                for b in batches
            ]
        fit([alone], cases)
        with torch.no_grad():
            expected.append(alone.apply(two(plain(image)[:, k : k + 1]), image).softmax(1)[:, 1:])
    with torch.no_grad():
        before = plain(image).sigmoid()
        if method in ("temperature", "vector"):
            plain.load_state_dict(torch.load(result.model_path, weights_only=True))
            found = plain(image).sigmoid()
        else:
            found = torch.jit.load(result.model_path)(image).sigmoid()
    torch.testing.assert_close(found, torch.cat(expected, 1), rtol=1e-5, atol=1e-5)
    assert (found - before).abs().amax((0, 2, 3, 4)).min() > 1e-3, "every channel was corrected"
    record = json.loads((tmp_path / "calibration_parameters.json").read_text())
    logits = plain(image).detach()
    assert torch.equal(Calibrator.from_json(record).apply(logits, image), result.calibrator.apply(logits, image))
    assert posthoc_settings(tmp_path)["posthoc"] == method


def test_three_channels_are_three_calibrations_of_one(tmp_path: Path) -> None:
    weights = [2.0, -3.0, 4.0]
    batches = drawn(grey(weights), [3.0, 1.0, 0.5])
    together = grey(weights)
    found = run(tmp_path / "all", together, batches, method="vector", class_names=NAMES).calibrator
    assert isinstance(found, PerChannel)
    for k, name in enumerate(NAMES):
        alone = grey(weights[k : k + 1])
        own = [{**batch, "label": batch["label"][:, k : k + 1]} for batch in batches]
        single = run(tmp_path / name, alone, own, num_classes=1, method="vector", class_names=[name]).calibrator
        assert isinstance(single, PerChannel)
        assert single.channels[name].to_json() == found.channels[name].to_json()
        torch.testing.assert_close(alone.weight[0], together.weight[k], rtol=1e-6, atol=0)
        torch.testing.assert_close(alone.bias[0], together.bias[k], rtol=1e-6, atol=1e-7)


def test_auto_corrects_the_over_confident_channel_and_leaves_the_calibrated_one(tmp_path: Path) -> None:
    weights = [2.0, 6.0]
    network = grey(weights)
    network_runs = []
    network.register_forward_pre_hook(lambda *_: network_runs.append(1))
    batches = drawn(grey(weights), [1.0, 3.0], count=9)
    run_dir = tmp_path / "run"
    result = run(
        run_dir / "models", network, batches, num_classes=2, class_names=["fine", "sure"], output_dir=run_dir,
        force=False, run={"loss_name": "dice"},
    )  # fmt: skip
    assert len(network_runs) - len(batches) <= 4, "once over the data, and to find the last convolution"
    assert isinstance(result.calibrator, PerChannel)
    assert result.calibrator.channels["fine"].method == "none"
    assert result.calibrator.channels["sure"].method == "temperature"
    assert result.calibrator.method == "per_channel"
    assert torch.equal(network.weight[0].flatten(), torch.tensor([2.0])), "nothing is changed in a calibrated channel"
    assert float(network.weight[1]) == pytest.approx(2, rel=0.05)
    told = posthoc_settings(run_dir / "models")
    assert told["posthoc"] == "per_channel"
    fine, sure = told["correction"]["channels"]
    assert (fine["channel"], fine["choice"]["chosen"], fine["cases"]) == ("fine", "none", 9)
    assert (sure["channel"], sure["choice"]["chosen"], sure["asked"]) == ("sure", "temperature", "auto")
    assert sure["intervals"][0]["low"] < 6 / float(network.weight[1]) < sure["intervals"][0]["high"]
    before, after = (read_evaluated(folder) for folder in result.evaluated.values())
    change = (after.class_values("classwise_ece_all_15bins") - before.class_values("classwise_ece_all_15bins")).mean(0)
    assert change[0] == 0
    assert change[1] < -0.05
    page = write_report([run_dir], tmp_path / "report.html").read_text()
    assert "per_channel, fine" in page
    assert "per_channel, sure" in page
    assert sure["choice"]["why"].split(";")[0] in page


def test_a_channel_that_gets_worse_refuses_a_method_by_name(tmp_path: Path) -> None:
    batches = drawn(grey([2.0, 6.0]), [1.0, 3.0], count=4)
    with pytest.raises(RefusedCorrectionError, match=r"^fine: isotonic makes the network worse.*--method auto"):
        run(tmp_path, grey([2.0, 6.0]), batches, num_classes=2, class_names=["fine", "sure"], method="isotonic",
            force=False)  # fmt: skip
    assert not list(tmp_path.iterdir())


ALONE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "monai_calib":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import torch
from monai.networks.nets import UNet
path, example = sys.argv[1:]
image, expected = torch.load(example, weights_only=True)
if path.endswith(".ts"):
    network = torch.jit.load(path)
else:
    network = UNet(3, in_channels=1, out_channels=3, channels=(4, 8), strides=(2,), num_res_units=1).eval()
    network.load_state_dict(torch.load(path, weights_only=True))
print(float((network(image).sigmoid() - expected).abs().max()))
assert "monai_calib" not in sys.modules
"""


@pytest.mark.parametrize("method", ["vector", "boundary_temperature"])
def test_the_file_is_the_same_in_a_process_without_this_package(method: str, tmp_path: Path) -> None:
    result = run(tmp_path, unet(), drawn(unet(), [3.0, 1.5, 0.7]), method=method, region="all")
    image = torch.randn(1, 1, 8, 8, 8)
    with torch.no_grad():
        torch.save((image, result.calibrator.apply(unet()(image), image).sigmoid()), tmp_path / "example")
    command = [sys.executable, "-c", ALONE, str(result.model_path), str(tmp_path / "example")]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert float(ran.stdout) < 1e-5


def test_evaluations_are_those_of_plain_sums(tmp_path: Path) -> None:
    batches = drawn(unet(), [3.0, 1.5, 0.7])
    for batch in batches:
        batch["label"][:, :, :2] = 255
    result = run(tmp_path / "models", unet(), batches, method="temperature", region="all", output_dir=tmp_path,
                 class_names=NAMES, ignore_index=255, also=["vector"])  # fmt: skip
    found = {name: read_evaluated(folder) for name, folder in result.evaluated.items()}
    assert list(found) == ["as_trained", "temperature", "vector"]
    assert [case.case for case in found["temperature"].cases] == ["p0", "p1", "p2"]
    assert found["temperature"].classes == tuple(NAMES)
    with torch.no_grad():
        z = torch.cat([unet()(batch["image"]) for batch in batches])[:, :, 2:]
    corrected = {"as_trained": z, "temperature": result.calibrator.apply(z)}
    label = torch.cat([batch["label"] for batch in batches])[:, :, 2:].float()
    for name, logits in corrected.items():
        nll = nn.functional.binary_cross_entropy_with_logits(logits, label, reduction="none").sum(1).mean()
        assert found[name].summary["nll_all_micro"] == pytest.approx(float(nll), rel=1e-5)
        both = ((logits > 0) * label).sum((2, 3, 4))
        dice = 2 * both / ((logits > 0).sum((2, 3, 4)) + label.sum((2, 3, 4)))
        torch.testing.assert_close(torch.from_numpy(found[name].class_values("mean_dice")).float(), dice)
    assert found["temperature"].summary["nll_all_micro"] < found["as_trained"].summary["nll_all_micro"]
    assert found["temperature"].values("labels_changed").tolist() == [0.0] * 3


def test_channels_without_a_label_are_left_out_of_their_fit(tmp_path: Path) -> None:
    """A voxel ignored in one channel still counts in the other."""
    batches = drawn(grey([6.0, 6.0]), [3.0, 3.0], count=2)
    other = drawn(grey([6.0, 6.0]), [3.0, 3.0], count=2)
    for batch in other:
        batch["label"][:, 1, :4] = 255
    both = [
        run(tmp_path, grey([6.0, 6.0]), data, num_classes=2, method="temperature", region="all", ignore_index=255)
        for data in (batches, other)
    ]
    first, second = ([of.to_json() for of in result.calibrator.channels.values()] for result in both)
    assert first[0] == second[0]
    assert (first[1]["fit"]["voxels"], second[1]["fit"]["voxels"]) == (1024, 512)
    assert first[1]["state"] != second[1]["state"]


def test_large_cases_are_kept_as_samples_of_each_channel(tmp_path: Path) -> None:
    weights, batches = [6.0, 2.0], drawn(grey([6.0, 2.0]), [3.0, 1.0], count=4, size=16)
    result = run(tmp_path, grey(weights), batches, num_classes=2, method="temperature", region="all",
                 most_bytes=4 * 2 * 1000 * 25)  # fmt: skip
    record = json.loads((tmp_path / "calibration_parameters.json").read_text())
    assert record["sampled_cases"] == 4
    assert record["channels"]["channel 0"]["fit"]["voxels"] == 4 * 16**3, "weights add up to the voxels"
    for part, truth in zip(result.calibrator.channels.values(), (3.0, 1.0), strict=True):
        assert part.temperature == pytest.approx(truth, rel=0.1)


@pytest.mark.parametrize("with_images", [False, True])
def test_a_channel_of_what_is_kept(with_images: bool) -> None:
    """Also where some cases do not fit, and the network runs again for them."""
    stream = SigmoidStream(grey([1.0, 2.0]), drawn(grey([1.0, 2.0]), [1, 1]), channels=["a", "b"])
    kept = KeptCases(stream, most_bytes=20_000 if with_images else 2**30, with_images=with_images)
    everything = list(kept)
    assert [case.name for case in everything] == ["p0, a", "p0, b", "p1, a", "p1, b", "p2, a", "p2, b"]
    assert {case.subject for case in everything} == {"p0", "p1", "p2"}
    size = kept.bytes
    for _ in range(2):
        for first, name in enumerate("ab"):
            found = list(kept.every(2, first))
            assert [case.name for case in found] == [f"p{n}, {name}" for n in range(3)]
            for one, other in zip(found, everything[first::2], strict=True):
                assert torch.equal(one.logits, other.logits)
                assert torch.equal(one.label, other.label)
    assert (kept.network_runs > 6) == with_images
    assert kept.bytes == size, "what is kept is not kept again"


def test_slice_by_slice(tmp_path: Path) -> None:
    class Slices(SliceInferer):
        pass

    inferer = Slices(roi_size=(8, 8), spatial_dim=2, sw_batch_size=8)
    network = unet(2, dims=2)
    batches = drawn(lambda image: inferer(image, network), [3.0, 1.0])  # type: ignore[arg-type]
    result = run(tmp_path, unet(2, dims=2), batches, num_classes=2, method="boundary_temperature", inferer=inferer,
                 output_dir=tmp_path / "run")  # fmt: skip
    whole, image = torch.jit.load(result.model_path), batches[0]["image"]
    with torch.no_grad():
        found, logits = inferer(image, whole), inferer(image, unet(2, dims=2))
    torch.testing.assert_close(found, result.calibrator.apply(logits), rtol=1e-4, atol=1e-4)
    assert result.calibrator.slice_axis == 2


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (torch.full((1, 2, 8, 8, 8), 2), r"case p0, core: label: expected whole class numbers from 0 to 1, got 2"),
        (torch.full((1, 2, 8, 8, 8), torch.nan), r"case p0, core: label: expected whole class numbers .* got nan"),
        (torch.zeros(1, 1, 8, 8, 8), r"case p0: label: expected 0 and 1 in one channel for each of 2 sigmoid channels"),
    ],
)
def test_wrong_labels_name_the_case(label: Tensor, said: str, tmp_path: Path) -> None:
    batches = [{"image": torch.randn(1, 1, 8, 8, 8), "label": label, "case": ["p0"]}]
    with pytest.raises(ValueError, match=said):
        run(tmp_path, grey([1.0, 2.0]), batches, num_classes=2, class_names=NAMES[:2])
    assert not list(tmp_path.iterdir())


def test_what_does_not_fit_is_said_before_the_network_runs(tmp_path: Path) -> None:
    network = grey([1.0, 2.0, 3.0])
    network.register_forward_pre_hook(lambda *_: pytest.fail("the network ran"))
    batches = drawn(grey([1.0, 2.0, 3.0]), [1, 1, 1])
    with pytest.raises(ValueError, match="FlipNetwork averages softmax probabilities"):
        run(tmp_path, FlipNetwork(network, [0]), batches)
    with pytest.raises(ValueError, match="no top label; ask for protocol 'by_region_sigmoid'"):
        run(tmp_path, network, batches, protocols=["paper"])
    with pytest.raises(ValueError, match="activation: expected 'softmax' or 'sigmoid', got 'tanh'"):
        run(tmp_path, network, batches, activation="tanh")
    with pytest.raises(ValueError, match="case p0: expected 2 channels of logits, got 3"):
        list(SigmoidStream(grey([1.0, 2.0, 3.0]), batches, channels=["a", "b"]))
    with pytest.raises(ValueError, match=r"channels: expected a name of its own for each, got \['a', 'a', 'b'\]"):
        run(tmp_path, network, batches, class_names=["a", "a", "b"])
    image = batches[0]["image"] * torch.inf
    with pytest.raises(ValueError, match="case p0, core: the logits hold NaN or infinity"):
        run(tmp_path, grey([1.0, 2.0, 3.0]), [{**batches[0], "image": image}], class_names=NAMES)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_a_network_with_deep_supervision_that_was_left_in_training_mode(activation: str, tmp_path: Path) -> None:
    def dynunet() -> DynUNet:
        torch.manual_seed(0)
        return DynUNet(3, 1, 3, [3] * 4, [1, 2, 2, 2], [2, 2, 2], filters=[4, 8, 8, 8], deep_supervision=True,
                       deep_supr_num=2)  # fmt: skip

    assert dynunet().train()(torch.randn(1, 1, 16, 16, 16)).ndim == 6, "its heads are stacked"
    inferer = SlidingWindowInferer((16, 16, 16), overlap=0.5)
    image = torch.randn(1, 1, 20, 16, 16)
    with torch.no_grad():
        logits = inferer(image, dynunet().eval())
        sharp = 4 * (logits - logits.mean((2, 3, 4), keepdim=True))  # random labels, but not of one class
    label = (sharp > 0).float() if activation == "sigmoid" else sharp.argmax(1, keepdim=True).float()
    batches = [{"image": image, "label": label}]
    network = dynunet().train()
    result = run(tmp_path, network, batches, inferer=inferer, activation=activation, method="vector", region="all")
    plain = dynunet()
    plain.load_state_dict(torch.load(result.model_path, weights_only=True))
    with torch.no_grad():
        torch.testing.assert_close(inferer(image, plain.eval()), result.calibrator.apply(logits), rtol=1e-4, atol=1e-4)
        heads = [m.train()(image[:, :, :16])[:, 1] for m in (dynunet(), plain)]
    torch.testing.assert_close(heads[1], result.calibrator.apply(heads[0]), rtol=1e-3, atol=1e-3)


class _Several(nn.Module):
    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.last = grey([1.0, 2.0, 3.0])
        self.outputs = outputs

    def forward(self, image: Tensor) -> list[Tensor]:
        return [self.last(image)] * self.outputs


def test_a_network_that_always_returns_several_outputs_is_refused() -> None:
    batches = drawn(grey([1.0, 2.0, 3.0]), [1, 1, 1], count=1)
    with pytest.raises(TypeError, match=r"got list; .* must return its finest output in evaluation mode"):
        list(SigmoidStream(_Several(2), batches, channels=NAMES))
    assert len(list(SigmoidStream(_Several(1), batches, channels=NAMES))) == 3, "a list of one is its one output"
    label = batches[0]["label"][:, :1]
    assert len(list(LogitStream(_Several(1), [{**batches[0], "label": label}]))) == 1


def test_channels_of_a_case_that_are_missing_are_an_error(tmp_path: Path) -> None:
    cases = list(SigmoidStream(grey([1.0, 2.0]), drawn(grey([1.0, 2.0]), [1, 1], count=1), channels=["a", "b"]))
    with pytest.raises(ValueError, match="case p0, a: expected its 2 sigmoid channels, got 1"):
        evaluate_corrections({}, cases[:1], tmp_path, num_classes=2, activation="sigmoid", classes=["a", "b"])
