"""Writes the bundles that come with the package, from ``monai_calib/bundling/template`` and ``datasets.yaml``.

python bundles/render.py           # write bundles/<data set>_segmentation_2d and _3d
python bundles/render.py --check   # write nothing; show what would change, and fail if anything would
"""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path

from monai_calib.bundling.render import render, shipped

FOLDER = Path(__file__).resolve().parent


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the bundles from the package's template and datasets.yaml.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail with a diff if anything would change")
    arguments = parser.parse_args()
    changed = 0
    for place, text in ((f"{name}/{file}", text) for name, _, _ in shipped() for file, text in render(name).items()):
        path = FOLDER / place
        present = path.read_text(encoding="utf-8") if path.is_file() else ""
        if present == text:
            continue
        changed += 1
        if arguments.check:
            lines = difflib.unified_diff(
                present.splitlines(True), text.splitlines(True), f"{place} (committed)", f"{place} (rendered)"
            )
            sys.stdout.writelines(lines)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path}")
    if arguments.check and changed:
        print(f"{changed} files differ from the template: run python bundles/render.py and commit the result")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
