"""Trainers as nnU-Net finds them: it imports every file of this folder by its bare name."""
