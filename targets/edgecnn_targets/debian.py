"""Unpack Debian packages into a folder without installing them: nobody needs to be root.

They come from the sources that this machine is set up with, by ``apt-get`` under a configuration of its own: other
lists and another cache. apt verifies the index by its signature. Only packages that the index names are unpacked, each
after its SHA-256 was compared with the index. What a killed run has downloaded is used by the next.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from edgecnn.errors import DeviceFault, InputError, MissingDependencyError
from edgecnn.files import sha256
from edgecnn.process import run
from edgecnn.progress import filling
from edgecnn_targets.cache import REMEDY, cache_dir

PATIENCE_S = 900.0
INSTALLED = Path("/var/lib/dpkg/status")
PACKAGES = "packages.txt"
HASH = "SHA256"


def require() -> None:
    """Check that this is a Debian machine.

    Raises:
        MissingDependencyError: it is none.
    """
    for name in ("apt-get", "dpkg"):
        if shutil.which(name) is None:
            raise MissingDependencyError(f"setting up emulated devices needs {name}: use a Debian machine or container")


def unpack(
    place: Path,
    packages: Sequence[str],
    *,
    downloads: str,
    program: str = "",
    architecture: str | None = None,
    status: Path = INSTALLED,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Unpack packages and what they depend on.

    Args:
        place: an empty folder; ``packages.txt`` in it will list the packages and their SHA-256.
        downloads: folder in the cache for what is on its way.
        program: that must be in ``usr/bin`` then.
        architecture: of the packages; by default this machine's.
        status: what is listed there as installed is left out; by default what this machine has. It need not exist.
        say: tells the person at the terminal what is odd.

    Raises:
        MissingDependencyError: this is no Debian machine.
        InputError: the disk is full.
        DeviceFault: apt or dpkg failed, with its last output; or the program is not there.
    """
    require()
    room = cache_dir() / "downloads" / downloads
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (room / folder).mkdir(parents=True, exist_ok=True)
    own = architecture or tool(["dpkg", "--print-architecture"]).strip()
    options = {
        "APT::Architecture": own,
        "APT::Architectures": own,
        "APT::Sandbox::User": "root",
        "Acquire::ForceHash": HASH,
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "Debug::NoLocking": "true",
        "Dir::Cache": room / "cache",
        "Dir::State": room / "state",
        "Dir::State::status": status,
    }
    apt = ["apt-get", *(word for key, value in options.items() for word in ("-o", f"{key}={value}"))]
    try:
        tool([*apt, "update"])
    except DeviceFault as fault:  # one index of several; what lacks for it is found below
        say(f"going on without some of the package lists: {fault}")
    tool([*apt, "autoclean"])  # of what a killed run has left, what is not served any more
    install = [*apt, "install", "-y", "--reinstall", "--no-install-recommends", *packages]
    nothing = room / "nothing"  # with what is there already, all packages are listed
    listed = tool([*install, "--print-uris", "-qq", "-o", f"Dir::Cache::archives={nothing}"])
    hashes, size = named(listed)
    with filling(room / "cache/archives", "packages", size):
        tool([*install, "--download-only"])
    for name, digest in hashes.items():
        archive = room / "cache/archives" / name
        if not archive.is_file() or sha256(archive.read_bytes()) != digest:
            archive.unlink(missing_ok=True)
            raise DeviceFault(f"{name} is not the file that the signed index names; it was not unpacked: try again")
        tool(["dpkg", "-x", archive, place])
    (place / PACKAGES).write_text("".join(f"{digest}  {name}\n" for name, digest in hashes.items()))
    shutil.rmtree(room)
    if not (place / "usr/bin" / program).exists():
        raise DeviceFault(f"the package {packages[0]} of this machine's sources holds no usr/bin/{program}")


def named(listed: str) -> tuple[dict[str, str], int]:
    """Return the SHA-256 of each file that ``apt-get --print-uris`` lists, sorted by name, and their bytes together.

    Raises:
        DeviceFault: the index has no SHA-256 of a file.
    """
    lines = [line.split() for line in listed.splitlines() if line.startswith("'")]  # 'address' file bytes hash
    hashes = {}
    for _, name, _, said in sorted(lines, key=lambda line: line[1]):
        kind, _, digest = said.partition(":")
        if kind != HASH:
            raise DeviceFault(f"the package index has no {HASH} of {name}; use an archive that has")
        hashes[name] = digest
    return hashes, sum(int(size) for _, _, size, _ in lines)


def library_path(place: Path) -> str:
    """Return ``LD_LIBRARY_PATH`` for unpacked programs: the libraries unpacked beside them."""
    return ":".join(map(str, sorted(place.glob("usr/lib/*-linux-gnu")) + sorted(place.glob("lib/*-linux-gnu"))))


def tool(words: Sequence[str | Path], **environment: str | Path) -> str:
    """Run a tool of a set-up, with further variables in its environment; return what it prints.

    Raises:
        InputError: the disk is full.
        DeviceFault: it failed; with its last output.
    """
    try:
        inherited = {**os.environ, "LC_ALL": "C.UTF-8"}
        return run(words, timeout_s=PATIENCE_S, environment=inherited | {k: str(v) for k, v in environment.items()})
    except DeviceFault as fault:
        if "No space left on device" in str(fault):
            raise InputError(f"the disk is full; {REMEDY} ({fault})") from None
        raise
