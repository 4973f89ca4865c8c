"""The data set on disk: layout, reproducibility, its being labelled as synthetic, and that it can be learnt."""

import hashlib
import json

import nibabel as nib
import numpy as np
import pytest

from monai_calib.__main__ import main
from monai_calib.datasets.phantom.anatomy import draw_anatomy
from monai_calib.phantom import load_posterior, phantom_case, write_phantom

SMALL = {"shape": (12, 17, 12), "spacing": (3.0, 3.0, 3.0)}
KINDS = ("image", "label", "posterior")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_phantom(tmp_path_factory.mktemp("phantom"), cases=5, seed=1, **SMALL)


def entries(datalist):
    content = json.loads(datalist.read_text())
    return [entry for split in ("training", "validation", "test") for entry in content[split]]


def test_every_file_is_listed_with_its_checksum(dataset):
    folder = dataset.parent
    listed = {entry[kind]: entry["sha256"][kind] for entry in entries(dataset) for kind in KINDS}
    there = {str(path.relative_to(folder)): path for path in folder.glob("*Tr/*")}
    assert set(listed) == set(there)
    assert len(there) == 15
    assert all(hashlib.sha256(path.read_bytes()).hexdigest() == listed[name] for name, path in there.items())
    assert len({entry["subject"] for entry in entries(dataset)}) == 5


def test_monai_reads_all_three_lists(dataset):
    from monai.data import load_decathlon_datalist
    from monai.transforms import LoadImaged

    sizes = {}
    for split in ("training", "validation", "test"):
        items = load_decathlon_datalist(str(dataset), True, split, base_dir=str(dataset.parent))
        sizes[split] = len(items)
        loaded = LoadImaged(keys=["image", "label"])(items[0])
        assert loaded["image"].shape == loaded["label"].shape == SMALL["shape"]
    assert sizes == {"training": 2, "validation": 1, "test": 2}


def test_saved_volumes_are_the_drawn_ones_and_probabilities_add_up_to_exactly_one(dataset):
    for index, entry in enumerate(sorted(entries(dataset), key=lambda entry: entry["case"])):
        case = phantom_case(index, seed=1, **SMALL)
        files = {kind: nib.load(dataset.parent / entry[kind]) for kind in KINDS}
        assert np.array_equal(np.asanyarray(files["image"].dataobj), case.image)
        assert np.array_equal(np.asanyarray(files["label"].dataobj), case.label)
        assert np.array_equal(files["posterior"].get_fdata(), case.posterior * 2.0**-15)
        assert (files["posterior"].get_fdata(dtype=np.float32).sum(-1) == 1.0).all()
        assert load_posterior(dataset.parent / entry["posterior"]).shape == (3, *SMALL["shape"])
        for file in files.values():
            assert file.header.get_zooms()[:3] == (3.0, 3.0, 3.0)


def test_it_is_labelled_as_synthetic_everywhere(dataset, tmp_path, capsys):
    for name in ("datalist.json", "dataset.json"):
        content = json.loads((dataset.parent / name).read_text())
        assert "SYNTHETIC" in content["description"]
        assert "synthetic" in content["modality"]["0"]
    for path in dataset.parent.glob("*Tr/*"):
        assert path.name.startswith("synthetic_")
        assert b"SYNTHETIC" in nib.load(path).header["descrip"].item()
    assert main(["phantom", str(tmp_path / "new"), "--cases", "3", "--shape", "8", "9", "8"]) == 0
    assert "SYNTHETIC" in capsys.readouterr().out


def test_a_case_depends_on_seed_and_number_only(dataset, tmp_path):
    again = write_phantom(tmp_path / "more", cases=7, seed=1, **SMALL)
    other = write_phantom(tmp_path / "other", cases=3, seed=2, **SMALL)
    sums = [{entry["case"]: entry["sha256"] for entry in entries(path)} for path in (dataset, again, other)]
    assert all(sums[1][case] == files for case, files in sums[0].items())
    assert all(sums[2][case][kind] != sums[0][case][kind] for case in sums[2] for kind in KINDS)


def test_image_and_label_are_drawn_separately():
    """Another noise leaves the label as it was: the image's randomness and the label's are independent streams."""
    quiet, loud = (phantom_case(0, noise=noise, **SMALL) for noise in (0.0, 0.3))
    assert np.array_equal(quiet.label, loud.label)
    assert np.array_equal(quiet.posterior, loud.posterior)
    assert not np.array_equal(quiet.image, loud.image)


def test_a_thick_voxel_holds_the_mean_of_the_thin_ones():
    thin = draw_anatomy(np.random.default_rng(2), (12, 17, 36), (1.0, 1.0, 1.0))
    thick = draw_anatomy(np.random.default_rng(2), (12, 17, 12), (1.0, 1.0, 3.0))
    assert np.allclose(thick.posterior, thin.posterior.reshape(12, 17, 12, 3, 3).mean(3), atol=1e-6)
    assert np.allclose(thick.cavity, thin.cavity.reshape(12, 17, 12, 3).mean(3), atol=1e-6)


def test_cases_have_both_parts_and_honest_ambiguity():
    for index in range(6):
        case = phantom_case(index)
        share = np.bincount(case.label.reshape(-1), minlength=3) / case.label.size
        assert 0.015 < share[1] < 0.1
        assert 0.01 < share[2] < 0.1
        assert 0.01 < (case.posterior.max(-1) < 0.95 * 2**15).mean() < 0.12


def test_a_folder_that_holds_something_is_left_alone(tmp_path, capsys):
    (tmp_path / "kept.txt").write_text("precious")
    assert main(["phantom", str(tmp_path), "--cases", "3"]) == 1
    assert "not an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shape", "4", "50", "36"], "at least 8 voxels"),
        (["--spacing", "1", "0", "1"], "three positive sizes"),
        (["--noise", "-1"], "noise >= 0"),
    ],
)
def test_impossible_sizes_are_refused_and_leave_nothing(tmp_path, capsys, options, message):
    assert main(["phantom", str(tmp_path / "new"), *options]) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_too_few_cases_are_a_wrong_call(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["phantom", str(tmp_path / "new"), "--cases", "2"])
    assert ended.value.code == 2
    assert "expected a whole number from 3, got '2'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_small_network_learns_it():
    import torch
    from monai.losses import DiceCELoss
    from monai.networks.nets import UNet

    cases = [phantom_case(index) for index in range(20)]
    image = torch.stack([torch.from_numpy(case.image.astype(np.float32))[None] for case in cases])
    image = (image - image.mean((1, 2, 3, 4), keepdim=True)) / image.std((1, 2, 3, 4), keepdim=True)
    image, label = (
        image[..., 2:-2, 1:-1, 2:-2],
        torch.stack([torch.from_numpy(case.label)[None].long() for case in cases]),
    )
    label = label[..., 2:-2, 1:-1, 2:-2]
    torch.manual_seed(0)
    network = UNet(3, 1, 3, (8, 16, 32, 64), (2, 2, 2), num_res_units=1)
    optimizer, loss = torch.optim.Adam(network.parameters(), 5e-3), DiceCELoss(to_onehot_y=True, softmax=True)
    for step in range(100):
        chosen = [(2 * step) % 16, (2 * step + 1) % 16]
        optimizer.zero_grad()
        loss(network(image[chosen]), label[chosen]).backward()
        optimizer.step()
    with torch.no_grad():
        predicted = network.eval()(image[16:]).argmax(1, keepdim=True)
    truth = label[16:]
    dice = [2 * ((predicted == k) & (truth == k)).sum() / ((predicted == k).sum() + (truth == k).sum()) for k in (1, 2)]
    assert sum(dice) / 2 > 0.8
