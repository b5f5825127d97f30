"""Results as files: one per stage, named by the digest of all that it depends on, written whole or not at all.

FOLDER/results/DIGEST.json   what came of a stage
FOLDER/files/DIGEST/         what the stage made: NAME.edgecnn, an artifact with its manifest
FOLDER/logs/DIGEST.log       what it printed
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgecnn.errors import InputError
from edgecnn.files import write_json
from edgecnn.jobs import Status
from edgecnn.jobs.transfer import unpack
from edgecnn.records import read_file
from edgecnn.sweeping.stages import Stage

FINAL = (Status.OK, Status.ERROR)
"""A result of another status came from this machine or this moment: a resumed sweep runs it again."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of a stage.

    Attributes:
        kind, name, identity, versions: of the stage.
        status: how it ended.
        text: one line that says what went wrong, else empty.
        value: what the stage returned: figures.
        run: how it ran: seconds, attempts, peak_mib, cpu. Nothing of it decides a figure.
    """

    kind: str
    name: str
    identity: str
    versions: Mapping[str, str]
    status: Status
    text: str = ""
    value: Mapping[str, Any] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)


class Store:
    """The folder of a sweep."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def result(self, digest: str) -> Result | None:
        """Return the result of a stage, ``None`` where there is none yet.

        Raises:
            InputError: the file is no result.
        """
        path = self._result(digest)
        if not path.exists():
            return None
        try:
            return read_file(Result, path)
        except InputError as error:
            raise InputError(f"{error}; delete it, and the stage runs again") from None

    def results(self) -> Iterator[Result]:
        """Yield all results, those of other versions too."""
        for path in sorted((self.folder / "results").glob("*.json")):
            found = self.result(path.stem)
            if found is not None:
                yield found

    def done(self, digest: str) -> Result | None:
        """Return the result of a stage that need not run again."""
        found = self.result(digest)
        return found if found is not None and found.status in FINAL else None

    def put(self, stage: Stage, status: Status, *, text: str = "", value: Any = None, run: Mapping[str, Any]) -> Result:
        """Write the result of a stage; return it."""
        made = Result(
            kind=stage.kind,
            name=stage.name,
            identity=stage.identity,
            versions=stage.versions,
            status=status,
            text=text,
            value=value or {},
            run=run,
        )
        write_json(self._result(stage.digest), asdict(made))
        return made

    def files(self, digest: str) -> Path:
        """Return the folder of what a stage made."""
        return self.folder / "files" / digest

    def put_files(self, digest: str, packed: bytes) -> None:
        """Write the files that a stage made on another machine, as ``transfer.pack`` returned them."""
        if packed:
            unpack(packed, self.files(digest))

    def log(self, digest: str) -> Path:
        """Return the place of a stage's log."""
        return self.folder / "logs" / f"{digest}.log"

    @contextmanager
    def making(self, digest: str) -> Iterator[Path]:
        """Give a folder to write into, which becomes ``files(digest)`` when the body has ended without an error."""
        place = self.files(digest)
        place.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{digest}.", dir=place.parent))
        try:
            yield scratch
            if any(scratch.iterdir()):
                scratch.chmod(0o755)
                with suppress(OSError):  # another process made the same
                    scratch.rename(place)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _result(self, digest: str) -> Path:
        return self.folder / "results" / f"{digest}.json"
