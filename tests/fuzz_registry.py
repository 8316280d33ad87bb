"""`make fuzz-registry`: strange inputs to whatever reads what others wrote to a registry.

Prints the seed, with which a run can be repeated. Exits 1 where a reader crashed, hung, or raised
an exception that is not its own.
"""

from __future__ import annotations

import argparse
import faulthandler
import secrets
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from support.fuzzing import SECONDS, Report, fuzz
from support.registry_readers import archive_reader, readers


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    parser.add_argument("--only", help="the name of one reader")
    options = parser.parse_args()
    started = time.monotonic()
    print(f"seed {options.seed}", flush=True)

    def told(report: Report) -> None:
        faulthandler.dump_traceback_later(20 * 60, exit=True)  # where no signal is handled
        seconds = time.monotonic() - started
        print(f"{report.total:,} inputs, {len(report.broken)} faults, {seconds:.0f} s", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        every = [*readers(), archive_reader(Path(folder))]
        chosen = [reader for reader in every if options.only in (None, reader.name)]
        told(Report())
        report = fuzz(chosen, options.inputs, options.seed, told)
    for fault in report.broken:
        print(f"\n{fault}")
    for name, count in sorted(report.asked.items()):
        print(f"{name}: {count:,} inputs, {report.accepted[name]:,} accepted")
    print(f"{len(report.broken)} faults; at most {SECONDS:g} s for one input")
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main())
