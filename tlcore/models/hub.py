"""Weights of hub models: where they lie in the local hub cache, and how they get there when that is allowed.

`cached_file` never opens a connection. `remote_sha256` and `download` do, and only they.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from tlcore.errors import RetryableError, TlcoreError, UserError

__all__ = ["cached_file", "cached_sha256", "download", "remote_sha256"]

FILES = ("model.safetensors", "pytorch_model.bin")
"""Names under which timm's repositories keep the weights, the safe one first."""

SHA256 = re.compile(r"[0-9a-f]{64}")


def cached_file(repository: str, *, cache: str | None = None, files: Sequence[str] = FILES) -> Path | None:
    """The weights of a hub repository in the local cache, or None. Offline.

    Args:
        repository: "timm/resnet18.a1_in1k".
        cache: folder of the hub cache; None: the one that HF_HOME or HF_HUB_CACHE names.
        files: names to look for, the first that is there counts.
    """
    from huggingface_hub import try_to_load_from_cache

    for name in files:
        found = try_to_load_from_cache(repository, name, cache_dir=cache)
        if isinstance(found, str) and Path(found).is_file():
            return Path(found)
    return None


def cached_sha256(path: Path) -> str:
    """SHA-256 of a cached weights file, without opening it where the cache has named the file by it.

    The hub cache keeps large files under the digest that the hub states for them; a listing of a thousand models
    need not read their weights. Building a network does, and refuses what differs.

    Raises:
        UserError: the file cannot be read.
    """
    from tlcore.models.weights import sha256_of

    name = path.resolve().name
    return name if SHA256.fullmatch(name) else sha256_of(path)


def remote_sha256(repository: str, *, files: Sequence[str] = FILES) -> str:
    """SHA-256 that the hub states for the weights of a repository; "" where it states none. Downloads nothing.

    Raises:
        UserError: the hub has no such repository or file, or refuses access.
        RetryableError: the hub did not answer.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    for name in files:
        try:
            etag = get_hf_file_metadata(hf_hub_url(repository, name)).etag or ""
        except EntryNotFoundError:
            continue
        except Exception as error:  # noqa: BLE001 - the HTTP library below huggingface_hub differs between versions
            _raise(repository, error)
        return etag if SHA256.fullmatch(etag) else ""
    raise _no_weights(repository, files)


def download(repository: str, *, cache: str | None = None, files: Sequence[str] = FILES) -> Path:
    """Fetch the weights of a hub repository into the local cache, where they are not there already.

    Raises:
        UserError: the hub has no such repository or file, or refuses access.
        RetryableError: the hub did not answer, or the transfer broke off.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for name in files:
        try:
            return Path(hf_hub_download(repository, name, cache_dir=cache, library_name="tlcore"))
        except LocalEntryNotFoundError as error:  # the hub could not be asked, and the cache is empty
            _raise(repository, error)
        except EntryNotFoundError:
            continue
        except Exception as error:  # noqa: BLE001 - the HTTP library below huggingface_hub differs between versions
            _raise(repository, error)
    raise _no_weights(repository, files)


def _no_weights(repository: str, files: Sequence[str]) -> UserError:
    return UserError("the hub repository holds no file of a known name", where=repository, choices=files)


def _raise(repository: str, error: Exception) -> NoReturn:
    raise _named(repository, error) from error


def _named(repository: str, error: Exception) -> TlcoreError:
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    causes = [error, error.__cause__, error.__context__]
    if any(isinstance(cause, OfflineModeIsEnabled) for cause in causes):
        return UserError(
            "HF_HUB_OFFLINE forbids downloads",
            where=repository,
            hint="unset HF_HUB_OFFLINE, or use weights on this machine: --models local:FOLDER",
        )
    if isinstance(error, GatedRepoError):
        return UserError(
            "the hub gives these weights only to accepted accounts", where=repository, hint="hf auth login"
        )
    if isinstance(error, RepositoryNotFoundError):
        return UserError(
            "the hub has no such repository, or does not show it to this account", where=repository
        )
    status = next((cause.response.status_code for cause in causes if isinstance(cause, HfHubHTTPError)), None)
    if status is not None and 400 <= status < 500 and status not in (408, 429):
        return UserError(f"the hub refused the weights (HTTP {status})", where=repository)
    reason = f"HTTP {status}" if status is not None else type(error).__name__
    return RetryableError(
        f"the hub did not answer as it should ({reason})",
        where=repository,
        hint="check the connection and run the same command again; what was finished is kept. "
        "Without a connection: --models local:FOLDER",
    )
