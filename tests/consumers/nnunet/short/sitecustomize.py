"""Shortens nnU-Net's trainings, whichever trainer runs, for a check: nnU-Net itself has no option for it."""

import os
import sys

if "SHORT_EPOCHS" in os.environ and any(part.endswith("nnUNetv2_train") for part in sys.orig_argv):
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    _whole = nnUNetTrainer.initialize

    def _short(self):
        self.num_epochs = int(os.environ["SHORT_EPOCHS"])
        self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 6, 1
        _whole(self)

    nnUNetTrainer.initialize = _short
