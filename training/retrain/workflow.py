"""The job: train -> export -> evaluate -> publish -> promote, each a step whose outcome is recorded.

A worker that takes a job over goes on with the first step that has no outcome. Steps can run more than once: training
goes on from the last checkpoint in a folder of its own for each attempt, and publishing is idempotent by the job's id.

The names of the workflow and of its steps and their order stand in the queue's database for as long as jobs are under
way: new work goes inside the steps, and another sequence is a new workflow beside this one.
"""

from __future__ import annotations

import asyncio
import json
from functools import partial
from pathlib import Path
from typing import Any

from dbos import DBOS, WorkflowSerializationFormat

from ganserve.events import BAD_INPUT, FAILED
from ganserve.queue import PROGRESS, WORKFLOW
from training.retrain import gate
from training.retrain.attempts import EXPORT, FLOAT, newest_checkpoint
from training.retrain.mirror import patiently
from training.retrain.site import CHILD_TRIES, JobFailed, Site, log
from training.retrain.warm import init_weights, keep_weights

# DBOS calls workflow and steps by their names, with nothing but what was stored: here they find their worker's site.
_site: Site | None = None


def work_at(site: Site) -> None:
    """Let the jobs that DBOS begins in this process work with this site."""
    global _site
    _site = site


def _here() -> Site:
    assert _site is not None, "a step runs inside a worker"
    return _site


@DBOS.workflow(
    name=WORKFLOW,
    max_recovery_attempts=None,
    serialization_type=WorkflowSerializationFormat.PORTABLE,
)
async def retrain(job: dict[str, Any]) -> dict[str, Any]:
    """The job, from request to live model. Returns what GET /jobs/{id} shows as its result."""
    job_id = DBOS.workflow_id
    assert job_id is not None
    spec: dict[str, Any] = job["spec"]
    site = _here()
    step, deaths = await asyncio.to_thread(site.deaths, job_id)
    if deaths >= site.config.max_deaths:
        raise JobFailed(f"{step}: given up, for its worker died {deaths} times on end and got no further")
    trained = await train(job_id, spec)
    exported = await export(job_id, spec, trained)
    measured = await evaluate(job_id, spec, exported)
    version = await publish(job_id, spec, measured)
    promoted = await promote(job_id, spec, version, measured)
    return {
        "model": spec["model"],
        "version": version,
        "metrics": measured["metrics"],
        "live_version": measured["live_version"],
        "live_metrics": measured["live_metrics"],
        "gate": {"better": measured["better"], "reasons": measured["reasons"]},
        **promoted,
    }


@DBOS.step(name="train", preemptible=True)
async def train(job_id: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Train in a child process until the budget is spent; returns the run's folder below the data folder."""
    site = _here()
    spec = {**spec, "dataset": await patiently(partial(site.dataset, spec))}
    run = await patiently(partial(site.begin, job_id))
    site.run = run
    command = train_command(site, spec, run)
    if spec["init"] == "live":
        weights, classes = await init_weights(site, job_id, spec)
        command += ["--init", str(weights)]
        command += ["--classes", json.dumps(classes)] if classes else []
    tries = 0
    while True:
        before = newest_checkpoint(run)
        ended = await site.children.run(command, "train")
        if ended.code == 0:
            site.run = None
            if site.mirror is not None:
                await patiently(site.mirror.finish)
            return {"run": str(run.relative_to(site.place)), "status": ended.result}
        if ended.code in (BAD_INPUT, FAILED):
            raise JobFailed(f"training: {ended.reason}")
        tries = 1 if newest_checkpoint(run) != before else tries + 1
        log.warning("job %s: training ended (%s), try %d of %d", job_id, ended.reason, tries, CHILD_TRIES)
        if tries >= CHILD_TRIES:
            raise JobFailed(f"training failed {tries} times without a new checkpoint; last: {ended.reason}")
        await asyncio.sleep(0.5 * 2**tries)


def train_command(site: Site, spec: dict[str, Any], run: Path) -> list[str]:
    """The command line of a training from nothing, into ``run``."""
    command = [
        *site.config.train,
        *("--recipe", spec["recipe"], "--dataset", spec["dataset"]),
        *("--images", str(spec["images"]), "--seed", str(spec["seed"]), "--run", str(run)),
        *("--log-steps", "50", "--resume", "--events", "--die-with-parent"),
    ]
    if site.config.threads:
        command += ["--threads", str(site.config.threads)]
    # A run that another attempt began keeps what it computes in.
    if site.config.precision != "auto" and not (run / "config.json").exists():
        command += ["--precision", site.config.precision]
    if site.config.tracker:
        command += ["--tracker", site.config.tracker]
    for name, value in spec["overrides"].items():
        command += ["--set", f"{name}={value}"]
    return command


@DBOS.step(name="export", preemptible=True)
async def export(job_id: str, spec: dict[str, Any], trained: dict[str, Any]) -> dict[str, Any]:
    """Make the ONNX graph, card and samples in a repository of the job's own: nothing is public yet.

    The graph is exact, with the float one beside it; or float alone, where there is no exact form, and ``inexact`` of
    what is returned says so.
    """
    site = _here()
    run = await patiently(partial(site.have, trained["run"]))
    arguments = {
        "run": str(run),
        "repository": str(site.staged(job_id).place),
        "beside": str(site.staged(job_id, FLOAT).place),
        "model": spec["model"],
        "job_id": job_id,
    }
    return await site.task(job_id, "export", arguments)


@DBOS.step(name="evaluate", preemptible=True)
async def evaluate(job_id: str, spec: dict[str, Any], exported: dict[str, Any]) -> dict[str, Any]:
    """Measure the candidate, and the live version on the same judge, data and image count.

    The candidate is the exact graph; or the float one, where that is better, and ``inexact`` of what is returned says
    so.
    """
    return await _evaluate(_here(), job_id, spec, exported)


async def _evaluate(site: Site, job_id: str, spec: dict[str, Any], exported: dict[str, Any]) -> dict[str, Any]:
    name, dataset = spec["model"], await patiently(partial(site.dataset, spec))
    metrics, inexact = await _candidate(site, job_id, name, dataset, exported.get("inexact"))
    live = await patiently(lambda: site.repository.live(name) if name in site.repository.names() else None)
    live_metrics: dict[str, Any] | None = None
    verdict: gate.Verdict | None = None
    if live is not None:
        onnx = str(await patiently(partial(site.repository.model_path, name, live)))
        try:
            live_metrics = await site.task(job_id, "evaluate", {"onnx": onnx, "dataset": dataset})
        except JobFailed as error:
            # Other classes, say. The training was not for nothing: its version is published, and an admin decides.
            verdict = gate.Verdict(False, (f"not comparable: the live version, on this data: {error}",))
    verdict = verdict or gate.compare(metrics, live_metrics)
    return {
        "metrics": metrics,
        "live_version": live,
        "live_metrics": live_metrics,
        "better": verdict.better,
        "reasons": list(verdict.reasons),
        "inexact": inexact,
    }


async def _candidate(
    site: Site, job_id: str, name: str, dataset: str, inexact: str | None
) -> tuple[dict[str, Any], str | None]:
    """The candidate's metrics, and why it is the float graph; empty if it is the exact one, None if a version of this
    package exported it that made no exact ones."""

    async def graph(folder: str) -> str:
        return str(await patiently(partial(_staged_graph, site, job_id, name, folder)))

    if inexact == "":
        arguments = {"exact": await graph(EXPORT), "plain": await graph(FLOAT), "dataset": dataset}
        told = await site.task(job_id, "judge", arguments, shown="evaluate")
        return told["metrics"], told["inexact"]
    onnx = await graph(EXPORT if inexact is None else FLOAT)
    return await site.task(job_id, "evaluate", {"onnx": onnx, "dataset": dataset}), inexact


def _staged_graph(site: Site, job_id: str, name: str, folder: str) -> Path:
    staged = site.staged(job_id, folder)
    return staged.model_path(name, staged.versions(name)[-1])


@DBOS.step(name="publish", preemptible=True)
async def publish(job_id: str, spec: dict[str, Any], measured: dict[str, Any]) -> int:
    """Put the measured candidate into the model repository; one job gets one version, however often."""
    await DBOS.set_event_async(PROGRESS, {"step": "publish"})
    return await patiently(partial(_publish, _here(), job_id, spec, measured))


def _publish(site: Site, job_id: str, spec: dict[str, Any], measured: dict[str, Any]) -> int:
    inexact, name = measured.get("inexact"), spec["model"]
    staged = site.staged(job_id, FLOAT if inexact else EXPORT)
    card, onnx = staged.read(name, staged.versions(name)[-1])
    samples, weights = staged.samples(name, card.version), staged.weights(card)
    assert samples is not None, "an export draws samples"
    judged = {**measured["metrics"], "gate": {"rules": list(gate.RULES), "reasons": measured["reasons"]}}
    notes = [*card.notes, *([f"not exact: {inexact}"] if inexact else [])]
    told = {"metrics": judged, "job_id": job_id, "dataset": spec["dataset"], "notes": notes}
    card, logged = card.model_copy(update=told), staged.logged(name, card.version)
    version = site.repository.publish(card, onnx, samples, job_id=job_id, weights=weights, logged=logged)
    keep_weights(site, job_id, card)
    return version


@DBOS.step(name="promote")
async def promote(job_id: str, spec: dict[str, Any], version: int, measured: dict[str, Any]) -> dict[str, Any]:
    """Make the version live if the job's owner and the gate say so.

    Not preemptible: it is short, and a job that reads ``cancelled`` should not have been half promoted.
    """
    await DBOS.set_event_async(PROGRESS, {"step": "promote"})
    return await patiently(partial(_promote, _here(), spec, version, measured))


def _promote(site: Site, spec: dict[str, Any], version: int, measured: dict[str, Any]) -> dict[str, Any]:
    name = spec["model"]
    now = site.repository.live(name)
    if now == version:
        return {"promoted": True, "promotion": "live"}
    if spec["promote"] == "never":
        return {"promoted": False, "promotion": 'the job asked for promote "never"'}
    if spec["promote"] == "if_better":
        if not measured["better"]:
            return {"promoted": False, "promotion": "the gate found it no better than the live version"}
        if now != measured["live_version"]:
            changed = f"version {now} went live after version {measured['live_version']} was measured"
            return {"promoted": False, "promotion": f"{changed}; promote by hand"}
    site.repository.promote(name, version)
    return {"promoted": True, "promotion": "live"}
