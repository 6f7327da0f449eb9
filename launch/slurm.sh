#!/usr/bin/env bash
# Trains on the GPUs of a SLURM cluster; run again when its time is over or when
# it has been preempted:
#   sbatch launch/slurm.sh --config=FILE:ARG --workdir=DIR ...
# Options of sbatch go before the script. https://slurm.schedmd.com/sbatch.html
#
#SBATCH --job-name=r1jax
#SBATCH --nodes=2
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
# SIGTERM to the processes, not to this script, 300 s before the time is over.
# A preemption sends it, too, if the partition has a GraceTime.
#SBATCH --signal=TERM@300
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: sbatch [OPTIONS] launch/slurm.sh --config=FILE:ARG --workdir=DIR ...
       launch/slurm.sh --dry_run --config=FILE:ARG --workdir=DIR ...

Submit it in a clone with r1jax installed (`pip install -e '.[cuda]'`), its
environment activated. Every argument goes to `python -m r1jax.main`.
  --dry_run   print the commands and run none of them; without sbatch
TEXT
}

dry_run=false
if [[ ${1-} == --dry_run ]]; then
  dry_run=true
  shift
fi
if [[ $# -eq 0 || $1 == -h || $1 == --help ]]; then
  usage
  exit $(($# == 0 ? 2 : 0))
fi
if ! $dry_run && [[ -z ${SLURM_JOB_ID-} ]]; then
  echo 'error: not in a job of SLURM; submit it with sbatch' >&2
  exit 2
fi

# A process for each GPU, as jax has it under SLURM: it takes the one that
# SLURM_LOCALID numbers, so each must see all of its node (no --gpus-per-task,
# no binding). A process that outlives the first by 300 s is ended.
run=(srun --gpu-bind=none "--cpus-per-task=${SLURM_CPUS_PER_TASK:-8}"
  --kill-on-bad-exit=0 --wait=300 "${PYTHON:-python}" -m r1jax.main "$@")
requeue=(scontrol requeue "${SLURM_JOB_ID:-JOB}")

if $dry_run; then
  printf '%q ' "${run[@]}"
  printf '\n# after exit status 75, 134 or 137, stopped or lost:\n'
  printf '%q ' "${requeue[@]}"
  echo
  exit
fi

status=0
"${run[@]}" || status=$?
# 75: stopped by a signal, or by the loss of a process; 137, 134: a process was
# killed, and the others by jax. What kills it at once each time is not tried on.
case $status in
  134 | 137)
    ((SECONDS < 3600 && ${SLURM_RESTART_COUNT:-0} >= 3)) || again=true
    ;;
  75) again=true ;;
esac
if [[ -n ${again-} ]]; then
  echo "launch: exit status $status, job $SLURM_JOB_ID is requeued"
  exec "${requeue[@]}"
fi
((status == 0)) || echo "error: exit status $status, not requeued" >&2
exit "$status"
