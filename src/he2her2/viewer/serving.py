"""The viewer's one port: found, announced and served."""

import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from he2her2.errors import ConfigError
from he2her2.viewer.app import make_app
from he2her2.viewer.catalogue import Catalogue
from he2her2.viewer.guard import is_this_machine
from he2her2.viewer.reviews import Reviews

DEFAULT_PORT = 8842
_TRIES = 20
_ANY = ("0.0.0.0", "::")  # noqa: S104  # compared with, not bound to


@dataclass(frozen=True, slots=True)
class Listener:
    """A port that is taken.

    Attributes:
        sock: The socket.
        host: As it was asked for.
        token: Asked of every request; None on this machine alone.
    """

    sock: socket.socket
    host: str
    token: str | None

    @property
    def port(self) -> int:
        """The port."""
        return int(self.sock.getsockname()[1])

    @property
    def url(self) -> str:
        """The address to open, with the token."""
        host = socket.gethostname() if self.host in _ANY else self.host
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{self.port}/" + (f"?token={self.token}" if self.token else "")


def listen(host: str = "127.0.0.1", port: int | None = None, *, with_token: bool = False) -> Listener:
    """Take a port.

    Args:
        host: Address to listen on; any but this machine's own needs a token.
        port: The port, 0 for any free one; None tries the usual one and those after it.
        with_token: Ask for a token also on this machine, which others may share.

    Raises:
        ConfigError: The address or port cannot be had.
    """
    token = secrets.token_urlsafe(24) if with_token or not is_this_machine(host) else None
    wanted = range(DEFAULT_PORT, DEFAULT_PORT + _TRIES) if port is None else (port,)
    reason = ""
    for number in wanted:
        try:
            family, *_, address = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0]
            sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        except (OSError, OverflowError) as error:
            raise ConfigError(f"--host {host}: no such address ({error}); give a name or address of this machine"
                              ) from None  # fmt: skip
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            sock.listen(128)
        except (OSError, OverflowError) as error:
            sock.close()
            reason = getattr(error, "strerror", None) or str(error)
            continue
        return Listener(sock, host, token)
    raise ConfigError(f"--port {wanted[0]}: cannot be had on {host} ({reason}); choose another --port, or 0 for any")


def serve(
    catalogue: Catalogue, annotations: Path | None, listener: Listener, reread: Callable[[], Catalogue] | None = None
) -> None:
    """Answer on a port until the process is told to stop.

    Args:
        catalogue: What may be shown.
        annotations: Folder of reviewers' files; None saves nothing.
        listener: The port.
        reread: Gives the catalogue anew when its run has gone on.
    """
    cookie = f"he2her2-{listener.port}"
    app = make_app(catalogue, Reviews(annotations), token=listener.token, cookie=cookie, reread=reread)
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, timeout_keep_alive=30)
    uvicorn.Server(config).run(sockets=[listener.sock])
