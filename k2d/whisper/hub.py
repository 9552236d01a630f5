"""Fetches models from the Hugging Face hub: only the files that an engine reads."""

import re
import tempfile
from pathlib import Path
from typing import Final

from k2d.errors import ModelError, ModelNotFetched, install_hint

ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
FILES: Final = ["config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json", "vocabulary.*"]
CT2_FILES: Final = ["model.bin"]
SAFETENSORS: Final = ["model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors"]


def is_id(reference: str) -> bool:
    """Whether a reference has the form of a repository on the hub: owner/name."""
    return ID.fullmatch(reference) is not None


def check(reference: str) -> None:
    """Ask the hub whether it has a repository; no file is fetched. Errors as of `fetch`."""
    with tempfile.TemporaryDirectory() as folder:
        _snapshot(reference, Path(folder), patterns=[], allow_downloads=True)


def fetch(reference: str, *, cache: Path, allow_downloads: bool) -> Path:
    """Fetch a repository's model files into the cache, unless they are there; returns their folder.

    Raises:
        ModelNotFetched: it is not in the cache, and downloads are off or the hub is unreachable.
        ModelError: the repository is unknown or private.
    """
    return _snapshot(
        reference, cache / "hub", patterns=[*FILES, *CT2_FILES, *SAFETENSORS], allow_downloads=allow_downloads
    )


def _snapshot(reference: str, folder: Path, *, patterns: list[str], allow_downloads: bool) -> Path:
    """Download the files of a repository that match the patterns into a cache folder; errors as of `fetch`."""
    try:
        from huggingface_hub import constants, snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise ModelError("huggingface_hub is not installed", hint=install_hint("ct2")) from error
    offline = not allow_downloads or constants.HF_HUB_OFFLINE
    try:
        return Path(snapshot_download(reference, cache_dir=folder, allow_patterns=patterns, local_files_only=offline))
    except LocalEntryNotFoundError as error:
        why = "downloads are off" if offline else "the hub cannot be reached"
        way = "allow downloads (K2D_ALLOW_DOWNLOADS, HF_HUB_OFFLINE)" if offline else "check this machine's network"
        raise ModelNotFetched(
            f"{reference} is not in the cache, and {why}",
            hint=f"{way}, or copy the model here and give its folder",
        ) from error
    except (HfHubHTTPError, HFValidationError) as error:
        raise ModelError(
            f"the hub refuses {reference}: {str(error).splitlines()[0]}",
            hint="check the id; for a private or gated model set HF_TOKEN",
        ) from error
    except OSError as error:
        raise ModelError(
            f"{reference} cannot be fetched: {error}", hint="check the connection and the free space in K2D_CACHE"
        ) from error
