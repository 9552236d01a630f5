"""The settings of every service and command: environment variables with the prefix K2D_, or lines of a `.env` file.

An unknown K2D_ variable is an error, so that a typo is not silently ignored.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from k2d.errors import BadRequest
from k2d.schema import EngineName
from k2d.textfiles import ENCODING, read_lines
from k2d.wording import did_you_mean

PREFIX: Final = "K2D_"
RETRY_S: Final = (5, 15, 30, 60, 120)  # between attempts at a job, where no setting says otherwise
CHANNELS: Final = "^(mix|each|[1-9][0-9]?)$"  # what `channels` may be


def default_cache() -> Path:
    """The user's cache folder, by the XDG base directory specification."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "k2d"


class Settings(BaseSettings):
    """All settings, immutable. docs/settings.md is generated from the fields' descriptions."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", env_file_encoding=ENCODING, extra="ignore", frozen=True
    )

    # where things are
    store: str = Field("data", description="The lake's root: a local folder or any fsspec URL (s3://bucket/prefix).")
    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        description="Redis for jobs and live progress; `k2d up` starts one when this is not set.",
    )
    api_url: str = Field("http://127.0.0.1:8080", description="URL at which clients reach the labeling API.")
    cache: Path = Field(default_factory=default_cache, description="Folder for downloaded models.")

    # models
    teacher: str = Field(
        "packaged:whisper-base",
        description="Model that labels: a hub id, a local folder (transformers or CTranslate2), packaged:whisper-base; "
        "or the inference servers that have it: http://host:port, grpc://host:port/teacher, several comma-separated.",
    )
    validator: str = Field(
        "perturbed",
        description="Validators that check each label, joined by `+`; distances come from the first. Each is a model "
        "(as for the teacher); `perturbed` (the teacher's weights on perturbed audio, a fallback); `openai:URL#MODEL` "
        "(a server with OpenAI's transcription endpoint); `sherpa:FOLDER` (a sherpa-onnx model); or, but not first, an "
        "English-only Whisper (`….en`), `probe:DIGEST` (a CTC probe, `k2d probe`) and `second-decode` (the teacher "
        "decodes unresolved labels again). See docs/validators.md.",
    )
    openai_validators: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Validators `openai:URL#MODEL` that batches may name beside those in K2D_VALIDATOR, "
        "comma-separated. Workers connect to no other endpoint.",
    )
    openai_api_keys: SecretStr | None = Field(
        None,
        description="API keys of such endpoints, comma-separated: `api.openai.com=KEY,127.0.0.1:8000=KEY`. A key is "
        "sent to the host (and port) it is given for, and to no other.",
    )
    openai_concurrency: int = Field(8, ge=1, description="Maximum number of requests in flight at such an endpoint.")
    engine: EngineName = Field(EngineName.CTRANSLATE2, description="`ctranslate2` or `transformers`.")
    device: str = Field("auto", description="`auto`, `cpu` or `cuda`.", pattern="^(auto|cpu|cuda)$")
    compute_type: str = Field(
        "auto", description="`auto` (int8 on CPU, float16 on CUDA), or a precision the engine supports."
    )
    threads: int = Field(0, ge=0, description="CPU threads of the engine; 0 means all cores.")
    batch_size: int = Field(16, ge=1, le=256, description="Maximum number of windows in one engine call.")
    allow_downloads: bool = Field(True, description="Whether missing models may be downloaded.")

    # labeling
    language: str = Field("zh-en", description="`zh-en` (mixed prompt), `auto` (per window), or a Whisper code.")
    beam_size: int = Field(
        5, ge=1, le=32, description="Beams with which the teacher decodes; 1 is greedy. Validators always are."
    )
    rescore: bool = Field(
        True,
        description="Decode each chunk again without timestamps, and take the text that the teacher finds most "
        "probable.",
    )
    terms: str = Field(
        "",
        description="Names and jargon the teacher is told before each window, comma-separated.",
    )
    vad: bool = Field(False, description="Skip audio in which a voice activity detector finds no speech.")
    condition_on_previous_text: bool = Field(False, description="Give each window the previous window's text.")
    channels: str = Field(
        "mix",
        pattern=CHANNELS,
        description="`mix` (the mean of a file's channels; silent ones are left out, opposite phase does not cancel), "
        "`each` (every channel is a recording of its own), or a channel's number from 1.",
    )
    keep_partial: bool = Field(
        False, description="Label what is before the damage in damaged and cut-off files; the rest is quarantined."
    )

    # work
    concurrency: int = Field(16, ge=1, description="Number of recordings a worker processes concurrently.")
    group_s: float = Field(3600.0, gt=0, description="Seconds of audio in one job.")
    max_recording_s: float = Field(24 * 3600.0, gt=0, description="Longer recordings are quarantined as too long.")
    min_recording_s: float = Field(0.1, gt=0, description="Shorter recordings are quarantined as too short.")
    silence_peak: float = Field(
        0.001, ge=0, le=1, description="A recording whose peak (0…1) is below this is quarantined as silent."
    )
    max_batch_hours: float = Field(
        10_000.0,
        ge=0,
        description="Hours of audio that are labeled of one batch; more is quarantined. 0 means no limit.",
    )
    decode_memory_mb: int = Field(
        1024, ge=64, description="Memory, in MB, that decoding one recording may take; more quarantines it."
    )
    decode_timeout_s: float = Field(
        60.0,
        ge=1,
        description="Seconds for which decoding a recording may make no progress, and its CPU time beside a second for "
        "each second of audio; more quarantines it.",
    )
    job_timeout_s: int = Field(6 * 3600, gt=0, description="A job that runs longer than this is stopped and retried.")
    retry_s: Annotated[tuple[Annotated[int, Field(ge=0)], ...], NoDecode] = Field(
        RETRY_S,
        min_length=1,
        description="Seconds before each retry of a job that failed or whose worker died, comma-separated; as many "
        "retries as there are numbers.",
    )

    # inference servers, and the clients that call them
    max_waiting: int = Field(
        256, ge=1, description="Maximum number of windows waiting in an inference server; further requests get 503."
    )
    linger_s: float = Field(
        0.25,
        ge=0,
        le=10,
        description="How long an idle engine waits for the next windows of callers it has just answered, at most "
        "(and never longer than 5 % of the last batch's time).",
    )
    golden: str = Field(
        "on",
        pattern="^(on|off)$",
        description="`on`: an inference server is ready only if its model gets three clearly spoken sentences mostly "
        "right (Mandarin, English, mixed); `off`: if it writes anything. For models of other languages, and for tests.",
    )
    idle_unload_s: float = Field(
        0.0, ge=0, description="Unload the weights after this many idle seconds; 0 means never."
    )
    triton_instances: int = Field(
        1, ge=1, le=64, description="Copies of the model in one Triton server, spread over the devices."
    )
    server_timeout_s: float = Field(300.0, gt=0, description="Timeout of one window on a server.")
    server_patience_s: float = Field(
        120.0,
        ge=0,
        description="How long a worker keeps retrying while no server answers; then the job fails and is retried.",
    )

    # the API
    host: str = Field("127.0.0.1", description="Address the API, or an inference server, listens on.")
    port: int = Field(8080, ge=1, le=65535, description="Port the API, or an inference server, listens on.")
    max_upload_bytes: int = Field(2 * 1024**3, gt=0, description="Largest request body the API accepts.")
    allowed_sources: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="URI prefixes that batches may refer to, comma-separated: file:///srv/audio/,s3://bucket/."
    )
    allowed_models: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Models that clients of the API may choose beside those in K2D_TEACHER and K2D_VALIDATOR, "
        "comma-separated: hub ids, folders, `sherpa:FOLDER`. Empty: the packaged models. Commands in this process may "
        "use any.",
    )
    api_token: SecretStr | None = Field(
        None,
        description="On a server: a key of an admin, at least 16 characters, beside those of `k2d keys create`. On a "
        "client: the key it sends (`Authorization: Bearer …`).",
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Host names under which servers are called, comma-separated, `*.example.org` for all below one; "
        "pages of these hosts may use them. Addresses and localhost always count. Empty: with K2D_API_TOKEN any name.",
    )
    allow_anonymous: bool = Field(
        False,
        description="Let everybody who reaches a server that has no key use it as an admin. Without this such a server "
        "answers its own machine only, and does not start with a host beyond loopback.",
    )

    grafana_url: str | None = Field(
        None, description="Address of Grafana, which the console's page Fleet links to.", pattern="^https?://"
    )

    # logs
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="Lowest level that is logged.")
    log_json: bool = Field(False, description="Log JSON lines instead of text.")

    @field_validator("store", "cache", mode="before")
    @classmethod
    def _at_home(cls, value: Any) -> Any:
        if not str(value).strip():
            raise ValueError("it is blank: name a folder, or leave the variable out")
        return os.path.expanduser(value)  # a shell does not expand `~` in quotes, nor does an environment file

    @field_validator("api_token", "openai_api_keys", "grafana_url", mode="before")
    @classmethod
    def _no_empty_token(cls, value: Any) -> Any:
        return value or None  # `K2D_API_TOKEN=` in an environment file means: none

    @field_validator(
        "allowed_sources", "allowed_hosts", "allowed_models", "openai_validators", "retry_s", mode="before"
    )
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    def variables(self) -> dict[str, str]:
        """The settings that were set explicitly, as environment variables for another process."""
        variables: dict[str, str] = {}
        for name, value in self.model_dump(mode="json", include=self.model_fields_set).items():
            secret = getattr(getattr(self, name), "get_secret_value", None)
            if value is not None:
                plain = secret() if secret else value
                variables[PREFIX + name.upper()] = ",".join(map(str, plain)) if isinstance(plain, list) else str(plain)
        return variables


def load(**overrides: Any) -> Settings:
    """Read the settings from the environment and `.env`; `overrides` take precedence.

        >>> load(store="s3://bucket/lake", batch_size=32).batch_size
        32

    Raises:
        BadRequest: a K2D_ variable or an override is unknown, or has an invalid value.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    env_file = Path(".env")
    names = set(os.environ)
    if env_file.is_file():
        lines = (line.strip().removeprefix("export ") for line in read_lines(env_file))
        names |= {line.split("=", 1)[0].strip() for line in lines if "=" in line and not line.startswith("#")}
    unknown = sorted(name for name in names if name.upper().startswith(PREFIX) and name.upper() not in known)
    unknown += sorted(set(overrides) - set(Settings.model_fields))
    if unknown:
        meant = "".join(did_you_mean(name, {*known, *overrides} - set(unknown)) for name in unknown)
        hint = f"{meant}settings are: {', '.join(sorted(known))}"
        raise BadRequest(f"unknown setting: {', '.join(unknown)}", hint=hint, settings=unknown)
    try:
        return Settings(**overrides)
    except ValidationError as error:
        problems = "; ".join(
            f"{PREFIX}{'.'.join(map(str, e['loc'])).upper()}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        )
        raise BadRequest(f"invalid setting: {problems}", hint="see docs/settings.md") from error
