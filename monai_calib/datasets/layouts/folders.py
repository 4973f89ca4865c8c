"""Images in one folder and labels in another, matched by name; or by a pattern, with several raters."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..case import file_safe
from ..dataset import Case, SourceError
from .layout import PICTURES, VOLUMES, Found, files_below, is_image, read_names

__all__ = ["read_folders", "read_raters"]

_OF_LABEL = re.compile(r"[-_. ](mask|masks|seg|segmentation|label|labels|gt|groundtruth|annotation)$", re.IGNORECASE)
_OF_IMAGE = re.compile(r"[-_. ](image|img|im|0000)$", re.IGNORECASE)


def read_folders(images: Path, labels: Path) -> Found:
    """Match images and labels by their names without extension, folders below included.

    What has no partner of exactly its name is compared once more without endings such as ``_mask``, ``_image``.
    """
    if images.resolve() == labels.resolve():
        raise SourceError(
            f"{images}: given as images and as labels. Name two folders, or a pattern '{{case}}_seg.png'."
        )
    found = Found("two folders", _title(images), (images, labels))
    pictures = _one_each(_some(images, without=labels), found.problems)
    masks = _one_each(_some(labels, without=images), found.problems)
    pairs = {key: key for key in pictures if key in masks}
    left = {_OF_LABEL.sub("", key): key for key in masks if key not in pairs}
    for key in pictures:
        if key not in pairs and (other := left.get(_OF_IMAGE.sub("", key))) is not None:
            pairs[key] = other
    lonely = [pictures[key] for key in pictures if key not in pairs]
    found.problems += [f"{file}: no label of this name in {labels}. Add it, or take the image away." for file in lonely]
    matched = set(pairs.values())
    lonely = [masks[key] for key in masks if key not in matched]
    found.problems += [f"{file}: no image of this name in {images}. Add it, or take the label away." for file in lonely]
    names = read_names(list(pairs))
    found.cases = [Case(names[key], "", (pictures[key],), (masks[other],)) for key, other in pairs.items()]
    return found


def read_raters(source: Path, pattern: str, needs_rater: bool = True) -> Found:
    """Match labels by a pattern with ``{case}`` and, for several raters, ``{rater}``.

    Args:
        source: the images, or a folder with ``images/``.
        pattern: such as ``raters/{rater}/{case}.png``; looked for in ``source``, then beside it, then from here.
        needs_rater: whether ``{rater}`` must be in it.

    Raises: :class:`SourceError` on a pattern without ``{case}``, or that finds nothing.
    """
    if "{case}" not in pattern or (needs_rater and "{rater}" not in pattern):
        raise SourceError(
            f"--raters {pattern}: expected {{rater}} and {{case}} in it, as in 'raters/{{rater}}/{{case}}.png'."
        )
    images = source / "images" if (source / "images").is_dir() else source
    found = Found("images and a pattern of labels", _title(images), (source,))
    bases = [source, source.parent, Path()] if not Path(pattern).is_absolute() else [Path()]
    wanted = re.sub(r"(^|/)\{case\}", r"\1**/*", pattern.replace("[", "[[]"))  # a case may lie in folders of its own
    wanted = re.sub(r"\{(case|rater)\}", "*", wanted)
    for base in bases:
        files = [Path(name) for name in sorted(glob.glob(str(Path(glob.escape(str(base))) / wanted), recursive=True))]
        files = [file for file in files if is_image(file) and file.is_file()]
        if files:
            break
    else:
        raise SourceError(f"{pattern}: matches no file from {' or '.join(map(str, bases))}. Correct the pattern.")
    there = _some(images)
    by_case, odd = _by_case(files, str(base / pattern), list(there))
    drawn = {file.resolve() for labels in by_case.values() for file in labels.values()}
    inside = {file.resolve() for paths in there.values() for file in paths}
    found.problems += [f"{file}: no image called {name} in {images}. Add it, or take the label away."
                       for file, name in odd.items() if file.resolve() not in inside]  # fmt: skip
    keys = {key: [file for file in paths if file.resolve() not in drawn] for key, paths in there.items()}
    pictures = _one_each({key: paths for key, paths in keys.items() if paths}, found.problems)
    names = read_names(list(pictures))
    everyone = {rater for labels in by_case.values() for rater in labels}
    for key, image in pictures.items():
        labels = by_case.get(key, {})
        if not labels:
            found.problems.append(f"{image}: no label by {pattern}. Add one, or take the image away.")
            continue
        if missing := sorted(everyone - set(labels)):
            found.notes.append(f"{names[key]} has no label of {', '.join(missing)}.")
        several = "{rater}" in pattern
        raters = tuple(map(file_safe, sorted(labels))) if several else ()
        found.cases.append(Case(names[key], "", (image,), tuple(labels[rater] for rater in sorted(labels)), "", raters))
    return found


def _by_case(
    files: Sequence[Path], pattern: str, keys: Sequence[str]
) -> tuple[dict[str, dict[str, Path]], dict[Path, str]]:
    """The label of each rater by the key of the case, and what is read as the label of no image, with its name.

    Where a name can be read in two ways, it is read as that of a known case.
    """
    known = "|".join(re.escape(key) for key in sorted(keys, key=len, reverse=True))
    readings = [_expression(pattern, case) for case in (known, r".+?")]
    found: dict[str, dict[str, Path]] = {}
    odd: dict[Path, str] = {}
    for file in files:
        text = file.as_posix()
        first, second = (reading.fullmatch(text) for reading in readings)
        if first is not None:
            rater = first.groupdict().get("rater", "")
            found.setdefault(first["case"], {})[rater] = file
        elif second is not None:
            odd[file] = second["case"]
    return found, odd


def _expression(pattern: str, case: str) -> re.Pattern[str]:
    """The pattern as an expression; a placeholder that stands twice means the same text."""
    parts, seen = [], set()
    for part in re.split(r"(\{case\}|\{rater\})", Path(pattern).as_posix()):
        name = part.strip("{}")
        if part not in ("{case}", "{rater}"):
            parts.append(re.escape(part).replace(r"\*", "[^/]*").replace(r"\?", "[^/]"))
        elif name in seen:
            parts.append(f"(?P={name})")
        else:
            parts.append(f"(?P<{name}>{case if name == 'case' else '[^/]+?'})")
            seen.add(name)
    return re.compile("".join(parts))


def _some(folder: Path, without: Path | None = None) -> dict[str, list[Path]]:
    files = files_below(folder)
    if (
        without is not None
        and without.resolve() != folder.resolve()
        and without.resolve().is_relative_to(folder.resolve())
    ):
        below = {key: [path for path in paths if not path.resolve().is_relative_to(without.resolve())]
                 for key, paths in files.items()}  # fmt: skip
        files = {key: paths for key, paths in below.items() if paths}
    if not files:
        others = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))[:5]
        there = f"it holds {', '.join(others)}" if others else "the folder is empty"
        raise SourceError(f"{folder}: expected images ({', '.join((*VOLUMES, *PICTURES))}), but {there}. Name another.")
    return files


def _one_each(files: Mapping[str, Sequence[Path]], problems: list[str]) -> dict[str, Path]:
    for paths in files.values():
        if len(paths) > 1:
            problems.append(f"{' and '.join(map(str, paths))}: one name twice. Keep one of them.")
    return {key: paths[0] for key, paths in files.items()}


def _title(images: Path) -> str:
    absolute = images.absolute()
    return absolute.parent.name if absolute.name.lower() in ("images", "imagestr") else absolute.name
