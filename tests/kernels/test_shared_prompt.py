"""What sharing a prompt among its group saves, in time and in memory.

    python -m pytest -m slow -s tests/kernels/test_shared_prompt.py

prints a line for each length of prompt. Each form runs in a process of its
own, compiled to run fast. Memory is that of the compiled program's buffers,
parameters left out: a process's own peak is often that of the compiler.
"""

import hashlib
import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROMPTS, GROUP, RESPONSE = 4, 16, 64


def measure(form: str, length: int) -> dict:
  """Samples in this process: seconds, MiB, and a digest of the tokens."""
  import jax
  import numpy as np
  import time
  from r1jax import models
  from r1jax.kernels import group_sampling
  from r1jax.models import architecture
  from r1jax.types import Prompts
  model = models.build(architecture.Config(
      vocab=512, width=256, layers=4, heads=4, kv_heads=2, head_size=64,
      mlp=704, max_len=length + RESPONSE, scan_layers=False))
  params = jax.jit(model.init)(jax.random.key(0))
  tokens = np.random.default_rng(0).integers(0, 512, (PROMPTS, length))
  prompts = Prompts(tokens.astype(np.int32), np.full(PROMPTS, length, np.int32),
                    np.arange(PROMPTS, dtype=np.int32))
  keys = group_sampling.sample_keys(0, 0, prompts.id, GROUP)
  if form == 'plain':
    prompts = jax.tree.map(lambda x: np.repeat(x, GROUP, 0), prompts)
  sample = jax.jit(lambda params, prompts, keys: group_sampling.sample(
      model, params, prompts, keys, response_tokens=RESPONSE, eos_ids=(),
      temperature=1.))
  sample = sample.lower(params, prompts, keys).compile()
  memory, seconds = sample.memory_analysis(), []
  for _ in range(4):
    started = time.perf_counter()
    rollout = jax.block_until_ready(sample(params, prompts, keys))
    seconds.append(time.perf_counter() - started)
  digest = hashlib.sha256(np.asarray(rollout.tokens).tobytes()).hexdigest()
  buffers = memory.temp_size_in_bytes + memory.output_size_in_bytes
  return {'seconds': min(seconds), 'mib': buffers / 2 ** 20, 'tokens': digest}


def _measured(form, length):
  program = (f'import json, test_shared_prompt as t; '
             f'print(json.dumps(t.measure({form!r}, {length})))')
  path = os.pathsep.join([str(ROOT), str(pathlib.Path(__file__).parent)])
  done = subprocess.run(
      [sys.executable, '-c', program], check=True, capture_output=True,
      text=True, env=os.environ | {
          'XLA_FLAGS': '', 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': path})
  return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize('length', [64, 512, 2048])
def test_the_same_tokens_for_less(length):
  shared, plain = (_measured(form, length) for form in ('shared', 'plain'))
  print(f'\nprompt of {length} tokens, group of {GROUP}: '
        f'{plain["seconds"] / shared["seconds"]:.2f} times as fast, '
        f'{plain["mib"] / shared["mib"]:.2f} times less memory '
        f'({shared["seconds"]:.2f} s, {shared["mib"]:.0f} MiB)')
  assert shared['tokens'] == plain['tokens']
  assert shared['mib'] < plain['mib']
  if length >= 512:
    assert shared['seconds'] < plain['seconds']
