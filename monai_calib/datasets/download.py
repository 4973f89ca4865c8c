"""Fetch the Medical Segmentation Decathlon's own archive, when asked to, and verify it."""

from __future__ import annotations

from pathlib import Path

from ..files import atomic_path
from .dataset import SourceError

__all__ = ["download_decathlon"]


def download_decathlon(task: str, target: Path) -> None:
    """Fetch the archive of ``task`` to ``target`` from the address, and with the MD5 sum, that MONAI publishes for it.

    The file appears only once its sum is verified. A file that is already there is left as it is.

    Raises: :class:`SourceError` if ``target`` is no archive's name, or the download fails or is not the archive.
    """
    if target.is_file():
        print(f"{target} is already there; nothing was downloaded.")
        return
    if target.suffix != ".tar" or target.is_dir():
        raise SourceError(f"{target}: with --download, SOURCE names the archive to write, such as {task}.tar.")
    from monai.apps import DecathlonDataset

    fetch(DecathlonDataset.resource[task], target, DecathlonDataset.md5[task])


def fetch(address: str, target: Path, md5: str) -> None:
    """Download ``address`` to ``target`` if its MD5 sum is ``md5``; otherwise leave nothing and raise."""
    from monai.apps.utils import download_url

    with atomic_path(target) as partial:
        try:
            download_url(address, partial, hash_val=md5, hash_type="md5")
        except Exception as error:  # MONAI and urllib raise several kinds
            raise SourceError(
                f"{address}: could not be downloaded, or is not the expected archive ({error})."
            ) from error
