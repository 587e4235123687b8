"""The log of a coordinator: one line on standard error for each thing that happened."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

SECRET = re.compile(r"(shoal_[a-z]+_)[\w-]{16,}")
"""A token or the secret of a device, anywhere in a text."""

Line = MutableMapping[str, Any]


def log_to_stderr(as_json: bool) -> None:
    """Send our log lines, and those of libraries, to standard error.

    Each line has a time and a level, and the names of task, round and device where it is about one. They are JSON,
    one object a line, with `as_json` and when nobody watches: when standard error is no terminal.
    """
    as_json = as_json or not sys.stderr.isatty()
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Any] = (
        [structlog.processors.format_exc_info, without_secrets, structlog.processors.JSONRenderer(default=str)]
        if as_json
        else [without_secrets, structlog.dev.ConsoleRenderer(colors=True)]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    form = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last]
    )
    output = logging.StreamHandler(sys.stderr)
    output.setFormatter(form)
    logging.basicConfig(level=logging.INFO, handlers=[output], force=True)
    # what these say at INFO is in our own lines
    for name in ("uvicorn", "httpx", "websockets"):
        logging.getLogger(name).setLevel(logging.WARNING)


def without_secrets(_logger: object, _method: str, line: Line) -> Line:
    """Replace tokens and secrets of devices, wherever they stand in a line."""
    return {key: SECRET.sub(r"\1...", value) if isinstance(value, str) else value for key, value in line.items()}
