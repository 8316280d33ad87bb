"""Codes AD943 to AD988: serving, engines, exports."""

from __future__ import annotations

from .code import Code

REQUEST_INVALID = Code("AD968", "request-invalid")
MODEL_NOT_SERVED = Code("AD969", "model-not-served")
REQUEST_TOO_LARGE = Code("AD970", "request-too-large")
NOT_FOR_THIS_BASE = Code("AD971", "not-for-this-base")
KEY_REFUSED = Code("AD972", "api-key-refused")
KEYS_INVALID = Code("AD973", "api-keys-invalid")
SERVER_BUSY = Code("AD974", "server-busy")
SERVE_UNAVAILABLE = Code("AD975", "serve-unavailable")
OPEN_TO_EVERYONE = Code("AD976", "open-to-everyone")
