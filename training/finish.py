"""End a run early, and keep its best snapshot.

    python -m training.finish runs/my-run

A run that is training ends within a log interval, as a finished one: ``python -m training.export`` takes its best
snapshot. One that was stopped ends as soon as it is resumed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from training.command import ends, refuse
from training.run import ask_to_finish


@ends
def main(argv: Sequence[str] | None = None) -> int:
    """Ask a run to finish."""
    parser = argparse.ArgumentParser(prog="python -m training.finish", description="End a run early, keep its best.")
    parser.add_argument("run", type=Path, help="the run's folder, such as runs/mnist-cgan")
    run: Path = parser.parse_args(argv).run
    if not (run / "config.json").is_file():
        return refuse(f"{run} is no run: it holds no config.json")
    ask_to_finish(run)
    print(f"{run.name} ends within a log interval if it is training, or as soon as it is resumed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
