"""Server of a review: one page, its state as JSON, and the images of the audited data, on this machine only."""

from __future__ import annotations

import json
import secrets
import threading
import time
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.data.images import decode
from finetune.errors import FinetuneError, UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    from finetune.review.decisions import Review

    Answer = Callable[[Request], Awaitable[Response]]

HOST = "127.0.0.1"
SIDE = 900  # pixels of the longer side of an image that is sent
BODY = 10_000  # bytes of a request
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
STATIC = {"index.html": "text/html", "review.js": "text/javascript", "review.css": "text/css"}
INSTALL = "run: pip install 'mindspore-finetune[web]'"


def build_application(review: Review, token: str, *, hosts: tuple[str, ...] = (HOST, "localhost")) -> Starlette:
    """Return the application; every path starts with the token, and other host names are refused.

    The host check defends against DNS rebinding, where a foreign page gives its own name this machine's address.
    """
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.routing import Route

    answers = Answers(review)
    routes = (
        ("", answers.send_file, "GET"),
        ("review.js", answers.send_file, "GET"),
        ("review.css", answers.send_file, "GET"),
        ("state", answers.send_state, "GET"),
        ("images/{number:int}", answers.send_image, "GET"),
        ("maps/{number:int}", answers.send_map, "GET"),
        ("decide", answers.decide, "POST"),
        ("undo", answers.undo, "POST"),
    )
    return Starlette(
        routes=[Route(f"/{{token}}/{path}", guard(answer, token), methods=[way]) for path, answer, way in routes],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)],
    )


def guard(answer: Answer, token: str) -> Answer:
    """Return the answer to requests with the right token, with headers that keep the page to itself."""
    from starlette.responses import PlainTextResponse

    async def check(request: Request) -> Response:
        if not secrets.compare_digest(request.path_params["token"].encode(), token.encode()):
            return PlainTextResponse("not found", 404, HEADERS)
        response = await answer(request)
        response.headers.update(HEADERS)
        return response

    return check


class Answers:
    """Answers to the requests of the page."""

    def __init__(self, review: Review) -> None:
        self.review, self.lock = review, threading.Lock()

    async def send_file(self, request: Request) -> Response:
        """Send the page, its script or its style."""
        from starlette.responses import Response

        kind = STATIC[name := request.url.path.rpartition("/")[2] or "index.html"]
        content = files("finetune.review").joinpath("static", name).read_bytes()
        return Response(content, media_type=f"{kind}; charset=utf-8")

    async def send_state(self, request: Request) -> Response:
        """Send the findings and the decisions so far."""
        from starlette.responses import JSONResponse

        with self.lock:
            return JSONResponse(self.review.describe())

    async def decide(self, request: Request) -> Response:
        """Store a decision and send the new state."""

        def act(given: dict[str, Any]) -> dict[str, Any]:
            label = str(given.get("label") or "")
            self.review.decide(str(given.get("path")), str(given.get("action")), label)
            return {}

        return await self._change(request, act)

    async def undo(self, request: Request) -> Response:
        """Take the last decision back and send the new state."""
        return await self._change(request, lambda given: {"undone": self.review.undo()})

    async def _change(self, request: Request, act: Callable[[dict[str, Any]], dict[str, Any]]) -> Response:
        from starlette.responses import JSONResponse

        try:
            given = await read_body(request)
            with self.lock:
                return JSONResponse(act(given) | self.review.describe())
        except UsageError as error:
            return JSONResponse({"error": str(error)}, 400)
        except FinetuneError as error:
            return JSONResponse({"error": str(error)}, 507)

    async def send_image(self, request: Request) -> Response:
        """Send an image of the audited data, by its number."""
        from starlette.concurrency import run_in_threadpool
        from starlette.responses import PlainTextResponse, Response

        number = request.path_params["number"]
        if number >= len(self.review.images):
            return PlainTextResponse("no such image", 404)
        own = self.review.folder / "images" / f"{number}.jpg"  # of an image without a file
        try:
            content = await run_in_threadpool(encode_image, own if own.is_file() else Path(self.review.images[number]))
        except FinetuneError as error:
            return PlainTextResponse(str(error), 404)
        return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    async def send_map(self, request: Request) -> Response:
        """Send the heat map of an image, by its number."""
        from starlette.responses import PlainTextResponse, Response

        file = self.review.folder / "maps" / f"{request.path_params['number']}.jpg"
        if not file.is_file():
            return PlainTextResponse("no such map", 404)
        return Response(file.read_bytes(), media_type="image/jpeg")


async def read_body(request: Request) -> dict[str, Any]:
    """Return the mapping in the body of a request; raises ``UsageError`` for any other body.

    Requiring JSON makes browsers ask before a foreign page may send it, which is then refused.
    """
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise UsageError("send JSON")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > BODY:
            raise UsageError(f"the request exceeds {BODY:,} bytes")
    try:
        given = json.loads(body or b"{}")
    except ValueError:
        raise UsageError("send valid JSON") from None
    if not isinstance(given, dict):
        raise UsageError("send a JSON object")
    return given


def encode_image(path: Path) -> bytes:
    """Return an image as JPEG, upright and at most ``SIDE`` pixels long; raises ``DataError`` if it cannot be read."""
    from PIL import Image

    picture = Image.fromarray(decode(path, side=SIDE))
    picture.thumbnail((SIDE, SIDE))
    data = BytesIO()
    picture.save(data, "JPEG", quality=88)
    return data.getvalue()


def check_installed() -> None:
    """Raise ``UsageError`` if the libraries of the extra ``web`` are missing."""
    try:
        import starlette
        import uvicorn
    except ImportError as error:
        raise UsageError(f"finetune review needs {error.name}; {INSTALL}") from None
    del starlette, uvicorn


def serve_review(review: Review, port: int, ready: Callable[[str], None], check: Callable[[], None]) -> None:
    """Serve a review on this machine until ``check`` raises; ``ready`` is called with the address.

    Port 0 chooses a free one. Raises ``UsageError`` if the port is in use.
    """
    import socket

    import uvicorn

    token = secrets.token_urlsafe(16)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        raise UsageError(f"port {port} cannot be used ({error.strerror}); choose another one with --port") from error
    address = f"http://{HOST}:{listener.getsockname()[1]}/{token}/"
    config = uvicorn.Config(build_application(review, token), log_level="warning", access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.02)
        ready(address)
        while thread.is_alive():
            check()
            time.sleep(0.1)
    finally:
        server.should_exit = True
        thread.join(5)
        listener.close()
