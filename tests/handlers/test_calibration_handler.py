"""The calibration handler in MONAI's own evaluator, on small NIfTI volumes."""

from __future__ import annotations

import json
import logging
import math
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
import torch
from evaluation import SPACING, evaluator, plain_handler, random_case, run_plain, tiny_network, write_cases
from ignite.engine import Engine
from monai.handlers import CheckpointLoader, CheckpointSaver, MeanDice, MetricsSaver
from monai.inferers import sliding_window_inference

from monai_calib.handlers import CalibrationHandler, CompositeHandler, SurfaceHandler, lower_is_better
from monai_calib.metrics import CalibrationHistogram, classwise_ece, ece, nll, read_evaluated
from monai_calib.metrics.regions import region_mask


def test_figures_equal_the_functional_path(tmp_path):
    items = write_cases(tmp_path, 3)
    engine = evaluator(items, [CalibrationHandler(3, output_dir=tmp_path)])
    engine.run()

    network = tiny_network().eval()
    values, pooled = [], CalibrationHistogram(3)
    for item in items:
        image = torch.from_numpy(nib.load(item["image"]).get_fdata(dtype=np.float32))[None, None]
        label = torch.from_numpy(np.asarray(nib.load(item["label"]).dataobj)).long()
        with torch.no_grad():
            prob = sliding_window_inference(image, (8, 8, 8), 1, network, overlap=0.25).softmax(1)
        mask = region_mask("boundary:2mm", label, prob.argmax(1)[0], SPACING)
        hist = CalibrationHistogram(3)
        hist.update(prob, label[None], mask[None], from_logits=False)
        pooled.merge(hist)
        values.append((ece(hist), classwise_ece(hist), nll(hist)))
    metrics = engine.state.metrics
    for i, name in enumerate(("ece_boundary2mm_15bins", "classwise_ece_boundary2mm_15bins", "nll_boundary2mm")):
        assert metrics[f"{name}_macro"] == pytest.approx(np.mean([v[i] for v in values]), abs=1e-9)
    assert metrics["ece_boundary2mm_15bins_micro"] == pytest.approx(ece(pooled), abs=1e-9)
    assert metrics["classwise_ece_boundary2mm_15bins_micro"] == pytest.approx(classwise_ece(pooled), abs=1e-9)
    assert all(type(value) is float for value in metrics.values())


def test_file_holds_figures_and_histograms_and_no_path(tmp_path):
    folder = tmp_path / "secret_patient"
    folder.mkdir()
    handler = CalibrationHandler(3, output_dir=tmp_path / "eval", class_names=["bg", "a", "b"], run={"seed": 7})
    engine = evaluator(write_cases(folder, 3, empty=[1]), [handler])
    engine.run()

    text = (tmp_path / "eval" / "calibration.json").read_text()
    content = json.loads(text)
    assert "secret_patient" not in text
    assert sorted(file.name for file in (tmp_path / "eval").iterdir()) == ["calibration.json", "calibration.npz"]
    assert content["format"] == "monai_calib/evaluation/1"
    assert (content["run"], content["classes"]) == ({"seed": 7}, ["bg", "a", "b"])
    evaluated = read_evaluated(tmp_path / "eval")
    assert evaluated.summary == pytest.approx(engine.state.metrics, nan_ok=True)
    assert [case.case for case in evaluated.cases] == ["scan_0", "scan_1", "scan_2"]
    assert evaluated.cases[0].spacing == SPACING
    assert evaluated.protocols["paper"].regions[0].name == "foreground"

    full, empty = content["cases"][0], content["cases"][1]
    hist = next(evaluated.histograms("union"))
    assert full["metrics"]["ece_union_15bins"] == ece(hist)
    assert len(full["metrics"]["classwise_ece_union_15bins"]) == 3
    assert empty["metrics"]["ece_foreground_15bins"] is None
    assert content["left_out"]["ece_foreground_15bins"] == ["scan_1"]
    pooled = handler.pooled("all")
    assert torch.equal(sum(h.sums.count for h in evaluated.histograms("all")), pooled.sums.count)
    bins = evaluated.bins("all", 15)
    assert bins[:, :3].sum(0) == pytest.approx(torch.stack(pooled.class_bins(15)[1:], 1).double().numpy())
    assert bins[:, 3, 2].sum(0) == pytest.approx(pooled.bins(15).confidence.numpy())


def test_what_other_handlers_measured_is_in_the_file_in_the_order_of_the_cases(tmp_path):
    dice = MeanDice(
        include_background=False,
        output_transform=lambda output: (
            [torch.nn.functional.one_hot(o["pred"][0].long(), 3).movedim(-1, 0) for o in output],
            [torch.nn.functional.one_hot(o["label"][0].long(), 3).movedim(-1, 0) for o in output],
        ),
    )
    composites = CompositeHandler(3, {"whole": [1, 2]}, output_dir=tmp_path / "eval")
    # whatever comes first in the list: the file is written when all have measured
    handlers = [CalibrationHandler(3, output_dir=tmp_path / "eval", class_names=["bg", "a", "b"]), composites]
    engine = evaluator(write_cases(tmp_path, 2), [*handlers, SurfaceHandler(3)], key_val_metric={"mean_dice": dice})
    engine.run()
    evaluated = read_evaluated(tmp_path / "eval")
    details = engine.state.metric_details
    assert evaluated.class_values("mean_dice").tolist() == details["mean_dice"].tolist()
    assert evaluated.class_values("hd95_mm").tolist() == details["hd95_mm"].tolist()
    assert evaluated.values("whole_dice") == pytest.approx(details["whole_dice"][:, 0].numpy())
    mean_dice, hd95 = evaluated.metrics["mean_dice"], evaluated.metrics["hd95_mm"]
    assert (mean_dice.kind, mean_dice.classes, mean_dice.direction) == ("dice", ("a", "b"), 1)
    assert (hd95.kind, hd95.unit, hd95.direction) == ("hd95", "mm", -1)
    assert evaluated.summary["mean_dice"] == engine.state.metrics["mean_dice"]
    assert evaluated.metrics["whole_ece_all_15bins"].label == "whole: ECE, whole volume, 15 bins"
    inside = read_evaluated(tmp_path / "eval" / "whole")
    assert inside.classes == ("background", "whole")
    assert inside.values("ece_all_15bins").tolist() == evaluated.values("whole_ece_all_15bins").tolist()


def test_volume_errors_are_metrics_of_a_case(tmp_path):
    prediction, label = random_case(3)
    run_plain(plain_handler(output_dir=tmp_path), (prediction, label))
    case = read_evaluated(tmp_path).cases[0]
    expected, true = prediction[0, 1].sum().item(), label.sum().item()
    counted = (prediction.argmax(1) == 1).sum().item()
    assert case.values["expected_volume_bias"] == pytest.approx((expected - true) / true, abs=1e-6)
    assert case.values["argmax_volume_error"] == pytest.approx(abs(counted - true) / true)


def test_memory_of_a_case_is_small_while_the_evaluation_runs(tmp_path):
    handler = plain_handler(3, output_dir=tmp_path)
    engine = Engine(lambda engine, batch: batch)
    handler.attach(engine)
    sizes = []

    def held(engine):
        sizes.append(tracemalloc.get_traced_memory()[0])

    engine.add_event_handler("ITERATION_COMPLETED", held)
    tracemalloc.start()
    engine.run([random_case(seed, size=24, num_classes=3) for seed in range(30)])
    tracemalloc.stop()
    assert (sizes[-1] - sizes[9]) / 20 < 20_000


def test_a_failed_evaluation_leaves_nothing(tmp_path):
    prediction, label = random_case(1)
    with pytest.raises(ValueError, match="case case_0002"):
        run_plain(plain_handler(output_dir=tmp_path / "eval"), (prediction, label), (prediction, label + 5))
    assert not list((tmp_path / "eval").iterdir())


def test_empty_region_is_left_out_counted_and_explained(tmp_path, caplog):
    filled, empty = random_case(0), random_case(1)
    empty[1].zero_()
    with caplog.at_level(logging.WARNING):
        state = run_plain(plain_handler(output_dir=tmp_path), filled, empty)
    alone = run_plain(plain_handler(), filled)
    name = "ece_foreground_15bins_macro"
    assert state.metrics[name] == alone.metrics[name]
    assert "nothing to measure in 1 of 2 cases in region foreground" in caplog.text
    assert "case_0002" in caplog.text
    assert math.isnan(run_plain(plain_handler(), empty).metrics[name])


def test_rows_reach_monais_metrics_saver(tmp_path):
    saver = MetricsSaver(
        str(tmp_path / "eval"),
        metric_details="*",
        batch_transform=lambda batch: [case["image"].meta for case in batch],
    )
    engine = evaluator(write_cases(tmp_path, 2), [CalibrationHandler(3), saver])
    engine.run()
    lines = (tmp_path / "eval" / "classwise_ece_all_15bins_raw.csv").read_text().splitlines()
    assert lines[0].startswith("filename,class0,")  # MONAI 1.6.0 calls all the other columns mean
    assert "scan_0.nii.gz" in lines[1]
    row = [float(value) for value in lines[2].split(",")[1:4]]
    assert row == pytest.approx(engine.state.metric_details["classwise_ece_all_15bins"][1].tolist(), abs=1e-4)


def test_as_key_metric_the_best_model_is_kept(tmp_path):
    """Three epochs of falling, then rising error: the checkpoint must be of the second."""
    name = "ece_all_15bins_macro"
    weight = torch.nn.Parameter(torch.zeros(1))
    network = torch.nn.Module()
    network.weight = weight
    items = write_cases(tmp_path, 1)
    saver = CheckpointSaver(
        str(tmp_path),
        {"network": network},
        save_key_metric=True,
        key_metric_filename="model.pt",
        key_metric_negative_sign=True,
    )
    blend = {1: 0.5, 2: 0.0, 3: 0.9}

    def towards_wrong(output):
        """Mix the truth (calibrated and right) with a sure wrong answer."""
        label = output[0]["label"].as_tensor().long()[0]
        right = torch.nn.functional.one_hot(label, 3).movedim(-1, 0).float()
        share = blend[engine.state.epoch]
        return [right * 0.99 * (1 - share) + share * right.roll(1, 0) * 0.99 + 0.01 / 3], [output[0]["label"]]

    handler = CalibrationHandler(3, output_transform=towards_wrong)
    engine = evaluator(items, [saver], key_val_metric={name: handler}, metric_cmp_fn=lower_is_better)
    errors = []
    for epoch in (1, 2, 3):
        with torch.no_grad():
            weight.fill_(epoch)
        engine.run(epoch)
        errors.append(engine.state.metrics[name])
    assert errors[1] < errors[0] < errors[2]
    assert torch.load(tmp_path / "model.pt", weights_only=True)["weight"].item() == 2.0
    assert engine.state.best_metric_epoch == 2
    assert engine.state.best_metric == errors[1]
    with pytest.raises(ValueError, match="the key metric must be one of"):
        evaluator(items, [], key_val_metric={"ece": CalibrationHandler(3)})


def test_state_survives_a_checkpoint(tmp_path):
    items = write_cases(tmp_path, 3)
    handler = CalibrationHandler(3, output_dir=tmp_path / "eval")
    saver = CheckpointSaver(str(tmp_path), {"calibration": handler}, save_final=True, final_filename="state.pt")
    engine = evaluator(items, [handler, saver])
    engine.run()

    restored = CalibrationHandler(3, output_dir=tmp_path / "eval")
    loaded = Engine(lambda engine, batch: None)
    CheckpointLoader(str(tmp_path / "state.pt"), {"calibration": restored}).attach(loaded)
    loaded.run([0])
    assert restored.compute() == pytest.approx(engine.state.metrics, nan_ok=True)
    assert torch.equal(restored.pooled("union").sums.count, handler.pooled("union").sums.count)
    # In the middle of an epoch, too: two cases, a checkpoint, and the third.
    half, rest = (
        CalibrationHandler(3, output_dir=tmp_path / "eval"),
        CalibrationHandler(3, output_dir=tmp_path / "eval"),
    )
    evaluator(items[:2], [half]).run()
    rest.load_state_dict(half.state_dict())
    run = evaluator(items[2:], [])
    run.add_event_handler("ITERATION_COMPLETED", rest.iteration_completed)
    run.run()
    assert rest.compute() == pytest.approx(engine.state.metrics, nan_ok=True)


def test_a_second_epoch_starts_afresh():
    handler = plain_handler(protocols=["paper"])
    engine = Engine(lambda engine, batch: batch)
    handler.attach(engine)
    first = dict(engine.run([random_case(1)]).metrics)
    assert engine.run([random_case(2)], max_epochs=1).metrics != first
    assert engine.run([random_case(1)], max_epochs=1).metrics == first


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_prediction_and_label_on_different_devices():
    prediction, label = random_case(4)
    expected = run_plain(plain_handler(), (prediction, label)).metrics
    for case in ((prediction.cuda(), label), (prediction, label.cuda()), (prediction.cuda(), label.cuda())):
        assert run_plain(plain_handler(), case).metrics == pytest.approx(expected, rel=1e-5, abs=1e-6)  # float32 sums


@pytest.mark.parametrize(
    ("affine", "apart"), [(np.eye(4), True), (np.diag([-1.0, 1, 2, 1]), True), (np.diag([1.001, 1, 2, 1]), False)]
)
def test_a_label_in_another_place_is_refused_with_both_files(tmp_path, affine, apart):
    """Of the same shape, it would be measured, voxel by voxel, and distances be in the label's millimetres."""
    items = write_cases(tmp_path, 1)
    label = np.asarray(nib.load(items[0]["label"]).dataobj)
    nib.save(nib.Nifti1Image(label, affine), items[0]["label"])
    for handler in (CalibrationHandler(3), SurfaceHandler(3)):
        if apart:
            with pytest.raises(ValueError, match=r"case scan_0: .*label_0.nii.gz: .*\(.*scan_0.nii.gz\).* voxels: "):
                evaluator(items, [handler]).run()
        else:
            evaluator(items, [handler]).run()
