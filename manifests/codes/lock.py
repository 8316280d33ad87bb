"""Codes AD5xx."""

from __future__ import annotations

from ..findings import Severity
from .code import Code

_ = (Severity, Code)
