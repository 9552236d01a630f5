"""One `Settings`, read by every service and command: environment variables with the prefix K2D_, or a `.env` file.

An unknown K2D_ variable is refused: a typo must fail, not be ignored.
"""

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from k2d.errors import BadRequest
from k2d.schema import EngineName

PREFIX = "K2D_"


def default_cache() -> Path:
    """The user's cache folder, as the XDG base directory specification has it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "k2d"


class Settings(BaseSettings):
    """Everything an operator can turn. Field descriptions are the documentation (docs/settings.md is made of them)."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_file=".env", extra="ignore", frozen=True)

    # where things are
    store: str = Field("data", description="The lake's root: a local folder or any fsspec URL (s3://bucket/prefix).")
    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        description="Redis for work and live progress; `k2d up` embeds one when this is not set.",
    )
    api_url: str = Field("http://127.0.0.1:8080", description="Where clients find the labeling API.")
    cache: Path = Field(default_factory=default_cache, description="Folder for downloaded models.")

    # models
    teacher: str = Field(
        "packaged:whisper-base",
        description="Model that labels: hub id, local folder (transformers or CTranslate2), packaged:whisper-base; or "
        "an inference server that has one: http://host:port, grpc://host:port/teacher, several comma-separated.",
    )
    validator: str = Field(
        "perturbed",
        description="Validators that check each label, joined by `+`; the first is the paper's. A model as above; "
        "`perturbed`, the fallback: the teacher's weights on perturbed audio; after it `probe:DIGEST` (`k2d probe`) "
        "and `second-decode`: the teacher again, where the others leave a label unresolved.",
    )
    engine: EngineName = Field(EngineName.CTRANSLATE2, description="`ctranslate2` or `transformers`.")
    device: str = Field("auto", description="`auto`, `cpu` or `cuda`.", pattern="^(auto|cpu|cuda)$")
    compute_type: str = Field("auto", description="`auto` (int8 on CPU, float16 on CUDA) or what the engine knows.")
    threads: int = Field(0, ge=0, description="CPU threads of the engine; 0: all cores.")
    batch_size: int = Field(16, ge=1, le=256, description="Most windows in one engine call.")
    allow_downloads: bool = Field(True, description="Whether models may be fetched when they are missing.")

    # labeling
    language: str = Field("zh-en", description="`zh-en` (mixed prompt), `auto` (per window), or a Whisper code.")
    vad: bool = Field(False, description="Skip what a voice activity detector calls silence.")
    condition_on_previous_text: bool = Field(False, description="Give each window the previous window's text.")

    # work
    concurrency: int = Field(16, ge=1, description="Recordings a worker has in flight at once.")
    group_s: float = Field(3600.0, gt=0, description="Seconds of audio in one job.")
    max_recording_s: float = Field(24 * 3600.0, gt=0, description="Longer recordings are quarantined as too long.")
    min_recording_s: float = Field(0.1, gt=0, description="Shorter recordings are quarantined as too short.")
    silence_peak: float = Field(0.001, ge=0, le=1, description="A recording whose peak (0…1) stays below is silent.")
    job_timeout_s: int = Field(6 * 3600, gt=0, description="A job that runs longer is stopped and retried.")

    # inference servers, and the clients that call them
    max_waiting: int = Field(256, ge=1, description="Windows that may wait in an inference server; more get 503.")
    linger_s: float = Field(
        0.25,
        ge=0,
        le=10,
        description="Most seconds a free engine waits for callers it has just answered (never over 5 % of a batch).",
    )
    idle_unload_s: float = Field(0.0, ge=0, description="Free the weights after so many idle seconds; 0: never.")
    triton_instances: int = Field(1, ge=1, le=64, description="Copies of the model in one Triton, each on its device.")
    server_timeout_s: float = Field(300.0, gt=0, description="Most seconds one window may take on a server.")
    server_patience_s: float = Field(
        120.0, ge=0, description="Seconds a worker goes on trying while no server answers; then the job is retried."
    )

    # the API
    host: str = Field("127.0.0.1", description="Address the API, or an inference server, listens on.")
    port: int = Field(8080, ge=1, le=65535, description="Port the API, or an inference server, listens on.")
    max_upload_bytes: int = Field(2 * 1024**3, gt=0, description="Largest request body the API takes.")
    allowed_sources: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="URI prefixes batches may refer to, comma-separated: file:///srv/audio/,s3://bucket/."
    )
    api_token: SecretStr | None = Field(None, description="When set, /v1 requests need `Authorization: Bearer …`.")

    # logs
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="Least level that is logged.")
    log_json: bool = Field(False, description="Log JSON lines instead of text.")

    @field_validator("api_token", mode="before")
    @classmethod
    def _no_empty_token(cls, value: Any) -> Any:
        return value or None  # an empty line of an environment file sets nothing

    @field_validator("allowed_sources", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    def variables(self) -> dict[str, str]:
        """What was set, whatever way it reached us, as the variables another process reads it from."""
        found: dict[str, str] = {}
        for name, value in self.model_dump(mode="json", include=self.model_fields_set).items():
            secret = getattr(getattr(self, name), "get_secret_value", None)
            if value is not None:
                plain = secret() if secret else value
                found[PREFIX + name.upper()] = ",".join(plain) if isinstance(plain, list) else str(plain)
        return found


def load(**overrides: Any) -> Settings:
    """Read settings from the environment and `.env`; `overrides` win.

    Raises:
        BadRequest: a K2D_ variable or override is unknown or has an impossible value.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    env_file = Path(".env")
    names = set(os.environ)
    if env_file.is_file():
        lines = (line.strip().removeprefix("export ") for line in env_file.read_text("utf-8").splitlines())
        names |= {line.split("=", 1)[0].strip() for line in lines if "=" in line and not line.startswith("#")}
    unknown = sorted(name for name in names if name.upper().startswith(PREFIX) and name.upper() not in known)
    unknown += sorted(set(overrides) - set(Settings.model_fields))
    if unknown:
        raise BadRequest(
            f"unknown setting: {', '.join(unknown)}", hint=f"settings are: {', '.join(sorted(known))}", settings=unknown
        )
    try:
        return Settings(**overrides)
    except ValidationError as error:
        problems = "; ".join(f"{PREFIX}{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
        raise BadRequest(f"impossible setting: {problems}", hint="see docs/settings.md") from error
