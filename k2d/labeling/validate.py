"""The last stage of a recording's walk: each listener of the panel hears its chunks, and all that was said is weighed.

Opinions are stored for each listener by itself, and facts follow from labels and opinions alone. So another listener
never makes the others hear anything again, and a new way to weigh costs no model time.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from k2d import audio
from k2d.errors import StoreError
from k2d.filtering.evidence import Said, Weighed, weigh_many
from k2d.schema import Chunk, ChunkFacts, LongformOptions, ModelInfo, Opinion, Recording
from k2d.store import Lake
from k2d.validators.panel import Panel, opinions_key
from k2d.validators.validator import Listener

# Raise it when weighing writes other facts: old shards stay, new ones are made of the same opinions beside them.
FACTS_VERSION = 3

Opinions = Mapping[int, tuple[Opinion, ...]]  # one listener's on a recording, by the chunk's index


class Doubt:
    """A panel at work on one recording after the other, or on many at once.

    `places` bounds the chunks whose audio is in memory for a listener, over all recordings in flight: what keeps a
    worker small.
    """

    def __init__(self, lake: Lake, panel: Panel, *, places: int) -> None:
        self.lake = lake
        self.panel = panel
        self._places = asyncio.Semaphore(places)

    async def run(
        self, recording: Recording, *, label_key: str, facts_key: str, options: LongformOptions, teacher: ModelInfo
    ) -> None:
        """Let each listener hear the recording's chunks, unless it has; then write the facts at `facts_key`.

        Raises:
            NotFound: there are no labels at `label_key`.
            ModelError, StoreError
        """
        said: list[Opinions] = []
        keys = [opinions_key(label_key, listener) for listener in self.panel]
        for key, listener in zip(keys, self.panel, strict=True):
            if not await asyncio.to_thread(self.lake.has_opinions, key):
                await self._hear(recording, listener, said, label_key=label_key, key=key)
            said.append(await asyncio.to_thread(self.lake.opinions, key))
        meta = {
            "facts_key": facts_key,
            "label_key": label_key,
            "recording": recording,
            "teacher": teacher,
            "validator": self.panel.first.model,
            "validator_name": self.panel.name,
            "views": list(self.panel.first.views),
            "opinions": keys,
            "options": options,
            "version": FACTS_VERSION,
        }
        await asyncio.to_thread(self._weigh, said, meta, options.decode.initial_prompt or "")

    async def _hear(
        self, recording: Recording, listener: Listener, before: Sequence[Opinions], *, label_key: str, key: str
    ) -> None:
        """Let one listener hear the chunks it wants, and write down what it says, in order."""
        wanted = await asyncio.to_thread(self._wanted, label_key, listener, before)
        hearings: dict[int, asyncio.Task[tuple[Opinion, ...]]] = {}
        stored = self.lake.labels(label_key, audio=True, only=wanted)
        try:
            async with asyncio.TaskGroup() as group:
                while wanted and (row := await asyncio.to_thread(next, stored, None)) is not None:
                    await self._places.acquire()  # given back with the task: a shard that cannot be read costs none
                    hearing = group.create_task(self._hear_chunk(*row, listener, recording.id, before))
                    hearing.add_done_callback(lambda _: self._places.release())
                    hearings[row[0].index] = hearing
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors  # the first fault stopped the others; one is enough to report
        rows = [(index, hearing.result()) for index, hearing in hearings.items()]
        meta = {
            "label_key": label_key,
            "recording_id": recording.id,
            "listener": listener.name,
            "listener_key": listener.key,
        }
        await asyncio.to_thread(self.lake.write_opinions, key, rows, meta)

    async def _hear_chunk(
        self, chunk: Chunk, flac: bytes | None, listener: Listener, recording_id: str, before: Sequence[Opinions]
    ) -> tuple[Opinion, ...]:
        if flac is None:
            raise StoreError(f"label shard has no audio for chunk {chunk.index} of {recording_id}")
        samples = await asyncio.to_thread(audio.decode_flac, flac)
        return await listener.hear(chunk, samples, _of(chunk, before), recording_id=recording_id)

    def _wanted(self, label_key: str, listener: Listener, before: Sequence[Opinions]) -> frozenset[int]:
        """The chunks that this listener hears."""
        chunks = (chunk for chunk, _ in self.lake.labels(label_key))
        return frozenset(chunk.index for chunk in chunks if listener.wants(chunk, _of(chunk, before)))

    def _weigh(self, said: Sequence[Opinions], meta: Mapping[str, Any], prompt: str) -> None:
        chunks = [chunk for chunk, _ in self.lake.labels(meta["label_key"])]
        opinions = [_of(chunk, said) for chunk in chunks]
        weighed = weigh_many([Said(*one, prompt) for one in zip((c.segments for c in chunks), opinions, strict=True)])
        named = {"facts_key": meta["facts_key"], "recording_id": meta["recording"].id, "panel": self.panel.name}
        rows = (facts_of(*one, **named) for one in zip(chunks, opinions, weighed, strict=True))
        self.lake.write_facts(meta["facts_key"], rows, meta)


def facts_of(
    chunk: Chunk, opinions: Sequence[Opinion], weighed: Weighed, *, facts_key: str, recording_id: str, panel: str
) -> ChunkFacts:
    """The row of a chunk: its label, what the panel (by its name) said of it, and what follows from the two."""
    return ChunkFacts(
        id=f"{facts_key}-{chunk.index:05d}",
        recording_id=recording_id,
        index=chunk.index,
        start_s=chunk.start_s,
        end_s=chunk.end_s,
        teacher_text=chunk.text,
        segments=chunk.segments,
        validator=panel,
        opinions=tuple(opinions),
        distances=weighed.distances,
        evidence=weighed.evidence,
        segment_evidence=weighed.segment_evidence,
    )


def _of(chunk: Chunk, said: Sequence[Opinions]) -> tuple[Opinion, ...]:
    """What was said of one chunk, listener after listener."""
    return tuple(opinion for one in said for opinion in one.get(chunk.index, ()))
