"""What the page says of nnU-Net's round trip in words is true of the figures kept beside it."""

from __future__ import annotations

import json
from pathlib import Path

KEPT = json.loads((Path(__file__).parents[2] / "studies" / "nnunet.json").read_text(encoding="utf-8"))
PLAIN, BY_DISTANCE = "as nnU-Net wrote them", "`boundary_temperature`"


def test_intervals_hold_their_values() -> None:
    for part in ("figures", "change"):
        for row in KEPT[part].values():
            assert all(low <= value <= high for value, low, high in row.values())
    assert all(value == [0, 0, 0] for value in KEPT["change"][PLAIN].values())


def test_auto_chose_none_and_each_candidate_had_a_reason() -> None:
    assert KEPT["corrections"]["`auto`"]["method"] == "none"
    assert all(of["warnings"] for row, of in KEPT["corrections"].items() if row != "`auto`")


def test_a_temperature_by_distance_moves_no_label_and_takes_six_tenths_off() -> None:
    assert KEPT["corrections"][BY_DISTANCE]["labels changed"] == 0
    assert KEPT["change"][BY_DISTANCE]["mean_dice"] == [0, 0, 0]
    for name in ("ece_boundary2mm_15bins", "ece_all_15bins"):
        before, after = (KEPT["figures"][row][name][0] for row in (PLAIN, BY_DISTANCE))
        assert 0.55 < 1 - after / before < 0.65
    assert KEPT["change"][BY_DISTANCE]["expected_volume_error"][1] > 0


def test_vector_is_better_in_all_but_the_dsc_which_does_not_differ() -> None:
    change = dict(KEPT["change"]["`vector`"])
    _, low, high = change.pop("mean_dice")
    assert low < 0 < high
    assert all(high < 0 for _, _, high in change.values())


def test_what_mends_volumes_does_half_or_less_for_the_foreground() -> None:
    mend = {row for row, of in KEPT["change"].items() if of["expected_volume_error"][2] < 0}
    assert mend == {"`vector`", "`isotonic`"}
    foreground = {row: of["ece_foreground_15bins"][0] for row, of in KEPT["change"].items()}
    assert all(2 * foreground[row] > foreground[BY_DISTANCE] for row in mend)


def test_nnunet_made_of_the_maps_what_was_written_beside_them() -> None:
    for method, of in KEPT["handed back"].items():
        assert (of["cases"], of["voxels that differ"]) == (67, 0)
        assert of["voxels that moved"] == KEPT["corrections"][f"`{method}`"]["labels changed"]
    assert KEPT["dice against nnU-Net's own"] < 1e-6
