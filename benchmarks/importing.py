"""How long ``import ganserve`` takes, and the first use of what it gives.

    python -m benchmarks.importing

Each figure is the median over new processes, less that of a process that does nothing: CPU time, which an importing
process spends on one core, and which other work on the machine hardly changes.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROUNDS = 15
PROGRAMS = {
    "import ganserve": "import ganserve",
    "ganserve.Client()": "import ganserve; ganserve.Client()",
    "ganserve.Generator(...)": "import ganserve; ganserve.Generator('models/mnist-projgan')",
    "its first image": "import ganserve; ganserve.Generator('models/mnist-projgan').generate(label=3, seed=42)",
    "ganserve --version": "from ganserve.commands import main; main(['--version'])",
}


def seconds(program: str) -> float:
    """CPU time of one new process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program], check=True, cwd=HERE.parent, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure in turn, so that what else the machine does falls on all alike, and write the table."""
    took: dict[str, list[float]] = {name: [] for name in ("nothing", *PROGRAMS)}
    for _ in range(ROUNDS):
        for name, program in (("nothing", "pass"), *PROGRAMS.items()):
            took[name].append(seconds(program))
    nothing = statistics.median(took.pop("nothing"))
    rows = [f"| `{name}` | {1000 * (statistics.median(found) - nothing):.0f} |" for name, found in took.items()]
    table = "\n".join(["| what | ms |", "|---|---|", *rows])
    text = (
        f"# Importing\n\nMilliseconds of CPU time over an empty process ({1000 * nothing:.0f} ms), median of {ROUNDS} "
        f"new processes.\n\n{table}\n\nMade by `python -m benchmarks.importing`.\n"
    )
    (HERE / "importing.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
