"""The package as a whole: what importing it costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def test_importing_the_package_imports_nothing_else() -> None:
    code = (
        "import sys; before = set(sys.modules); import adapterdock; "
        "new = {m for m in set(sys.modules) - before if m.startswith('adapterdock')}; "
        "assert new == {'adapterdock'}, new"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_exported_name_is_there_and_known_to_type_checkers() -> None:
    import adapterdock

    text = Path(adapterdock.__file__).read_text()
    for name in adapterdock.__all__:
        assert getattr(adapterdock, name) is not None
        assert name == "__version__" or f"import {name} as {name}" in text
    assert set(adapterdock.__all__) <= set(dir(adapterdock))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = adapterdock.nonsense
