"""Run by the Python of an environment with nnU-Net, by test_nnunet.py: nnU-Net's own export and its ensemble.

PYTHON nnunet_export.py export FOLDER     # FOLDER/<what>/{labels, maps}
PYTHON nnunet_export.py ensemble FOLDER   # FOLDER/<what>/again, of FOLDER/<what>/written
"""

import json
import sys
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from nnunetv2.ensembling.ensemble import ensemble_folders
from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name
from nnunetv2.inference.export_prediction import export_prediction_from_logits
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from stored_maps import CLASSES, case_name, volume

READERS = ("SimpleITKIO", "NibabelIO", "NibabelIOWithReorient", "SimpleITKIOWithReorient")
DATASET = {
    "channel_names": {"0": "MRI"},
    "labels": {name: value for value, name in enumerate(CLASSES)},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}


def plans(reader, forward):
    """As nnU-Net plans them, for voxels of another size than the images'."""
    resampling = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [16, 16, 16],
        "spacing": [1.4, 0.9, 1.1],
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [True],
        "architecture": {"network_class_name": "none", "arch_kwargs": {}, "_kw_requires_import": []},
    }
    for what in ("data", "seg", "probabilities"):
        configuration[f"resampling_fn_{what}"] = "resample_data_or_seg_to_shape"
        configuration[f"resampling_fn_{what}_kwargs"] = {**resampling, "is_seg": what == "seg"}
    return {
        "dataset_name": "Dataset001_Small",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": reader,
        "label_manager": "LabelManager",
        "transpose_forward": list(forward),
        "transpose_backward": [int(place) for place in np.argsort(forward)],
        "foreground_intensity_properties_per_channel": {"0": {}},
        "configurations": {"3d_fullres": configuration},
    }


def affine():
    """Axes to the right, anterior, superior, turned by 0.15 around the third; voxels of three sizes."""
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.15), -np.sin(0.15)], [np.sin(0.15), np.cos(0.15)]]
    sizes = np.diag([0.8, 1.2, 2.0, 1.0])
    sizes[:3, 3] = (-20, 13, 7)
    return turn @ sizes


def export(folder):
    for reader, axes, forward in product(READERS, ("RAS", "PIL"), ((0, 1, 2), (2, 0, 1))):
        where = folder / f"{reader}_{axes}_{''.join(map(str, forward))}"
        for name in ("images", "labels", "maps"):
            (where / name).mkdir(parents=True)
        content = plans(reader, forward)
        (where / "maps/plans.json").write_text(json.dumps(content))
        (where / "maps/dataset.json").write_text(json.dumps(DATASET))
        for number in range(2):
            export_case(where, number, axes, PlansManager(content))


def export_case(where, number, axes, manager):
    configuration = manager.get_configuration("3d_fullres")
    _, label = volume(number, (20, 15, 12))
    label = np.pad(label, ((3, 5), (4, 0), (2, 6)))
    image = np.pad(np.ones((20, 15, 12), np.float32), ((3, 5), (4, 0), (2, 6))) * (1 + label)  # nnU-Net cuts off the 0
    to = nib.orientations.ornt_transform(nib.io_orientation(affine()), nib.orientations.axcodes2ornt(axes))
    paths = [where / "images" / f"{case_name(number)}_0000.nii.gz", where / "labels" / f"{case_name(number)}.nii.gz"]
    for array, path in zip((image, label), paths, strict=True):
        turned = nib.Nifti1Image(array, affine()).as_reoriented(to)
        turned.set_qform(turned.affine, 1)
        turned.set_sform(turned.affine, 1)
        nib.save(turned, path)
    reader = recursive_find_reader_writer_by_name(manager.image_reader_writer_class.__name__)()
    data, properties = reader.read_images([str(paths[0])])
    truth, _ = reader.read_seg(str(paths[1]))
    prepared = DefaultPreprocessor(verbose=False)
    data, truth, properties = prepared.run_case_npy(data, truth, properties, manager, configuration, DATASET)
    classes = np.arange(len(CLASSES))[:, None, None, None]
    logits = 4.0 * (np.asarray(truth)[0].clip(0) == classes) + np.random.default_rng(number).normal(
        size=(3, *truth.shape[1:])
    )
    export_prediction_from_logits(
        torch.from_numpy(logits).half(), properties, configuration, manager, DATASET,
        str(where / "maps" / case_name(number)), True, 1,
    )  # fmt: skip


def ensemble(folder):
    for where in sorted(folder.iterdir()):
        ensemble_folders([str(where / "written")], str(where / "again"), num_processes=1)


if __name__ == "__main__":
    {"export": export, "ensemble": ensemble}[sys.argv[1]](Path(sys.argv[2]))
