#!/usr/bin/env bash
# Runs a config on this machine, whose CPU poses as several devices.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: launch/local.sh --config=FILE:ARG --workdir=DIR [--config.a.b=VALUE ...]

Every argument goes to `python -m r1jax.main`. In the environment:
  DEVICES   fake devices that the CPU is divided into (default 8)
  PYTHON    the interpreter (default python)
TEXT
}

if [[ $# -eq 0 || $1 == -h || $1 == --help ]]; then
  usage
  exit $(($# == 0 ? 2 : 0))
fi

cd "$(dirname "${BASH_SOURCE[0]}")/.."
export JAX_PLATFORMS=cpu
devices=--xla_force_host_platform_device_count=${DEVICES:-8}
# XLA's threads. A collective holds one until all devices are there, and each
# device may begin with another one: with a thread a device they wait for ever.
export NPROC=$((8 * ${DEVICES:-8}))
export XLA_FLAGS="${XLA_FLAGS:-} $devices"
exec "${PYTHON:-python}" -m r1jax.main "$@"
