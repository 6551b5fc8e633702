"""Several workers: who keeps whom out."""

import fcntl

import pytest

from tests.turns import turn


@pytest.mark.parametrize(
    ("alone", "other_alone", "may"), [(False, False, True), (False, True, False), (True, False, False)]
)
def test_a_turn(tmp_path, alone, other_alone, may):
    with turn(tmp_path, alone=alone), (tmp_path / "floor").open() as floor:
        mode = (fcntl.LOCK_EX if other_alone else fcntl.LOCK_SH) | fcntl.LOCK_NB
        if may:
            fcntl.flock(floor, mode)
        else:
            with pytest.raises(BlockingIOError):
                fcntl.flock(floor, mode)
