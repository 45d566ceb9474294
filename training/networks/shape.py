"""What a pair of networks is built for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """Noise, labels and images of a pair; ``classes`` is 0 for an unconditional one."""

    z: int
    classes: int
    channels: int
    size: int

    @property
    def pixels(self) -> int:
        """Numbers in one image."""
        return self.channels * self.size * self.size

    @property
    def base_and_doublings(self) -> tuple[int, int]:
        """The edge of the first feature map and the number of doublings that lead to ``size``."""
        for doublings in (2, 3, 4):
            base, rest = divmod(self.size, 2**doublings)
            if not rest and base <= 8:
                return base, doublings
        raise ValueError(f"no network of this family makes images of {self.size} pixels: take 8, 16, 28, 32, 64 or 128")


def scaled(widths: tuple[int, ...], width: float) -> tuple[int, ...]:
    """Nominal numbers of channels times a recipe's ``width``."""
    return tuple(int(nominal * width) for nominal in widths)
