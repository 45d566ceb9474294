"""ganserve jobs

ganserve jobs submit pets --recipe cdcgan --dataset pets --images 200000 --wait
ganserve jobs wait ID
ganserve jobs cancel ID
ganserve jobs cancel ID --keep
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence

from ganserve import calls, errors
from ganserve.client import Client, Job

HEADS = ("JOB", "STATE", "MODEL", "RECIPE", "DATASET", "NOTE")


def main(arguments: Sequence[str]) -> int:
    """One of the actions, ``list`` where none is named; returns the exit status."""
    given = _options().parse_args(arguments)
    return calls.run(lambda: _do(given))


def _options() -> argparse.ArgumentParser:
    options = calls.parser("jobs", "Retraining on a server. Every action needs the admin token.")
    calls.add_url(options)
    options.set_defaults(state=None)
    actions = options.add_subparsers(dest="action", metavar="submit|list|show|wait|cancel")
    submit = actions.add_parser("submit", help="ask for a retraining")
    submit.add_argument("model", help="name in the model repository; a new name makes a new model")
    submit.add_argument("--recipe", required=True, help="such as cdcgan")
    submit.add_argument("--dataset", required=True, help="an uploaded one, digits, or a Hugging Face data set")
    submit.add_argument("--images", type=int, required=True, help="budget, in images seen")
    submit.add_argument("--seed", type=int, help="drawn without it")
    submit.add_argument("--init", choices=("scratch", "live"), default="scratch", help="what to start from (scratch)")
    submit.add_argument("--promote", choices=("if_better", "always", "never"), default="if_better", help="(if_better)")
    submit.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a number of the recipe")
    submit.add_argument("--wait", action="store_true", help="until the job has ended")
    listing = actions.add_parser("list", help="jobs, newest first")
    listing.add_argument("--state", choices=("queued", "running", "succeeded", "failed", "cancelled"))
    actions.add_parser("show", help="all that is known of a job").add_argument("id", metavar="ID")
    cancel = actions.add_parser("cancel", help="stop a job")
    cancel.add_argument("id", metavar="ID")
    cancel.add_argument("--keep", action="store_true", help="end its training early, go on with the best snapshot")
    wait = actions.add_parser("wait", help="until a job has ended; fails if the job does")
    wait.add_argument("id", metavar="ID")
    wait.add_argument("--timeout", type=float, help="seconds; as long as it takes without it")
    return options


def _do(given: argparse.Namespace) -> None:
    with calls.connect(given) as client:
        _ACTIONS[given.action or "list"](client, given)


def _submit(client: Client, given: argparse.Namespace) -> None:
    overrides = dict(_override(text) for text in given.set)
    job = client.jobs.submit(
        given.model,
        given.recipe,
        given.dataset,
        given.images,
        seed=given.seed,
        init=given.init,
        promote=given.promote,
        overrides=overrides,
    )
    _show(job)
    if given.wait:
        _show(client.jobs.wait(job, progress=True))


def _override(text: str) -> tuple[str, float | int | str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise errors.Invalid(f"--set {text}: expected NAME=VALUE")
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, value


def _list(client: Client, given: argparse.Namespace) -> None:
    print(calls.table(HEADS, [_row(job) for job in client.jobs.list(given.state)]))


def _row(job: Job) -> tuple[object, ...]:
    asked = job.request
    return job.id, job.state, asked.get("model"), asked.get("recipe"), asked.get("dataset"), job.error or job.note or ""


def _details(client: Client, given: argparse.Namespace) -> None:
    job = client.jobs.get(given.id)
    told = {name: value for name, value in vars(job).items() if value is not None}
    print(json.dumps(told, indent=1, default=str))


def _wait(client: Client, given: argparse.Namespace) -> None:
    _show(client.jobs.wait(given.id, timeout=given.timeout, progress=True))


def _cancel(client: Client, given: argparse.Namespace) -> None:
    _show(client.jobs.cancel(given.id, keep=given.keep))


def _show(job: Job) -> None:
    version = (job.result or {}).get("version")
    ended = f", version {version}" if version is not None else f" ({job.note})" if job.note else ""
    print(f"{job.id}: {job.state}{ended}")


_ACTIONS: Mapping[str, Callable[[Client, argparse.Namespace], None]] = {
    "submit": _submit,
    "list": _list,
    "show": _details,
    "wait": _wait,
    "cancel": _cancel,
}
