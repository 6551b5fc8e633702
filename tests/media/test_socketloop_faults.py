"""A kernel that refuses to send: who is lost, who is not, and what is counted."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faulty_sends import RUN

TESTS = Path(__file__).parents[1]
ALL = {"ben": RUN, "eve": 1, "messages": 2}
ONE_BY_ONE = {**ALL, "messages": RUN + 1}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    built = tmp_path_factory.mktemp("faulty") / "faulty_sends.so"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", built, TESTS / "faulty_sends.c", "-ldl"], check=True)
    preload = f"{os.environ.get('LD_PRELOAD', '')} {built}".strip()

    def run(name: str, times: int, *, runs_only: bool) -> dict:
        ended = subprocess.run(
            [sys.executable, "-m", "tests.faulty_sends", name, str(times), str(int(runs_only))],
            cwd=TESTS.parent,
            env={**os.environ, "LD_PRELOAD": preload},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    return run


@pytest.mark.parametrize("name", ["EAGAIN", "EINTR"])
def test_what_passes_is_waited_for(faulty, name):
    assert faulty(name, 5, runs_only=False) == {"first": ALL, "second": ALL, "counts": {}, "failed": 0}


def test_a_socket_that_stays_full_costs_what_it_does_not_take(faulty):
    lost = {"ben": 0, "eve": 0, "messages": 0}
    counts = {"SOCKET_FULL": RUN + 1}
    assert faulty("EAGAIN", 17, runs_only=False) == {
        "first": lost, "second": ALL, "counts": counts, "failed": RUN + 1,
    }  # fmt: skip


def test_a_full_interface_costs_one_message(faulty):
    lost = {"ben": 0, "eve": 1, "messages": 1}
    counts = {"SOCKET_FULL": RUN}
    assert faulty("ENOBUFS", 1, runs_only=True) == {"first": lost, "second": ALL, "counts": counts, "failed": RUN}


def test_without_gso_in_the_driver_everything_arrives_and_it_is_not_tried_again(faulty):
    assert faulty("EIO", 1, runs_only=True) == {"first": ONE_BY_ONE, "second": ONE_BY_ONE, "counts": {}, "failed": 0}


@pytest.mark.parametrize("name", ["EINVAL", "EMSGSIZE"])
def test_one_receiver_without_gso_does_not_take_it_from_the_others(faulty, name):
    assert faulty(name, 1, runs_only=True) == {"first": ONE_BY_ONE, "second": ALL, "counts": {}, "failed": 0}


def test_a_receiver_that_a_firewall_refuses_costs_nobody_else(faulty):
    # The single packet is refused, and then the run, which is sent one by one.
    partly = {"ben": RUN, "eve": 0, "messages": RUN}
    counts = {"UNREACHABLE": 1}
    assert faulty("EPERM", 2, runs_only=False) == {"first": partly, "second": ALL, "counts": counts, "failed": 1}
