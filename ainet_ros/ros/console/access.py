# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Who may use the console, and how often."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import time
from collections import deque
from urllib.parse import urlsplit

from aiohttp import web

COOKIE = "ainet_token"
COOKIE_S = 30 * 24 * 3600
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
FAILURES = 20
FAILURES_S = 60.0
"""After so many wrong tokens from an address within so long, it waits."""
ADDRESSES = 1000
"""Most addresses whose wrong tokens are remembered."""


class RateLimit:
    """Allows `burst` calls at once and `rate` a second in the long run."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate, self._burst = rate, burst
        self._left, self._at = float(burst), time.monotonic()

    def allows(self) -> bool:
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Access:
    """Lets in what comes from this host by a local name, and whoever knows the token.

    By name too: a page of somebody else's domain that points to this host is not local.

    token: empty where there is none, so that only this host may come in.
    """

    def __init__(self, token: str) -> None:
        self._token = token
        # (time, hash of the wrong token), by address
        self._failures: dict[str, deque[tuple[float, int]]] = {}

    def check(self, request: web.Request) -> None:
        """Raises web.HTTPException for who may not come in.

        Where the token came in the address, that is a redirection which puts it into a cookie.
        """
        if not self._origin_is_own(request):
            raise web.HTTPForbidden(text="this request comes from another site's page")
        cookie = request.cookies.get(COOKIE)
        if self._is_local(request) or (cookie is not None and self._knows(cookie)):
            return
        address = _address(request)
        if self._waits(address):
            raise web.HTTPTooManyRequests(text="too many wrong tokens: wait a minute")
        given = request.query.get("token")
        if given is not None and self._knows(given):
            answer = web.HTTPSeeOther(request.path)
            # Lax: the address may be a link in a chat. What changes anything goes over the
            # socket, whose origin is checked.
            answer.set_cookie(COOKIE, given, max_age=COOKIE_S, httponly=True, samesite="Lax")
            raise answer
        for wrong in (cookie, given):
            if wrong is not None:
                self._note_failure(address, wrong)
        raise web.HTTPUnauthorized(
            text="a token is needed: open the address that the console's log shows, or "
            "/?token=... with the parameter token"
        )

    def _knows(self, given: str) -> bool:
        # Bytes that are no text come as surrogates.
        offered = given.encode(errors="surrogateescape")
        return bool(self._token) and hmac.compare_digest(offered, self._token.encode())

    def _waits(self, address: str) -> bool:
        failures = self._failures.get(address, deque[tuple[float, int]]())
        return len(failures) == FAILURES and time.monotonic() - failures[0][0] < FAILURES_S

    def _note_failure(self, address: str, wrong: str) -> None:
        failures = self._failures.pop(address, deque(maxlen=FAILURES))
        if hash(wrong) not in (known for _, known in failures):  # else a page with an old cookie
            failures.append((time.monotonic(), hash(wrong)))
        self._failures[address] = failures  # the newest last
        if len(self._failures) > ADDRESSES:
            del self._failures[next(iter(self._failures))]

    @staticmethod
    def _is_local(request: web.Request) -> bool:
        try:
            address = ipaddress.ip_address(_address(request))
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return (mapped or address).is_loopback and host_name(request.host) in LOCAL_NAMES

    @staticmethod
    def _origin_is_own(request: web.Request) -> bool:
        """Whether no page of another site asks; browsers say which one does."""
        origin = request.headers.get("Origin")
        return origin is None or origin in (f"http://{request.host}", f"https://{request.host}")


def _address(request: web.Request) -> str:
    """Of who asks; empty where he has hung up."""
    peer = request.transport.get_extra_info("peername") if request.transport else None
    return str(peer[0]).partition("%")[0] if peer else ""


def host_name(host: str) -> str:
    """Of a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def new_token() -> str:
    """One that nobody guesses."""
    return secrets.token_urlsafe(24)
