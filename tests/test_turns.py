"""Several workers: who keeps whom out."""

import fcntl
import tempfile
from pathlib import Path

import pytest

from tests.turns import turn


@pytest.mark.parametrize(
    ("alone", "other_alone", "may"), [(False, False, True), (False, True, False), (True, False, False)]
)
def test_a_turn(monkeypatch, tmp_path, alone, other_alone, may):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with turn("run", alone=alone), Path(tmp_path, "tests-run.floor").open() as floor:
        mode = (fcntl.LOCK_EX if other_alone else fcntl.LOCK_SH) | fcntl.LOCK_NB
        if may:
            fcntl.flock(floor, mode)
        else:
            with pytest.raises(BlockingIOError):
                fcntl.flock(floor, mode)
