"""Where the command begins: Ctrl-C while its modules are imported gives no traceback either."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; exits with its status."""
    try:
        from .main import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()
