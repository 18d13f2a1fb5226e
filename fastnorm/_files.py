"""Files that are written whole or not at all."""

import contextlib
import os
import secrets
from pathlib import Path


def write_whole(path: Path, data) -> None:
    """Put bytes into place in one step; folders that are missing are made. Raises OSError, and then leaves nothing."""
    with in_one_step(path) as temporary, open(temporary, "xb") as file:
        file.write(data)


@contextlib.contextmanager
def in_one_step(path: Path):
    """Yields where to write, and puts that file at `path` in the end; where something is raised it is removed."""
    # In the same folder, because only within one file system does a rename replace in one step.
    temporary = path.with_name(f".fastnorm-{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
