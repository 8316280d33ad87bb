"""What follows a manifest imports neither torch nor numpy nor the loader."""

from __future__ import annotations

import subprocess
import sys


def test_following_imports_nothing_heavy() -> None:
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, adapterdock.serving.served.served; "
            "print(*sorted(m for m in sys.modules if m in ('torch', 'numpy', 'transformers') "
            "or m.startswith('adapterdock.loader')))",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.split() == []
