#!/bin/sh
# The paper's recipe on several hosts: run the same line on each of them.
#
#   HEAD=node0:29500 HOSTS=2 GPUS=4 sh deploy/launch/several-hosts.sh DATASET RUN_FOLDER [options of k2d train]
#
# HEAD         the first host, by a name that all of them know, and a free port; a trusted network: there is no
#              password
# HOSTS, GPUS  how many hosts, and GPUs of each
# RUN_FOLDER   on a file system that all of them mount at the same path. K2D_STORE and K2D_CACHE likewise, or s3://
#
# When a process dies all of them start again from the last checkpoint, three times at most; so does a run that is
# started again. What it costs: see one-host.sh. Under SLURM: slurm.sh.
set -eu
here=$(dirname "$0")
if [ $# -lt 2 ]; then
    echo "usage: HEAD=HOST:PORT HOSTS=N [GPUS=N] [RECIPE=FILE] $0 DATASET RUN_FOLDER [options of k2d train]" >&2
    exit 2
fi
dataset=$1 run=$2
shift 2
gpus=${GPUS:-$(nvidia-smi --list-gpus | wc -l)}
exec torchrun \
    --nnodes "${HOSTS:?how many hosts}" --nproc-per-node "$gpus" \
    --rdzv-backend c10d --rdzv-endpoint "${HEAD:?the first host and a port, node0:29500}" --rdzv-id "${JOB:-k2d}" \
    --max-restarts 3 -m trainer \
    "$dataset" --out "$run" --recipe "${RECIPE:-$here/paper.yaml}" --resume "$@"
