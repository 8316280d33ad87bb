"""Tests that hold the committed table of architectures against transformers itself."""

from __future__ import annotations

import sys

import pytest

of_the_tables_transformers = pytest.mark.skipif(
    sys.version_info < (3, 11),
    reason="the table was exported from a transformers that needs Python 3.11",
)

newest_transformers = pytest.mark.skipif(
    sys.version_info < (3, 11),
    reason="compares with the newest transformers, which needs Python 3.11",
)
