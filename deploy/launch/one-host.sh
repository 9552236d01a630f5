#!/bin/sh
# The paper's recipe on one host, a process for each GPU.
#
#   sh deploy/launch/one-host.sh DATASET RUN_FOLDER [options of k2d train]
#   GPUS=4 RECIPE=my.yaml sh deploy/launch/one-host.sh lectures /runs/lectures --set steps=20000
#   … --dry-run      prints the estimate, measured on this host, and stops: run it before the training
#
# It may be started again at any time: it goes on from the last checkpoint.
#
# What it costs:   GPU hours = steps × seconds a step × GPUs / 3600
#
#   120,000 steps of 256 chunks, large-v2     s a step   chunks/s a GPU   hours   GPU hours
#   the paper states: 4 × H100                  1.26           51           42       168
#   4 GPUs, if --dry-run says                   2.00           32           67       267
#                                               1.00           64           33       133
#                                               0.50          128           17        67
#   8 GPUs, if --dry-run says                   0.63           51           21       168
#
# Only the first line was measured, by the paper; the others are computed with the formula. The step time of your
# GPUs is what --dry-run measures, in the line "a step".
set -eu
here=$(dirname "$0")
if [ $# -lt 2 ]; then
    echo "usage: [GPUS=N] [RECIPE=FILE] $0 DATASET RUN_FOLDER [options of k2d train]" >&2
    exit 2
fi
dataset=$1 run=$2
shift 2
gpus=${GPUS:-$(nvidia-smi --list-gpus | wc -l)}
exec torchrun --standalone --nproc-per-node "$gpus" -m trainer \
    "$dataset" --out "$run" --recipe "${RECIPE:-$here/paper.yaml}" --resume "$@"
