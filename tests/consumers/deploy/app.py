"""A MONAI Deploy application around a bundle's model: a DICOM series in, DICOM SEG and the confidence map out.

``python app.py -i SERIES -o OUT -m model.ts``, after ``ulimit -s 32768``. The names and codes of the segments are this
bundle's; the rest fits all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from monai.deploy.conditions import CountCondition
from monai.deploy.core import Application, Image, IOType, Operator, OperatorSpec
from monai.deploy.operators import (
    DICOMDataLoaderOperator,
    DICOMSegmentationWriterOperator,
    DICOMSeriesSelectorOperator,
    DICOMSeriesToVolumeOperator,
    IOMapping,
    MonaiBundleInferenceOperator,
)
from monai.deploy.operators.dicom_seg_writer_operator import SegmentDescription
from pydicom.sr.codedict import Code, codes

HIPPOCAMPUS = Code("5366008", "SCT", "Hippocampus")
STRUCTURES = ("anterior", "posterior")


class ConfidenceWriter(Operator):
    """Keeps the confidence map as it comes, uint8 percent of (slices, rows, columns): a segment has no place for it."""

    def __init__(self, fragment: Any, *args: Any, output_folder: Path, **kwargs: Any) -> None:
        self.output_folder = output_folder
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        spec.input("confidence")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        self.output_folder.mkdir(parents=True, exist_ok=True)
        np.save(self.output_folder / "confidence.npy", op_input.receive("confidence").asnumpy())


class Segmentation(Application):
    """Loader, selector, volume, model, and a writer for each of its outputs."""

    def compose(self) -> None:
        context = Application.init_app_context(self.argv)
        out = Path(context.output_path)
        loader = DICOMDataLoaderOperator(
            self, CountCondition(self, 1), input_folder=Path(context.input_path), name="load"
        )
        selector = DICOMSeriesSelectorOperator(self, name="select")
        to_volume = DICOMSeriesToVolumeOperator(self, name="to_volume")
        model = MonaiBundleInferenceOperator(
            self,
            input_mapping=[IOMapping("image", Image, IOType.IN_MEMORY)],
            output_mapping=[IOMapping(name, Image, IOType.IN_MEMORY) for name in ("pred", "confidence")],
            app_context=context,
            name="infer",
        )
        segments = [
            SegmentDescription(
                segment_label=f"{name} hippocampus",
                segmented_property_category=codes.SCT.Organ,
                segmented_property_type=HIPPOCAMPUS,
                algorithm_name="monai_calib",
                algorithm_version="0.1.0",
            )
            for name in STRUCTURES
        ]
        labels = DICOMSegmentationWriterOperator(self, segment_descriptions=segments, output_folder=out, name="write")
        confidence = ConfidenceWriter(self, output_folder=out, name="write_confidence")
        self.add_flow(loader, selector, {("dicom_study_list", "dicom_study_list")})
        for user in (to_volume, labels):
            self.add_flow(selector, user, {("study_selected_series_list", "study_selected_series_list")})
        self.add_flow(to_volume, model, {("image", "image")})
        self.add_flow(model, labels, {("pred", "seg_image")})
        self.add_flow(model, confidence, {("confidence", "confidence")})  # without a receiver the model never runs


if __name__ == "__main__":
    Segmentation().run()
