# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The console's web side: the page, and a WebSocket to each page that is open.

All of it runs in one asyncio loop and belongs to it; the ROS side hands over by
`loop.call_soon_threadsafe`.

A page hears JSON objects (what is new of tracks, events, diagnostics, parameters and answers to
its own requests) and binary messages (8 bytes, big-endian: the stamp in nanoseconds; one byte:
which of `VIEWS`; then a JPEG). The next picture goes out when the page has said that it has the
former: a slow link gets fewer of them, and smaller ones, but none that is old.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from aiohttp import WSCloseCode, WSMsgType, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from ainet_ros.vision.encoding import decode_compressed, to_rgb

from .access import Access, RateLimit

VIEWS = ("overlay", "rgb", "thermal")
PAGES = 8
"""Most pages at once."""
MESSAGE_BYTES = 4096
"""Largest message of a page."""
HEARTBEAT_S = 10.0
SILENT_S = 10.0
"""So long a connection may take to its first request that is let in."""
KEPT_OPEN_S = 15.0
"""And so long to its next one."""
CONNECTIONS = 100
"""Most at once; past that, the oldest go that have not been let in."""
PERIOD_S = 0.2
"""Tracks go out in bundles."""
KEPT = {"tracks": 600, "events": 50}
"""Newest entries that a page gets when it opens."""
REPLIES = 32
REQUESTS_PER_S, REQUESTS_AT_ONCE = 20.0, 40
SLOW_S, QUICK_S = 0.4, 0.15
"""Way of a picture to the page and of its answer back, that makes the next ones smaller, or, so
many times in a row, larger."""
QUICK_ONES = 10
SMALLEST = 3
"""Pictures are halved so often at most."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",  # frame-ancestors, for older browsers
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Server": "ainet_ros",  # aiohttp would tell its version
}
FILES = {
    "/": ("index.html", "text/html"),
    "/style.css": ("style.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}


class Refused(Exception):
    """A page's request cannot be met; the message says why, to the operator."""


def is_ours(record: logging.LogRecord) -> bool:
    """Whether aiohttp logs a fault, and not that somebody sent what is no HTTP.

    With a traceback for each of these anybody could fill the log.
    """
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


Execute = Callable[[dict[str, Any]], Awaitable[str]]
"""Does what a page asks and returns what to say of it; raises Refused."""


class Picture(NamedTuple):
    """What a camera saw or the tracker drew. view: of `VIEWS`. stamp_ns: of its header."""

    view: str
    stamp_ns: int
    jpeg: bytes

    def halved(self, times: int) -> bytes:
        """The JPEG, its width and height halved so often."""
        if not times:
            return self.jpeg
        try:
            image = np.ascontiguousarray(to_rgb(decode_compressed(self.jpeg))[..., ::-1])
        except ValueError:
            return self.jpeg  # the browser's to judge
        size = tuple(max(side >> times, 1) for side in image.shape[1::-1])
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 70])[1].tobytes()


@dataclass
class Pace:
    """How small the pictures of a page are, by how long they take to it."""

    halvings: int = 0
    _quick: int = 0

    def took(self, seconds: float) -> None:
        self._quick = self._quick + 1 if seconds < QUICK_S else 0
        if seconds > SLOW_S:
            self.halvings = min(self.halvings + 1, SMALLEST)
        elif self._quick >= QUICK_ONES:
            self.halvings = max(self.halvings - 1, 0)
            self._quick = 0


class Session:
    """One open page."""

    def __init__(self, socket: web.WebSocketResponse, execute: Execute) -> None:
        self.view = VIEWS[0]
        self._socket = socket
        self._execute = execute
        self._limit = RateLimit(REQUESTS_PER_S, REQUESTS_AT_ONCE)
        self._lists = {name: deque[Any](maxlen=most) for name, most in KEPT.items()}
        self._lists["replies"] = deque(maxlen=REPLIES)
        self._values: dict[str, Any] = {}
        self._picture: Picture | None = None
        self._sent_at: float | None = None  # of the picture that the page has not confirmed
        self._pace = Pace()
        self._wake = asyncio.Event()
        self._jobs: set[asyncio.Task[None]] = set()

    def add(self, name: str, entries: Iterable[Any]) -> None:
        """Entries of a list, to go out with the next bundle."""
        self._lists[name].extend(entries)

    def put(self, name: str, value: Any) -> None:
        """A value that takes the place of the former, to go out with the next bundle."""
        self._values[name] = value

    def show(self, picture: Picture) -> None:
        """The newest picture of its view, for the page that looks at it."""
        if picture.view == self.view:
            self._picture = picture
            if self._sent_at is None:
                self._wake.set()

    def flush(self) -> None:
        """Have the bundle go out."""
        self._wake.set()

    async def close(self) -> None:
        """Have the page come again, if there is anything to come to."""
        await self._socket.close(code=WSCloseCode.GOING_AWAY)

    async def write(self) -> None:
        """Send what there is, until the page is gone."""
        try:
            with contextlib.suppress(ConnectionResetError):
                while not self._socket.closed:
                    await self._wake.wait()
                    self._wake.clear()
                    await self._send_bundle()
                    if self._picture is not None and self._sent_at is None:
                        await self._send_picture(self._picture)
        finally:
            await self.close()

    async def _send_bundle(self) -> None:
        bundle: dict[str, Any] = {
            name: list(entries) for name, entries in self._lists.items() if entries
        }
        bundle |= self._values
        for entries in self._lists.values():
            entries.clear()
        self._values.clear()
        if bundle:
            bundle["time"] = time.time()
            await self._socket.send_str(json.dumps(bundle, allow_nan=False))

    async def _send_picture(self, picture: Picture) -> None:
        self._picture = None
        self._sent_at = time.monotonic()
        jpeg = await asyncio.to_thread(picture.halved, self._pace.halvings)
        head = picture.stamp_ns.to_bytes(8, "big") + bytes([VIEWS.index(picture.view)])
        await self._socket.send_bytes(head + jpeg)

    async def read(self) -> None:
        """Do what the page asks, until it is gone."""
        try:
            async for message in self._socket:
                if message.type is not WSMsgType.TEXT:
                    continue
                try:
                    request = json.loads(message.data)
                except (ValueError, RecursionError):
                    request = None
                if isinstance(request, dict):
                    self._take(request)
        finally:
            for job in self._jobs:
                job.cancel()

    def _take(self, request: dict[str, Any]) -> None:
        do = request.get("do")
        if do == "seen":
            if self._sent_at is not None:
                self._pace.took(time.monotonic() - self._sent_at)
                self._sent_at = None
                self._wake.set()
        elif do == "view":
            if request.get("view") in VIEWS:
                self.view = request["view"]
                self._picture = None
        else:
            job = asyncio.create_task(self._answer(request))
            self._jobs.add(job)
            job.add_done_callback(self._jobs.discard)

    async def _answer(self, request: dict[str, Any]) -> None:
        try:
            if not self._limit.allows():
                raise Refused("too many requests: wait a second")
            text, done = await self._execute(request), True
        except Refused as refusal:
            text, done = str(refusal), False
        number = request.get("number")
        if type(number) is not int:
            number = None
        self.add("replies", [{"number": number, "done": done, "text": text}])
        self.flush()


class Console:
    """What all pages share.

    Args:
        execute: does what a page asks.
        watch: is told the views that some page looks at, whenever they change.
    """

    def __init__(
        self, access: Access, execute: Execute, watch: Callable[[frozenset[str]], None]
    ) -> None:
        self._access = access
        self._execute = execute
        self._watch = watch
        self._sessions: set[Session] = set()
        self._kept = {name: deque[Any](maxlen=most) for name, most in KEPT.items()}
        self._values: dict[str, Any] = {}
        self._watched: frozenset[str] = frozenset()
        self._let_in: set[RequestHandler] = set()  # connections
        self._files = {
            path: ((Path(__file__).parent / "page" / name).read_bytes(), kind)
            for path, (name, kind) in FILES.items()
        }

    def add(self, name: str, entry: Any) -> None:
        """An entry of a list: tracks or events."""
        self._kept[name].append(entry)
        for session in self._sessions:
            session.add(name, [entry])

    def put(self, name: str, value: Any) -> None:
        """A value that takes the place of the former."""
        self._values[name] = value
        for session in self._sessions:
            session.put(name, value)

    def show(self, picture: Picture) -> None:
        """The newest picture of its view."""
        for session in self._sessions:
            session.show(picture)

    async def flush_forever(self) -> None:
        """Send out the bundles, and say what is looked at."""
        while True:
            for session in self._sessions:
                session.flush()
            watched = frozenset(session.view for session in self._sessions)
            if watched != self._watched:
                self._watched = watched
                self._watch(watched)
            await asyncio.sleep(PERIOD_S)

    async def drop_silent_forever(self, server: web.Server) -> None:
        """Close connections that ask for nothing, or for nothing that they may have.

        aiohttp would wait for the rest of a request for ever, until no file was left to open.
        """
        since: dict[RequestHandler, float] = {}
        while True:
            now = time.monotonic()
            self._let_in.intersection_update(server.connections)  # the others are gone
            waiting = [one for one in server.connections if one not in self._let_in]
            since = {one: since.get(one, now) for one in waiting}
            waiting.sort(key=since.__getitem__)
            beyond = max(len(server.connections) - CONNECTIONS, 0)
            for number, connection in enumerate(waiting):
                if number < beyond or now - since[connection] > SILENT_S:
                    connection.force_close()
            await asyncio.sleep(PERIOD_S)

    def application(self) -> web.Application:
        """The web application."""

        @web.middleware
        async def guard(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            self._access.check(request)
            self._let_in.add(request.protocol)
            return await handler(request)

        async def add_headers(request: web.Request, answer: web.StreamResponse) -> None:
            answer.headers.update(HEADERS)

        application = web.Application(middlewares=[guard], client_max_size=MESSAGE_BYTES)
        for path in self._files:
            application.router.add_get(path, self._file)
        application.router.add_get("/socket", self._socket)
        application.on_response_prepare.append(add_headers)
        application.on_shutdown.append(self._close)
        return application

    async def _file(self, request: web.Request) -> web.Response:
        body, kind = self._files[request.path]
        return web.Response(body=body, content_type=kind, charset="utf-8")

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        if len(self._sessions) >= PAGES:
            raise web.HTTPServiceUnavailable(text=f"{PAGES} pages are open already: close one")
        # Pictures are compressed already.
        socket = web.WebSocketResponse(
            heartbeat=HEARTBEAT_S, max_msg_size=MESSAGE_BYTES, compress=False
        )
        await socket.prepare(request)
        session = Session(socket, self._execute)
        for name, entries in self._kept.items():
            session.add(name, entries)
        for name, value in self._values.items():
            session.put(name, value)
        self._sessions.add(session)
        session.flush()
        writer = asyncio.create_task(session.write())
        try:
            await session.read()
        finally:
            self._sessions.discard(session)
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writer
        return socket

    async def _close(self, application: web.Application) -> None:
        for session in list(self._sessions):
            await session.close()
