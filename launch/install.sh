#!/usr/bin/env bash
# Installs this checkout in ~/r1jax-venv: launch/install.sh tpu, or cuda.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [[ ${1-} != tpu && ${1-} != cuda ]]; then
  echo 'usage: launch/install.sh tpu|cuda' >&2
  exit 2
fi

# uv brings its own Python: the images of Cloud TPU have 3.10, r1jax needs 3.11.
# https://docs.astral.sh/uv/getting-started/installation
export PATH=$HOME/.local/bin:$PATH
command -v uv >/dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh

venv=$HOME/r1jax-venv
[[ -d $venv ]] || uv venv --python 3.12 "$venv"
uv pip install --python "$venv/bin/python" -e ".[$1]"
