# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""In how many threads a tracker runs its network."""

import contextlib
import itertools
import time

import numpy as np
import pytest
import torch
from networks import tiny

from ainet_ros.tracker import Tracker
from ainet_ros.tracker.onnx import OnnxNetwork
from ainet_ros.tracker.threads import HOLD_S, TRIAL, Threads

PERIOD_S = 0.1


class Computer:
    """Runs of a network in a given share of the cores that others leave."""

    def __init__(self, most):
        self.threads, self.now = Threads(most), 0.0

    def run(self, times, seconds, share, size=1):
        """So many runs; the counts that they had. seconds, share: by the count of threads."""
        counts = []
        for _ in range(times):
            count = self.threads.count
            counts.append(count)
            self.threads.took(size, seconds(count), share(count), self.now)
            self.now += PERIOD_S
        return counts


def alone(count):
    return 1.0


def disturbed(count):
    return 0.6 if count > 1 else 0.8


def test_all_threads_run_where_nothing_disturbs_them():
    computer = Computer(2)
    assert set(computer.run(500, lambda count: 0.04 / count, alone)) == {2}


@pytest.mark.parametrize("most", [2, 4, 16])
def test_fewer_threads_run_where_others_take_a_core_until_they_leave_it(most):
    def seconds(count):  # the last thread waits for its core
        return 1 / count if count < most else 3 / count

    def share(count):
        return 0.98 if count < most else 0.6

    computer = Computer(most)
    assert computer.run(3 * TRIAL, seconds, share)[-1] == most - max(1, most // 4)
    after = computer.run(round(2 * HOLD_S[1] / PERIOD_S), seconds, share)
    assert after.count(most) < len(after) / 10
    computer.run(round(HOLD_S[1] / PERIOD_S) + TRIAL, lambda count: 1 / count, alone)
    assert set(computer.run(100, lambda count: 1 / count, alone)) == {most}


def test_slower_with_fewer_threads_all_run_again_and_trials_become_rare():
    computer = Computer(2)
    counts = computer.run(3000, lambda count: 1 / count, disturbed)
    assert counts.count(1) < len(counts) / 20
    assert counts[-1000:].count(1) > 0, "no trial any more"
    lengths = {len(list(run)) for count, run in itertools.groupby(counts[:-TRIAL]) if count == 1}
    assert lengths == {TRIAL}


def test_the_steadier_number_is_taken_though_its_usual_time_is_longer():
    computer = Computer(2)
    spikes = np.random.default_rng(0)

    def seconds(count):
        return 0.06 if count == 1 else 0.05 + 0.1 * (spikes.random() < 0.4)

    computer.run(2 * TRIAL, seconds, disturbed)
    assert computer.run(20, seconds, disturbed) == [1] * 20


def test_batches_of_another_size_are_not_compared():
    computer = Computer(2)
    computer.run(TRIAL, lambda count: 1 / count, disturbed)
    assert computer.threads.count == 1
    # One thread would seem the quicker one.
    assert computer.run(1, lambda count: 0.1, disturbed, size=4) == [1]
    assert computer.threads.count == 2


@pytest.fixture
def two_threads():
    """PyTorch's, as on two cores."""
    usual = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(usual)


@pytest.mark.usefixtures("two_threads")
def test_threads_are_set_for_the_block_alone():
    threads = Threads(2)
    threads.count = 1
    with threads.running(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with contextlib.suppress(ValueError), threads.running(1):
        raise ValueError
    assert torch.get_num_threads() == 2
    threads.count = 3  # but somebody wants fewer
    with threads.running(1):
        assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_what_a_run_took_is_learnt_from(monkeypatch):
    threads, learnt = Threads(2), []
    monkeypatch.setattr(threads, "took", lambda *run: learnt.append(run))
    with threads.running(3):
        time.sleep(0.05)  # the thread has no core
    with threads.running(4):
        end = time.thread_time() + 0.05
        while time.thread_time() < end:
            pass
    (size, seconds, share, _), (other_size, other_seconds, other_share, _) = learnt
    assert (size, other_size) == (3, 4)
    assert min(seconds, other_seconds) >= 0.05
    assert share < 0.5
    assert other_share * other_seconds >= 0.05


@pytest.mark.usefixtures("two_threads")
def test_onnx_runtime_has_a_number_of_its_own():
    class Onnx(OnnxNetwork):
        """Of no file."""

        def __init__(self):
            torch.nn.Module.__init__(self)
            self.config = tiny().config

    assert Tracker(Onnx())._threads.count == 1


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("options", "most"), [({}, 2), ({"compile": True}, 1)])
def test_a_tracker_chooses_where_the_network_is_not_translated(options, most):
    assert Tracker(tiny(), **options)._threads.count == most


@pytest.mark.usefixtures("two_threads")
def test_a_tracker_runs_its_network_in_the_chosen_threads(monkeypatch):
    tracker = Tracker(tiny())
    seen = []
    match = tracker._match

    def watched(*inputs):
        seen.append(torch.get_num_threads())
        return match(*inputs)

    monkeypatch.setattr(tracker, "_match", watched)
    image = np.zeros((60, 80, 3), np.uint8)
    tracker.init(image, image, (20.0, 20.0, 20.0, 20.0))
    tracker.track(image, image)
    tracker._threads.count = 1
    tracker.track(image, image)
    assert seen == [2, 1]
    assert torch.get_num_threads() == 2
