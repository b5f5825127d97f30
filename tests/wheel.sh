#!/bin/sh
# Build the wheel, install it in a clean environment, and use it from outside the repository, where most packaging
# faults show. Argument: a python that has `build`.
set -eu
repo=$(cd "$(dirname "$0")/.." && pwd)
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT

"$1" -m build --no-isolation --wheel --outdir "$room" "$repo" >"$room/build.log" 2>&1 || { cat "$room/build.log"; exit 1; }
"$1" -m venv "$room/venv"
wheel=$(ls "$room"/*.whl)
pip() { "$room/venv/bin/python" -m pip install -q "$@"; }
pip --no-deps --require-hashes --only-binary :all: -r "$repo/requirements/all.txt"
pip -c "$repo/constraints.txt" "$wheel[all]" # torch alone is left, unless a requirement is not in the file

cd "$room"
unset PYTHONPATH
edgecnn="$room/venv/bin/edgecnn"
"$edgecnn" --version
"$edgecnn" models >/dev/null
"$edgecnn" export mobilenet_v2_0.35_96 --target all --quantize int8 --weights demo --calibration demo \
    --data demo --limit 200 --max-drop 5 -o "$room/out" --json >"$room/report.json"
"$room/venv/bin/python" -m edgecnn validate "$room/out/mobilenet_v2_0.35_96.tflite" --data demo --limit 50 --max-drop 10
top=$("$room/venv/bin/python" -c 'import edgecnn_targets, edgecnn_converters; print(edgecnn_targets.__file__)')
case "$top" in "$room"/*) echo "wheel: installed and used from outside the repository" ;; *) echo "wheel: imported $top"; exit 1 ;; esac
