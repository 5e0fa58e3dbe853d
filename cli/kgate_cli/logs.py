"""Logging of the command line: structured lines on stderr, so that stdout stays the result."""

from __future__ import annotations

import logging
import sys


def configure_logging() -> None:
    """Send structlog and the standard library's loggers to stderr, from warnings on."""
    import structlog

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        # Looked up at each line: whoever redirects stderr later gets the lines too.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(name)s: %(message)s")
