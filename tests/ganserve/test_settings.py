from pathlib import Path

import pytest

from ganserve.settings import Settings, SettingsError, load, misspelt, table

# fmt: off
NAMES = [
    "HOST", "PORT", "MODELS", "DATA", "DEFAULT_MODEL", "DEVICE", "TOKEN", "ADMIN_TOKEN", "JOBS_DB",
    "MAX_IMAGES", "MAX_QUEUED_IMAGES", "REQUEST_TIMEOUT", "WORKER_ID", "WORKERS", "LANES",
    "THREADS", "MAX_BODY_BYTES", "BATCH_DELAY_MS", "DRAIN_TIMEOUT",
]
# fmt: on


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"GANSERVE_{name.upper()}", raising=False)


def test_the_defaults_are_those_that_are_published() -> None:
    settings = load()
    assert (settings.host, settings.port, settings.models, settings.data) == (
        "127.0.0.1", 8000, Path("models"), Path("var")
    )  # fmt: skip
    assert (settings.device, settings.max_images, settings.workers, settings.threads) == ("auto", 1024, "auto", 1)
    assert settings.token is None
    assert settings.admin_token is None


@pytest.mark.parametrize("name", NAMES)
def test_every_published_name_is_a_setting_with_a_description(name: str) -> None:
    assert Settings.model_fields[name.lower()].description


def test_flags_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANSERVE_PORT", "9000")
    monkeypatch.setenv("GANSERVE_MAX_IMAGES", "7")
    assert load().port == 9000
    settings = load(["--port", "9001", "--default-model", "m"])
    assert (settings.port, settings.max_images, settings.default_model) == (9001, 7, "m")


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANSERVE_TOKEN", "")
    monkeypatch.setenv("GANSERVE_PORT", "")
    assert load().token is None
    assert load().port == 8000


@pytest.mark.parametrize(
    ("name", "value", "flag"),
    [
        ("PORT", "http", "--port"),
        ("PORT", "70000", "--port"),
        ("DEVICE", "tpu", "--device"),
        ("BATCH_DELAY_MS", "5", "--batch-delay-ms"),
        ("REQUEST_TIMEOUT", "0", "--request-timeout"),
        ("LANES", "0", "--lanes"),
    ],
)
def test_a_bad_value_is_named_with_its_meaning(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, flag: str
) -> None:
    monkeypatch.setenv(f"GANSERVE_{name}", value)
    with pytest.raises(SettingsError) as raised:
        load()
    text = str(raised.value)
    assert f"GANSERVE_{name}" in text
    assert flag in text
    assert repr(value) in text
    assert str(Settings.model_fields[name.lower()].description) in text


def test_an_unknown_flag_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load(["--prot", "1"])
    assert "--prot" in capsys.readouterr().err


def test_secrets_are_never_shown() -> None:
    settings = load(["--token", "user-secret", "--admin-token", "admin-secret"])
    assert "secret" not in repr(settings).replace("SecretStr", "")
    assert settings.token is not None
    assert settings.token.get_secret_value() == "user-secret"


def test_processes_read_the_same_settings_back(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(["--token", "t", "--port", "9", "--lanes", "3", "--access-log", "true", "--models", "x"])
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert load() == settings


def test_lanes_are_a_process_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert load().lane_count == 8
    assert load(["--workers", "4"]).lane_count == 2
    # Two at least: small requests are run beside them, and a large one is spread.
    assert load(["--workers", "16"]).lane_count == 2
    assert load(["--workers", "4", "--lanes", "5"]).lane_count == 5
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0}, raising=False)
    assert load().lane_count == 1


def test_the_bounds_of_the_queue_are_the_service_s_and_divided_among_its_processes() -> None:
    asked = ["--max-queued-images", "100", "--max-queued-images-total", "130"]
    one, four = load(asked), load([*asked, "--workers", "4"])
    assert (one.processes, one.model_share, one.queue_share, one.image_limit) == (1, 100, 130, 100)
    assert (four.processes, four.model_share, four.queue_share, four.image_limit) == (4, 25, 32, 25)


def test_a_request_may_not_ask_for_more_than_can_ever_wait() -> None:
    assert load(["--max-queued-images", "100"]).image_limit == 100
    assert load(["--max-images", "10"]).image_limit == 10


def test_the_page_of_settings_is_the_one_that_the_code_writes() -> None:
    page = Path(__file__).parents[2] / "docs" / "settings.md"
    assert page.read_text(encoding="utf-8") == table(), "python -m ganserve.settings > docs/settings.md"
    assert all(f"`GANSERVE_{name.upper()}`" in table() for name in Settings.model_fields)


@pytest.mark.parametrize("end", ["\r", " ", "\r\n"])
def test_a_value_ends_where_a_line_of_windows_does(monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    monkeypatch.setenv("GANSERVE_PORT", f"9000{end}")
    monkeypatch.setenv("GANSERVE_TOKEN", f"secret{end}")
    monkeypatch.setenv("GANSERVE_DEFAULT_MODEL", end)
    settings = load()
    assert (settings.port, settings.default_model) == (9000, None)
    assert settings.token is not None
    assert settings.token.get_secret_value() == "secret"


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_an_env_file_of_any_editor_is_read_and_the_environment_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: bytes, end: bytes
) -> None:
    lines = [b"GANSERVE_PORT=9000", b'GANSERVE_TOKEN="secret"', b"GANSERVE_MAX_IMAGES=7", b"OTHER=1", b""]
    (tmp_path / ".env").write_bytes(mark + end.join(lines))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANSERVE_MAX_IMAGES", "8")
    settings = load()
    assert (settings.port, settings.max_images) == (9000, 8)
    assert settings.token is not None
    assert settings.token.get_secret_value() == "secret"


@pytest.mark.parametrize("token", ["two words", "café", "quote\"", "a,", ",", "=", "tab\tbed"])
@pytest.mark.parametrize("name", ["TOKEN", "ADMIN_TOKEN", "ENGINE_TOKEN"])
def test_a_token_that_no_client_could_send_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, token: str
) -> None:
    monkeypatch.setenv(f"GANSERVE_{name}", token)
    with pytest.raises(SettingsError, match=f"GANSERVE_{name} or .*no client could send this token") as raised:
        load()
    assert len(token) < 3 or token not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgres://u:p@h/d?sslmode=require",
        "postgresql://u:p@h/d?sslmode=require",
        "postgresql+psycopg://u:p@h/d?sslmode=require",
        "postgresql+psycopg2://u:p@h/d?sslmode=require",
        "postgresql+asyncpg://u:p@h/d?sslmode=require",
        "POSTGRES://u:p@h/d?sslmode=require",
        "pgsql://u:p@h/d?sslmode=require",
    ],
)
def test_every_spelling_of_a_postgresql_url_is_the_same_database(url: str) -> None:
    assert load(["--jobs-db", url]).jobs_url == "postgresql://u:p@h/d?sslmode=require"


@pytest.mark.parametrize("url", ["sqlite:////srv/jobs.sqlite", "sqlite+aiosqlite:////srv/jobs.sqlite"])
def test_every_spelling_of_a_sqlite_url_is_the_same_file(url: str) -> None:
    assert load(["--jobs-db", url]).jobs_url == "sqlite:////srv/jobs.sqlite"


@pytest.mark.parametrize(
    ("url", "right"),
    [
        ("postgres://u:p@h:port/d", "a port from 1 to 65535"),
        ("postgres://u:p@h:99999/d", "a port from 1 to 65535"),
        ("postgres://u:p@h:0/d", "a port from 1 to 65535"),
        ("sqlite://", "expected sqlite:///path"),
        ("sqlite:///:memory:", "expected sqlite:///path"),
    ],
)
def test_a_url_that_leads_to_no_queue_is_refused_at_once(url: str, right: str) -> None:
    with pytest.raises(SettingsError, match=f"GANSERVE_JOBS_DB or .*{right}") as raised:
        load(["--jobs-db", url])
    assert "u:p" not in str(raised.value)


@pytest.mark.parametrize("codec", ["utf-16", "utf-8-sig"])
def test_an_env_file_that_powershell_wrote_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str
) -> None:
    (tmp_path / ".env").write_bytes("GANSERVE_PORT=9000\r\nGANSERVE_DATA=caf\u00e9\r\n".encode(codec))
    monkeypatch.chdir(tmp_path)
    assert (load().port, load().data) == (9000, Path("caf\u00e9"))


def test_an_env_file_that_is_no_utf_8_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_bytes(b"GANSERVE_PORT=9000\n# caf\xe9\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=r"\.env is no text in UTF-8: save it so"):
        load()


def test_what_is_nearly_called_as_a_setting_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("GANSERVE_PROT=9000\nPROT=1\nGANSERVE_PORT=9001\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANSERVE_MAX_IMAGE", "7")
    monkeypatch.setenv("GANSERVE_URL", "http://somewhere")
    monkeypatch.setenv("GANSERVE_SERVICE_HOST", "10.0.0.1")  # as Kubernetes tells of a service called ganserve
    assert misspelt() == [
        "GANSERVE_MAX_IMAGE is no setting and sets nothing: did you mean GANSERVE_MAX_IMAGES?",
        "GANSERVE_PROT is no setting and sets nothing: did you mean GANSERVE_PORT?",
    ]


@pytest.mark.parametrize("url", ["mysql://u:p@h/d", "jobs.sqlite", "postgresql:u:p@h/d", "://"])
def test_another_database_is_refused_by_the_settings_name_and_its_password_is_not_shown(url: str) -> None:
    with pytest.raises(SettingsError, match=r"GANSERVE_JOBS_DB or .*expected postgresql://") as raised:
        load(["--jobs-db", url])
    assert "u:p" not in str(raised.value)
