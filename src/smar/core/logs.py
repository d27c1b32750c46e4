"""Logs as JSON lines on stderr: one object an event, so that a log store needs no parser."""

import logging
import sys
import time
from typing import Any

import msgspec

ACCESS = "smar.access"


class JsonLines(logging.Formatter):
    """One JSON object a record: time, level, logger, message, ``extra={"fields": ...}``, traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def configure_logs(requests: bool = False) -> None:
    """Send everything of this process to stderr; lines for single requests only when asked for."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    # a line for each malformed request would let any client fill the disk; `smar_requests` counts them
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    logging.getLogger(ACCESS).setLevel(logging.INFO if requests else logging.ERROR)
