"""The package as a whole: what importing it costs."""

from __future__ import annotations

import subprocess
import sys


def test_importing_the_package_imports_nothing_else() -> None:
    code = (
        "import sys; before = set(sys.modules); import adapterdock; "
        "new = {m for m in set(sys.modules) - before if m.startswith('adapterdock')}; "
        "assert new == {'adapterdock'}, new"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
