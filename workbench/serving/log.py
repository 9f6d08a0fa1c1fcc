"""The log: one JSON object a line on standard error."""

import json
import logging
import sys
import warnings
from datetime import UTC, datetime
from typing import Any

from bokeh.util.warnings import BokehUserWarning

LOG = logging.getLogger("workbench")


class Lines(logging.Formatter):
    """Every record as a line of JSON: whatever a visitor sends cannot begin a line of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """Give time, level, logger and event, and what else was said."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"time": when, "level": record.levelname.lower(), "logger": record.name}
        line["event"] = record.getMessage()
        line |= getattr(record, "about", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def write_lines() -> None:
    """Send our own events, and other packages' warnings, to standard error as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    LOG.setLevel(logging.INFO)
    for name in ("panel", "bokeh", "bokeh.server.views.ws", "tornado.access"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
        logger.setLevel(logging.WARNING)
    logging.getLogger("tornado.access").setLevel(logging.ERROR)  # the gate says it
    logging.captureWarnings(True)
    warnings.filterwarnings("ignore", "reference already known", BokehUserWarning)  # of tables' own style sheets


def say(event: str, **about: Any) -> None:
    """Log an event with its particulars."""
    LOG.info(event, extra={"about": about})
