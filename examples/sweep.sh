#!/bin/sh
# Train the networks of sweep.toml on the demo data, two to five minutes each on one core, and sweep them.
# Weights and results go into the folder that this is called in; what is there is not made again.
set -eu
mkdir -p trained
train() {
    test -e "trained/$1.safetensors" || edgecnn train "$@" --data demo --images 8000 -o "trained/$1.safetensors"
}
train mobilenet_v1_0.25_64 --epochs 12 --lr 0.01
train mobilenet_v3_small_0.5_64 --epochs 20 --lr 0.015 --drop-connect 0
train efficientnet_lite0_0.25x0.25_64 --epochs 12 --lr 0.01 --drop-connect 0
train resnet18_0.25_64 --epochs 8 --lr 0.005 --drop-connect 0
edgecnn sweep "$(dirname "$0")/sweep.toml" -o demo-sweep
