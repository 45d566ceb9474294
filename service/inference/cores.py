"""How many runs each process of the service has on the cores at this moment, told in memory that they share.

Whoever is alone may spread one request over every core; whoever is not gains nothing by it, as two threads on one
core only drive each other out of its cache. The figures are hints: nobody waits for them, and what a process that
died had told is taken back.
"""

from __future__ import annotations

from collections.abc import MutableSequence


class Cores:
    """One process's place in the shared memory.

    Args:
        count: runs that the machine takes side by side.
        running: runs of each process.
        index: of this process.
    """

    def __init__(self, count: int, running: MutableSequence[int] | None = None, index: int = 0) -> None:
        self.count, self.index = count, index
        self.running: MutableSequence[int] = [0] if running is None else running

    def begin(self) -> None:
        """A run of this process begins. To be called, as :meth:`end`, by one thread at a time."""
        self.running[self.index] += 1

    def end(self) -> None:
        """It has ended."""
        self.running[self.index] -= 1

    @property
    def here(self) -> int:
        """Runs of this process."""
        return self.running[self.index]

    @property
    def free(self) -> int:
        """Runs that would find a core of their own."""
        return max(0, self.count - sum(self.running))


# What a serving process was given by its parent: the shared memory, and its index there.
_given: tuple[MutableSequence[int], int] | None = None


def give(running: MutableSequence[int], index: int) -> None:
    """Make the memory that processes share known to this one."""
    global _given
    _given = running, index
    running[index] = 0


def mine(count: int) -> Cores:
    """This process's place: that which its parent gave it, or one that nobody shares."""
    return Cores(count) if _given is None else Cores(count, *_given)
