"""The command line: parse, call, print. Heavy imports wait inside the commands, so that `--help` is instant."""

import sys

from he2her2.cli.commands import app
from he2her2.errors import He2Her2Error


def main() -> None:
    """Run a command; a user's mistake is one line and exit code 2, our own bug is a traceback."""
    try:
        app()
    except He2Her2Error as error:
        sys.stderr.write(f"he2her2: {' '.join(str(error).split())}\n")
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        sys.stderr.write("he2her2: stopped\n")
        raise SystemExit(130) from None
