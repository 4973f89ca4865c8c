"""What the calibration handler takes in: forms of prediction and label, spacing, masks, and what it refuses."""

from __future__ import annotations

import json
import math

import pytest
import torch
from evaluation import evaluator, plain_handler, random_case, run_plain, write_cases
from monai.data import MetaTensor

from monai_calib.handlers import CalibrationHandler
from monai_calib.metrics import CalibrationHistogram, classwise_ece, ece


@pytest.mark.parametrize("decollate", [True, False])
def test_decollated_or_not_makes_no_difference(tmp_path, decollate):
    def transform(output):
        if decollate:
            return [item["prob"] for item in output], [item["label"] for item in output]
        return output["pred"].softmax(1), output["label"]

    items = write_cases(tmp_path, 1)
    expected = evaluator(items, [CalibrationHandler(3)])
    expected.run()
    handler = CalibrationHandler(3, output_transform=transform, output_dir=tmp_path)
    found = evaluator(items, [handler], decollate=decollate)
    found.run()
    assert found.state.metrics == pytest.approx(expected.state.metrics, abs=1e-6)
    assert json.loads((tmp_path / "calibration.json").read_text())["cases"][0]["case"] == "scan_0"


def test_logits_probabilities_and_one_hot_labels_agree():
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 3, 9, 9, generator=generator)
    label = torch.randint(0, 3, (2, 1, 9, 9), generator=generator)
    one_hot = torch.nn.functional.one_hot(label[:, 0], 3).movedim(-1, 1).float()
    expected = run_plain(plain_handler(3), (logits.softmax(1), label)).metrics
    assert run_plain(plain_handler(3, from_logits=True), (logits, label)).metrics == pytest.approx(expected, abs=1e-6)
    assert run_plain(plain_handler(3), (list(logits.softmax(1)), list(one_hot))).metrics == expected


def test_ignored_voxels_count_nowhere():
    prediction, label = random_case(5)
    half = label.clone()
    half[..., 6:] = 255
    found = run_plain(plain_handler(protocols=["paper"], ignore_index=255), (prediction, half)).metrics
    expected = run_plain(plain_handler(protocols=["paper"]), (prediction[..., :6], label[..., :6])).metrics
    assert found == pytest.approx(expected, abs=1e-12)


def test_spacing_comes_from_the_header_then_from_the_argument_then_with_a_warning():
    prediction = torch.full((2, 5, 9), 0.5)
    prediction[0] += 0.1
    prediction[1] -= 0.1
    label = torch.zeros(1, 5, 9)
    label[..., 4] = 1
    protocol = {"name": "band", "regions": ["dilated:2mm"], "metrics": ["nll"]}

    def voxels(label, **arguments):
        handler = plain_handler(protocols=[protocol], **arguments)
        run_plain(handler, ([prediction], [label]))
        return handler.pooled("dilated:2mm").voxels

    with_header = MetaTensor(label, affine=torch.diag(torch.tensor([3.0, 2.0, 1.0, 1.0])))
    assert voxels(with_header, spacing=(1.0, 1.0)) == 5 * 3
    assert voxels(label, spacing=(1.0, 0.5)) == 5 * 9
    with pytest.warns(UserWarning, match="taken as voxels of 1 mm"):
        assert voxels(label, spacing=None) == 5 * 5


def test_users_mask_and_protocol():
    prediction, label = random_case(6)
    mask = torch.zeros(1, 1, 12, 12)
    mask[..., :4] = 1
    mine = {"name": "mine", "regions": ["mask:lung"], "metrics": ["ece"], "num_bins": 20, "reductions": ["micro"]}
    handler = plain_handler(protocols=[mine], output_transform=lambda output: (output["prob"], output["label"]))
    found = run_plain(handler, {"prob": prediction, "label": label, "lung": mask}).metrics
    hist = CalibrationHistogram(2)
    hist.update(prediction[..., :4], label[..., :4], from_logits=False)
    assert found == {"ece_lung_20bins_micro": ece(hist, 20)}


def test_multi_label():
    generator = torch.Generator().manual_seed(8)
    prediction = torch.rand(1, 2, 9, 9, generator=generator)
    label = (torch.rand(1, 2, 9, 9, generator=generator) > 0.5).int()
    protocol = {"name": "multi", "regions": ["all", "union"], "metrics": ["classwise_ece", "nll"]}
    found = run_plain(plain_handler(protocols=[protocol], activation="sigmoid"), (prediction, label)).metrics
    hist = CalibrationHistogram(2, activation="sigmoid")
    hist.update(prediction, label, from_logits=False)
    assert found["classwise_ece_all_15bins_macro"] == pytest.approx(classwise_ece(hist), abs=1e-12)
    assert [protocol.name for protocol in plain_handler(activation="sigmoid").protocols] == ["by_region_sigmoid"]
    with pytest.raises(ValueError, match="no top label"):
        plain_handler(protocols=["paper"], activation="sigmoid")


class TestWrongInput:
    """It ends in an error that names the case, and never in a plausible number."""

    @staticmethod
    def run(folder, spoil):
        def transform(output):
            return spoil(output[0]["prob"].as_tensor(), output[0]["label"].as_tensor())

        evaluator(write_cases(folder, 2), [CalibrationHandler(3, output_transform=transform)]).run()

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda prob, label: ([prob * 7 - 3], [label]), "do not sum to 1"),
            (lambda prob, label: ([prob * 0.9], [label]), "do not sum to 1"),
            (lambda prob, label: ([(prob == prob.amax(0)).float()], [label]), "argmaxed"),
            (lambda prob, label: ([prob.argmax(0, keepdim=True).float()], [label]), r"expected shape \(B, 3"),
            (lambda prob, label: ([torch.where(label > 1, torch.nan, prob)], [label]), "NaN"),
            (lambda prob, label: ([prob], [label + 1]), "label: expected whole class numbers from 0 to 2, got 3"),
            (lambda prob, label: ([prob], [label - 1]), "whole class numbers from 0 to 2, got -1"),
            (lambda prob, label: ([prob], [label * 0.5]), "whole class numbers from 0 to 2, got 0.5"),
            (lambda prob, label: ([prob], [label[:, 1:]]), "grid of the prediction"),
        ],
    )
    def test_error_names_the_case(self, tmp_path, spoil, message):
        with pytest.raises(ValueError, match=f"case scan_0: .*{message}"):
            self.run(tmp_path, spoil)

    def test_number_of_predictions_and_labels(self):
        with pytest.raises(ValueError, match="one label a prediction"):
            run_plain(plain_handler(), (torch.rand(2, 2, 4, 4), torch.zeros(1, 1, 4, 4)))


def test_a_nan_outside_the_region_is_found_where_the_whole_volume_is_measured():
    prediction, label = random_case(9)
    label[..., 0] = 0
    prediction[0, 0, 0, 0] = math.nan
    with pytest.raises(ValueError, match="case case_0001"):
        run_plain(plain_handler(), (prediction, label))
