"""A server with OpenAI's transcription endpoint as a validator: `openai:http://host:8000/v1#model`.

Any such server can be asked (speaches, vLLM, FunASR's server, a cloud); it gives a text and no forced log-probability.
Which endpoints are asked is the operator's choice: those in K2D_VALIDATOR and K2D_OPENAI_VALIDATORS, and no other, as a
request must not choose where workers connect to.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from k2d.errors import BadRequest
from k2d.inference.golden import clips
from k2d.inference.openai_endpoint import OpenAIEndpoint, OpenAIModel, key_of, parse
from k2d.keys import digest
from k2d.schema import AUTO, MIXED, Chunk, Hypothesis, ModelInfo, Samples
from k2d.settings import Settings
from k2d.validators.names import OPENAI, validators_of
from k2d.validators.protocol import AS_IS, Validator, ValidatorContext

VERSION: Final = 1  # of what is asked of the server; part of the key of its hypotheses


async def open_validator(name: str, context: ValidatorContext) -> Validator:
    """Connect to an endpoint of the settings, and ask which version of the model it has.

    Raises:
        BadRequest: the endpoint is not in the settings.
        ModelError: it cannot be reached, or refuses the key.
    """
    check(name, context.settings)
    endpoint = _endpoint(name, context.settings)
    context.close_with_batch(endpoint.close)
    return OpenAIValidator(endpoint, context.language, tuple(sorted((await endpoint.version()).items())))


def check(name: str, settings: Settings) -> None:
    """Check that the operator has named this endpoint and model.

    Raises:
        BadRequest: it is malformed, or not in the settings.
    """
    wanted = parse(name.removeprefix(OPENAI))
    if wanted not in _allowed(settings):
        raise BadRequest(
            f"{wanted.reference[:200]!r} is not an endpoint of this installation",
            hint="endpoints are named in K2D_VALIDATOR and K2D_OPENAI_VALIDATORS only",
        )


async def describe(name: str, settings: Settings) -> str:
    """Let the endpoint transcribe a golden clip, without retries; returns its text and the model's version.

    Raises:
        ModelError: it cannot be reached, refuses, or transcribes nothing.
    """
    endpoint = _endpoint(name, settings.model_copy(update={"server_patience_s": 0.0}))
    try:
        version = await endpoint.version()
        text = await endpoint.transcribe(clips()[0].samples)
    finally:
        await endpoint.close()
    told = ", ".join(f"{key} {value}" for key, value in sorted(version.items()))
    return f"{name}: transcribes {text!r}; {told or 'tells no version'}"


@dataclass(frozen=True, slots=True)
class OpenAIValidator:
    """Has each chunk transcribed once, on the unchanged audio."""

    endpoint: OpenAIEndpoint
    batch_language: str
    version: tuple[tuple[str, Any], ...]  # what the server tells of the model's version

    @property
    def name(self) -> str:
        return f"{OPENAI}{self.endpoint.model.reference}"

    @property
    def model(self) -> ModelInfo:
        """The weights are unknown: the digest is of the endpoint, the model's name and its version."""
        model = self.endpoint.model
        identity = digest(OPENAI, model.reference, self.version)
        return ModelInfo(self.name, identity, engine="openai", compute_type="unknown", device="remote")

    @property
    def perturbation_names(self) -> tuple[str, ...]:
        return (AS_IS,)

    @property
    def language(self) -> str | None:
        """The language that is asked for; None where the server detects it: it knows no mixed prompt."""
        return None if self.batch_language in (MIXED, AUTO) else self.batch_language

    @property
    def key(self) -> tuple[Any, ...]:
        return (OPENAI, VERSION, self.endpoint.model.name, self.version, self.language)

    def wants(self, chunk: Chunk, before: Sequence[Hypothesis]) -> bool:
        return True

    async def validate(
        self, chunk: Chunk, samples: Samples, before: Sequence[Hypothesis], *, recording_id: str
    ) -> tuple[Hypothesis, ...]:
        text = await self.endpoint.transcribe(samples, language=self.language)
        return (Hypothesis(validator=self.name, perturbation=AS_IS, text=text, avg_logprob=0.0),)


def _endpoint(name: str, settings: Settings) -> OpenAIEndpoint:
    model = parse(name.removeprefix(OPENAI))
    keys = settings.openai_api_keys.get_secret_value() if settings.openai_api_keys else ""
    return OpenAIEndpoint(
        model,
        key=key_of(model.host, keys),
        timeout_s=settings.server_timeout_s,
        patience_s=settings.server_patience_s,
        concurrency=settings.openai_concurrency,
    )


def _allowed(settings: Settings) -> set[OpenAIModel]:
    names = (*validators_of(settings.validator), *settings.openai_validators)
    return {parse(name.removeprefix(OPENAI)) for name in names if name.startswith(OPENAI)}
