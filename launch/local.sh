#!/usr/bin/env bash
# Runs a config on this machine, whose CPU poses as several devices, and this
# machine as several hosts.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: launch/local.sh [--processes=N] --config=FILE:ARG --workdir=DIR
           [--config.a.b=VALUE ...]

  --processes   run as so many processes that are one program, as on so many
                hosts (default 1); process 0 prints, others with their number

Every other argument goes to `python -m r1jax.main`. In the environment:
  DEVICES   fake devices that the CPU is divided into, of all processes together
            (default 8)
  PYTHON    the interpreter (default python)
  PATIENCE  seconds after which processes that outlive the failure of another
            are killed (default 300)
TEXT
}

processes=1
if [[ ${1-} == --processes=* ]]; then
  processes=${1#*=}
  shift
fi
if [[ $# -eq 0 || $1 == -h || $1 == --help ]]; then
  usage
  exit $(($# == 0 ? 2 : 0))
fi
all=${DEVICES:-8}
if [[ ! $processes =~ ^[1-9][0-9]*$ ]] || ((all % processes)); then
  echo "error: expected --processes=N, a divisor of DEVICES=$all," \
    "received '$processes'" >&2
  exit 2
fi

cd "$(dirname "${BASH_SOURCE[0]}")/.."
export JAX_PLATFORMS=cpu
devices=--xla_force_host_platform_device_count=$((all / processes))
# XLA's threads. A collective holds one until all devices are there, and each
# device may begin with another one: with a thread a device they wait for ever.
export NPROC=$((8 * all / processes))
export XLA_FLAGS="${XLA_FLAGS:-} $devices"
run=("${PYTHON:-python}" -m r1jax.main "$@")
((processes > 1)) || exec "${run[@]}"

# Several: each is told how many there are, and where they find each other.
port=$("${PYTHON:-python}" -c 'import socket
free = socket.socket()
free.bind(("localhost", 0))
print(free.getsockname()[1])')
export JAX_COORDINATOR_ADDRESS=localhost:$port JAX_NUM_PROCESSES=$processes
set -m # process groups: of the terminal's signals they get none by themselves
PATIENCE=${PATIENCE:-300}
declare -A running
for ((n = 0; n < processes; n++)); do
  export JAX_PROCESS_ID=$n
  if ((n)); then
    "${run[@]}" > >(sed -u "s/^/[$n] /") 2> >(sed -u "s/^/[$n] /" >&2) \
      </dev/null &
  else
    "${run[@]}" </dev/null &
  fi
  running[$!]=$n
done

# A signal reaches each of them once. The first that ends ill gives the status;
# the others then end, too, and by themselves.
trap 'kill "${!running[@]}" 2>/dev/null || true' INT TERM HUP
status=0 late=''
while ((${#running[@]})); do
  code=0 ended=''
  wait -n -p ended "${!running[@]}" 2>/dev/null || code=$?
  [[ -n ${ended-} ]] || continue # a signal, which was handed on
  n=${running[$ended]}
  unset "running[$ended]"
  ((code)) || continue
  echo "launch: process $n has ended with status $code" >&2
  ((status)) && continue
  status=$code
  (sleep "$PATIENCE" && kill -KILL "${!running[@]}") >/dev/null 2>&1 &
  late=$!
done
[[ -z $late ]] || kill -- "-$late" 2>/dev/null || true
exit "$status"
