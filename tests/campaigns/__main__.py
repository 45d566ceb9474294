"""``python -m tests.campaigns NAME...``: run campaigns one after the other, and write their tables."""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any

import tests.campaigns
from tests.campaigns.journal import Journal

ROOT = Path(__file__).parents[2]
NAMES = ("fuzz", "archives", "models", "swaps", "kills", "machines", "soak")


def campaign(name: str) -> Any:
    """The module of a campaign: ``TITLE``, ``PROMISE``, ``CASES`` and ``run(journal, folder)``."""
    return importlib.import_module(f"tests.campaigns.{name}")


def main() -> int:
    """Exit status 1 where a promise was broken."""
    parser = argparse.ArgumentParser(
        description=tests.campaigns.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=[], metavar="NAME", help=f"of {', '.join(NAMES)}; none: all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=58, help="for each; the soak takes 60 and its start")
    parser.add_argument("--cases", type=int, help="in all; default: as many as the campaign is meant to have")
    parser.add_argument("--journals", type=Path, default=ROOT / "var" / "campaigns")
    parser.add_argument("--tables", type=Path, default=ROOT / "benchmarks" / "campaigns")
    options = parser.parse_args()
    broken = 0
    for name in options.names or NAMES:
        module = campaign(name)
        journal = Journal(options.journals, name, options.seed, options.cases or module.CASES, options.minutes * 60)
        with tempfile.TemporaryDirectory(prefix=f"ganserve-{name}-", ignore_cleanup_errors=True) as folder:
            module.run(journal, Path(folder))
        options.tables.mkdir(parents=True, exist_ok=True)
        more = module.details(journal) if hasattr(module, "details") else ""
        (options.tables / f"{name}.md").write_text(journal.table(module.TITLE, module.PROMISE) + more)
        print(f"{name}: {journal.tried:,} of {journal.wanted:,} cases, {len(journal.broken)} promises broken")
        for line in journal.broken:
            print(f"  {line[:500]}", file=sys.stderr)
        broken += len(journal.broken)
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
