#!/usr/bin/env python3
"""Stands in for OpenSSH's client: runs the command on this machine, or fails as the client does.

`FAKE_SSH` says how: `changed`, `unknown`, `denied`, `refused`, `nopython`, `hang`, `meet` (it goes on when two are
called at the same time), or `cut:N`: the connection breaks when N bytes have come back after the first line. What it
was called with is appended to `FAKE_SSH_LOG`, a line of JSON per call. `FAKE_SSH_BYTES` names a file for the number of
bytes that came back after the first line.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

SAYS = {
    "changed": "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n"
    "Host key for board has changed and you have requested strict checking.\nHost key verification failed.",
    "unknown": "No ED25519 host key is known for board and you have requested strict checking.\n"
    "Host key verification failed.",
    "denied": "root@board: Permission denied (publickey).",
    "refused": "ssh: connect to host board port 22: Connection refused",
}


def main() -> int:
    how = os.environ.get("FAKE_SSH", "")
    with Path(os.environ["FAKE_SSH_LOG"]).open("a") as log:
        log.write(json.dumps(sys.argv[1:]) + "\n")
    if how in SAYS:
        sys.stderr.write(SAYS[how] + "\n")
        return 255
    if how == "nopython":
        sys.stderr.write("sh: 1: exec: python3: not found\n")
        return 127
    if how == "hang":
        time.sleep(60)
    if how == "meet":
        end = time.monotonic() + 30
        while len(Path(os.environ["FAKE_SSH_LOG"]).read_text().splitlines()) < 2:
            if time.monotonic() > end:
                return 255
            time.sleep(0.05)
    limit = int(how.removeprefix("cut:")) if how.startswith("cut:") else None
    there = subprocess.Popen(["sh", "-c", sys.argv[-1]], stdout=subprocess.PIPE)
    passed = None
    while chunk := os.read(there.stdout.fileno(), 1 << 16):
        if limit is not None and passed is not None and passed + len(chunk) > limit:
            there.kill()
            sys.stderr.write("client_loop: send disconnect: Broken pipe\n")
            return 255
        passed = 0 if passed is None else passed + len(chunk)
        if place := os.environ.get("FAKE_SSH_BYTES"):
            Path(place).write_text(str(passed))
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
    return there.wait()


if __name__ == "__main__":
    sys.exit(main())
