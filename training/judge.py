"""Train a judge to be shipped.

    python -m training.judge --dataset ylecun/mnist     # writes training/judges/mnist.safetensors and .json
    python -m training.judge --dataset uoft-cs/cifar10 --architecture residual --epochs 110 --flip --cut

The folder ``second`` beside it holds judges that :mod:`training.evaluate` takes with ``--judge``: ``cifar10``
(``wide``, 40 epochs) shares neither weights nor layers with the first; ``cifar10-whitened`` is the one by which cards
were scored before.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from training.command import ends, positive, refuse
from training.data import load, split_held_out
from training.measure.judge import ARCHITECTURES, SHIPPED, Judge, Net, fit, fit_whitened, write
from training.measure.photographs import Residual, Wide, fit_photographs


@ends
def main(argv: Sequence[str] | None = None) -> int:
    """Train a judge to be shipped."""
    parser = argparse.ArgumentParser(prog="python -m training.judge", description="Train a judge to be shipped.")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--epochs", type=positive, default=12)
    parser.add_argument("--architecture", choices=ARCHITECTURES, default="plain")
    parser.add_argument("--flip", action="store_true", help="mirror images too, where left and right do not matter")
    parser.add_argument("--cut", action="store_true", help="cut squares out of images too (wide and residual)")
    parser.add_argument("--noise", type=float, default=0.0, help="deviation of the noise it learns to read through")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=positive)
    parser.add_argument("--out", type=Path, help="training/judges/<data set>.safetensors by default")
    options = parser.parse_args(argv)
    if options.architecture == "whitened" and (options.flip or options.noise):
        parser.error("--flip and --noise are for the plain architecture; the whitened one always mirrors")
    if options.threads:
        torch.set_num_threads(options.threads)
    out = options.out or SHIPPED / f"{Path(options.dataset).name}.safetensors"
    if not out.parent.is_dir():
        return refuse(f"--out {out}: {out.parent} is no folder")
    train, test = load(options.dataset), load(options.dataset, split="test")
    rest, held_out = split_held_out(train)
    network: Net
    if options.architecture == "whitened":
        network, accuracies = fit_whitened(rest, held_out, epochs=options.epochs, seed=options.seed)
    elif options.architecture in ("wide", "residual"):
        kind: type[Wide | Residual] = Wide if options.architecture == "wide" else Residual
        network, accuracies = fit_photographs(
            kind, rest, held_out, epochs=options.epochs, seed=options.seed, mirror=options.flip, cut=options.cut
        )
    else:
        network, accuracies = fit(
            rest, held_out, epochs=options.epochs, seed=options.seed, flip=options.flip, noise=options.noise
        )
    judge = Judge(network, "", train.classes)
    command = f"python -m training.judge --dataset {Path(options.dataset).name} --epochs {options.epochs}"
    if options.architecture != "plain":
        command += f" --architecture {options.architecture}"
    asked = " --flip" * options.flip + " --cut" * options.cut + f" --noise {options.noise}" * (options.noise > 0)
    report = {
        "test_accuracy": judge.accuracy(test),
        "held_out_accuracy": max(accuracies),
        "held_out_accuracies": accuracies,
        "trained_on": len(rest),
        "epochs": options.epochs,
        "seed": options.seed,
        "command": command + asked,
    }
    write(out, network, train, report)
    print(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
