"""Codes, findings and errors: what a check has to say; imports nothing but ``bounds``."""

from __future__ import annotations

from .finding import Finding as Finding
from .finding import Report as Report
from .finding import Severity as Severity
from .finding import Where as Where
