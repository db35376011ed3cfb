# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
# ruff: noqa: E402 - without ROS the rest is not imported
"""The operator's web page: in a browser, beside a camera and the tracker; and who gets in."""

import asyncio
import contextlib
import http.client
import json
import re
import shutil
import signal
import socket
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

aiohttp = pytest.importorskip("aiohttp", reason="needs aiohttp")
ros_nodes = pytest.importorskip("ros_nodes", reason="needs ROS 2")

from rcl_interfaces.msg import ParameterEvent
from rclpy.parameter import Parameter
from std_msgs.msg import Header

from ainet_ros.evaluation import metrics
from ainet_ros.msg import Event, Track
from ainet_ros.ros.console.server import PAGES, VIEWS
from ainet_ros.ros.parameters import TrackerParameters
from ainet_ros.ros.table import describe
from ainet_ros.srv import InitTarget
from ainet_ros.vision.encoding import stamp_ns
from ainet_ros.vision.scenes import Scene

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WAIT_MS = 60_000
"""For what a browser waits for, on a small computer under load."""


@pytest.fixture(scope="session")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if CHROMIUM is None:
        pytest.skip("needs chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"], headless=True
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    from playwright.sync_api import expect

    expect.set_options(timeout=WAIT_MS)
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    page.expect = expect
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on(
        "console",
        lambda line: page.errors.append(line.text) if line.type == "error" else None,
    )
    yield page
    context.close()


def start_console(ros, **parameters):
    """The process, and its address."""
    process = ros.start("console", {"port": 0, **parameters})
    process.wait_for_log("ready: ")
    return process, re.search(r"ready: (\S+)", process.text())[1]


def status(address, **headers):
    """The HTTP status of an address, and the body."""
    opener = urllib.request.build_opener(_NoRedirect())
    try:
        with opener.open(urllib.request.Request(address, headers=headers), timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments):
        return None


def pull(page, box):
    """Drag a box, given in fractions of the picture."""
    area = page.locator("#picture").bounding_box()
    x, y, width, height = box
    corners = [(x, y), (x + width / 2, y + height / 2), (x + width, y + height)]
    places = [
        (area["x"] + across * area["width"], area["y"] + down * area["height"])
        for across, down in corners
    ]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place)
    page.mouse.up()


def test_a_box_on_the_page_starts_a_target_that_is_followed(ros, page, tmp_path):
    scene = Scene(4, frames=150, size=(320, 240))
    scene.write(tmp_path / "scene")
    frames = {}
    ros.node.create_subscription(
        Header,
        "replay_camera/frame",
        lambda header: frames.update({stamp_ns(header.stamp): int(header.frame_id)}),
        100,
    )
    ros.start("replay_camera", {"source": str(tmp_path / "scene"), "rate": 4.0, "paused": True})
    tracker = ros.start("tracker_node", {"overlay_rate": 0.0})
    _, address = start_console(ros)
    tracker.wait_for_log("ready:")
    page.goto(address)
    page.locator("#no-picture").wait_for(state="hidden")
    page.expect(page.locator("#connection")).to_have_text("connected")

    pull(page, scene.boxes[0] / [320, 240, 320, 240])
    page.locator("#targets li[data-target='1']").wait_for()
    assert page.locator("#said").inner_text() == "target 1 started"
    ros.set_parameter("replay_camera", paused=False)

    def answered():
        return {
            frames[stamp_ns(track.header.stamp)]: track
            for track in ros.tracks
            if track.state != Track.NO_TARGET and stamp_ns(track.header.stamp) in frames
        }

    ros.spin_until(lambda: max(answered(), default=0) >= 30, "frames")
    tracks = answered()
    boxes = np.array([(t.box.x, t.box.y, t.box.width, t.box.height) for t in tracks.values()])
    overlaps = metrics.iou(boxes, scene.boxes[list(tracks)])
    assert overlaps.mean() > 0.5
    # The page shows the same target, where the node says that it is.
    item = page.locator("#targets li[data-target='1']")
    shown = item.evaluate("item => ({...item.dataset})")
    seen, at = json.loads(shown["box"]), int(shown["stamp"])
    ros.spin_until(lambda: any(stamp_ns(t.header.stamp) == at for t in ros.tracks), "that track")
    said = next(t for t in ros.tracks if stamp_ns(t.header.stamp) == at).normalized_box
    assert seen == pytest.approx([said.x, said.y, said.width, said.height], abs=1e-4)
    assert re.search(r"score [\d.]+ to [\d.]+", page.locator("#score").get_attribute("aria-label"))
    assert "tracker" in page.locator("#diagnostics").inner_text()

    page.locator("#reset").click()
    page.locator("#targets >> text=none").wait_for()
    ros.spin_until(lambda: ros.tracks[-1].state == Track.NO_TARGET, "reset")
    assert "RESET" in page.locator("#events").text_content()
    assert not page.errors


def test_keys_draw_a_box_and_views_change(ros, page, tiny):
    tracker = ros.start_tracker(tiny)
    _, address = start_console(ros)
    rgb = np.zeros((120, 160, 3), np.uint8)
    rgb[..., 0] = 200  # red
    thermal = np.full((60, 80), 30_000, np.uint16)
    thermal[:, 40:] = 31_000
    page.goto(address)

    def colors(view):
        """The colours in the middle of the picture's left and right half, of that view."""
        page.locator(f"input[value={view}]").check()
        for _ in range(100):
            ros.publish(rgb, thermal)
            ros.spin_for(0.1)
            left, right, shape = page.evaluate(
                """() => {
                    const canvas = document.getElementById("picture");
                    const pen = canvas.getContext("2d");
                    const at = (x) => [...pen.getImageData(x, canvas.height / 2, 1, 1).data];
                    return [at(canvas.width / 4), at((3 * canvas.width) / 4),
                            [canvas.width, canvas.height]];
                }"""
            )
            if shape == ([80, 60] if view == "thermal" else [160, 120]):
                return left[:3], right[:3]
        raise AssertionError(f"no {view}")

    left, right = colors("rgb")
    assert left == right == pytest.approx([200, 0, 0], abs=4)
    left, right = colors("thermal")
    assert max(left) < 20
    assert min(right) > 235
    # A box on the thermal picture would be in another camera's pixels.
    pull(page, (0.2, 0.2, 0.3, 0.3))
    assert "draw the box on the overlay" in page.locator("#said").inner_text()

    left, right = colors("overlay")
    assert left == pytest.approx([200, 0, 0], abs=12)
    stage = page.locator("#stage")
    stage.focus()
    stage.press("ArrowRight")
    stage.press("Shift+ArrowDown")
    assert "46, 40, size 10 by 21 percent" in page.locator("#announced").inner_text()
    stage.press("Escape")
    stage.press("Enter")  # there is no box any more
    stage.press("ArrowRight")
    stage.press("Enter")
    ros.spin_until(lambda: "target 1" in page.locator("#said").inner_text(), "start")
    assert "init: done" in tracker.text()
    track = ros.track(rgb, thermal)
    assert track.target_id == 1
    assert not page.errors


def test_one_finger_draws_a_box_on_a_picture_of_any_size(ros, page):
    boxes = []

    def init(request, response):
        box = request.box
        boxes.append((box.x, box.y, box.width, box.height))
        response.success, response.target_id = True, len(boxes)
        return response

    ros.node.create_service(InitTarget, "ainet/init", init)
    _, address = start_console(ros)
    page.set_viewport_size({"width": 844, "height": 390})  # a phone
    page.goto(address)
    page.expect(page.locator("#connection")).to_have_text("connected")
    page.locator("input[value=rgb]").check()
    small = np.full((60, 80), 100, np.uint8)  # as a slow link has them

    def shown():
        ros.publish(small[..., None].repeat(3, 2), small)
        return not page.locator("#no-picture").is_visible()

    ros.spin_until(shown, "picture")
    picture, text = page.locator("#picture"), page.locator("#help")
    # The page can be scrolled beside it.
    area, beside = picture.bounding_box(), text.bounding_box()
    assert area["height"] == pytest.approx(0.8 * 390, abs=1)
    assert area["width"] / area["height"] == pytest.approx(4 / 3, abs=0.01)
    assert area["x"] + area["width"] / 2 == pytest.approx(beside["x"] + beside["width"] / 2, abs=1)
    # Less than four pixels of the picture.
    picture.scroll_into_view_if_needed()
    pull(page, (0.5, 0.4, 0.04, 0.04))
    ros.spin_until(lambda: boxes, "request")
    assert boxes[0] == pytest.approx((0.5, 0.4, 0.04, 0.04), abs=0.01)

    page.set_viewport_size({"width": 1200, "height": 800})
    area = picture.bounding_box()
    assert area["width"] == text.bounding_box()["width"]
    session = page.context.new_cdp_session(page)

    def touch(kind, *places):
        points = [
            {
                "x": area["x"] + x * area["width"],
                "y": area["y"] + y * area["height"],
                "id": number,
            }
            for number, (x, y) in enumerate(places)
        ]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    # Two fingers mean no box; the one that is drawn after theirs is the only one.
    touch("touchStart", (0.4, 0.4))
    touch("touchStart", (0.4, 0.4), (0.6, 0.6))
    touch("touchMove", (0.2, 0.2), (0.8, 0.8))
    touch("touchEnd")
    touch("touchStart", (0.3, 0.2))
    touch("touchMove", (0.6, 0.7))
    touch("touchEnd")
    ros.spin_until(lambda: len(boxes) == 2, "request")
    assert boxes[1] == pytest.approx((0.3, 0.2, 0.3, 0.5), abs=0.01)
    assert not page.errors


def test_targets_come_and_go_one_by_one(ros, page):
    _, address = start_console(ros)
    tracks = ros.node.create_publisher(Track, "ainet/track", 10)
    events = ros.node.create_publisher(Event, "ainet/events", 10)
    ros.spin_until(lambda: tracks.get_subscription_count() == 2, "console")
    ros.spin_until(lambda: events.get_subscription_count() == 1, "console")
    ros.spin_for(0.3)  # nothing tells when the console has found them too
    page.clock.install()
    page.goto(address)
    page.locator("#connection >> text=the tracker is not running").wait_for()

    def track(target, score=0.9, state=Track.TRACKING):
        header = Header(stamp=ros.now())
        tracks.publish(Track(header=header, target_id=target, state=state, score=score))
        return str(stamp_ns(header.stamp))

    def listed(*beginnings):
        texts = page.locator("#targets [data-target] span")
        page.expect(texts).to_have_text([re.compile(f"^{text}") for text in beginnings])

    def drop(target):
        return page.get_by_role("button", name=f"Drop target {target}")

    def drawn(score):
        """Pixels of the score's curve at this height."""
        return page.evaluate(
            """(score) => {
                const canvas = document.getElementById("score");
                const y = Math.round(canvas.height - 1 - score * (canvas.height - 8));
                const pen = canvas.getContext("2d");
                const { data } = pen.getImageData(34, y - 1, canvas.width - 34, 3);
                const green = (_, i) => i % 4 === 1 && data[i] > data[i - 1] + 40;
                return data.filter(green).length;
            }""",
            score,
        )

    for _ in range(20):
        track(1, 0.9)
        track(2, 0.3)
        ros.spin_for(0.1)
    listed("1: TRACKING 0.90", "2: TRACKING 0.30")
    ros.spin_until(lambda: min(drawn(0.9), drawn(0.3)) > 5, "curves")
    assert drawn(0.6) == 0  # each has its own
    # Only these are read aloud when they change.
    roles = page.get_by_role("status").evaluate_all("found => found.map(one => one.id)")
    assert roles == ["connection", "said"]

    # A target is answered for alone while it catches up.
    drop(1).focus()
    stamp = track(1)
    page.locator(f"#targets [data-stamp='{stamp}']").wait_for()
    listed("1: ", "2: ")
    page.expect(drop(1)).to_be_focused()
    events.publish(Event(target_id=1, event=Event.RESET))
    page.expect(drop(2)).to_be_focused()
    track(1)  # it came late
    track(3)
    listed("2: ", "3: ")
    page.expect(drop(2)).to_be_focused()
    track(0, state=Track.NO_TARGET)
    page.locator("#targets >> text=none").wait_for()
    page.expect(page.locator("#stage")).to_be_focused()

    # Without an answer it is no news.
    track(4)
    listed("4: TRACKING 0.90")
    page.clock.fast_forward(10_000)
    listed(r"4: TRACKING 0\.90, \d+ s ago")
    page.expect(page.locator("#score-now")).to_have_text("–")
    page.expect(page.locator("#score")).to_have_attribute("aria-label", re.compile("0.30 to"))
    page.clock.fast_forward(60_000)
    page.locator("#targets >> text=none").wait_for()
    page.expect(page.locator("#score")).to_have_attribute("aria-label", re.compile("none"))

    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        edge, *grounds = page.evaluate(
            """() => {
                const button = document.getElementById("reset");
                const { borderTopColor, backgroundColor } = getComputedStyle(button);
                const card = getComputedStyle(button.closest("section"));
                return [borderTopColor, backgroundColor, card.backgroundColor];
            }"""
        )
        assert min(contrast(edge, ground) for ground in grounds) >= 3  # WCAG 1.4.11
    assert not page.errors


def contrast(*colors):
    """Of two colours, rgb(...), as WCAG defines it."""
    parts = np.array([re.findall(r"\d+", color) for color in colors], float) / 255
    light = ((parts + 0.055) / 1.055) ** 2.4 @ (0.2126, 0.7152, 0.0722)
    darker, lighter = sorted(light + 0.05)
    return lighter / darker


def test_parameters_are_changed_on_the_page_and_refused(ros, page, tiny):
    ros.start_tracker(tiny)
    _, address = start_console(ros)
    page.goto(address)
    page.locator("summary >> text=Parameters").click()
    slop = page.locator("#parameter-slop")
    slop.wait_for()
    assert slop.input_value() == "0.05"
    slop.fill("0.5")
    slop.press("Tab")
    page.locator("#said >> text=slop is 0.5").wait_for()
    assert ros.get_parameter("ainet", "slop") == 0.5
    slop.fill("50")
    slop.press("Tab")
    page.locator("#said[data-state=bad]").wait_for()
    assert ros.get_parameter("ainet", "slop") == 0.5
    assert slop.input_value() == "0.5"
    page.locator("#parameter-tone_mode").select_option("minmax")
    page.locator("#said >> text=tone_mode is minmax").wait_for()
    assert ros.get_parameter("ainet", "tone_mode") == "minmax"
    # What others change is shown too; read-only ones cannot be.
    ros.set_parameter("ainet", slop=0.25)
    page.expect(slop).to_have_value("0.25")
    assert page.locator("#parameter-weights").count() == 0


def test_a_page_without_a_tracker_says_so_and_finds_it_when_it_comes(ros, page, tiny):
    process, address = start_console(ros)
    page.goto(address)
    page.locator("#connection >> text=the tracker is not running").wait_for()
    ros.start_tracker(tiny)
    page.expect(page.locator("#connection")).to_have_text("connected")
    process.send(signal.SIGTERM)
    assert process.wait() == 0
    page.locator("#connection >> text=connection lost").wait_for()
    assert "Traceback" not in process.text()


def test_a_page_that_is_not_let_in_any_more_says_why(ros, page):
    process, address = start_console(ros, token="token-of-the-first")
    port = int(address.partition("?")[0].rstrip("/").rpartition(":")[2])
    page.goto(f"http://robot.localhost:{port}/?token=token-of-the-first")
    page.expect(page.locator("#connection")).to_contain_text("the tracker is not running")
    process.send(signal.SIGTERM)
    process.wait()
    start_console(ros, token="token-of-the-second", port=port)
    page.expect(page.locator("#connection")).to_contain_text("a token is needed")
    page.goto(f"http://robot.localhost:{port}/?token=token-of-the-second")
    page.expect(page.locator("#connection")).to_contain_text("the tracker is not running")


def test_who_gets_in(ros):
    token = "0123456789-abcdef"
    _, address = start_console(ros, token=token)
    address = address.partition("?")[0]
    host = address.split("/")[2]
    assert status(address)[0] == 200
    assert "default-src 'none'" in page_headers(address)["Content-Security-Policy"]
    # Another site's page, and a name that points here, are not this host's operator.
    assert status(f"{address}socket", Origin="http://elsewhere.example")[0] == 403
    assert status(f"{address}socket", Origin="http://[")[0] == 403
    assert status(address, Host="elsewhere.example")[0] == 401
    assert status(address, Host="elsewhere.example", Cookie="ainet_token=\xff\xfe")[0] == 401
    away = {"Host": f"robot:{host.split(':')[1]}"}
    assert status(address, **away)[0] == 401
    assert status(f"{address}socket", **away)[0] == 401
    assert status(f"{address}?token=0123456789-abcdeg", **away)[0] == 401
    assert status(f"{address}?token={token}", **away)[0] == 303
    assert status(address, Cookie=f"ainet_token={token}", **away)[0] == 200
    assert status(f"{address}../../../etc/passwd")[0] == 404
    assert status(f"{address}%2e%2e/node.py")[0] == 404
    # A page that was left open tries for ever with its old cookie, which is one failure.
    for _ in range(30):
        assert status(f"{address}socket", Cookie="ainet_token=old", **away)[0] == 401
    assert status(f"{address}?token={token}", Cookie="ainet_token=old", **away)[0] == 303
    for number in range(30):
        status(address, Cookie=f"ainet_token=wrong{number}", **away)
    assert status(f"{address}?token=wrong", **away)[0] == 429
    assert status(address, Cookie=f"ainet_token={token}", **away)[0] == 200
    assert status(address)[0] == 200


def page_headers(address):
    with urllib.request.urlopen(address, timeout=10) as answer:
        return answer.headers


def test_every_answer_has_the_headers(ros):
    _, address = start_console(ros)
    for path in ("", "page.js", "missing"):
        try:
            headers = page_headers(address + path)
        except urllib.error.HTTPError as error:
            headers = error.headers
            error.close()
        for directive in ("default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"):
            assert directive in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
        assert "aiohttp" not in headers["Server"]
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
    }
    connection = http.client.HTTPConnection(address.split("/")[2], timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", "/socket", headers=upgrade)
        answer = connection.getresponse()
        assert answer.status == 101
        assert answer.headers["Server"] == "ainet_ros"


def test_so_many_pages_may_be_open(ros):
    _, address = start_console(ros)
    # The browser's tests leave a loop in this thread.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, _open_too_many(f"{address}socket")).result()


async def _open_too_many(address):
    async with aiohttp.ClientSession() as session:
        pages = [await session.ws_connect(address) for _ in range(PAGES)]
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await session.ws_connect(address)
        assert refusal.value.status == 503
        assert not any(page.closed for page in pages)
        # One that is closed makes room.
        await pages.pop().close()
        deadline = time.monotonic() + ros_nodes.PATIENCE_S
        while len(pages) < PAGES:
            assert time.monotonic() < deadline
            with contextlib.suppress(aiohttp.WSServerHandshakeError):
                pages.append(await session.ws_connect(address))


def test_a_token_s_cookie_is_for_links_to_this_site(ros):
    _, address = start_console(ros, token="0123456789-abcdef")
    opener = urllib.request.build_opener(_NoRedirect())
    away = urllib.request.Request(address, headers={"Host": "robot"})
    with pytest.raises(urllib.error.HTTPError) as redirection:
        opener.open(away, timeout=10)
    with redirection.value as answer:
        assert answer.code == 303
        assert answer.headers["Location"] == "/"  # the token stays in no history
        cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie  # the link may stand on another site


def test_too_large_requests_are_refused(ros):
    process, address = start_console(ros)
    assert status(f"{address}?{'x' * 10_000}")[0] == 400
    assert status(address, Cookie="x" * 10_000)[0] == 400
    large = urllib.request.Request(address, data=b"x" * 100_000, method="POST")
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(large, timeout=10)
    with refusal.value as answer:
        assert answer.code == 405
    assert status(address)[0] == 200
    assert "Traceback" not in process.text()


def test_connections_that_ask_for_nothing_are_closed(ros):
    process, address = start_console(ros)
    place = ("127.0.0.1", int(address.rstrip("/").rpartition(":")[2]))

    def slow(text):
        one = socket.create_connection(place, timeout=ros_nodes.PATIENCE_S)
        one.sendall(text)
        return one

    def closed(one):
        with one:
            return one.recv(1) == b""

    with ThreadPoolExecutor(2) as pool:
        first = slow(b"GET / HTTP/1.1\r\nHost: 127")
        unknown = slow(b"GET / HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n")
        while b"a token is needed" not in unknown.recv(4096):
            pass
        waiting = [pool.submit(closed, one) for one in (first, unknown)]
        # More than there may be: who asks is served meanwhile, and the oldest of them go.
        many = [slow(b"G") for _ in range(300)]
        assert status(address)[0] == 200
        assert all(one.result() for one in waiting)
    assert all(closed(one) for one in many)
    assert status(address)[0] == 200
    assert "Traceback" not in process.text()


def test_a_token_is_made_where_the_network_may_come_in(ros):
    _, address = start_console(ros, host="0.0.0.0")
    token = address.partition("?token=")[2]
    assert len(token) >= 24
    assert socket.gethostname() in address
    port = address.partition("?")[0].rstrip("/").rpartition(":")[2]
    local = f"http://127.0.0.1:{port}/"
    assert status(local)[0] == 200
    assert status(local, Host="robot")[0] == 401
    assert status(local, Host="robot", Cookie=f"ainet_token={token}")[0] == 200


def test_what_is_no_request_is_refused_and_the_console_goes_on(ros, tiny):
    ros.start_tracker(tiny)
    process, address = start_console(ros)

    def ask(*messages, enough):
        # The browser's tests leave a loop in this thread.
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(asyncio.run, _ask(f"{address}socket", messages, enough)).result()

    requests = [
        {"do": "init"},
        {"do": "init", "box": [0, 0, "x", 1]},
        {"do": "init", "box": [0, 0, 1]},
        {"do": "init", "box": [0, 0, 1, 1], "stamp": 10**30},
        {"do": "init", "box": [None] * 4},
        {"do": "reset", "target": "all"},
        {"do": "reset", "target": -1},
        {"do": "reset", "target": True},
        {"do": "set", "name": "no_such", "value": 1},
        {"do": "set", "name": ["slop"], "value": 1},
        {"do": "set", "name": "slop", "value": {"a": 1}},
        {"do": "launch"},
        {},
    ]
    replies = ask(
        *(json.dumps({**r, "number": n}) for n, r in enumerate(requests)),
        enough=lambda replies: len(replies) == len(requests),
    )
    assert sorted(reply["number"] for reply in replies) == list(range(len(requests)))
    assert not any(reply["done"] for reply in replies)
    # Nothing comes of what is no JSON object, and a request after it is answered.
    last = json.dumps({"do": "reset", "number": 1})
    odd = '{"do": "nothing", "number": NaN}'
    replies = ask("[" * 2000, "null", "{", odd, last, enough=lambda replies: len(replies) == 2)
    assert replies[0]["number"] is None
    assert replies[1] == {"number": 1, "done": True, "text": "all targets dropped"}
    # More than a page sends in a second.
    ask(
        *(json.dumps({"do": "nothing", "number": n}) for n in range(100)),
        enough=lambda replies: any("too many requests" in reply["text"] for reply in replies),
    )
    assert process.alive()
    assert status(address)[0] == 200
    assert "Traceback" not in process.text()


async def _ask(address, messages, enough):
    """The console's replies, once it has found the tracker and there are enough of them."""
    replies = []
    deadline = time.monotonic() + ros_nodes.PATIENCE_S
    async with aiohttp.ClientSession() as session, session.ws_connect(address) as socket:

        async def hear():
            assert time.monotonic() < deadline, replies
            message = await socket.receive()
            assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), message
            return json.loads(message.data) if message.type is aiohttp.WSMsgType.TEXT else {}

        while not (await hear()).get("tracker"):
            pass
        for message in messages:
            await socket.send_str(message)
        while not enough(replies):
            replies += (await hear()).get("replies", [])
    return replies


def test_all_parameters_are_learnt_though_one_has_changed_before(ros, tiny):
    _, address = start_console(ros)
    publisher = ros.node.create_publisher(ParameterEvent, "/parameter_events", 10)
    ros.spin_until(lambda: ros.node.count_subscribers("/parameter_events"), "console")
    ros.spin_for(0.3)  # nothing tells when they have found each other
    changed = Parameter("overlay_rate", value=3.0).to_parameter_msg()
    publisher.publish(ParameterEvent(node="/ainet", changed_parameters=[changed]))
    ros.start("tracker_node", {"weights": tiny})
    wanted = {name for name, one in describe(TrackerParameters).items() if not one.read_only}
    with ThreadPoolExecutor(1) as pool:
        page = pool.submit(asyncio.run, _read_parameters(f"{address}socket", wanted))
        ros.spin_until(page.done, "page")
    assert page.result()["overlay_rate"] == 10.0  # the tracker's own


async def _read_parameters(address, wanted):
    """Values by name, once there are all."""
    values = {}
    deadline = time.monotonic() + ros_nodes.PATIENCE_S
    async with aiohttp.ClientSession() as session, session.ws_connect(address) as socket:
        while values.keys() != wanted:
            assert time.monotonic() < deadline, values
            message = await socket.receive(timeout=ros_nodes.PATIENCE_S)
            if message.type is aiohttp.WSMsgType.TEXT:
                entries = json.loads(message.data).get("parameters", [])
                values |= {entry["name"]: entry["value"] for entry in entries}
    return values


def test_a_slow_page_gets_fewer_and_smaller_pictures_and_the_newest_next(ros):
    _, address = start_console(ros)
    topic = "/rgb/image_raw"
    with ThreadPoolExecutor(1) as pool:
        seen = pool.submit(asyncio.run, _look_slowly(f"{address}socket"))
        ros.spin_until(lambda: ros.hears(ros.rgb), "subscription")
        images = {}
        thermal = np.zeros((120, 160), np.uint8)
        while not seen.done():
            header = ros.publish(thermal[..., None].repeat(3, 2), thermal)
            images[stamp_ns(header.stamp)] = len(images)
            ros.spin_for(0.05)
        pictures = seen.result()
    widths = [width for _, width in pictures]
    assert widths[0] == 160
    assert widths[-1] == 20
    assert set(widths) <= {160, 80, 40, 20}
    numbers = [images[stamp] for stamp, _ in pictures]
    assert min(np.diff(numbers)) >= 2  # those in between were not kept for later
    # Nobody looks any more.
    ros.spin_until(lambda: ros.node.count_subscribers(topic) == 0, "end of the subscription")


async def _look_slowly(address):
    """(stamp, width) of pictures to a page that takes half a second for each."""
    pictures = []
    async with aiohttp.ClientSession() as session, session.ws_connect(address) as socket:
        await socket.send_str(json.dumps({"do": "view", "view": "rgb"}))
        while len(pictures) < 5:
            message = await socket.receive()
            if message.type is not aiohttp.WSMsgType.BINARY:
                continue
            image = cv2.imdecode(np.frombuffer(message.data, np.uint8, offset=9), 1)
            assert message.data[8] == VIEWS.index("rgb")
            pictures.append((int.from_bytes(message.data[:8], "big"), image.shape[1]))
            await asyncio.sleep(0.5)
            await socket.send_str(json.dumps({"do": "seen"}))
    return pictures


@pytest.mark.parametrize(
    ("parameters", "text"),
    [({"token": "short"}, "token: must be 16"), ({"host": "192.0.2.1"}, "cannot listen on")],
)
def test_what_hinders_the_console_is_named(ros, parameters, text):
    process = ros.start("console", parameters)
    assert process.wait() == 1
    assert text in process.text()
    assert "Traceback" not in process.text()
