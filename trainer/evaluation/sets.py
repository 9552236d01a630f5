"""Finds the evaluation set that a reference names: a file, a folder, a dataset of the lake, or a set on the hub."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from k2d.errors import BadRequest, NotFound, install_hint
from k2d.settings import Settings
from k2d.store import Lake
from k2d.whisper import hub
from trainer.evaluation.common_voice import CommonVoice
from trainer.evaluation.manifests import MANIFEST, JsonLines
from trainer.evaluation.parquet_sets import ParquetFile, ParquetSet, read_schema
from trainer.evaluation.utterances import EvaluationSet

KNOWN: Final = ("ky552/ML2021_ASR_ST", "CAiRE/ASCEND", "ky552/cszs_zh_en")
HINT: Final = (
    "give a manifest (.jsonl), a folder of Parquet files, a Common Voice folder or .tsv, a frozen dataset's name, or a "
    f"set of the hub: {', '.join(KNOWN)}"
)


def open_set(reference: str, settings: Settings, *, split: str = "test") -> EvaluationSet:
    """Open the set that `reference` names; only names and schemas are read.

        open_set("test.jsonl", load())
        open_set("CAiRE/ASCEND", load(), split="validation")

    Args:
        split: of a Common Voice folder, a folder of Parquet files, or a set on the hub.

    Raises:
        NotFound: there is no such file, folder, dataset or set.
        BadRequest: its format is not known.
    """
    path = Path(reference).expanduser()
    if path.is_file():
        return _file(path)
    if path.is_dir():
        return _folder(path, split)
    if "/" not in reference and "." not in reference:
        return frozen_set(reference, settings)
    if path.is_absolute() or reference.startswith((".", "~")) or path.suffix or not hub.is_id(reference):
        raise NotFound(f"no evaluation set at {reference!r}", hint=HINT)
    return _fetch(reference, settings, split)


def frozen_set(name: str, settings: Settings) -> ParquetSet:
    """A frozen dataset of the lake. Its references are pseudo-labels: agreement with the teacher, not truth.

    Raises:
        NotFound: no dataset has that name.
        BadRequest: it has no rows.
        StoreError: the lake cannot be read.
    """
    lake = Lake(settings.store)
    shards = lake.datasets.manifest(name).shards
    if not shards:
        raise BadRequest(f"dataset {name!r} has no rows", hint="freeze one whose policy accepts something")
    files = tuple(
        ParquetFile(f"shard {shard.number:05d}", partial(lake.datasets.shard, name, shard.number)) for shard in shards
    )
    return ParquetSet(name, files, read_schema(files[0]))


def _file(path: Path) -> EvaluationSet:
    if path.suffix in (".jsonl", ".json"):
        return JsonLines(path)
    if path.suffix == ".tsv":
        return CommonVoice(path)
    if path.suffix == ".parquet":
        return _parquet_set(path.stem, [path])
    raise BadRequest(f"the format of {path.name} is not known", hint=HINT)


def _folder(folder: Path, split: str) -> EvaluationSet:
    if (folder / MANIFEST).is_file():
        return JsonLines(folder / MANIFEST)
    if (folder / f"{split}.tsv").is_file():
        return CommonVoice(folder / f"{split}.tsv")
    return _parquet(folder, split, name=folder.resolve().name)


def _parquet(folder: Path, split: str, *, name: str) -> ParquetSet:
    """The Parquet files of a split: `test-00000-of-00009.parquet`, `test/….parquet`, or all when none names a split.

    Raises:
        BadRequest: there are none.
    """
    files = sorted(folder.rglob("*.parquet"))
    chosen = [file for file in files if file.name.split("-")[0].split(".")[0] == split or file.parent.name == split]
    if not chosen and not any("-of-" in file.name for file in files):
        chosen = files
    if not chosen:
        splits = sorted({file.name.split("-")[0] for file in files})
        raise BadRequest(
            f"{folder} holds no evaluation set"
            + (f" of split {split!r}, only {', '.join(splits)}" if splits else f": no {MANIFEST}, no {split}.tsv"),
            hint=f"choose with --split {splits[0]}" if splits else HINT,
        )
    return _parquet_set(name, chosen)


def _parquet_set(name: str, paths: Sequence[Path]) -> ParquetSet:
    files = tuple(map(ParquetFile.at, paths))
    return ParquetSet(name, files, read_schema(files[0]))


def _fetch(repository: str, settings: Settings, split: str) -> ParquetSet:
    """One split of a set on the hub, downloaded to the model cache.

    Raises:
        NotFound: unknown, private, unreachable, or not in the cache while downloads are off.
    """
    try:
        from huggingface_hub import constants, snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise NotFound("huggingface_hub is not installed", hint=install_hint("ct2")) from error
    offline = not settings.allow_downloads or constants.HF_HUB_OFFLINE
    try:
        folder = snapshot_download(
            repository,
            repo_type="dataset",
            cache_dir=settings.cache / "hub",
            allow_patterns=[f"**/{split}-*.parquet", f"{split}-*.parquet", f"**/{split}/*.parquet"],
            local_files_only=offline,
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        why = "downloads are off" if offline else str(error).splitlines()[0]
        raise NotFound(
            f"{repository} cannot be fetched: {why}",
            hint="allow downloads (K2D_ALLOW_DOWNLOADS, HF_HUB_OFFLINE; HF_TOKEN for gated sets), or fetch it "
            "elsewhere and give its folder",
        ) from error
    return _parquet(Path(folder), split, name=f"{repository} {split}")
