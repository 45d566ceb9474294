"""Every setting, once: ``GANSERVE_*`` in the environment, or the flag of the same name.

GANSERVE_PORT=9000 python -m service
python -m service --port 9000 --models /srv/models
python -m ganserve.settings > docs/settings.md
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ganserve import machine
from ganserve.place import CACHE_BYTES, place

PREFIX, ENV_FILE = "GANSERVE_", ".env"
# The default model where none is set and this one is there.
PREFERRED = "mnist-projgan"
TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


def database(url: str) -> str:
    """One spelling of a URL of PostgreSQL, of which every tool has its own, or of SQLite. Raises ValueError."""
    scheme, mark, rest = url.strip().partition("://")
    backend = scheme.lower().partition("+")[0]
    if mark and backend in ("postgres", "postgresql", "pgsql"):
        try:
            port = urlsplit(f"postgresql://{rest}").port
        except ValueError:
            port = 0
        if port == 0:
            raise ValueError("expected postgresql://user:password@host:port/database, with a port from 1 to 65535")
        return f"postgresql://{rest}"
    if not (mark and backend == "sqlite"):
        raise ValueError("expected postgresql://user:password@host/database or sqlite:///path")
    if rest.lstrip("/") in ("", ":memory:"):
        raise ValueError("a database in memory is no queue for several processes: expected sqlite:///path")
    return f"sqlite://{rest}"


class SettingsError(ValueError):
    """A setting that cannot be used; the message names each one and what it accepts."""


class Given(BaseSettings):
    """What can be set."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=ENV_FILE,
        env_file_encoding="utf-8-sig",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        validate_default=False,
        cli_prog_name="python -m service",
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
    )

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    root_path: str = Field(
        "",
        pattern=r"^((/[A-Za-z0-9._~-]+)+/?)?$",
        description="path under which a proxy offers the service, such as /gan; calls are answered with it and without",
    )
    models: Path | str = Field(
        Path("models"), description="the model repository: a folder, or s3://BUCKET/PREFIX, gs:// or az://"
    )
    data: Path = Field(Path("var"), description="folder of runs, uploads, the queue's file and local copies")
    store: Path | str | None = Field(
        None, description="where uploads and checkpoints are, a folder or a URL as above; unset: the data folder"
    )
    cache_bytes: int = Field(
        CACHE_BYTES, ge=1 << 20, description="bytes of the local copies of what is read from an object store, each"
    )
    default_model: str | None = Field(
        None, description=f"model of a request that names none; unset: {PREFERRED}, else the first by name"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where the generators run; cuda refuses to start without CUDA"
    )
    engine: str = Field(
        "onnxruntime",
        pattern=r"^(onnxruntime|triton://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5})$",
        description="onnxruntime, or triton://host:port: a Triton or other v2 server that runs the generators",
    )
    engine_token: SecretStr | None = Field(None, description="bearer token for that server")
    token: SecretStr | None = Field(
        None, description="bearer token for all but probes; unset: open; two with a comma are both valid, for rotation"
    )
    admin_token: SecretStr | None = Field(
        None, description="bearer token for admin calls, or two; unset: made for this run and printed once"
    )
    jobs_db: str | None = Field(
        None, description="SQLAlchemy URL of the retraining queue; unset: SQLite in the data folder"
    )
    worker_id: str | None = Field(None, description="unique and stable name of a training worker; unset: host name")
    tracker: Literal["tensorboard", "mlflow", "wandb"] | None = Field(
        None, description="tensorboard, mlflow or wandb: what a worker's trainings log to besides their own files"
    )
    precision: Literal["auto", "no", "bf16", "fp16"] = Field(
        "auto", description="what a worker's new trainings compute in; auto: bfloat16 where that is faster, or float32"
    )
    local_datasets: bool = Field(
        False, description="a job may name a folder of the worker's own disk, as owner/name below where it was started"
    )
    max_images: int = Field(1024, ge=1, le=65536, description="images a request may ask for")
    max_dataset_images: int = Field(
        1_000_000, ge=1, le=10**9, description="images of one answer of /datasets/synthetic"
    )
    max_queued_images: int = Field(8192, ge=1, description="images that may wait for one model")
    max_queued_images_total: int | None = Field(
        None, ge=1, description="images that may wait for all models together; unset: twice those of one model"
    )
    request_timeout: float = Field(30.0, gt=0, le=3600, description="seconds until a request is given up with 504")
    allow_inexact: bool = Field(
        False, description="serve an exact version whose proof fails on this machine, with weak entity tags"
    )
    load_timeout: float = Field(
        30.0, gt=0, le=3600, description="seconds that reading, opening and warming a model version may take"
    )
    drain_timeout: float = Field(30.0, ge=0, le=3600, description="seconds that a stopping server gives open requests")
    header_timeout: float = Field(15.0, gt=0, le=3600, description="seconds that a client has for a request's headers")
    body_timeout: float = Field(30.0, gt=0, le=3600, description="seconds a body, or a reader, may make no progress")
    idle_timeout: float = Field(15.0, gt=0, le=3600, description="seconds that a connection is kept between requests")
    max_connections: int | None = Field(None, ge=1, description="open connections; unset: as descriptors allow")
    workers: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = Field(
        "auto",
        description="processes that share the port; auto: one a core, up to 8, as memory and the queue's bounds allow, "
        "and one where the generators run on CUDA or another server",
    )
    lanes: int | None = Field(
        None, ge=1, le=256, description="CPU runs side by side in a process; unset: its share of the cores"
    )
    threads: int = Field(1, ge=1, le=256, description="onnxruntime threads of one run; more lanes serve better")
    batch_rows: int = Field(32, ge=1, le=1024, description="most images in one run of the CPU engine")
    batch_delay_ms: float = Field(
        0.0, ge=0, le=2, description="milliseconds that the first waiting image waits for company"
    )
    max_body_bytes: int = Field(1 << 20, ge=1024, description="largest request body, uploads apart")
    max_verify_bytes: int = Field(4 << 20, ge=1024, le=1 << 28, description="largest picture of POST /verify")
    max_pixels: int = Field(1 << 26, ge=1, description="pixels of one grid")
    max_upload_bytes: int = Field(1 << 30, ge=1024, description="largest archive of a data set")
    max_upload_pixels: int = Field(
        50_000_000, ge=1, le=1 << 27, description="pixels of one picture of an uploaded data set"
    )
    max_upload_seconds: float = Field(
        600.0, gt=0, le=86400, description="seconds of a core that the pictures of an upload may take to decode"
    )
    watch_interval: float = Field(0.5, gt=0, le=60, description="seconds between looks at the live pointers")
    log_format: Literal["text", "json"] = Field("text", description="logs as lines for people, or as JSON, one a line")
    otlp_endpoint: str | None = Field(
        None, description="OpenTelemetry collector, http://host:4318, that traces are sent to; needs the extra otel"
    )
    access_log: bool = Field(False, description="a JSON line for each request on standard error")
    max_loaded_models: int = Field(16, ge=1, description="model versions kept in memory, the least used go first")

    @model_validator(mode="before")
    @classmethod
    def _trimmed(cls, given: Any) -> Any:
        """What a line end of Windows, or a blank before it, adds to a value is not part of it."""
        if not isinstance(given, dict):
            return given
        trimmed = {name: value.strip() if isinstance(value, str) else value for name, value in given.items()}
        return {name: value for name, value in trimmed.items() if value != ""}

    @field_validator("token", "admin_token", "engine_token")
    @classmethod
    def _sendable(cls, secret: SecretStr | None) -> SecretStr | None:
        """A token that a client can send in a header (RFC 6750, section 2.1)."""
        for token in secret.get_secret_value().split(",") if secret else ():
            if not TOKEN.fullmatch(token):
                raise ValueError(
                    "no client could send this token: expected letters, digits and any of - . _ ~ + /, "
                    "with = at the end at most"
                )
        return secret

    @field_validator("models", "store", mode="before")
    @classmethod
    def _place(cls, given: Any) -> Any:
        """A folder or a URL, told apart before a path makes one slash of two."""
        return place(given) if isinstance(given, str | Path) else given

    @field_validator("jobs_db")
    @classmethod
    def _database(cls, url: str | None) -> str | None:
        return url and database(url)


class Settings(Given):
    """Settings of the service."""

    @property
    def upstream(self) -> str | None:
        """The server that runs the generators; None: this process does."""
        return None if self.engine == "onnxruntime" else self.engine

    @property
    def lane_count(self) -> int:
        """Lanes of one process, unless set: its share of the cores, two if there are; to another server, eight."""
        if self.upstream is not None:
            return self.lanes or 8
        return self.lanes or max(min(2, self.cores), self.cores // self.processes)

    @property
    def cores(self) -> int:
        """Cores that this process may use."""
        return machine.cores()

    @property
    def processes(self) -> int:
        """Processes that share the port: one until the command that starts them has decided on their number."""
        return 1 if self.workers == "auto" else self.workers

    @property
    def image_limit(self) -> int:
        """Images a request may ask for: what could never be queued is refused outright, not put off with a 429."""
        return min(self.max_images, self.model_share, self.queue_share)

    @property
    def model_share(self) -> int:
        """Images that may wait for one model in one of the processes."""
        return max(1, self.max_queued_images // self.processes)

    @property
    def queue_share(self) -> int:
        """Images that may wait in one of the processes."""
        return max(1, self.queue_limit // self.processes)

    @property
    def queue_limit(self) -> int:
        """Images that may wait in all."""
        return self.max_queued_images_total or 2 * self.max_queued_images

    @property
    def kept(self) -> Path | str:
        """Where uploads and checkpoints are."""
        return self.data if self.store is None else self.store

    @property
    def jobs_url(self) -> str:
        """The queue's database."""
        return self.jobs_db or f"sqlite:///{(self.data / 'jobs.sqlite').resolve()}"

    def environment(self) -> dict[str, str]:
        """The settings as environment variables, secrets in the clear: how worker processes are told."""
        result = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if value is not None:
                text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
                result[PREFIX + name.upper()] = text
        return result


def load(arguments: Sequence[str] | None = None) -> Settings:
    """Settings from flags (where ``arguments`` are given), the environment and the defaults, in this order.

    Raises:
        SettingsError: a value that cannot be used.
        SystemExit: ``--help`` or an unknown flag.
    """
    build: Callable[..., Settings] = partial(Settings, _env_file_encoding=_encoding())
    try:
        return build() if arguments is None else build(_cli_parse_args=list(arguments))
    except UnicodeError as error:
        raise SettingsError(f"{ENV_FILE} is no text in UTF-8: save it so ({error})") from None
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(detail) for detail in error.errors())) from None


def misspelt() -> list[str]:
    """What to say of variables that are nearly called as a setting is, and set nothing."""
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    given = {name.upper() for name in (*os.environ, *dotenv_values(ENV_FILE, encoding=_encoding()))}
    strange = sorted(name for name in given if name.startswith(PREFIX) and name not in known)
    near = {name: get_close_matches(name, known, 1, 0.85) for name in strange}
    return [f"{name} is no setting and sets nothing: did you mean {found[0]}?" for name, found in near.items() if found]


def _encoding() -> str:
    """Of the file of settings: editors on Windows begin it with a byte order mark, and PowerShell writes UTF-16."""
    try:
        with open(ENV_FILE, "rb") as file:
            wide = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    except OSError:
        wide = False
    return "utf-16" if wide else "utf-8-sig"


def _explain(detail: object) -> str:
    assert isinstance(detail, dict)
    name = str(detail["loc"][0]).replace("-", "_")
    flag = "--" + name.lower().replace("_", "-")
    # A URL that is refused may hold what should never have been in it.
    secret = "token" in name or name in ("jobs_db", "models", "store")
    given = "" if secret else f" is {detail['input']!r}"
    field = Settings.model_fields.get(name)
    meaning = f" ({field.description})" if field else ""
    return f"{PREFIX}{name.upper()} or {flag}{given}: {detail['msg']}{meaning}"


def table() -> str:
    """``docs/settings.md``: every setting with its default, its bounds and its meaning."""
    lines = [
        "# Settings",
        "",
        "From the environment, or as a flag of `python -m service` (`ganserve serve`): `GANSERVE_MAX_IMAGES=100` is",
        "`--max-images 100`. `make serve` and `make worker` pass the environment on. This page is written by",
        "`python -m ganserve.settings > docs/settings.md`.",
        "",
        "| setting | default | what |",
        "|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f"`{field.default}`"
        bounds = "; ".join(bound for limit in field.metadata if (bound := _bound(limit)))
        told = f"{field.description}{f' ({bounds})' if bounds else ''}".replace("|", "\\|")
        lines.append(f"| `{PREFIX}{name.upper()}` | {default} | {told} |")
    return "\n".join(lines) + "\n"


def _bound(limit: object) -> str:
    """One limit of a field in words; nothing for a pattern, which its description tells better."""
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    return next((f"{told} {getattr(limit, key):g}" for key, told in words.items() if hasattr(limit, key)), "")


if __name__ == "__main__":
    print(table(), end="")
