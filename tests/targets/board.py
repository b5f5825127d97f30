"""A whole arm64 Linux with its own SSH server, in an emulator: what a board by SSH is tested against.

QEMU's `virt` machine, Debian's cloud kernel, a root disk of the arm64 system that `edgecnn devices setup cortex-a72`
made, with busybox and dropbear. It listens on a loopback port of this machine and reaches nothing.
`python tests/targets/board.py` boots one and says how to log in.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgecnn.errors import MissingDependencyError
from edgecnn.files import sha256
from edgecnn.process import run
from edgecnn_targets.cache import cache_dir, ensure
from edgecnn_targets.devices import device
from edgecnn_targets.kinds.qemu import install
from edgecnn_targets.kinds.qemu.settings import ARCHITECTURES
from edgecnn_targets.registry import kind_of

EMULATOR = "qemu-system-aarch64"
TOOLS = {EMULATOR: "qemu-system-arm", "mke2fs": "e2fsprogs", "ssh": "openssh-client", "ssh-keygen": "openssh-client"}
SERVER = ("busybox-static", "dropbear-bin", "libtomcrypt1", "libtommath1", "libgmp10", "libcrypt1")
KERNEL = "linux-image-cloud-arm64"
BOOT_S = 300
TOOL_S = 900

MODULES = (  # of the kernel, in the order in which they need each other
    *("drivers/virtio/virtio_ring", "drivers/virtio/virtio", "drivers/virtio/virtio_pci_modern_dev"),
    *("drivers/virtio/virtio_pci_legacy_dev", "drivers/virtio/virtio_pci", "drivers/block/virtio_blk"),
    *("net/core/failover", "drivers/net/net_failover", "drivers/net/virtio_net"),
)

FIRST_INIT = """#!/bin/busybox sh
b=/bin/busybox
$b mkdir -p /dev /proc /new
$b mount -t devtmpfs dev /dev
$b mount -t proc proc /proc
for m in MODULES; do $b insmod /$m.ko; done
until [ -b /dev/vda ]; do $b sleep 0.05; done
$b mount -t ext4 -o noatime /dev/vda /new
$b mkdir -p /new/root/.ssh /new/etc/dropbear
$b cp /authorized_keys /new/root/.ssh/
$b cp /host_key /new/etc/dropbear/
$b chmod -R go-rwx /new/root /new/etc/dropbear
$b mount --move /dev /new/dev
$b mount --move /proc /new/proc
exec $b switch_root /new /sbin/init
"""

INIT = """#!/bin/busybox sh
export PATH=/usr/bin:/bin:/usr/sbin:/sbin
/bin/busybox --install -s /bin
mount -t sysfs sys /sys
mkdir -p /dev/pts
mount -t devpts pts /dev/pts
mount -t tmpfs tmp /tmp
ip link set lo up
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
exec dropbear -F -E -s -j -k -r /etc/dropbear/host_key
"""


@dataclass(frozen=True, kw_only=True)
class Board:
    """A board that runs.

    Attributes:
        address: for ``--device``.
        folder: holds ``config`` for the client, ``known_hosts`` and the keys.
        process: the emulator.
    """

    address: str
    folder: Path
    process: subprocess.Popen[bytes]


def built() -> Path:
    """The folder of what a board boots from; the first time, that takes a minute and the network.

    Raises:
        MissingDependencyError: this machine lacks a tool.
        DeviceFault: apt or another tool failed.
    """
    lacking = dict.fromkeys(package for tool, package in TOOLS.items() if shutil.which(tool) is None)
    if lacking:
        raise MissingDependencyError(f"apt-get install {' '.join(lacking)}")
    kind_of(device("cortex-a72")).setup(device("cortex-a72"), print)
    system = cache_dir() / install.system_tree(ARCHITECTURES["arm64"])
    tree = f"board-{sha256(f'{Path(__file__).read_text()} {system.name}'.encode())[:16]}"
    ensure(tree, lambda place: _build(place, system))
    return cache_dir() / tree


@contextlib.contextmanager
def booted(place: Path) -> Iterator[Board]:
    """A board, until the block ends; what ``built`` built."""
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), _free_port()
        process = _start(place, folder, port)
        try:
            _wait(folder, process)
            yield Board(address=f"ssh://root@127.0.0.1:{port}", folder=folder, process=process)
        finally:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _build(place: Path, system: Path) -> None:
    """``kernel``, ``modules`` and ``disk`` in a folder."""
    unpacked = place / "unpacked"
    packages = _download(place / "apt", (*SERVER, KERNEL))
    for package in packages:
        run(["dpkg", "-x", package, unpacked], timeout_s=TOOL_S)
    (kernel,) = (unpacked / "boot").glob("vmlinuz-*")
    kernel.replace(place / "kernel")
    (modules,) = (unpacked / "lib/modules").iterdir()
    (place / "modules").mkdir()
    for name in MODULES:
        shutil.copy(modules / "kernel" / f"{name}.ko", place / "modules")
    shutil.copy(unpacked / "bin/busybox", place / "busybox")
    for unused in ("boot", "lib/modules", "usr/share"):
        shutil.rmtree(unpacked / unused)
    run(["cp", "-a", f"{system}/.", unpacked], timeout_s=TOOL_S)
    for folder in ("sbin", "proc", "dev", "sys", "tmp", "root", "etc"):
        (unpacked / folder).mkdir(exist_ok=True)
    write = {"sbin/init": INIT, "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n", "etc/group": "root:x:0:\n"}
    for name, content in write.items():
        (unpacked / name).write_text(content)
        (unpacked / name).chmod(0o755)
    if not (unpacked / "usr/bin/python3").exists():
        (unpacked / "usr/bin/python3").symlink_to(install.PYTHON)
    packages_of_debian = unpacked / "usr/lib/python3/dist-packages"
    packages_of_debian.mkdir(parents=True, exist_ok=True)
    (packages_of_debian / "site.pth").write_text(f"/{install.SITE}\n")
    size = sum(f.lstat().st_size for f in unpacked.rglob("*")) // 2**20 * 5 // 4 + 64
    words = ["mke2fs", "-q", "-t", "ext4", "-d", unpacked, "-E", "root_owner=0:0", place / "disk", f"{size}M"]
    run(words, timeout_s=TOOL_S)
    shutil.rmtree(unpacked)
    shutil.rmtree(place / "apt")


def _download(place: Path, names: tuple[str, ...]) -> list[Path]:
    """These arm64 packages alone, by apt from the sources of this machine; of the kernel, the one it stands for."""
    for folder in ("lists/partial", "cache/archives/partial", "debs"):
        (place / folder).mkdir(parents=True)
    (place / "status").touch()
    config = place / "apt.conf"
    state = {"Lists": "lists", "status": "status"}
    lines = ['APT::Architecture "arm64";', 'APT::Architectures "arm64";', 'APT::Sandbox::User "root";']
    lines += [f'Dir::State::{key} "{place / name}";' for key, name in state.items()]
    config.write_text("\n".join([*lines, f'Dir::Cache "{place / "cache"}";', 'Acquire::Retries "3";']))
    environment = {**os.environ, "APT_CONFIG": str(config), "LC_ALL": "C.UTF-8"}

    def apt(*words: str) -> str:
        return run(words, timeout_s=TOOL_S, cwd=place / "debs", environment=environment)

    apt("apt-get", "update", "-qq")
    depends = apt("apt-cache", "depends", KERNEL)
    kernel = next(line.split()[-1] for line in depends.splitlines() if "Depends: linux-image-" in line)
    apt("apt-get", "download", "-qq", *(kernel if name == KERNEL else name for name in names))
    return sorted((place / "debs").glob("*.deb"))


def _start(built: Path, folder: Path, port: int) -> subprocess.Popen[bytes]:
    for name in ("id", "host"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", folder / name]
        subprocess.run(words, check=True)
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    (folder / "config").write_text(
        f"IdentityFile {folder / 'id'}\nIdentitiesOnly yes\nUserKnownHostsFile {folder / 'known_hosts'}\n"
    )
    init = FIRST_INIT.replace("MODULES", " ".join(Path(name).name for name in MODULES))
    files: dict[str, tuple[int, bytes]] = {
        "bin": (0o40755, b""),
        "bin/busybox": (0o100755, (built / "busybox").read_bytes()),
        "init": (0o100755, init.encode()),
        "authorized_keys": (0o100600, (folder / "id.pub").read_bytes()),
        "host_key": (0o100600, _dropbear_key(folder / "host")),
    }
    files |= {file.name: (0o100644, file.read_bytes()) for file in sorted((built / "modules").iterdir())}
    (folder / "initrd").write_bytes(gzip.compress(_cpio(files), 1))
    network = f"user,id=n,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"
    words = [EMULATOR, "-M", "virt", "-cpu", "cortex-a72", "-smp", "1", "-m", "512", "-nographic", "-no-reboot"]
    words += ["-kernel", str(built / "kernel"), "-initrd", str(folder / "initrd")]
    words += ["-append", "console=ttyAMA0 quiet panic=-1", "-netdev", network]
    words += ["-drive", f"file={built / 'disk'},format=raw,if=none,id=d,snapshot=on"]
    words += ["-device", "virtio-blk-pci,drive=d,romfile=", "-device", "virtio-net-pci,netdev=n,romfile="]
    with (folder / "console").open("wb") as console:
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=console, stderr=console)


def _wait(folder: Path, process: subprocess.Popen[bytes]) -> None:
    (line,) = (folder / "known_hosts").read_text().splitlines()
    port = line.split("]:")[1].split()[0]
    words = ["ssh", "-F", folder / "config", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-p", port]
    end = time.monotonic() + BOOT_S
    while True:
        done = subprocess.run([*words, "root@127.0.0.1", "true"], capture_output=True, check=False)
        if done.returncode == 0:
            return
        if time.monotonic() > end or process.poll() is not None:
            said = (folder / "console").read_text(errors="replace")[-1000:]
            raise TimeoutError(f"the board did not boot within {BOOT_S} s: {done.stderr.decode()} {said}")
        time.sleep(0.3)


def _dropbear_key(path: Path) -> bytes:
    """OpenSSH's unencrypted ed25519 key as dropbear keeps it: the type's name, then seed and public key, each with its
    length (OpenSSH's PROTOCOL.key; dropbear's ed25519.c)."""
    content = base64.b64decode("".join(path.read_text().splitlines()[1:-1]))
    name = struct.pack(">I", 11) + b"ssh-ed25519"
    at = content.rindex(name) + len(name) + 4 + 32
    assert content[at : at + 4] == struct.pack(">I", 64)
    return name + content[at : at + 68]


def _cpio(files: Mapping[str, tuple[int, bytes]]) -> bytes:
    """An archive in the format `newc` (Linux's Documentation/driver-api/early-userspace/buffer-format.rst)."""
    made = bytearray()
    for number, (name, (mode, data)) in enumerate([*files.items(), ("TRAILER!!!", (0, b""))]):
        path = name.encode() + b"\0"
        fields = (number + 1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
        made += b"070701" + b"".join(b"%08x" % field for field in fields) + path
        made += bytes(-len(made) % 4) + data
        made += bytes(-len(made) % 4)
    return bytes(made)


if __name__ == "__main__":
    with booted(built()) as board:
        sys.stdout.write(f"ssh -F {board.folder / 'config'} {board.address}\n")
        board.process.wait()
