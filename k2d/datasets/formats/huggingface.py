"""Hugging Face: a folder that `datasets.load_dataset(folder)` and the hub read, with data/*.parquet and a card.

export(lake, "lectures-v1", "huggingface", "out")
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Final

import yaml

from k2d.datasets.formats.shards import DatasetFormat
from k2d.datasets.read import FrozenDataset
from k2d.datasets.scripts import scripts_in_words
from k2d.store.manifest import DatasetShard, Manifest
from k2d.wording import audio_length, counted

_DATA_FILES: Final = [{"split": "train", "path": "data/train-*.parquet"}]
_SIZES: Final = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def _write_shard(dataset: FrozenDataset, folder: Path, shard: int) -> dict[str, Any]:
    """Copy a shard; the note is its entry in the manifest, with the copy's hash."""
    manifest = dataset.manifest
    target = folder / shard_path(shard, len(manifest.shards))
    target.parent.mkdir(exist_ok=True)
    dataset.copy_shard(shard, target)
    copy = manifest.shards[shard]
    if dataset.converted_to is not None:
        with open(target, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        copy = copy.model_copy(update={"bytes": target.stat().st_size, "sha256": sha256})
    return copy.model_dump(mode="json")


def _finish(dataset: FrozenDataset, folder: Path, final: Path, notes: list[Any]) -> None:
    """Write README.md (the card) and provenance.json (the manifest, with the copies' hashes)."""
    manifest = dataset.manifest.model_copy(update={"shards": [DatasetShard.model_validate(note) for note in notes]})
    (folder / "README.md").write_text(card(manifest), encoding="utf-8")
    text = json.dumps(manifest.model_dump(mode="json"), ensure_ascii=False, indent=2, allow_nan=False)
    (folder / "provenance.json").write_text(text + "\n", encoding="utf-8")


def shard_path(number: int, shards: int) -> str:
    """Where a shard lies in the folder."""
    return f"data/train-{number:05d}-of-{shards:05d}.parquet"


def config_name(manifest: Manifest) -> str:
    """The name of the configuration, under which `datasets` caches the rows; includes digest and script of the content.

    Otherwise another dataset in a folder of the same name would be read from the cache of this one.
    """
    script = f"-{manifest.script.name}" if manifest.script is not None else ""
    return f"{manifest.name}-{manifest.digest[:12]}{script}"


def card(manifest: Manifest) -> str:
    """Write the dataset card: content, origin of the labels, and the ledger of seconds."""
    rows = manifest.counts.rows
    head = {
        "pretty_name": manifest.name,
        "task_categories": ["automatic-speech-recognition"],
        "language": _languages(manifest),
        "tags": ["code-switching", "pseudo-labels", "k2d"],
        "size_categories": [next((name for limit, name in _SIZES if rows < limit), "n>1M")],
        "configs": [{"config_name": config_name(manifest), "data_files": _DATA_FILES}],
    }
    seconds, counts = manifest.seconds, manifest.counts
    kept_s = seconds.accepted + seconds.salvaged
    kept = 100 * kept_s / seconds.input if seconds.input else 0.0
    without = manifest.without
    left_out = f"| left out | {without.found} of {without.ids} revoked ids (`{without.hash}`) |\n" if without else ""
    raw_text = "`raw_text` (as the teacher wrote it), " if manifest.has_raw_text else ""
    reasons = "\n".join(f"| {reason} | {value:.3f} |" for reason, value in manifest.seconds.by_reason.items())
    teachers = ", ".join(f"`{t.model.get('reference', '?')}` ({t.fingerprint})" for t in manifest.teachers)
    validators = ", ".join(
        f"`{v.name}` ({v.fingerprint})"
        + (" — a fallback: no second model, the same weights on perturbed audio" * v.fallback)
        for v in manifest.validators
    )
    return f"""---
{yaml.safe_dump(head, allow_unicode=True, sort_keys=False).strip()}
---

# {manifest.name}

Speech with machine-made labels: {audio_length(kept_s)} in {counted(rows, "row")} of at most 30 s, 16 kHz mono FLAC.
No person has checked the labels: a teacher wrote them, validators checked them, and a policy decided what to keep.

```python
from datasets import load_dataset

rows = load_dataset("path/to/this/folder", split="train")
```

| | |
|---|---|
| digest | `{manifest.digest}` |
| frozen | {manifest.created_at}, k2d {manifest.k2d_version} |
| batches | {", ".join(f"`{batch}`" for batch in manifest.batches)} |
| teacher | {teachers} |
| validators | {validators} |
| policy | `{manifest.policy.get("name", "")}` ({manifest.policy_hash}) |
| script | {_script(manifest)} |
| recordings | {counts.labeled} labeled, {counts.quarantined} quarantined, {counts.duplicates} duplicates left out |
| kept | {kept_s:.3f} s of {seconds.input:.3f} s ({kept:.1f} %) |
| salvaged | {seconds.salvaged:.3f} s of it: good segments of {counted(counts.salvaged, "chunk")} not kept whole |
{left_out}
## What was kept

{manifest.policy_explanation}

## Where every second went

input {seconds.input:.3f} s = accepted {seconds.accepted:.3f} + salvaged {seconds.salvaged:.3f} \
+ rejected {seconds.rejected:.3f} + quarantined {seconds.quarantined:.3f} + no label {seconds.silence:.3f}

| reason | seconds |
|---|---|
{reasons}

## Columns

`audio`, `text`, {raw_text}`segments` (times relative to the row's audio), `duration_s`, `recording_id`, `source`,
`start_s` and `end_s` (in the recording), `language` (as the teacher was prompted), `previous_text`, `chunk_ids`,
`segment_ids`, `distances` and `distance` (the policy's metric of each chunk or of what was salvaged of it; the
largest), `avg_logprob` (the teacher's). `provenance.json` holds the whole manifest.
"""


def _script(manifest: Manifest) -> str:
    """The script of the labels, and in which ones the teacher wrote them."""
    script, heard = manifest.script, manifest.scripts_as_heard
    words = f"{script.name}, converted with {script.converter} ({script.standard})" if script else "as heard"
    return words if heard is None else f"{words}; as heard {scripts_in_words(heard)}"


def _languages(manifest: Manifest) -> list[str]:
    """Language codes for the hub; the mixed prompt zh-en counts as both languages."""
    prompts = {str(options.get("decode", {}).get("language", "")) for options in manifest.options}
    codes = {code for language in prompts for code in language.split("-")}
    return sorted(code for code in codes if code and code != "auto") or ["zh", "en"]


HUGGINGFACE: Final = DatasetFormat(_write_shard, _finish)
