"""Exports that are killed, interrupted, started twice and put on full disks: what is left is whole, or nothing.

    python benchmarks/chaos.py [--kills 200] [--interrupts 40] [--pairs 40] [--disks 20] [--emulators 5]
                               [--links 10] [--paths 40] [--seed 0]

Every part starts `edgecnn export … --target all` anew; an undisturbed one says how long it takes and what it writes.

- kills: SIGKILL at a random moment. Each file of the folder must be that of the undisturbed export, or not be there.
  Every tenth time the export then runs to its end: the folder must be equal, and nothing left over
  there or in the temporary folder.
- interrupts: SIGINT at a random moment. Exit status 130, one line, no traceback, no half file. Before any code of
  edgecnn runs, Python ends in its own way; how often is said.
- pairs: two exports of one folder at the same time. Both end with 0, and the folder is equal.
- disks: a disk (tmpfs) that is full after a random number of bytes, and one that cannot be written. Exit status 2, one
  line, no half file. Needs root; said when it is left out.
- emulators: the emulator of a device is killed at a random moment. Exit status 1, and a finding that it broke.
- links: the SSH connection to a board (this machine, by a client that is a stand-in) breaks at a random byte of
  those that come back. Exit status 1, and a finding that it broke; the next run goes on to the figures of an
  undisturbed one.
- paths: the folder that holds all that a command reads goes away at a random access, as one of the network may
  (`vanishing.c`, compiled by `cc`). One line and exit status 2, or the check of a device that failed; no half file.

Prints a line per fault and a table of counts; ends with 1 if there was a fault.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import edgecnn
from edgecnn.data import demo
from edgecnn_targets.cache import cache_dir

EXPORT = ("export", "mobilenet_v2_0.35_96", "--target", "all", "--weights", "demo", "--calibration", "demo",
          "--calibration-images", "40", "-o")  # fmt: skip
CHANGING = (".json",)  # manifests and reports hold seconds
OWN = str(Path(edgecnn.__file__).parent)  # in the frames of a traceback: code of edgecnn's ran
DEVICE = "cortex-a53"
BOARD = "ssh://root@board"
FAKE_SSH = Path(__file__).parents[1] / "tests" / "targets" / "fake_ssh.py"


class Chaos:
    """Counts of what was tried, and the faults found."""

    def __init__(self, seed: int, room: Path) -> None:
        self.random, self.room = random.Random(seed), room
        self.tried: dict[str, int] = {}
        self.faults: list[str] = []
        (room / "tmp").mkdir()
        self.environment = {**os.environ, "TMPDIR": str(room / "tmp"), "OMP_NUM_THREADS": "1"}
        start = time.monotonic()
        done = self.start(*EXPORT, room / "whole")
        said = done.communicate()[1]
        if done.returncode:
            raise SystemExit(f"the undisturbed export failed:\n{said}")
        self.seconds = time.monotonic() - start
        self.whole = contents(room / "whole")

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        """Start a command in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "edgecnn", *map(str, words)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment, start_new_session=True,
            preexec_fn=hears_interrupts,
        )  # fmt: skip

    def disturb(self, process: subprocess.Popen[str], how: signal.Signals) -> str:
        """Send a signal at a random moment; return what was said on stderr."""
        try:
            process.wait(self.random.uniform(0, self.seconds))
        except subprocess.TimeoutExpired:
            process.send_signal(how)
        return process.communicate()[1]

    def fault(self, part: str, text: str) -> None:
        """Note a fault."""
        self.faults.append(f"{part} {self.tried[part]}: {text}")
        print(self.faults[-1], flush=True)

    def count(self, part: str) -> None:
        """Note an attempt."""
        self.tried[part] = self.tried.get(part, 0) + 1

    def check(self, part: str, folder: Path, *, all_of_it: bool = False) -> None:
        """Compare a folder with the undisturbed one's: equal files, or none; or all, and nothing else."""
        found = contents(folder)
        for name, content in found.items():
            if name in self.whole and content != self.whole[name] and not name.endswith(CHANGING):
                self.fault(part, f"{name} is not whole: {len(content)} bytes of {len(self.whole[name])}")
            if name.endswith(".json"):
                try:
                    json.loads(content)
                except ValueError:
                    self.fault(part, f"{name} is not JSON")
        if all_of_it and set(found) != set(self.whole):
            self.fault(part, f"left over or missing: {sorted(set(found) ^ set(self.whole))}")
        if all_of_it and (left := sorted(place.name for place in (self.room / "tmp").iterdir())):
            self.fault(part, f"left over in the temporary folder: {left}")

    def one_line(self, part: str, said: str) -> None:
        """Check that no traceback was printed, and one line of error."""
        lines = [line for line in said.splitlines() if line.startswith("edgecnn: ")]
        if "Traceback" in said or len(lines) != 1:
            self.fault(part, f"stderr ends with {said[-300:]!r}")


def hears_interrupts() -> None:
    """Undo what a shell does to its background jobs."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder by its name inside."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def kills(chaos: Chaos, number: int) -> None:
    """Kill exports of one folder."""
    folder = chaos.room / "killed"
    for turn in range(1, number + 1):
        chaos.count("kills")
        chaos.disturb(chaos.start(*EXPORT, folder), signal.SIGKILL)
        chaos.check("kills", folder)
        if turn % 10 == 0:
            done = chaos.start(*EXPORT, folder)
            said = done.communicate()[1]
            if done.returncode:
                chaos.fault("kills", f"the next export ends with {done.returncode}: {said[-300:]}")
            chaos.check("kills", folder, all_of_it=True)
            if turn % 20 == 0:
                shutil.rmtree(folder)


def interrupts(chaos: Chaos, number: int) -> None:
    """Interrupt exports."""
    folder = chaos.room / "interrupted"
    for _ in range(number):
        chaos.count("interrupts")
        process = chaos.start(*EXPORT, folder)
        said = chaos.disturb(process, signal.SIGINT)
        if process.returncode == 130:
            chaos.one_line("interrupts", said)
        elif process.returncode == -signal.SIGINT or (said.rstrip().endswith("KeyboardInterrupt") and OWN not in said):
            chaos.count("interrupts while Python starts")
        elif process.returncode:
            chaos.fault("interrupts", f"ends with {process.returncode}: {said[-3000:]}")
        chaos.check("interrupts", folder)


def pairs(chaos: Chaos, number: int) -> None:
    """Start two exports of one folder, a random moment apart."""
    for _ in range(number):
        chaos.count("pairs")
        folder = chaos.room / "pair"
        first = chaos.start(*EXPORT, folder)
        time.sleep(chaos.random.uniform(0, chaos.seconds))
        second = chaos.start(*EXPORT, folder)
        for process in (first, second):
            said = process.communicate()[1]
            if process.returncode:
                chaos.fault("pairs", f"ends with {process.returncode}: {said[-300:]}")
        chaos.check("pairs", folder, all_of_it=True)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def disk(place: Path, options: str) -> Iterator[None]:
    """Mount a tmpfs in the body."""
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


def disks(chaos: Chaos, number: int) -> None:
    """Export to a disk that becomes full, and to one that is read-only."""
    place, size = chaos.room / "disk", sum(map(len, chaos.whole.values())) // 1024
    for turn in range(number):
        options = "ro" if turn == 0 else f"size={chaos.random.randrange(8, size)}k"
        try:
            with disk(place, options):
                chaos.count("disks")
                process = chaos.start(*EXPORT, place / "out")
                said = process.communicate()[1]
                if process.returncode != 2:
                    chaos.fault("disks", f"{options}: ends with {process.returncode}: {said[-300:]}")
                chaos.one_line("disks", said)
                chaos.check("disks", place / "out")
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"disks: left out, no tmpfs can be mounted: {error}")
            return


def emulators(chaos: Chaos, number: int) -> None:
    """Kill the emulator while a device is checked."""
    artifact = chaos.room / "whole" / "mobilenet_v2_0.35_96.tflite"
    words = ("validate", artifact, "--device", DEVICE, "--data", "demo", "--limit", "40", "--json")
    cache = chaos.room / "cache"  # what is set up, without the results that are known
    cache.mkdir(mode=0o700)
    for place in cache_dir().iterdir() if cache_dir().is_dir() else ():
        if place.name != "results":
            (cache / place.name).symlink_to(place)
    chaos.environment["EDGECNN_CACHE"] = str(cache)
    for _ in range(number):
        shutil.rmtree(cache / "results", ignore_errors=True)
        process = chaos.start(*words)
        until = time.monotonic() + 60
        while not (found := emulator_of(process.pid)) and time.monotonic() < until and process.poll() is None:
            time.sleep(0.05)
        time.sleep(chaos.random.uniform(0, 2))
        found = emulator_of(process.pid)
        if not found:
            process.communicate()
            print(f"emulators: left out, {DEVICE} is not set up")
            return
        chaos.count("emulators")
        os.kill(chaos.random.choice(found), signal.SIGKILL)
        out, said = process.communicate()
        if process.returncode != 1 or "Traceback" in said or "broke" not in out:
            chaos.fault("emulators", f"ends with {process.returncode}: {said[-300:]}")


def links(chaos: Chaos, number: int) -> None:
    """Break the connection to a board while it is checked, then check it again."""
    if not number:
        return
    programs = chaos.room / "bin"
    programs.mkdir()
    for name, words in (("ssh", f"{shlex.quote(sys.executable)} -S {shlex.quote(str(FAKE_SSH))}"),
                        ("python3", shlex.quote(sys.executable))):  # fmt: skip
        (programs / name).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        (programs / name).chmod(0o755)
    cache = chaos.room / "links"
    usual = dict(chaos.environment)
    chaos.environment |= {"PATH": f"{programs}:{usual['PATH']}", "EDGECNN_CACHE": str(cache),
                          "FAKE_SSH_LOG": str(chaos.room / "calls"),
                          "FAKE_SSH_BYTES": str(chaos.room / "bytes")}  # fmt: skip

    def checked(how: str) -> tuple[int, str, str]:
        chaos.environment["FAKE_SSH"] = how
        artifact = chaos.room / "whole" / "mobilenet_v2_0.35_96.tflite"
        process = chaos.start("validate", artifact, "--device", BOARD, "--data", "demo", "--limit", "40", "--json")
        return (*process.communicate(), process.returncode)[::-1]

    status, said, out = checked("")
    undisturbed = figures(out) if status in (0, 1) else {}
    if not undisturbed:
        chaos.count("links")
        chaos.fault("links", f"undisturbed it ends with {status}: {said[-300:]}")
    sent = int((chaos.room / "bytes").read_text()) if undisturbed else 0
    for _ in range(number if undisturbed else 0):
        chaos.count("links")
        shutil.rmtree(cache, ignore_errors=True)
        after = chaos.random.randrange(sent)
        status, said, out = checked(f"cut:{after}")
        if status != 1 or "Traceback" in said or "broke" not in out:
            chaos.fault("links", f"cut after {after} bytes it ends with {status}: {said[-300:]} {out[-300:]}")
        status, said, out = checked("")
        if status not in (0, 1) or figures(out) != undisturbed:
            chaos.fault("links", f"after a cut at {after} bytes the next run ends with {status}, or other figures")
    chaos.environment = usual


def paths(chaos: Chaos, number: int) -> None:
    """Let the folder that commands read from go away at a random access."""
    library, folder, out = chaos.room / "vanishing.so", chaos.room / "gone", chaos.room / "from"
    source = Path(__file__).with_name("vanishing.c")
    if not number:
        return
    if not shutil.which("cc") or sys.platform != "linux":
        print("paths: left out, there is no cc, or no Linux")
        return
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    shutil.copytree(chaos.room / "whole", folder)
    pixels, labels = demo.images("test", range(40))
    np.savez(folder / "a.npz", x_test=pixels, y_test=labels)
    net = folder / "mobilenet_v2_0.35_96"
    commands = (
        ("inspect", f"{net}.edgecnn"), ("inspect", f"{net}.onnx"), ("validate", f"{net}.tflite", "--data", "demo"),
        ("validate", f"{net}.xml", "--data", f"{folder}/a.npz:test"),
        ("export", f"{net}.edgecnn", "--target", "all", "-o", out),
    )  # fmt: skip
    usual, state = dict(chaos.environment), chaos.room / "accesses"
    for words in commands:
        chaos.environment = {**usual, "LD_PRELOAD": str(library), "VANISH": str(folder), "VANISH_STATE": str(state)}
        state.unlink(missing_ok=True)
        whole = chaos.start(*words)
        whole.communicate()
        accesses = state.stat().st_size
        for _ in range(-(-number // len(commands))):
            chaos.count("paths")
            state.unlink()
            after, how = chaos.random.randrange(accesses), chaos.random.choice([errno.ESTALE, errno.EIO])
            chaos.environment |= {"VANISH_AFTER": str(after), "VANISH_ERRNO": str(how)}
            process = chaos.start(*words)
            said = process.communicate()[1]
            if process.returncode == 2:
                chaos.one_line("paths", said)
            elif process.returncode not in (1, whole.returncode) or "Traceback" in said:
                chaos.fault("paths", f"{words[0]}, {after} accesses: ends with {process.returncode}: {said[-300:]}")
            chaos.check("paths", out)
            shutil.rmtree(out, ignore_errors=True)
    chaos.environment = usual


def figures(out: str) -> dict[str, object]:
    """Return what an undisturbed run and one that was gone on with have in common: all but times."""
    (entry,) = json.loads(out)["entries"]
    return {name: entry[name] for name in ("accuracy", "parity", "size_bytes", "target", "device")}


def emulator_of(command: int) -> list[int]:
    """Return the emulators that a command has started."""
    found = []
    for place in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == command and (place / "exe").readlink().name.startswith("qemu-"):
                found.append(int(place.name))
    return found


PARTS = {
    "kills": kills,
    "interrupts": interrupts,
    "pairs": pairs,
    "disks": disks,
    "emulators": emulators,
    "links": links,
    "paths": paths,
}


def main() -> int:
    """Run the parts; return 1 if there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, number in (("kills", 200), ("interrupts", 40), ("pairs", 40), ("disks", 20), ("emulators", 5),
                         ("links", 10), ("paths", 40)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as room:
        chaos = Chaos(options.seed, Path(room))
        print(f"an undisturbed export takes {chaos.seconds:.1f} s", flush=True)
        for name, part in PARTS.items():
            part(chaos, getattr(options, name))
            print(f"{name}: {chaos.tried.get(name, 0)} tried, {len(chaos.faults)} faults so far", flush=True)
        early = chaos.tried.get("interrupts while Python starts", 0)
        print(f"{early} interrupts while Python started, before any code of edgecnn")
    return 1 if chaos.faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
