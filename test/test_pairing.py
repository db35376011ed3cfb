# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Pairing by stamp, the filter around it, and the worker that the pairs go to."""

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ainet_ros.ros.filters import NearestTimePairs, SimpleFilter
from ainet_ros.ros.pairing import JUMP_NS, NearestTime, Pair
from ainet_ros.ros.worker import Entry, RecentPairs, Worker

MS = 1_000_000
RGB, THERMAL = "rgb", "thermal"


def feed(pairing, arrivals):
    """Pairs of messages (stream, stamp in ms) given in order of arrival; messages are stamps."""
    pairs = []
    for stream, stamp in arrivals:
        add = pairing.add_rgb if stream == RGB else pairing.add_thermal
        pairs += add(round(stamp * MS), stamp)
    return pairs


def stamps(pairs):
    return [(pair.rgb, pair.thermal) for pair in pairs]


def interleaved(rgb, thermal):
    """Arrival in order of the stamps."""
    streams = [(stamp, RGB) for stamp in rgb] + [(stamp, THERMAL) for stamp in thermal]
    return [(stream, stamp) for stamp, stream in sorted(streams)]


def test_equal_stamps_pair_on_the_second_message_with_no_slop():
    pairing = NearestTime(0, 5)
    assert feed(pairing, [(RGB, 0)]) == []
    assert stamps(feed(pairing, [(THERMAL, 0)])) == [(0, 0)]
    assert len(pairing) == 0


def test_steady_streams_pair_on_the_arrival_of_the_later_image():
    pairing = NearestTime(20 * MS, 5)
    for frame in range(20):
        feed(pairing, [(THERMAL, 33 * frame)])
        pairs = feed(pairing, [(RGB, 33 * frame + 5)])
        if frame >= 2:  # the rhythm of both is known
            assert stamps(pairs) == [(33 * frame + 5, 33 * frame)]
    assert pairing.counts.matched == 20


def test_nearest_is_taken_not_the_first():
    pairing = NearestTime(50 * MS, 5)
    arrivals = [(THERMAL, 60), (THERMAL, 98), (RGB, 100), (THERMAL, 140)]
    assert stamps(feed(pairing, arrivals)) == [(100, 98)]
    assert pairing.counts.thermal.unmatched == 1


def test_a_missing_thermal_image_does_not_shift_the_pairs_after_it():
    thermal = [33 * k for k in range(12) if k != 5]
    pairs = feed(NearestTime(50 * MS, 10), interleaved([33 * k for k in range(12)], thermal))
    assert all(rgb == heat for rgb, heat in stamps(pairs))
    assert len(pairs) == 11


def test_free_running_cameras_half_a_period_apart_lose_no_image():
    jitter = [0, 2, -2, 1, -1, 3, -3, 2, -1, 0]
    rgb = [33 * k + jitter[k % 10] for k in range(100)]
    thermal = [33 * k + 16 + jitter[k * 7 % 10] for k in range(101)]
    pairing = NearestTime(30 * MS, 10)
    assert len(feed(pairing, interleaved(rgb, thermal))) >= 98
    assert pairing.counts.rgb.unmatched <= 1


def test_slow_thermal_camera_is_paired_at_its_own_rate():
    rgb = [33 * k for k in range(90)]
    thermal = [111 * k + 4 for k in range(27)]
    pairs = feed(NearestTime(17 * MS, 10), interleaved(rgb, thermal))
    assert len(pairs) >= 26
    assert all(abs(a - b) <= 17 for a, b in stamps(pairs))


def test_images_that_come_sooner_than_their_rhythm_are_paired():
    pairing = NearestTime(50 * MS, 10)
    steady = [100 * k for k in range(10)]
    feed(pairing, interleaved(steady, steady))
    assert stamps(feed(pairing, [(RGB, 910), (THERMAL, 910)])) == [(910, 910)]
    assert stamps(feed(pairing, [(THERMAL, 925), (RGB, 925)])) == [(925, 925)]


def test_offset_is_added_to_the_thermal_stamps_and_theirs_are_given_out():
    pairing = NearestTime(5 * MS, 5, offset_ns=-100 * MS)
    pairs = feed(pairing, interleaved([0, 33, 66], [100, 133, 166]))
    assert stamps(pairs) == [(0, 100), (33, 133), (66, 166)]
    assert [pair.thermal_stamp for pair in pairs] == [100 * MS, 133 * MS, 166 * MS]
    assert pairing.newest_difference_ns == 0


@pytest.mark.parametrize(("slop", "expected"), [(50, [(100, 1070)]), (25, [])])
def test_where_the_nearest_belongs_to_the_next_the_one_before_it_is_taken(slop, expected):
    pairing = NearestTime(50 * MS, 5, offset_ns=-1000 * MS)
    assert feed(pairing, [(THERMAL, 1070), (THERMAL, 1125), (RGB, 100)]) == []
    pairing.slop_ns = slop * MS  # it may be changed while messages wait
    assert stamps(feed(pairing, [(RGB, 130)])) == [*expected, (130, 1125)]
    assert pairing.counts.rgb.unmatched == 1 - len(expected)


def test_what_can_find_no_partner_does_not_wait():
    pairing = NearestTime(20 * MS, 5)
    assert feed(pairing, [(THERMAL, 0), (THERMAL, 400), (RGB, 200)]) == []
    assert pairing.counts.rgb.unmatched == pairing.counts.thermal.unmatched == 1
    assert stamps(feed(pairing, [(RGB, 400)])) == [(400, 400)]


def test_the_newest_stamp_once_more_after_a_late_one_is_late_too():
    pairing = NearestTime(20 * MS, 5)
    arrivals = interleaved([0, 33, 66], [0, 33, 66])
    assert len(feed(pairing, arrivals)) == 3
    assert feed(pairing, [(RGB, 33), (RGB, 66), (THERMAL, 80)]) == []
    assert pairing.counts.rgb.late == 2


def test_a_silent_stream_is_waited_for_with_few_messages():
    pairing = NearestTime(20 * MS, 3)
    feed(pairing, [(RGB, 0), (RGB, 33)])
    assert len(pairing) == 2
    feed(pairing, [(RGB, 66)])
    assert len(pairing) == 1


@pytest.mark.parametrize("living", [RGB, THERMAL])
def test_a_dead_stream_keeps_one_message_of_the_other(living):
    pairing = NearestTime(20 * MS, 10)
    feed(pairing, [(living, 33 * k) for k in range(100)])
    assert len(pairing) == 1
    counts = pairing.counts.rgb if living == RGB else pairing.counts.thermal
    assert counts.dropped == 99


def test_pairing_comes_back_with_the_dead_stream():
    pairing = NearestTime(20 * MS, 10)
    feed(pairing, [(RGB, 33 * k) for k in range(100)])
    pairs = feed(
        pairing, interleaved([33 * k for k in range(100, 110)], [33 * k for k in range(100, 110)])
    )
    assert len(pairs) == 10


def test_looping_recording_goes_on_from_its_start():
    times = [33 * k for k in range(40)]
    pairing = NearestTime(20 * MS, 10)
    for _ in range(3):
        assert len(feed(pairing, interleaved(times, times))) >= 39
    assert pairing.counts.jumps >= 2


def test_loop_shorter_than_a_jump_goes_on_too():
    times = [20 * k for k in range(12)]  # 220 ms
    assert times[-1] * MS < JUMP_NS
    pairing = NearestTime(5 * MS, 4)
    for _ in range(4):
        feed(pairing, interleaved(times, times))
    assert pairing.counts.matched >= 24


def test_one_late_message_is_left_out_and_the_order_kept():
    pairing = NearestTime(5 * MS, 10)
    arrivals = [(RGB, 0), (THERMAL, 0), (RGB, 66), (RGB, 33), (THERMAL, 33), (THERMAL, 66)]
    assert stamps(feed(pairing, arrivals)) == [(0, 0), (66, 66)]
    assert pairing.counts.rgb.late == 1
    assert pairing.counts.jumps == 0


def test_stamps_that_were_never_set_give_one_pair_and_no_growth():
    pairing = NearestTime(5 * MS, 4)
    feed(pairing, [(RGB, 0), (THERMAL, 0)] * 50)
    assert len(pairing) <= 8


@pytest.mark.parametrize(("slop", "pairs", "unmatched"), [
    (50, [(100, 70), (130, 128)], (0, 1)),
    (29, [(130, 128)], (1, 2)),
])  # fmt: skip
def test_the_nearest_may_be_the_next_one_s(slop, pairs, unmatched):
    """Then the one before it serves, where it is near enough."""
    pairing = NearestTime(slop * MS, 5)
    arrivals = [(RGB, 100), (RGB, 130), (THERMAL, 60), (THERMAL, 70), (THERMAL, 128)]
    assert stamps(feed(pairing, arrivals)) == pairs
    assert (pairing.counts.rgb.unmatched, pairing.counts.thermal.unmatched) == unmatched


def test_as_many_late_messages_as_the_queue_holds_start_afresh():
    pairing = NearestTime(5 * MS, 3)
    feed(pairing, [(RGB, 1000), (RGB, 990), (RGB, 980), (RGB, 1010), (RGB, 990), (RGB, 980)])
    assert (pairing.counts.rgb.late, pairing.counts.jumps) == (4, 0)
    feed(pairing, [(RGB, 970), (RGB, 960), (RGB, 950)])
    assert (pairing.counts.rgb.late, pairing.counts.jumps) == (6, 1)
    feed(pairing, [(RGB, 940)])
    assert (pairing.counts.rgb.late, pairing.counts.jumps) == (6, 2)


def test_a_jump_is_longer_than_a_late_message_is_late():
    pairing = NearestTime(5 * MS, 3)
    pairing.add_rgb(10 * JUMP_NS, "")
    pairing.add_rgb(9 * JUMP_NS, "")
    assert (pairing.counts.rgb.late, pairing.counts.jumps) == (1, 0)
    pairing.add_rgb(9 * JUMP_NS - 1, "")
    assert (pairing.counts.rgb.late, pairing.counts.jumps) == (1, 1)


def test_what_is_known_of_the_streams():
    pairing = NearestTime(5 * MS, 3, offset_ns=-1 * MS)
    assert pairing.newest_difference_ns == 0
    assert pairing.silent == pairing.standing == (False, False)
    feed(pairing, [(RGB, 100), (THERMAL, 98)])
    assert pairing.newest_difference_ns == -3 * MS
    feed(pairing, [(THERMAL, 98)])
    assert pairing.standing == (False, True)
    feed(pairing, [(THERMAL, 120)])
    assert pairing.newest_difference_ns == 19 * MS
    assert pairing.standing == (False, False)


@pytest.mark.parametrize(("slop", "queue"), [(-1, 5), (5, 0)])
def test_wrong_settings_are_refused(slop, queue):
    with pytest.raises(ValueError, match="must"):
        NearestTime(slop, queue)


streams = st.lists(st.tuples(st.sampled_from([RGB, THERMAL]), st.integers(0, 5000)), max_size=120)


@given(
    arrivals=streams,
    slop=st.integers(0, 200),
    queue=st.integers(1, 12),
    offset=st.integers(-100, 100),
)
def test_whatever_comes(arrivals, slop, queue, offset):
    """Any order, any stamps: memory bounded, slop kept, one to one, every message accounted."""
    pairing = NearestTime(slop * MS, queue, offset * MS)
    pairs = []
    for arrival in arrivals:
        jumps = pairing.counts.jumps
        new = feed(pairing, [arrival])
        assert len(pairing) <= 2 * queue
        if pairing.counts.jumps > jumps:
            pairs = []
        pairs += new
        for before, after in itertools.pairwise(pairs):
            assert before.rgb_stamp < after.rgb_stamp
            assert before.thermal_stamp < after.thermal_stamp
        for pair in new:
            assert abs(pair.thermal + offset - pair.rgb) <= slop
    counts = pairing.counts
    for stream in (counts.rgb, counts.thermal):
        assert stream.received >= counts.matched + stream.unmatched + stream.dropped + stream.late
    waiting = sum(
        stream.received - counts.matched - stream.unmatched - stream.dropped - stream.late
        for stream in (counts.rgb, counts.thermal)
    )
    assert waiting == len(pairing)


@given(
    period=st.integers(10, 200),
    offset=st.floats(-0.24, 0.24),
    noise=st.lists(st.floats(-0.05, 0.05), min_size=80, max_size=80),
    missing=st.sets(st.integers(0, 39), max_size=10),
)
def test_steady_cameras_are_paired_frame_by_frame(period, offset, noise, missing):
    """Offset below a quarter of the period, some jitter, lost images: no wrong pair, none lost."""
    rgb = {k: period * (k + noise[k]) for k in range(40) if k not in missing}
    thermal = {k: period * (k + offset + noise[40 + k]) for k in range(40) if k % 7}
    pairing = NearestTime(round(0.45 * period * MS), 10)
    pairs = stamps(feed(pairing, interleaved(rgb.values(), thermal.values())))
    expected = [(rgb[k], thermal[k]) for k in range(40) if k in rgb and k in thermal]
    late = expected[-1:] if expected and pairs == expected[:-1] else []
    assert pairs + late == expected


# The filter


class Message:
    def __init__(self, stamp_ms):
        stamp = SimpleNamespace(sec=stamp_ms // 1000, nanosec=stamp_ms % 1000 * MS)
        self.header = SimpleNamespace(stamp=stamp)


@pytest.fixture
def filtered():
    """Two sources, the filter after them, and what it signals."""
    rgb, thermal, heard = SimpleFilter(), SimpleFilter(), []
    pairs = NearestTimePairs(rgb, thermal, NearestTime(5 * MS, 5))
    pairs.registerCallback(heard.append)
    return rgb, thermal, pairs, heard


def test_filter_signals_pairs_of_messages(filtered):
    rgb, thermal, _, heard = filtered
    image, heat = Message(1500), Message(1500)
    rgb.signalMessage(image)
    assert heard == []
    thermal.signalMessage(heat)
    assert heard == [Pair(image, heat, 1500 * MS, 1500 * MS)]


def test_filter_goes_on_after_an_error_in_a_callback(filtered):
    rgb, thermal, pairs, heard = filtered

    def fail(pair):
        if pair.rgb_stamp == 100 * MS:
            raise RuntimeError("failing callback")

    pairs.registerCallback(fail)
    rgb.signalMessage(Message(100))
    with pytest.raises(RuntimeError, match="failing callback"):
        thermal.signalMessage(Message(100))
    rgb.signalMessage(Message(200))
    thermal.signalMessage(Message(200))
    assert [pair.rgb_stamp for pair in heard] == [100 * MS, 200 * MS]


def test_callbacks_get_the_arguments_registered_with_them():
    source, heard = SimpleFilter(), []
    source.registerCallback(lambda *given: heard.append(given), "first", 2)
    source.signalMessage("message")
    assert heard == [("message", "first", 2)]


# One camera falls silent


def test_the_living_stream_goes_on_alone_and_pairs_come_back():
    pairing = NearestTime(20 * MS, 10, alone_ns=500 * MS)
    rgb = [33 * k for k in range(120)]
    thermal = [33 * k + 4 for k in range(120) if not 30 <= k < 90]
    pairs = feed(pairing, interleaved(rgb, thermal))
    alone = [pair for pair in pairs if pair.thermal is None]
    assert alone[0].rgb - 29 * 33 > 500
    assert alone[0].rgb - 29 * 33 < 500 + 2 * 33
    assert alone[-1].rgb == 89 * 33 or alone[-1].rgb == 90 * 33
    assert all(pair.thermal_stamp == 0 for pair in alone)
    both = stamps([pair for pair in pairs if pair.thermal is not None])
    assert len(both) >= 58
    assert all(heat - image == 4 for image, heat in both)
    assert [pair.rgb_stamp for pair in pairs] == sorted({pair.rgb_stamp for pair in pairs})
    assert pairing.silent == (False, False)
    assert pairing.counts.alone == len(alone)


@pytest.mark.parametrize("hanging", [RGB, THERMAL])
def test_the_same_stamp_again_is_no_sign_of_life(hanging):
    pairing = NearestTime(20 * MS, 10, alone_ns=300 * MS)
    feed(pairing, interleaved([33 * k for k in range(30)], [33 * k + 4 for k in range(30)]))
    last = 29 * 33 + (4 if hanging == THERMAL else 0)
    living = THERMAL if hanging == RGB else RGB
    arrivals = [((hanging, last), (living, 33 * k)) for k in range(31, 60)]
    pairs = feed(pairing, itertools.chain.from_iterable(arrivals))
    assert len(pairs) >= 15
    assert all(getattr(pair, hanging) is None for pair in pairs)
    assert getattr(pairing.counts, hanging).late == len(arrivals)
    assert any(pairing.standing)


def test_thermal_images_alone_have_their_stamp_with_the_offset():
    pairing = NearestTime(20 * MS, 5, offset_ns=-100 * MS, alone_ns=300 * MS)
    thermal = [100 + 50 * k for k in range(30)]
    pairs = feed(pairing, interleaved([0, 50, 100], thermal))
    alone = [pair for pair in pairs if pair.rgb is None]
    assert pairing.silent == (True, False)
    assert len(alone) >= 15
    assert all(pair.rgb_stamp == (pair.thermal - 100) * MS for pair in alone)


def test_a_camera_back_with_older_images_does_not_turn_the_order():
    pairing = NearestTime(20 * MS, 5, alone_ns=300 * MS)
    feed(pairing, interleaved([0, 50], [50 * k for k in range(20)]))
    pairs = feed(pairing, [(RGB, 940), (RGB, 1000), (THERMAL, 1000), (THERMAL, 1050)])
    assert stamps(pairs) == [(1000, 1000)]
    assert pairing.counts.rgb.late == 1


def test_a_stream_never_heard_is_waited_for():
    pairing = NearestTime(20 * MS, 5, alone_ns=300 * MS)
    assert feed(pairing, [(RGB, 50 * k) for k in range(100)]) == []
    pairing = NearestTime(20 * MS, 5)
    assert len(feed(pairing, interleaved([50 * k for k in range(100)], [0, 50]))) == 2


@pytest.mark.parametrize(("rgb_period", "thermal_period"), [(1000, 1000), (33, 1000), (1000, 33)])
def test_slow_cameras_are_not_silent(rgb_period, thermal_period):
    pairing = NearestTime(20 * MS, 10, alone_ns=500 * MS)
    rgb = range(0, 20_000, rgb_period)
    thermal = [10 + stamp for stamp in range(0, 20_000, thermal_period)]
    pairs = feed(pairing, interleaved(rgb, thermal))
    later = [pair for pair in pairs if pair.rgb_stamp > 3000 * MS]
    assert len(later) >= 15
    assert all(None not in pair for pair in later)


def test_clocks_apart_silence_no_stream():
    pairing = NearestTime(20 * MS, 5, alone_ns=300 * MS)
    arrivals = [(RGB, 50 * k) if even else (THERMAL, 10_000 + 50 * k)
                for k in range(100) for even in (True, False)]  # fmt: skip
    assert feed(pairing, arrivals) == []
    assert pairing.silent == (False, False)


@pytest.mark.parametrize("ahead", [-10_000, 10_000])
@pytest.mark.parametrize("silent", [RGB, THERMAL])
def test_a_camera_of_another_clock_may_fall_silent(ahead, silent):
    pairing = NearestTime(20 * MS, 5, alone_ns=300 * MS)
    for k in range(20):
        feed(pairing, [(RGB, 20_000 + 50 * k), (THERMAL, 20_000 + ahead + 50 * k)])
    living = THERMAL if silent == RGB else RGB
    first = 21_000 + (ahead if living == THERMAL else 0)
    pairs = feed(pairing, [(living, first + 50 * k) for k in range(20)])
    assert len(pairs) >= 12
    assert all(getattr(pair, silent) is None for pair in pairs)
    assert len(pairing) == 0


def test_a_silent_stream_stays_so_when_the_clock_is_set_back():
    pairing = NearestTime(20 * MS, 5, alone_ns=300 * MS)
    feed(pairing, interleaved([5000 + 50 * k for k in range(30)], [5000, 5050]))
    pairs = feed(pairing, [(RGB, 50 * k) for k in range(5)])
    assert stamps(pairs) == [(50 * k, None) for k in range(5)]


@pytest.mark.parametrize("wrong", [0, 90_000_000])
def test_a_camera_back_with_a_wrong_clock_does_not_stop_the_other(wrong):
    pairing = NearestTime(20 * MS, 5, alone_ns=300 * MS)
    at = 5_000_000
    feed(pairing, interleaved([at + 50 * k for k in range(60)], [at + 50 * k for k in range(20)]))
    assert pairing.silent == (False, True)
    pairs = []
    for k in range(60, 200):
        pairs += feed(pairing, [(RGB, at + 50 * k), (THERMAL, wrong + 50 * k)])
    assert stamps(pairs) == [(at + 50 * k, None) for k in range(60, 200)]
    # Its clock is set right.
    pairs = feed(pairing, interleaved(*[[at + 50 * k for k in range(200, 220)]] * 2))
    assert len([pair for pair in pairs if None not in pair[:2]]) >= 18
    assert pairing.silent == (False, False)


@pytest.mark.parametrize("wrong", [0, 90_000_000])
def test_a_camera_back_with_a_wrong_clock_goes_on_alone_where_the_other_dies(wrong):
    pairing = NearestTime(20 * MS, 5, alone_ns=300 * MS)
    at = 5_000_000
    feed(pairing, interleaved([at + 50 * k for k in range(60)], [at + 50 * k for k in range(20)]))
    pairs = feed(pairing, [(THERMAL, wrong + 50 * k) for k in range(60)])
    assert len(pairs) >= 40
    assert all(pair.rgb is None for pair in pairs)


# The worker


def pair(number):
    return Pair(f"rgb {number}", f"thermal {number}", number * MS, number * MS)


def recent(count, seconds=10.0, max_bytes=10**9, size=1):
    pairs = RecentPairs(seconds, max_bytes)
    for number in range(1, count + 1):
        pairs.add(pair(number), size)
    return pairs


def test_recent_pairs_are_bounded_in_time_and_bytes_and_keep_the_newest():
    assert len(recent(100, seconds=0.02)) == 21
    assert len(recent(100, max_bytes=55, size=10)) == 5
    assert recent(3, max_bytes=5, size=10).newest.pair == pair(3)
    assert len(recent(100, seconds=0.0)) == 1


def test_recent_pairs_forget_what_was_before_a_jump_back():
    pairs = recent(10)
    pairs.add(pair(2), 1)
    assert len(pairs) == 1
    assert pairs.bytes == 1


def test_nearest_recent_pair_and_the_first_from_one():
    pairs = recent(5)
    assert pairs.nearest(round(3.4 * MS)).pair == pair(3)
    pairs = recent(5, seconds=0.002)
    assert [pairs.first_from(number).number for number in (1, 3, 4, 5)] == [3, 3, 4, 5]
    assert pairs.first_from(6) is None
    assert RecentPairs(1, 1).nearest(0) is None


class Recorder:
    """A worker whose handler can be held, and what it handled."""

    def __init__(self, catch_up_s=1.0, step_s=0.0):
        self.handled, self.again = [], []
        self.errors = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.step_s = step_s
        self.worker = Worker(self.handle, self.errors.append, RecentPairs(10.0, 10**9), catch_up_s)
        self.thread = threading.Thread(target=self.worker.run, daemon=True)

    def handle(self, entry: Entry, again: bool):
        if again:
            self.again.append(entry.number)
        self.entered.set()
        assert self.gate.wait(10)
        time.sleep(self.step_s)
        self.handled.append(entry.number)
        if entry.pair.rgb == "bad":
            raise RuntimeError("bad pair")

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.gate.set()
        self.worker.stop()
        self.thread.join(10)
        assert not self.thread.is_alive()

    def hold(self, numbers):
        """Hand over pairs; the first is being handled until the gate is open."""
        first, *others = numbers
        self.gate.clear()
        self.worker.put(pair(first), 1)
        assert self.entered.wait(10)
        for number in others:
            self.worker.put(pair(number), 1)

    def settle(self):
        """Wait until all that was handed over is done."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            newest = self.worker.recent.newest
            if newest is None or newest.number in self.handled:
                return
            time.sleep(0.005)
        raise AssertionError("the worker does not come to the newest pair")


def test_the_newest_pair_is_next():
    with Recorder() as recorder:
        recorder.hold(range(1, 6))
        recorder.gate.set()
        recorder.settle()
        assert recorder.handled == [1, 5]
        assert recorder.worker.skipped == 3


def test_pairs_left_out_are_counted_once_and_anew_after_forget():
    with Recorder() as recorder:
        recorder.hold(range(1, 6))
        entry = recorder.worker.find(1 * MS, 0)
        recorder.gate.set()
        recorder.settle()
        recorder.handled.clear()
        recorder.worker.call(lambda: recorder.worker.resume_from(entry)).result(10)
        recorder.settle()
        assert recorder.handled == [2, 3, 4, 5]
        assert recorder.worker.skipped == 3
        recorder.worker.forget()
        recorder.worker.put(pair(10), 1)
        recorder.settle()
        assert recorder.worker.skipped == 0


def test_an_error_in_a_pair_is_reported_and_the_next_is_handled():
    with Recorder() as recorder:
        recorder.worker.put(Pair("bad", "", 1, 1), 1)
        recorder.settle()
        recorder.worker.put(pair(2), 1)
        recorder.settle()
        assert recorder.handled == [1, 2]
        assert [str(error) for error in recorder.errors] == ["bad pair"]


def test_calls_run_in_the_worker_and_give_results_and_errors():
    with Recorder() as recorder:
        assert recorder.worker.call(threading.get_ident).result(10) != threading.get_ident()
        with pytest.raises(ZeroDivisionError):
            recorder.worker.call(lambda: 1 / 0).result(10)


def test_calls_that_wait_when_the_worker_stops_are_cancelled():
    recorder = Recorder()
    with recorder:
        recorder.hold([1])
        future = recorder.worker.call(lambda: 1)
        recorder.worker.stop()  # within a frame
        assert future.cancelled()
    assert recorder.worker.call(lambda: 1).cancelled()


def test_what_has_begun_is_waited_for_and_what_has_not_is_not_run():
    begun, gate, run = threading.Event(), threading.Event(), []

    def slow():
        begun.set()
        assert gate.wait(10)
        return "done"

    with Recorder() as recorder, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(recorder.worker.ask, slow, 0.5)
        assert begun.wait(10)
        with pytest.raises(FutureTimeoutError):
            recorder.worker.ask(lambda: run.append(1), 1.0)
        assert not asked.done()
        gate.set()
        assert asked.result(10) == "done"
        assert recorder.worker.ask(lambda: run) == []
        with pytest.raises(ZeroDivisionError):
            recorder.worker.ask(lambda: 1 / 0, 10)


def test_ctrl_c_ends_the_worker_and_who_waits_for_it():
    worker = Worker(lambda entry, again: None, [].append, RecentPairs(10.0, 10**9), 1.0)

    def interrupt():
        raise KeyboardInterrupt

    future = worker.call(interrupt)
    with pytest.raises(KeyboardInterrupt):
        worker.run()
    with pytest.raises(KeyboardInterrupt):
        future.result(0)


def test_catch_up_goes_through_the_pairs_kept():
    with Recorder() as recorder:
        recorder.hold(range(1, 21))
        entry = recorder.worker.find(5 * MS, 0)
        future = recorder.worker.call(lambda: recorder.worker.resume_from(entry))
        recorder.gate.set()
        future.result(10)
        recorder.settle()
        assert recorder.handled[0] == 1
        assert recorder.handled[1:] == list(range(6, 21))
        assert recorder.again == []


def test_catch_up_skips_what_the_time_does_not_allow():
    with Recorder(catch_up_s=0.2, step_s=0.05) as recorder:
        for number in range(1, 41):
            recorder.worker.put(pair(number), 1)
        recorder.settle()
        entry = recorder.worker.find(1 * MS, 0)
        recorder.handled.clear()
        recorder.worker.call(lambda: recorder.worker.resume_from(entry)).result(10)
        recorder.settle()
        assert recorder.handled[-1] == 40
        assert recorder.again == recorder.handled
        assert len(recorder.handled) <= 10


def test_find_says_what_is_wrong_with_a_stamp():
    with Recorder() as recorder:
        with pytest.raises(LookupError, match="no pair of images has come in yet"):
            recorder.worker.find(None, 0)
        for number in range(100, 110):
            recorder.worker.put(pair(number), 1)
        assert recorder.worker.find(None, 0).pair == pair(109)
        assert recorder.worker.find(104 * MS, 0).pair == pair(104)
        with pytest.raises(LookupError, match=r"0\.091 s ahead of the newest pair"):
            recorder.worker.find(200 * MS, 0)
        with pytest.raises(LookupError, match=r"0\.050 s older than .* kept \(10 pairs\)"):
            recorder.worker.find(50 * MS, 0)


def test_find_waits_for_a_pair_on_its_way():
    with Recorder() as recorder:
        recorder.worker.put(pair(1), 1)
        late = threading.Timer(0.05, lambda: recorder.worker.put(pair(2), 1))
        late.start()
        assert recorder.worker.find(2 * MS, 10).pair == pair(2)
