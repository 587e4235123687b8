"""Running a coordinator from a folder: its home."""

import os
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import structlog
import uvicorn
from fastapi import FastAPI

from shoal.core.errors import ConfigurationError
from shoal.server.app import build_app
from shoal.server.at_once import AtOnce
from shoal.server.come_back import come_back
from shoal.server.coordinator import Coordinator
from shoal.server.home import BLOBS, DATABASE, UPLOADS, VARIANTS, sharing
from shoal.server.leading import leading
from shoal.server.limits import Limits
from shoal.server.metrics import Metrics
from shoal.server.page import open_to_browsers
from shoal.server.space import measure
from shoal.server.web_runtime import open_runtime
from shoal.store import failpoints
from shoal.store.blobs import FolderBlobs
from shoal.store.database import Database
from shoal.store.sql import SqlStore, database
from shoal.store.uploads import FolderUploads
from shoal.store.writer import unguarded
from shoal.wire.listening import address, listen
from shoal.wire.lock import Lock

if TYPE_CHECKING:
    from shoal.store.lead import Lead

KEEP_ALIVE_SECONDS = 75
STOP_SECONDS = 1

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Announcement:
    """Where a coordinator listens; the tokens only on the first start of its home."""

    url: str
    home: str
    admin_token: str | None
    enrolment_token: str | None


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, coordinator: Coordinator) -> None:
        super().__init__(config)
        self._coordinator = coordinator
        self.lost = False

    def superseded(self) -> None:
        """End because another coordinator leads; may be called from another thread."""
        self.lost = True
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Long polls are answered at once, else the server would wait for them to end.
        self._coordinator.bell.close()
        super().handle_exit(sig, frame)


def open_coordinator(
    home: Path,
    limits: Limits = Limits(),  # noqa: B008  (it is frozen)
    *,
    where: Database | None = None,
    lead: "Lead | None" = None,
    approval: bool = False,
) -> Coordinator:
    """Open the store and the blobs of a home, which is made when it is not there; `where` is a database elsewhere."""
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        metrics = Metrics()
        guard = unguarded if lead is None else lead.guard
        store = SqlStore(where or home / DATABASE, metrics.appended, guard)
        if lead is not None:
            lead.begin()
        return Coordinator(
            store,
            FolderBlobs(home / BLOBS),
            clock=failpoints.clock(os.environ.get(failpoints.CLOCK)),
            limits=limits,
            measured=lambda: measure(home),
            metrics=metrics,
            uploads=FolderUploads(home / UPLOADS),
            variants=home / VARIANTS,
            approval=approval,
        )
    except OSError as error:
        raise ConfigurationError(
            f"{home} cannot be a coordinator's home: {error.strerror}", "give a folder that you may write to"
        ) from error


def serve(
    home: Path,
    host: str,
    port: int,
    *,
    announce: Callable[[Announcement], None],
    page: Path | None = None,
    web_runtime: Path | None = None,
    origins: Sequence[str] = (),
    limits: Limits = Limits(),  # noqa: B008  (it is frozen)
    metrics_public: bool = False,
    approval: bool = False,
    lock: Lock = Lock(),  # noqa: B008  (it is frozen)
    where: str | None = None,
    standby: bool = False,
) -> None:
    """Serve a home until SIGTERM or SIGINT. Port 0 takes a free one.

    With `approval` devices without a token wait for a person. `page` is a folder for browsers, `web_runtime` one with
    an ONNX runtime for them, `origins` are those whose pages may call. `where` is the URL of a database elsewhere than
    in the home; with `standby`, this one waits until no other coordinator leads that. Raises ConfigurationError when
    the port is taken, one of these is wrong, the line would be open to other machines, another coordinator leads or
    the home is being migrated, NewerDatabase, OlderDatabase, CorruptStore; Superseded when another coordinator has
    taken the lead.
    """
    failpoints.arm(os.environ.get(failpoints.VARIABLE))
    lock.check(host)
    place = database(home / DATABASE if where is None else where)
    with ExitStack() as held:
        # one that stands by does not listen, so that whoever looks for the one that serves finds it
        early = None if standby else held.enter_context(listen(host, port))
        held.enter_context(sharing(home))
        lead = held.enter_context(leading(place, standby=standby))
        listener = early or held.enter_context(listen(host, port))
        coordinator = open_coordinator(home, limits, where=place, lead=lead, approval=approval)
        app = build_app(coordinator, metrics_public=metrics_public)
        # these may fail, so before the tokens are made: they are shown only once
        open_to_browsers(app, page, origins)
        open_runtime(app, web_runtime)
        _run(app, coordinator, listener, home, announce, lock, lead)


def _run(
    app: FastAPI,
    coordinator: Coordinator,
    listener: socket.socket,
    home: Path,
    announce: Callable[[Announcement], None],
    lock: Lock,
    lead: "Lead | None",
) -> None:
    first = not coordinator.identities.tokens
    now = coordinator.clock()
    announcement = Announcement(
        url=address(lock.scheme, listener),
        home=str(home),
        admin_token=coordinator.identities.issue("admin", now) if first else None,
        enrolment_token=coordinator.identities.issue("enrolment", now) if first else None,
    )
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # what a proxy says about the caller is believed nowhere
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
        http=partial(AtOnce, answer=partial(come_back, coordinator)),  # type: ignore[arg-type]  # it is called
        ws="none",
        ssl_certfile=lock.cert,
        ssl_keyfile=lock.key,
    )
    announce(announcement)
    log.info("serving", url=announcement.url, home=announcement.home)
    server = _Server(config, coordinator)
    if lead is not None:
        lead.watch(server.superseded)
    server.run([listener])
    if lead is not None and server.lost:
        raise lead.over()
