"""Codes AD943 to AD988: serving, engines, exports."""

from __future__ import annotations

from .code import Code
