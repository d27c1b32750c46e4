"""The service: API, page and documentation in one process; the page may load nothing from elsewhere."""

import contextlib
import errno
import importlib.resources
import socket
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from smar import __version__
from smar.errors import InputError
from smar.progress import console
from smar.serving.engine import Engine
from smar.serving.errors import add_error_handlers
from smar.serving.follow import following
from smar.serving.routes import build_router

WEB = Path(__file__).parent / "web"

SECURITY_HEADERS = {
    # no inline script or style, no other origin; data: is for the icons of the documentation page
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class SecureHeaders:
    """Adds the security headers to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; add the headers when its answer starts."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, send_with_headers)


def create_app(engine: Engine) -> FastAPI:
    """The ASGI application over an opened engine, which follows changes of its index."""
    app = FastAPI(
        lifespan=lambda _: following(engine),
        title="smar",
        version=__version__,
        summary="Product search that reads words and looks at pictures.",
        docs_url=None,  # FastAPI's own page loads its script from another host
        redoc_url=None,
    )
    app.add_middleware(SecureHeaders)
    add_error_handlers(app)
    app.include_router(build_router(engine))

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(WEB / "index.html", headers={"Cache-Control": "no-cache"})

    @app.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(WEB / "docs.html", headers={"Cache-Control": "no-cache"})

    app.mount("/static", StaticFiles(directory=WEB))
    # the package is used only for the Swagger UI files that it carries
    app.mount("/swagger", StaticFiles(directory=str(importlib.resources.files("fastapi_offline") / "static")))
    return app


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any free one.

    Raises:
        InputError: the port is in use or not allowed, or the host is not an address of this machine.
    """
    if not 0 <= port <= 65_535:  # the resolver would wrap it around to another port
        raise InputError(f"port {port} does not exist; allowed: 0 (any free one) to 65535. Use --host and --port.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, OverflowError) as error:
        raise InputError(f"host {host!r}, port {port} is not an address: {error}. Use --host and --port.") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(socket.SOMAXCONN)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise InputError(f"port {port} of {host} is in use; choose another with --port.") from None
        raise InputError(f"cannot listen on {host}, port {port}: {error}. Use --host and --port.") from None
    return listener


def serve(index_path: Path, host: str = "127.0.0.1", port: int = 8080) -> None:
    """Serve an index until interrupted.

    Raises:
        InputError: the port is in use, or the index is missing, damaged or made by another model.
    """
    with contextlib.closing(listen(host, port)) as listener:
        engine = Engine.open(index_path)
        address = f"[{host}]" if ":" in host else host
        url = f"http://{address}:{listener.getsockname()[1]}"
        config = uvicorn.Config(create_app(engine), log_level="warning", access_log=False, server_header=False)
        # uvicorn raises an interrupt again after its clean shutdown; one before its start ends here just as well
        with contextlib.suppress(KeyboardInterrupt):
            console.print(
                f"{len(engine.index):,} items at {url} (documentation: {url}/docs); Ctrl-C ends",
                markup=False,
                soft_wrap=True,
            )
            uvicorn.Server(config).run(sockets=[listener])
