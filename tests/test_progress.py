"""How far a loop is: every item once and none kept, a line that is renewed on a terminal, few lines in a log."""

from __future__ import annotations

import gc
import io
import weakref

import pytest

from monai_calib import progress
from monai_calib.progress import Progress, with_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_a_terminal_has_one_line_that_goes_in_the_end(clock: Clock) -> None:
    stream = Terminal()
    for _ in with_progress(range(4), stream=stream):
        clock.now += 2.0
    *lines, last = stream.getvalue().split("\r\033[K")[1:]
    assert lines == [
        "1/4 cases, 2.0 s a case, about 6 s left",
        "2/4 cases, 2.0 s a case, about 4 s left",
        "3/4 cases, 2.0 s a case, about 2 s left",
    ]
    assert last == ""


def test_a_log_has_a_line_every_half_minute_and_no_escapes(clock: Clock) -> None:
    stream = io.StringIO()
    for _ in with_progress(range(100), stream=stream):
        clock.now += 1.0
    assert stream.getvalue().splitlines() == [
        f"{done}/100 cases, 1.0 s a case, about {100 - done} s left".replace("about 100 s", "about 2 min")
        for done in (30, 60, 90)
    ]


def test_what_is_quick_says_nothing(clock: Clock) -> None:
    for stream in (io.StringIO(), Terminal()):
        for _ in with_progress(range(10), stream=stream):
            clock.now += 0.01
        assert stream.getvalue() in ("", "\r\033[K")


def test_a_loop_that_fails_leaves_no_line(clock: Clock) -> None:
    stream = Terminal()
    items = with_progress(range(10), stream=stream)
    with pytest.raises(ValueError, match="broken"):
        _fail(items, clock)
    items.close()
    assert stream.getvalue().endswith("\r\033[K")


def _fail(items, clock: Clock) -> None:
    for item in items:
        clock.now += 1.0
        if item == 3:
            raise ValueError("broken")


def test_no_item_is_kept_while_the_next_is_made() -> None:
    class Volume:
        pass

    class Volumes:
        alive: weakref.ref[Volume] | None = None

        def __len__(self) -> int:
            return 3

        def __iter__(self):
            for _ in range(3):
                gc.collect()
                assert self.alive is None or self.alive() is None
                volume = Volume()
                self.alive = weakref.ref(volume)
                yield volume
                del volume

    count = 0
    for volume in with_progress(Volumes(), stream=io.StringIO()):
        count += isinstance(volume, Volume)
        del volume
    assert count == 3


def test_the_rate_is_told_in_the_handier_way() -> None:
    told = Progress("picture", io.StringIO())
    assert told.line(10, 30, seconds=40.0) == "10/30 pictures, 4.0 s a picture, about 80 s left"
    assert told.line(50, 300, seconds=20.0) == "50/300 pictures, 2.5 pictures a second, about 2 min left"
