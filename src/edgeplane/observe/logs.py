"""Log lines: a time, a level, a message; never more than one line, whatever a client sent."""

import io
import logging
import sys
import time

_CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F, *range(0x80, 0xA0))}
_CONTROL |= {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}
_CONTROL |= {0x2028: "\\u2028", 0x2029: "\\u2029"}


def one_line(text: str) -> str:
    """Make control characters visible, so that nothing a client sends can forge a line."""
    return text.translate(_CONTROL)


class _LineFormatter(logging.Formatter):
    """``2026-01-23T10:00:00.000Z INFO message``; a traceback follows indented."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        millis = int(record.msecs)
        line = f"{stamp}.{millis:03d}Z {record.levelname} {one_line(record.getMessage())}"
        if record.exc_info:
            trace = self.formatException(record.exc_info)
            line += "".join(f"\n    {one_line(part)}" for part in trace.splitlines())
        return line


def set_up(level: int = logging.INFO) -> None:
    """Send every log line to standard error, in this form."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # no character may stop a start
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LineFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "alembic", "sqlalchemy"):
        logging.getLogger(name).setLevel(logging.WARNING)


def say(line: str) -> None:
    """Print a start-up line, plain, to standard output."""
    sys.stdout.write(one_line(line) + "\n")
    sys.stdout.flush()


def warn_loudly(line: str) -> None:
    """Print a warning at start that cannot be overlooked."""
    bar = "!" * 72
    sys.stderr.write(f"{bar}\n!! WARNING: {one_line(line)}\n{bar}\n")
    sys.stderr.flush()
