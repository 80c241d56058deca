"""The command line: ``python -m reproduce ...``."""

import signal
import sys

from reproduce import Interrupted, ReproduceError, streams
from reproduce.cli.parser import make_parser, parse

__all__ = ["main", "make_parser", "parse"]


def main(arguments: list[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments (list of str): of the command line.

    Returns:
        int: the exit code: 0, 1 if a command says so, 2 for an error that the user can fix, and
        128 plus the signal's number after a signal.
    """
    try:
        with streams.checked() as printed:
            code = _call(arguments)
    except SystemExit:  # of --help
        if printed.failed:
            return ReproduceError.exit_code
        raise
    return code or (ReproduceError.exit_code if printed.failed else 0)


def _call(arguments: list[str] | None) -> int:
    """Run a command; return its exit code."""
    try:
        parsed = parse(sys.argv[1:] if arguments is None else arguments)
        code = parsed.call(parsed) or 0
        sys.stdout.flush()
        return code
    except ReproduceError as error:
        print(f"reproduce: {error}", file=sys.stderr)
        return error.exit_code
    except Interrupted as error:
        print(f"reproduce: {error}", file=sys.stderr)
        return 128 + (error.signal or signal.SIGINT)
    except KeyboardInterrupt:
        print("reproduce: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of the output has ended, as ``head`` does.  The interpreter writes the rest
        # of the output when it ends; it is discarded.
        streams.to_nowhere(sys.stdout)
        return 128 + signal.SIGPIPE
    except OSError as error:
        named = f"{str(error.filename)!r}: " if error.filename is not None else ""
        print(f"reproduce: {named}{error.strerror or error}", file=sys.stderr)
        return ReproduceError.exit_code
