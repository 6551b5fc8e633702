"""The command line: `colloque ...`, or `python -m server ...`. [IO]"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from server import __version__, commands, config, serve
from server.config import Config
from server.errors import ConfigError

_MISUSE = 2
"""Exit status for a command or settings that cannot work, as argparse uses it."""
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        argv: The arguments; None for the process's own.
    """
    args = _parser().parse_args(argv)
    func: Callable[[argparse.Namespace, Config], int] = args.func
    try:
        return func(args, config.load(args.config))
    except ConfigError as error:
        print(f"colloque: {error}", file=sys.stderr)
        return _MISUSE
    except KeyboardInterrupt:
        return _INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="colloque",
        description="The video core of medical teleconsultation: rooms, links, and the server that joins them.",
        epilog="Settings come from a TOML file and from COLLOQUE_... environment variables: `colloque config show`.",
    )
    parser.add_argument("--version", action="version", version=f"colloque {__version__}")
    parser.add_argument("--config", metavar="FILE", type=Path, help="settings, TOML (or COLLOQUE_CONFIG)")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    serve.add_parser(subparsers)
    commands.add_parsers(subparsers)
    for command in subparsers.choices.values():
        command.add_argument("--config", metavar="FILE", type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
