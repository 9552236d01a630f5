#!/bin/sh
# The paper's recipe under SLURM, from the repository's folder:
#
#   sbatch --nodes 2 --gpus-per-node 4 deploy/launch/slurm.sh DATASET RUN_FOLDER [options of k2d train]
#
# Two minutes before its time is up the job asks the processes to stop, which they do after the current step with a
# checkpoint if torchrun's 30 s are enough for both, and goes back into the queue, from where it goes on. A job that
# fails does not. What it costs: see one-host.sh.
#SBATCH --job-name=k2d-train
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -eu
cd "${SLURM_SUBMIT_DIR:?start it with sbatch}" # SLURM runs a copy of this file, from elsewhere
HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1):${PORT:-29500}
HOSTS=$SLURM_JOB_NUM_NODES GPUS=${GPUS:-${SLURM_GPUS_ON_NODE:?no GPUs: --gpus-per-node}} JOB=$SLURM_JOB_ID
export HEAD HOSTS GPUS JOB
stopping=no
srun sh deploy/launch/several-hosts.sh "$@" &
running=$!
trap 'stopping=yes; kill -TERM "$running"' TERM # srun passes it on to every host
status=0
wait "$running" || status=$?
if [ "$stopping" = yes ]; then
    wait "$running" || true # the first wait ended with the signal
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
