"""Devices of kind ``ssh``: a real board at ``ssh://[user@]host[:port]``, by the system's OpenSSH client.

The runner travels on the command line of one connection and the artifact through it, so nothing is left on the board.
Host keys are checked always, and keys or an agent log in: a password is never asked for. What ``~/.ssh/config`` says of
the host (a name, a key, a jump host) holds.
"""

from __future__ import annotations

import base64
import re
import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from edgecnn.child import Command
from edgecnn.errors import DeviceFault, InputError, MissingDependencyError, UnsupportedError
from edgecnn_targets.evaluate import fixed_input
from edgecnn_targets.interface import Arrays, Device, Kind, Runtime, Session, Usage, packed, unpacked
from edgecnn_targets.kinds.remote import RemoteSession
from edgecnn_targets.results import ResultCache
from edgecnn_targets.runtimes import runner

OPEN_S = 180.0
"""Seconds for connecting, starting Python there, and sending and opening the artifact."""
CONNECT_S, ALIVE_S, ALIVE_COUNT = 20, 10, 6
"""Seconds that connecting may take; then, how often the client asks whether the board is there, and how often it may
fail to answer before the connection counts as broken."""
LIBRARIES = {"tflite": "ai-edge-litert", "onnx": "onnxruntime"}
RUNNER = Path(runner.__file__)


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a board is.

    Attributes:
        name: as it was given, ``ssh://user@host:port``.
        host: a name or an address; may be one of ``~/.ssh/config``.
        user: or ``None``: as the client decides.
        port: or ``None``: as the client decides.
    """

    name: str
    host: str
    user: str | None = None
    port: int | None = None

    @property
    def words(self) -> list[str]:
        """Return the client's words for it."""
        port = ["-p", str(self.port)] if self.port is not None else []
        user = ["-l", self.user] if self.user is not None else []
        return [*port, *user, "--", self.host]

    @property
    def by_hand(self) -> str:
        """Return what a person types to log in."""
        port = f"-p {self.port} " if self.port is not None else ""
        return f"ssh {port}{self.user + '@' if self.user else ''}{self.host}"


def parse(name: str) -> Address:
    """Return the address in a device's name.

    Raises:
        InputError: it is not ``ssh://[user@]host[:port]``, or holds a password.
    """
    try:
        parts = urlsplit(name)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.password is not None:
        raise InputError(
            f"ssh://{parts.username}:…@{host}: no passwords here; log in with a key: ssh-copy-id installs it"
        )
    plain = all(re.fullmatch(r"[\w.:][\w.:-]*", word) for word in (host or "-", parts.username or "_"))
    if parts.scheme != "ssh" or not plain or parts.path or parts.query or parts.fragment:
        raise InputError(f"{name!r} is no board's address; give ssh://[user@]host[:port]")
    assert host is not None
    return Address(name=name, host=host, user=parts.username, port=port)


class SshSession(Session):
    """An artifact open on a board; see ``Session``. What the board answered is kept until ``measure`` ends well."""

    def __init__(self, remote: RemoteSession, kept: ResultCache) -> None:
        super().__init__(remote.description, threads=remote.threads)
        self.remote, self._kept = remote, kept
        self._before, self.done = len(kept), False

    @property
    def findings(self) -> tuple[str, ...]:
        resumed = (f"went on after a run that broke: {self._before} images were done already",) if self._before else ()
        return (*self.remote.findings, *resumed)

    def infer(self, sample: Arrays) -> Arrays:
        """See ``Session.infer``; what the board has answered already is not run again."""
        (fed,) = packed(sample, self.inputs)
        output = self._kept.output(fed)
        if output is None:
            try:
                (output,) = packed(self.remote.run(sample), self.outputs)
            except DeviceFault as fault:
                raise self.broken(fault) from None
            self._kept.put_outputs([fed], [output])
        return unpacked([output], self.outputs)

    def broken(self, fault: DeviceFault) -> DeviceFault:
        """Return the error for a connection that broke in the middle."""
        return DeviceFault(f"{fault}; {len(self._kept)} images are done and kept: the same command goes on from there")

    def close(self) -> None:
        """End the connection, and the runner with it."""
        self.remote.close()
        if self.done:
            self._kept.clear()


def open_session(device: Device, runtime: Runtime, artifact: Path, *, threads: int, kernels: str | None) -> SshSession:
    """Connect, start the runner there, and open an artifact in it.

    Raises:
        InputError: the address or the artifact is wrong.
        MissingDependencyError: the board lacks Python or a library; the message installs it.
        DeviceFault: the board cannot be reached, or its host key is not the one that is known.
    """
    address = parse(device.name)
    command = Command(device=device.name, words=words(address), open_s=OPEN_S)
    try:
        remote = RemoteSession(command, artifact, runtime.target, threads=threads, kernels=kernels)
    except (DeviceFault, UnsupportedError) as error:
        _explain(address, runtime.target, error)
    request, content = remote.opening
    return SshSession(remote, ResultCache(device.name.encode(), repr(request).encode(), content, RUNNER.read_bytes()))


def words(address: Address) -> tuple[str, ...]:
    """Return the command that starts the runner on a board."""
    alive = (f"ServerAliveInterval={ALIVE_S}", f"ServerAliveCountMax={ALIVE_COUNT}")
    options = ("BatchMode=yes", "StrictHostKeyChecking=yes", f"ConnectTimeout={CONNECT_S}", *alive)
    source = base64.b64encode(zlib.compress(RUNNER.read_bytes(), 9)).decode()
    python = f'import base64, zlib; exec(zlib.decompress(base64.b64decode("{source}")))'
    given = [word for option in options for word in ("-o", option)]
    return ("ssh", "-T", *given, *address.words, f"exec python3 -u -c '{python}'")


def missing(device: Device, runtime: Runtime) -> str | None:
    """Return the command that installs the client; what a board lacks is found when it is opened.

    Raises:
        InputError: the address is wrong.
    """
    parse(device.name)
    return None if shutil.which("ssh") else "apt-get install openssh-client"


def measure(device: Device, session: SshSession) -> Usage:
    """Return the time there, by the board's own clock, and the memory."""
    warmup, runs = 10, 50
    try:
        usage = session.remote.time(fixed_input(session), warmup=warmup, runs=runs)
    except DeviceFault as fault:
        raise session.broken(fault) from None
    session.done = True
    return usage


_FAULTS = (
    (
        r"Host key for .* has changed",
        "its host key is not the one in known_hosts: either it was set up anew or this is another machine; "
        "if you know why, remove the old key with ssh-keygen -R and accept the new one by hand: {by_hand}",
    ),
    (r"Host key verification failed", "its host key is not known here; compare and accept it by hand: {by_hand}"),
    (r"Permission denied", "it takes none of your keys; install one there: ssh-copy-id, then try {by_hand}"),
)
"""Pattern in what the client says, to what it means."""


def _explain(address: Address, target: str, error: DeviceFault | UnsupportedError) -> NoReturn:
    said = str(error)
    if re.search(r"No module named '(numpy|ai_edge_litert|tflite_runtime|onnxruntime)", said):
        install = f"{address.by_hand} python3 -m pip install numpy {LIBRARIES[target]}"
        raise MissingDependencyError(f"{address.name} lacks what runs {target} artifacts; install it there: {install}")
    if re.search(r"python3\W+(not found|command not found|No such file)|python3: not found", said):
        raise MissingDependencyError(
            f"{address.name} has no python3; install it there: {address.by_hand} apt-get install python3"
        )
    for pattern, meaning in _FAULTS:
        if isinstance(error, DeviceFault) and re.search(pattern, said):
            raise DeviceFault(f"{address.name}: {meaning.format(by_hand=address.by_hand)}") from None
    raise error


KIND = Kind(
    figures=("accuracy", "latency"),
    open_session=open_session,
    missing=missing,
    measure=measure,
    address={"description": "a machine reached by SSH", "targets": ["tflite", "onnx"], "onnx_activations": "int8"},
    elsewhere=True,
)
