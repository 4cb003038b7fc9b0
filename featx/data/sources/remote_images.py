"""Single images behind URLs: what servers state about them, and their bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from featx.data.file_bytes import UNKNOWN, FileBytes, require_size
from featx.data.remote import Facts, RemoteFile
from featx.errors import ImageError, MachineError

_ASKED_AT_ONCE = 64
"""Files to ask a server about at once."""


def facts_of_files(addresses: Mapping[str, str]) -> dict[str, Facts]:
    """What servers state about single files, asked for many at a time.

    Args:
        addresses: the URLs of the files, by any names.

    Returns:
        The rows of ``FileFacts`` by the same names. A file that a server refuses to tell about counts as one of unknown size;
        reading it tells why.

    Raises:
        RemoteError: the server does not answer.
    """
    if not addresses:
        return {}
    if len(addresses) == 1:
        return {name: _facts(address) for name, address in addresses.items()}
    with ThreadPoolExecutor(min(_ASKED_AT_ONCE, len(addresses))) as pool:
        try:
            return dict(zip(addresses, pool.map(_facts, addresses.values()), strict=True))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _facts(address: str) -> Facts:
    try:
        return RemoteFile(address).facts()
    except ConnectionError:
        raise
    except OSError:
        return 0, 0, UNKNOWN, 0


def read_remote(address: str, known: Facts | None, admit: Callable[[int], None]) -> FileBytes:
    """Read the image at a URL.

    Args:
        address: the URL.
        known: the row of ``FileFacts`` of the file from before; None if nothing was asked. Where nothing comes with the bytes
            themselves, a later run finds the file unchanged by it, and a file that is replaced in between to be another.
        admit: as in ``Store.read``.

    Raises:
        ImageError: it is missing, refused or too large.
        RemoteError: the server does not answer.
    """

    def admit_image(size: int) -> None:
        require_size(size)
        admit(size)

    try:
        file = RemoteFile(address)
        if known and known[0] > 0:
            admit_image(known[0])
            data, found = file.read_all()
        else:
            data, found = file.read_all(admit_image)
        require_size(len(data))
    except (ImageError, ConnectionError):
        raise
    except MemoryError as error:
        raise MachineError("cannot be read on this machine: there is too little memory") from error
    except FileNotFoundError as error:
        raise ImageError("cannot be read: there is no such file") from error
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or error}") from error
    # What came with the bytes is surer than what was stated before.
    _, version, ctime, _ = found or known or (0, -1, -1, 0)
    return FileBytes(data, len(data), version, (ctime, 0))
