#!/usr/bin/env bash
# Runs a config on a TPU pod slice: the same command on every host.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: launch/tpu_vm.sh [--dry_run] --tpu=NAME --zone=ZONE [--project=ID]
           [--dir=DIR] [--python=PYTHON] -- --config=FILE:ARG --workdir=DIR ...

What follows -- goes to `python -m r1jax.main` on every host. The hosts hold a
clone in DIR (default r1jax, relative to the home directory) with
`pip install -e '.[tpu]'` done, and see --workdir on a common file system.
  --dry_run   print the command instead of running it
  --python    the interpreter on the hosts (default python3)
TEXT
}

fail() {
  echo "error: $1" >&2
  usage >&2
  exit 2
}

tpu='' zone='' project='' dir=r1jax python=python3 dry_run=false
while [[ $# -gt 0 && $1 != -- ]]; do
  case $1 in
    --dry_run) dry_run=true ;;
    --tpu=*) tpu=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --project=*) project=${1#*=} ;;
    --dir=*) dir=${1#*=} ;;
    --python=*) python=${1#*=} ;;
    -h | --help) usage && exit 0 ;;
    *) fail "unknown argument '$1'" ;;
  esac
  shift
done
[[ -n $tpu ]] || fail 'expected --tpu=NAME'
[[ -n $zone ]] || fail 'expected --zone=ZONE'
[[ $# -gt 1 ]] || fail 'expected -- and the arguments of r1jax.main'
shift

# Quoted once for the shell of the hosts. `distributed` makes jax ask the pod's
# metadata server for the other hosts.
printf -v command '%q ' cd "$dir"
printf -v main '%q ' "$python" -m r1jax.main "$@" --config.distributed=True
command+="&& exec ${main% }"

gcloud=(gcloud compute tpus tpu-vm ssh "$tpu" "--zone=$zone" --worker=all)
[[ -z $project ]] || gcloud+=("--project=$project")
gcloud+=("--command=$command")

if $dry_run; then
  printf '%q ' "${gcloud[@]}"
  echo
else
  exec "${gcloud[@]}"
fi
