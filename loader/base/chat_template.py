"""A chat template is a program from the base's repository: it is tried in its own process first."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from ...manifests.bounds import CONFIG_BYTES, TEMPLATE_BYTES, TEMPLATE_SECONDS
from ...manifests.findings import loader as codes
from ...manifests.findings.errors import AttachError

_PROGRAM = Path(__file__).with_name("render_template.py")


def check_template(template: str, messages: list[dict[str, str]], special: dict[str, Any]) -> None:
    """Raise :class:`AttachError` for a template that does not render these messages within
    ``TEMPLATE_SECONDS`` and ``TEMPLATE_BYTES``. ``special``: the special tokens by name."""
    variables = {"messages": messages, "add_generation_prompt": True, **special}
    trial = {"template": template, "variables": variables, "bytes": TEMPLATE_BYTES}
    if len(template) > CONFIG_BYTES:
        raise _refused(f"it is {len(template)} characters long")
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(_PROGRAM)],
            input=json.dumps(trial),
            capture_output=True,
            text=True,
            timeout=TEMPLATE_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise _refused(f"it was still running after {TEMPLATE_SECONDS:g} seconds") from error
    except OSError as error:
        raise _refused(f"the trial could not start: {error.strerror}") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise _refused(lines[-1][:300] if lines else "it needs too much memory")
    if int(done.stdout) > CONFIG_BYTES:
        raise _refused(f"it writes {int(done.stdout)} characters")


def _refused(found: str) -> AttachError:
    return AttachError(
        codes.TEMPLATE_REFUSED.finding(
            "The base's chat template cannot be used",
            found=found,
            expected=f"a prompt of at most {CONFIG_BYTES} characters, "
            f"in {TEMPLATE_SECONDS:g} seconds and {TEMPLATE_BYTES >> 20} MiB",
        )
    )
