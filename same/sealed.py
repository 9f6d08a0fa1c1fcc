"""Files and folders that are complete or absent; what is read is first compared with the hash recorded for it."""

import errno
import hashlib
import itertools
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from same.errors import SnapshotError

if TYPE_CHECKING:
    import pandas
    from numpy.typing import NDArray

SCHEMA = 1


def canonical(value: Any) -> str:
    """One text for one value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Mapping[str, Any], schema: int = SCHEMA) -> None:
    """Replace ``path`` by ``value``, its schema number and its own hash, in one step."""
    content = {"schema": schema, **value}
    content["sha256"] = hashlib.sha256(canonical(content).encode()).hexdigest()
    beside = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    with beside.open("w", encoding="utf-8") as stream:
        stream.write(json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False))
        stream.flush()
        os.fsync(stream.fileno())
    beside.replace(path)
    _sync(path.parent)


def read_json(path: Path, remedy: str, schema: int = SCHEMA) -> dict[str, Any]:
    """Read what :func:`write_json` wrote.

    Raises:
        SnapshotError: missing, not JSON, of another schema, or changed since it was written; says ``remedy``.
    """
    try:
        content = json.loads(path.read_bytes())
        recorded = content.pop("sha256")
    except (FileNotFoundError, NotADirectoryError):
        raise SnapshotError(f"{path} is missing. {remedy}") from None
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise SnapshotError(f"{path} is damaged ({type(error).__name__}: {error}). {remedy}") from None
    if content.get("schema") != schema:
        raise SnapshotError(f"{path} must have schema {schema}; got {content.get('schema')!r}. {remedy}")
    found = hashlib.sha256(canonical(content).encode()).hexdigest()
    if found != recorded:
        raise SnapshotError(f"{path} is damaged: its sha256 is {found[:12]}…, recorded {recorded[:12]}…. {remedy}")
    return dict(content)


class SealedFolder:
    """A folder whose manifest holds the sha256 of each file; it exists completely or not at all."""

    def __init__(self, path: Path, remedy: str, schema: int = SCHEMA):
        self.path = path
        self.remedy = remedy
        self.schema = schema

    @property
    def exists(self) -> bool:
        """Whether the folder was written to its end."""
        return self.path.is_dir()

    def write(self, fill: Callable[[Path], None], **about: Any) -> None:
        """Let ``fill`` write the files into a folder beside, seal it and move it into place.

        Args:
            fill: writes any files into the folder it is given.
            about: further entries of the manifest.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{self.path.name}-", dir=self.path.parent))
        try:
            fill(beside)
            files = sorted(file for file in beside.rglob("*") if file.is_file())
            hashes = {file.relative_to(beside).as_posix(): _sha256(file) for file in files}
            for item in [*files, *{file.parent for file in files}]:
                _sync(item)
            write_json(beside / "manifest.json", {**about, "files": hashes}, self.schema)
            beside.chmod(0o755)
            _replace_folder(beside, self.path)
            _sync(self.path.parent)
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def manifest(self) -> dict[str, Any]:
        """Read the manifest, checked against its own hash."""
        if not self.path.is_dir():
            raise SnapshotError(f"{self.path} does not exist. {self.remedy}")
        return read_json(self.path / "manifest.json", self.remedy, self.schema)

    def file(self, name: str) -> Path:
        """Return the path of one file after comparing it with its recorded hash.

        Raises:
            SnapshotError: the file is missing or changed; names it, both hashes and what to do.
        """
        path, recorded = self.path / name, self.manifest()["files"].get(name)
        if recorded is None:
            raise SnapshotError(f"{path} is not part of this folder's manifest. {self.remedy}")
        if not path.is_file():
            raise SnapshotError(f"{path} is missing although the manifest lists it. {self.remedy}")
        found = _sha256(path)
        if found != recorded:
            raise SnapshotError(
                f"{path} is damaged: its sha256 is {found[:12]}…, recorded {recorded[:12]}…. {self.remedy}"
            )
        return path

    def has(self, name: str) -> bool:
        """Whether the manifest lists a file of that name."""
        return name in self.manifest()["files"]

    def verify(self) -> None:
        """Check every file of the folder."""
        for name in self.manifest()["files"]:
            self.file(name)

    def table(self, name: str) -> "pandas.DataFrame":
        """Read ``<name>.parquet``."""
        import pyarrow.parquet

        frame: pandas.DataFrame = pyarrow.parquet.read_table(self.file(f"{name}.parquet")).to_pandas()
        return frame

    def tensors(self, name: str) -> "dict[str, NDArray[Any]]":
        """Read ``<name>.safetensors`` as numpy arrays."""
        from safetensors.numpy import load_file

        return dict(load_file(self.file(f"{name}.safetensors")))


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _replace_folder(source: Path, target: Path) -> None:
    """Move ``source`` to ``target``; folders that are there by then, or come in between, give way."""
    prefix = f".{target.name}-old-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=target.parent, ignore_cleanup_errors=True) as old:
        for turn in itertools.count():
            try:
                source.rename(target)
                return
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            try:
                target.rename(Path(old) / str(turn))
            except FileNotFoundError:
                if not Path(old).is_dir():
                    raise  # else another writer has moved it away
