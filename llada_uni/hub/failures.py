"""What goes wrong between here and the hub, each as one line that says what to do.

exception of the client, of the network or of the disk -> UserError. `HubUnreachable` is the kind after which files that the
cache has already may be used instead.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from llada_uni.errors import UserError

_KEPT = "what was fetched is kept: the same command goes on from there"


class HubUnreachable(UserError):
    """The hub did not answer, or said that it cannot now."""


@contextmanager
def failures_of(id: str, what: str = "") -> Iterator[None]:
    """Turns every failure of the block into a UserError. id: of the model; what: the file that is asked for, if one is."""
    from huggingface_hub import errors

    # The base of all errors of the HTTP library; the library itself has changed between versions of the client.
    bases = errors.HfHubHTTPError.__mro__
    network = cast(type[Exception], next(cls for cls in bases if cls.__name__ == "HTTPError"))
    try:
        yield
    except UserError:
        raise
    except (errors.HfHubHTTPError, errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError, network) as error:
        raise _hub_error(error, id, what) from error
    except errors.HFValidationError as error:
        raise UserError(f"{id!r} is no name of a model on the hub: {_line(error)}") from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise UserError(f"the disk is full ({error.filename or what}); free space: {_KEPT}") from error
        if isinstance(error, FileNotFoundError | PermissionError | NotADirectoryError) and error.filename:
            raise UserError(f"cannot write {error.filename} ({error.strerror})") from error
        if error.errno is None:  # the client's word for a transfer that ended early
            raise HubUnreachable(f"the transfer of {what or id} broke off ({_line(error)}); {_KEPT}") from error
        raise UserError(f"cannot write {error.filename or what} ({error.strerror})") from error


def _hub_error(error: Exception, id: str, what: str) -> UserError:
    from huggingface_hub import constants, errors

    hub, shown = constants.ENDPOINT, f"{id}: {what}" if what else id
    response = getattr(error, "response", None)
    status = 0 if response is None else response.status_code
    if isinstance(error, errors.OfflineModeIsEnabled):
        return HubUnreachable(f"{shown} is not in the cache, and HF_HUB_OFFLINE forbids to fetch it; unset it, or pull first")
    if isinstance(error, errors.GatedRepoError):
        return UserError(f"{id} is gated (403): accept its conditions at {hub}/{id}, then set HF_TOKEN or run hf auth login")
    if isinstance(error, errors.DisabledRepoError):
        return UserError(f"{id} has been disabled on the hub; see {hub}/{id}")
    if isinstance(error, errors.RevisionNotFoundError):
        return UserError(f"{id} has no such revision (404); name a branch, a tag or a commit of {hub}/{id}")
    if isinstance(error, errors.EntryNotFoundError) and status == 404:
        return UserError(f"{id} has no file {what} (404) in this revision")
    if isinstance(error, errors.RepositoryNotFoundError) or status == 404:
        return UserError(
            f"the hub has no model {id}, or it is private ({status}): check the name; for a private one set HF_TOKEN to a "
            "token that may read it"
        )
    if status == 401:
        return UserError(f"the hub refuses the token for {id} (401): set HF_TOKEN to a valid one, or run hf auth login")
    if status == 403:
        return UserError(f"the hub forbids {shown} (403): the token in HF_TOKEN may not read it; ask its owner for access")
    if status == 429:
        return HubUnreachable(f"the hub asks to wait, too many requests (429) for {shown}; try again in a few minutes; {_KEPT}")
    if status >= 500:
        return HubUnreachable(f"the hub failed ({status}) at {shown}; try again later; {_KEPT}")
    if status:
        return UserError(f"the hub answered {status} to {shown}: {_line(error)}")
    here = "" if Path(id).is_dir() else f"no directory {id} is here, and "
    return HubUnreachable(f"{here}the connection to {hub} failed at {shown} ({_line(error) or type(error).__name__}); {_KEPT}")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
