"""What the command lines have in common."""

import sys
from argparse import Namespace


def run_command(options: Namespace, goes_on: str) -> int:
    """Call `options.run` with the options; return 0, 2 if refused, 130 if interrupted.

    Parameters
    ----------
    options
        Of a parser whose commands set `run`.
    goes_on
        Where the same command takes up what was interrupted, such as "from the last epoch".
    """
    try:
        options.run(options)
    except KeyboardInterrupt:
        print(f"\ninterrupted; the same command goes on {goes_on}", file=sys.stderr)
        return 130
    except (ValueError, FloatingPointError, RuntimeError, OSError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    return 0
