"""A generator as products of matrices: the one form that calibration, quantisation, reference and graph share.

Activations are ``[batch, rows, channels]``. A layer gathers rows into patches, one a cell (``index``), multiplies each
patch by a matrix, scales and shifts by class, and applies ReLU or LeakyReLU; its ``[batch, cells, columns]`` are the
next layer's rows. A transposed convolution of kernel 4, stride 2 and padding 1 is a 2x2 convolution to the four phases
of its output, cell (a, b) and phase (p, q) being pixel (2a + p - 1, 2b + q - 1); a convolution of stride 1 makes one
pixel a cell, or, where the image has few channels, 2x2 pixels. Outside an image lies the row after the last, which is
zero, or what a transposed convolution makes beyond the edge, if that is set to zero (``inside``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from training.networks import cdcgan, colour, dcgan, gap, mlp, projection

Floats = NDArray[np.float64]
Places = NDArray[np.int64]

# A convolution to so few channels makes 2x2 pixels at once: a product with so few columns leaves a processor idle.
FEW_CHANNELS = 8


class ExactError(RuntimeError):
    """A generator that has no exact form, or a graph that is not exact."""


@dataclass(frozen=True)
class Layer:
    """``act((patches @ weight) * scale[label] + shift[label])``.

    ``weight`` float64 [patch * channels, columns]; ``scale`` and ``shift`` float64 [classes or 1, columns]; ``index``
    int64 [cells, patch], or None where all rows are one patch; ``slope`` of the LeakyReLU (0: ReLU), None for the last
    layer; ``channels`` of the rows that it gives; ``inside`` bool [cells, columns]: what else it gives is set to zero.
    """

    weight: Floats
    scale: Floats
    shift: Floats
    index: Places | None
    slope: float | None
    channels: int
    inside: NDArray[np.bool_] | None = None

    @property
    def rows(self) -> int:
        """How many rows it gives."""
        cells = 1 if self.index is None else len(self.index)
        return cells * int(self.weight.shape[1]) // self.channels


@dataclass(frozen=True)
class Frame:
    """How rows make an image: ``down`` times ``across`` cells of ``block`` times ``block`` pixels, less ``crop`` of
    these on each side."""

    down: int
    across: int
    block: int
    crop: int

    def place(self) -> Places:
        """The row of each pixel: int64 [height, width]."""
        size = self.down * self.block, self.across * self.block
        y, x = np.mgrid[self.crop : size[0] - self.crop, self.crop : size[1] - self.crop]
        cell = (y // self.block) * self.across + x // self.block
        placed: Places = cell * self.block**2 + (y % self.block) * self.block + x % self.block
        return placed


@dataclass(frozen=True)
class Net:
    """Layers, the last of which gives what tanh takes; ``frame`` and ``channels`` of its image."""

    layers: tuple[Layer, ...]
    frame: Frame
    channels: int
    classes: int
    z: int


def read(generator: nn.Module) -> Net:
    """The layers of a generator in evaluation mode whose batch norm is folded (:func:`training.folding.folded`).

    Raises:
        ExactError: a family or a layer that is not known here.
    """
    if isinstance(generator, mlp.Generator):
        return _read_mlp(generator)
    if isinstance(generator, projection.Generator):
        return _read_conditional(generator, generator.widths[0], generator.ups)
    if isinstance(generator, colour.Generator):
        return _read_conditional(generator, generator.width, generator.layers)
    if isinstance(generator, dcgan.Generator | cdcgan.Generator):
        return _read_dcgan(generator)
    if isinstance(generator, gap.Generator):
        return _read_gap(generator)
    raise ExactError(f"no exact form is known of a generator of {type(generator).__module__}")


def _read_mlp(generator: mlp.Generator) -> Net:
    reader = _Reader(generator.shape.classes)
    *hidden, (last, _) = _pairs(generator.body)
    for number, (module, slope) in enumerate(hidden):
        reader.dense(*_linear(module), slope, labelled=number == 0)
    edge, channels = generator.shape.size, generator.shape.channels
    weight, bias = _linear(last)
    # The image lies channel by channel in the generator, pixel by pixel here.
    columns = np.arange(len(weight)).reshape(channels, edge, edge).transpose(1, 2, 0).reshape(-1)
    reader.dense(weight[columns], bias[columns], None, channels=channels)
    reader.frame = Frame(edge, edge, 1, 0)
    return reader.net()


def _read_dcgan(generator: dcgan.Generator | cdcgan.Generator) -> Net:
    reader = _Reader(generator.classes if isinstance(generator, cdcgan.Generator) else 0)
    ((first, slope),) = _pairs(generator.project)
    reader.project(*_linear(first), slope, generator.widths[0], generator.base)
    for module, slope in _pairs(generator.body):
        reader.convolve(module, slope)
    return reader.net()


def _read_gap(generator: gap.Generator) -> Net:
    reader = _Reader(0)
    (first, slope), *others = _pairs(generator.body)
    weight = _array(first.weight)
    z, width, base, _ = weight.shape
    reader.project(weight.reshape(z, -1).T, _bias(first, width).repeat(base * base), slope, width, base)
    for module, slope in others:
        reader.convolve(module, slope)
    return reader.net()


def _read_conditional(
    generator: projection.Generator | colour.Generator, width: int, layers: Iterable[nn.Module]
) -> Net:
    norms: list[Any] = list(generator.norms)
    tables = [(_array(norm.scale.weight), _array(norm.shift.weight)) for norm in norms]
    reader = _Reader(len(tables[0][0]))
    reader.project(*_linear(generator.project), 0.0, width, generator.base, tables[0])
    for layer, table in zip(layers, tables[1:], strict=True):
        reader.convolve(layer, 0.0, table)
    reader.convolve(generator.out, None)
    return reader.net()


Table = tuple[Floats, Floats]


class _Reader:
    """Collects layers, and knows how the rows of the last one make an image."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.layers: list[Layer] = []
        self.frame = Frame(1, 1, 1, 0)
        self.z = 0

    def net(self) -> Net:
        return Net(tuple(self.layers), self.frame, self.layers[-1].channels, self.classes, self.z)

    def dense(
        self, weight: Floats, bias: Floats, slope: float | None, *, labelled: bool = False, channels: int = 0
    ) -> None:
        """A linear layer [out, in]. If it is ``labelled``, its last inputs are the one-hot label: a shift a class."""
        shift = bias[None]
        if labelled and self.classes:
            shift = shift + weight[:, -self.classes :].T
            weight = weight[:, : -self.classes]
        self.z = self.z or weight.shape[1]
        self.layers.append(Layer(weight.T, np.ones_like(shift), shift, None, slope, channels or len(weight)))

    def project(
        self, weight: Floats, bias: Floats, slope: float | None, width: int, base: int, table: Table | None = None
    ) -> None:
        """A linear layer to maps [width, base, base], which lie pixel by pixel here; ``table``: scale and shift by
        class and map."""
        rows = np.arange(len(weight)).reshape(width, base * base).T.reshape(-1)
        self.dense(weight[rows], bias[rows], slope, labelled=table is None, channels=width)
        self.frame = Frame(base, base, 1, 0)
        if table is not None:
            scale, shift = (np.tile(t, base * base) for t in table)
            self.layers[0] = replace(self.layers[0], scale=scale, shift=bias[rows] * scale + shift)

    def convolve(self, module: Any, slope: float | None, table: Table | None = None) -> None:
        """A convolution of stride 1 that keeps the size, or a transposed one that doubles it."""
        if isinstance(module, nn.ConvTranspose2d):
            columns = self._up(module, slope)
        elif isinstance(module, nn.Conv2d):
            columns = self._same(module, slope)
        else:
            raise ExactError(f"no exact form is known of {module}")
        channels = self.layers[-1].channels
        bias = _bias(module, channels)
        scale, shift = table or (np.ones((1, channels)), np.zeros((1, channels)))
        tiled = [np.tile(t, columns // channels) for t in (scale, bias * scale + shift)]
        self.layers[-1] = replace(self.layers[-1], scale=tiled[0], shift=tiled[1])

    def _up(self, module: nn.ConvTranspose2d, slope: float | None) -> int:
        if (module.kernel_size, module.stride, module.padding) != ((4, 4), (2, 2), (1, 1)):
            raise ExactError(f"no exact form is known of {module}")
        kernel = _array(module.weight)
        before, after = (int(n) for n in kernel.shape[:2])
        weight = np.zeros((2, 2, before, 2, 2, after))
        for dy, dx, p, q in np.ndindex(2, 2, 2, 2):
            weight[dy, dx, :, p, q] = kernel[:, :, p + 2 - 2 * dy, q + 2 - 2 * dx]
        height, width = self.frame.place().shape
        index = self._patches(height + 1, width + 1, 1, 2, 1)
        self._cells(weight.reshape(4 * before, 4 * after), index, slope, after)
        self.frame = Frame(height + 1, width + 1, 2, 1)
        return 4 * after

    def _same(self, module: nn.Conv2d, slope: float | None) -> int:
        kernel = _array(module.weight)
        after, before, size, _ = (int(n) for n in kernel.shape)
        if module.stride != (1, 1) or not size % 2 or module.padding != (size // 2, size // 2):
            raise ExactError(f"no exact form is known of {module}")
        height, width = self.frame.place().shape
        block = 2 if after <= FEW_CHANNELS and not height % 2 and not width % 2 else 1
        patch = block + size - 1
        weight = np.zeros((patch, patch, before, block, block, after))
        for y, x in np.ndindex(block, block):
            weight[y : y + size, x : x + size, :, y, x] = kernel.transpose(2, 3, 1, 0)
        if self.frame.crop and patch == 4:
            index, weight = self._cell_patches(), weight.reshape(2, 2, 2, 2, before, -1).transpose(0, 2, 1, 3, 4, 5)
        else:
            index = self._patches(height // block, width // block, block, patch, size // 2)
        self._cells(weight.reshape(patch * patch * before, block * block * after), index, slope, after)
        self.frame = Frame(height // block, width // block, block, 0)
        return block * block * after

    def _patches(self, down: int, across: int, step: int, patch: int, padding: int) -> Places:
        """int64 [down * across, patch * patch]: the rows that each cell's patch holds; padding is the row of zeros."""
        padded = np.pad(self.frame.place(), padding, constant_values=self.layers[-1].rows)
        y = step * np.arange(down)[:, None] + np.arange(patch)
        x = step * np.arange(across)[:, None] + np.arange(patch)
        rows: Places = padded[y[:, None, :, None], x[None, :, None, :]].reshape(down * across, patch * patch)
        return rows

    def _cell_patches(self) -> Places:
        """The same of patches that are 2x2 whole cells of a transposed convolution: int64 [cells, 4], of rows four
        times as long. What lies beyond the edge is that layer's own, and set to zero."""
        frame, last = self.frame, self.layers[-1]
        inside = np.zeros(last.rows, np.bool_)
        inside[frame.place()] = True
        columns = last.weight.shape[1]
        self.layers[-1] = replace(last, inside=inside.repeat(last.channels).reshape(-1, columns))
        cells = np.arange(frame.down * frame.across).reshape(frame.down, frame.across)
        corners = [cells[y : frame.down - 1 + y, x : frame.across - 1 + x] for y, x in np.ndindex(2, 2)]
        return np.stack(corners, -1).reshape(-1, 4)

    def _cells(self, weight: Floats, index: Places, slope: float | None, channels: int) -> None:
        nothing = np.zeros((1, weight.shape[1]))
        self.layers.append(Layer(weight, nothing, nothing, index, slope, channels))


def _pairs(layers: nn.Module) -> list[tuple[Any, float | None]]:
    """Each layer with weights and the slope of what follows it: 0 of a ReLU, None of tanh or of nothing."""
    found: list[tuple[Any, float | None]] = []
    for module in layers.children():
        if isinstance(module, nn.ReLU | nn.LeakyReLU):
            found[-1] = (found[-1][0], getattr(module, "negative_slope", 0.0))
        elif isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            found.append((module, None))
        elif not isinstance(module, nn.Identity | nn.Tanh):
            raise ExactError(f"no exact form is known of {module}")
    return found


def _array(parameter: Any) -> Floats:
    values: Floats = parameter.detach().double().numpy()
    return values


def _bias(module: Any, features: int) -> Floats:
    return np.zeros(features) if module.bias is None else _array(module.bias)


def _linear(module: Any) -> Table:
    return _array(module.weight), _bias(module, len(module.weight))
