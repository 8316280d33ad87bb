"""Property tests have no deadline: on a busy machine, a short step may take long."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
