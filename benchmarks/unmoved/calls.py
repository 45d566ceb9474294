"""Calls over every route, model and format, mistakes among them, in the order in which they are made."""

from __future__ import annotations

import itertools
import json
from typing import Any
from urllib.parse import quote

from benchmarks.unmoved.administration import datasets, jobs, promotion, tokens
from benchmarks.unmoved.checkout import USER, Checkout
from benchmarks.unmoved.recorder import Recorder
from benchmarks.unmoved.v2 import inference

FORMATS = ("png", "webp", "zip", "npz", "json")
LAST_SEED = 2**53 - 1
PAGE = (
    *("api.js", "app.js", "catalogue.js", "chart.js", "data.js", "dom.js", "icon.svg", "jobs.js", "models.js"),
    *("pictures.js", "route.js", "style.css", "recipes.json", "index.html", "nothing.js"),
)

# Bodies of POST /generate that are refused.
WRONG: tuple[Any, ...] = (
    {"model": "nothing"},
    {"model": "../mnist-gan"},
    {"version": 99},
    {"version": 0},
    {"version": "1"},
    {"label": "ten"},
    {"label": 10},
    {"label": -1},
    {"label": []},
    {"label": [1, 2], "n": 1},
    {"label": 1.5},
    {"model": "mnist-gan", "label": 1},
    {"n": 0},
    {"n": 1025},
    {"n": "3"},
    {"n": True},
    {"seed": -1},
    {"seed": LAST_SEED + 1},
    {"seed": 1.0},
    {"seed": 1, "seeds": [1]},
    {"seeds": []},
    {"seeds": [1, 2], "n": 3},
    {"columns": 0},
    {"padding": 65},
    {"scale": 33},
    {"format": "bmp"},
    {"n": 1024, "scale": 32},
    {"n": 1024, "columns": 1, "format": "webp"},
    {"colour": "red", "n": 0},
    [1],
    None,
)


def take(checkout: Checkout, *, everything: bool) -> dict[str, Any]:
    """``calls``, ``openapi`` and ``recipes``; only the last of them unless ``everything`` is asked for."""
    with checkout.served("open") as port:
        recorder = Recorder(port)
        recipes = recorder.send("GET", "/page/recipes.json", None, {}).json
        if not everything:
            return {"recipes": recipes}
        openapi = recorder.send("GET", "/openapi.json", None, {}).json
        generate(recorder)
        images(recorder)
        morph(recorder)
        synthetic(recorder)
        models(recorder)
        page(recorder)
        inference(recorder)
        jobs(recorder)
        datasets(recorder)
        mistakes(recorder)
        promotion(recorder)
    limits = {"GANSERVE_MAX_IMAGES": "20", "GANSERVE_MAX_BODY_BYTES": "2048"}
    with checkout.served("closed", GANSERVE_TOKEN=USER, **limits) as port:
        closed = Recorder(port)
        tokens(closed)
    calls = recorder.calls | {f"with a token set: {name}": value for name, value in closed.calls.items()}
    return {"recipes": recipes, "openapi": openapi, "calls": calls}


def catalogue(recorder: Recorder) -> list[dict[str, Any]]:
    """Every version's card, by name and version."""
    listed = recorder.send("GET", "/models", None, {}).json
    pairs = [(model["name"], version) for model in listed for version in model["versions"]]
    return [recorder.send("GET", f"/models/{name}/{version}", None, {}).json for name, version in pairs]


def generate(recorder: Recorder) -> None:
    """``/generate``: each version in each format, then the default model with every field."""
    ask = recorder.ask
    for card, form in itertools.product(catalogue(recorder), FORMATS):
        path = f"/generate?model={card['name']}&version={card['version']}&n=3&seed=7&format={form}"
        ask("GET", path)
    for name in sorted({card["name"] for card in catalogue(recorder)}):
        ask("POST", "/generate", {"model": name, "n": 2, "seed": 1, "format": "npz"})
    for form in FORMATS:
        etag = ask("GET", f"/generate?label=3&n=16&seed=42&format={form}").headers["etag"]
        ask("GET", f"/generate?label=3&n=16&seed=42&format={form}", If_None_Match=etag)
        ask("HEAD", f"/generate?label=3&n=16&seed=42&format={form}")
        ask("POST", "/generate", {"label": [1, "2", 3], "seeds": [5, 99, LAST_SEED], "format": form, "scale": 2})
        ask("POST", "/generate", {"n": 300, "seed": LAST_SEED - 5, "format": form})
        ask("POST", "/generate", {"format": form}, drawn=True)
    for body in (
        {"label": "7", "n": 5, "seed": 3},
        {"label": 7, "n": 5, "seed": 3},
        {"label": ["0", 9], "n": 5, "seed": 3},
        {"n": 12, "seed": 0},
        {"seeds": [4, 4, 8, 15, 16]},
        {"n": 10, "seed": 1, "columns": 3},
        {"n": 10, "seed": 1, "columns": 3, "padding": 0},
        {"n": 10, "seed": 1, "columns": 64, "padding": 64, "scale": 2},
        {"n": 4, "seed": 1, "scale": 32, "format": "png"},
        {"n": 4, "seed": 1, "scale": 5, "format": "webp"},
        {"n": 1024, "seed": 123456789, "label": 5},
        {"n": 33, "seed": 1, "columns": 5, "padding": 9, "format": "npz"},
        {},
    ):
        ask("POST", "/generate", body, drawn=not body)
    seeded = {"n": 2, "seed": 11}
    for accept in ("image/webp", "application/zip;q=0.5, application/json", "image/*", "application/x-npz", "a/b, */*"):
        ask("POST", "/generate", seeded, Accept=accept)
        ask("GET", "/generate?n=2&seed=11", Accept=accept)
    ask("POST", "/generate", json.dumps(seeded).encode(), Content_Type="application/x-www-form-urlencoded")
    ask("POST", "/generate", json.dumps(seeded).encode())
    ask("POST", "/generate", b"", drawn=True)
    ask("GET", "/generate", drawn=True)
    for query in (
        "label=1&label=2&n=4&seed=1",
        "label=1,2,3&seed=1",
        "seeds=1,2,3&label=8",
        "seeds=1&seeds=2",
        "n=5&seed=1&columns=2&padding=1&scale=3&format=webp",
        "model=cifar10-projgan&label=airplane&n=4&seed=1",
        "model=cifar10-projgan&label=airplane,frog&n=4&seed=1&format=json",
        "n=2&seed=5&version=1",
        "n=2&seed=5&version=4",
    ):
        ask("GET", f"/generate?{query}")


def images(recorder: Recorder) -> None:
    """``/images``: each version, by index and by name; what a cache asks."""
    ask = recorder.ask
    for card in catalogue(recorder):
        labels = ("3", quote(card["classes"][-1])) if card["conditional"] else ("-",)
        for label, seed in itertools.product(labels, (0, LAST_SEED)):
            ask("GET", f"/images/{card['name']}/{card['version']}/{label}/{seed}.png")
    path = "/images/mnist-projgan/4/3/42.png"
    etag = ask("GET", path).headers["etag"]
    for told in (etag, f"W/{etag}", f'"a", {etag}', "*", '"another"'):
        ask("GET", path, If_None_Match=told)
        ask("GET", path, If_None_Match=told)
    ask("HEAD", path)


def morph(recorder: Recorder) -> None:
    """``/morph``."""
    ask = recorder.ask
    for query in (
        "from=1&to=2",
        "label=3&from=1&to=2&scale=4&bounce=true",
        "label=3&from=1&to=2&frames=12&format=gif",
        "label=3&from=1&to=2&frames=5&format=gif&bounce=true&fps=50&scale=2",
        "model=cifar10-projgan&version=1&label=frog&from=0&to=9&frames=6",
        "model=cifar10-projgan&version=1&label=6&from=0&to=9&frames=6&format=gif",
        "model=mnist-cdcgan&from=5&to=6&frames=4",
        "model=mnist-gan&from=5&to=6&frames=4",
    ):
        etag = ask("GET", f"/morph?{query}").headers["etag"]
        ask("GET", f"/morph?{query}", If_None_Match=etag)
    ask("HEAD", "/morph?from=1&to=2")
    for query in (
        "from=1",
        "from=1&to=2&frames=1",
        "from=1&to=2&frames=1025",
        "from=1&to=2&format=png",
        "from=1&to=2&speed=2",
        "from=-1&to=2",
        f"from=1&to={LAST_SEED + 1}",
        "from=1&to=2&label=x",
        "from=1&to=2&model=mnist-gan&label=1",
        "from=1&to=2&model=nothing",
        "from=1&to=2&frames=1000&scale=32",
    ):
        ask("GET", f"/morph?{query}")


def synthetic(recorder: Recorder) -> None:
    """``/datasets/synthetic``: each format, whole, in parts and drawn."""
    ask = recorder.ask
    for form in ("tar", "parquet", "npz", "zip"):
        for query in (
            "n=70&seed=5",
            "n=40&seed=5&offset=30",
            "n=30&seed=1&balanced=false",
            "model=cifar10-projgan&version=1&n=25",
            "model=mnist-gan&n=12&seed=9",
        ):
            path = f"/datasets/synthetic?format={form}&{query}"
            etag = ask("GET", path).headers["etag"]
            ask("GET", path, If_None_Match=etag)
        ask("HEAD", f"/datasets/synthetic?format={form}&n=70&seed=5")
    for query in ("n=0", "n=1000001", f"offset={LAST_SEED}&n=2", "model=nothing", "format=csv", "m=3", "balanced=x"):
        ask("GET", f"/datasets/synthetic?{query}")


def models(recorder: Recorder) -> None:
    """``/models``, cards, samples."""
    ask = recorder.ask
    ask("GET", "/models")
    ask("HEAD", "/models")
    for card in catalogue(recorder):
        path = f"/models/{card['name']}"
        ask("GET", f"{path}/{card['version']}")
        etag = ask("GET", f"{path}/{card['version']}/samples.png").headers["etag"]
        ask("GET", f"{path}/{card['version']}/samples.png", If_None_Match=etag)
    for name in sorted({card["name"] for card in catalogue(recorder)}):
        ask("GET", f"/models/{name}")
    for path in ("nothing", "Nothing", "..", "mnist-projgan/99", "mnist-projgan/0", "mnist-projgan/one", "nothing/1"):
        ask("GET", f"/models/{path}")
    ask("GET", "/models/mnist-projgan/99/samples.png")
    ask("HEAD", "/models/mnist-projgan/4/samples.png")


def page(recorder: Recorder) -> None:
    """The page, its files, the documentation, probes."""
    ask = recorder.ask
    for path in ("/", *(f"/page/{name}" for name in PAGE)):
        etag = ask("GET", path).headers.get("etag")
        if path in ("/", "/page/app.js", "/page/nothing.js"):
            ask("HEAD", path)
        if etag:
            ask("GET", path, If_None_Match=etag)
    for path in ("/docs", "/redoc", "/health/live", "/favicon.ico", "/page/", "/page/..%2fapp.py"):
        ask("GET", path)
    ask("HEAD", "/health/live")
    ask("HEAD", "/health/ready")
    ask("GET", "/health/ready", hide=("loaded",))
    ask("GET", "/health/live", X_Request_Id="mine-1", keep=("x-request-id",))
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    ask("GET", "/health/live", traceparent=trace, keep=("x-request-id",))
    told = recorder.send("GET", "/metrics", None, {})
    families = sorted(line for line in told.body.decode().splitlines() if line.startswith("# "))
    recorder.calls["GET /metrics"] = {"status": told.status, "type": told.headers["content-type"], "options": families}


def mistakes(recorder: Recorder) -> None:
    """What is wrong with a call, of every kind."""
    ask = recorder.ask
    for body in WRONG:
        ask("POST", "/generate", json.dumps(body).encode() if body is None else body)
    for content in (b"{", b"\xff", b'{"n": NaN}', b'"n"'):
        ask("POST", "/generate", content, Content_Type="application/json")
    ask("POST", "/generate", b"n=1", Content_Type="text/plain")
    ask("POST", "/generate", b" " * (1 << 20) + b"{}", called="a mebibyte of blanks", Content_Type="application/json")
    ask("POST", "/generate", {"n": 1}, Accept="text/html")
    for query in ("n=1&n=2", "n=x", "seed=1.5", "colour=red", "n=", "label=", "seeds=1,x", "format=bmp"):
        ask("GET", f"/generate?{query}")
    for path in (
        "mnist-projgan/999/3/42",
        "nothing/1/3/42",
        "mnist-projgan/4/x/42",
        "mnist-projgan/4/10/42",
        "mnist-projgan/4/3/-1",
        f"mnist-projgan/4/3/{LAST_SEED + 1}",
        "mnist-projgan/0/3/42",
        "mnist-gan/1/3/42",
        "mnist-projgan/4/-/42",
    ):
        ask("GET", f"/images/{path}.png")
    for method, path in (
        ("PUT", "/generate"),
        ("DELETE", "/generate"),
        ("POST", "/morph"),
        ("POST", "/models"),
        ("PATCH", "/jobs"),
        ("POST", "/health/live"),
        ("OPTIONS", "/generate"),
        ("POST", "/"),
        ("GET", "/nothing"),
        ("POST", "/nothing"),
        ("GET", "/generate/"),
        ("GET", "/models/"),
        ("GET", "/images/mnist-projgan/4/3/42.webp"),
    ):
        ask(method, path)
