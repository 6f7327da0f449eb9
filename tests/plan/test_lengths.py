"""Programs, and the time to compile them, do not grow with the length."""

import os
import resource
import subprocess
import sys
import types

import jax
import pytest

from experiments import common
from experiments import reward_sections
from experiments import sections
from r1jax.parallel import sharding
from r1jax.plan import compiled
from r1jax.plan import programs

SHORT, LONG = (64, 576), (61, 8193)  # tokens of prompt and response


def _lines(platform, lengths):
  """The lines of each program of RL, as they are given to the compiler."""
  config = common.base(
      'rl', steps=1, vocab=common.vocab(kind='huggingface', path=None),
      model=common.model(vocab=64, width=32, layers=3, heads=2, kv_heads=1,
                         head_size=64, mlp=48, remat='full', dtype='bfloat16',
                         attention_chunk=64, max_len=9000),
      data=sections.prompts(None), rewards=reward_sections.rewards(),
      rl=sections.rl(prompts=8, group=2, prompt_tokens=lengths[0],
                     response_tokens=lengths[1], micro_batch=16,
                     sample_chunk=256, logp_chunk=128)).lock()
  mesh = sharding.make_mesh(dict(fsdp=8))
  parts, results, found = programs.rl(config, mesh), None, {}
  while True:
    try:
      part = parts.send(results)
    except StopIteration:
      return found
    lowered = part.jitted.trace(*part.args).lower(
        lowering_platforms=(platform,))
    results = jax.tree.map(
        lambda x: compiled._as_batch(x, mesh), lowered.out_info)
    found[part.name] = lowered.as_text().count('\n')


@pytest.mark.parametrize('platform', ['cpu', 'tpu'])
def test_a_program_is_as_long_for_a_long_response(platform, monkeypatch):
  device = types.SimpleNamespace(platform=platform)
  monkeypatch.setattr(sharding, 'device', lambda place: device)
  short, long = _lines(platform, SHORT), _lines(platform, LONG)
  for name in 'scoring', 'update':
    assert long[name] <= 1.02 * short[name], name
  # The cache of 8,193 tokens grows once more than that of 576.
  assert long['sampling'] <= 1.25 * short['sampling']


@pytest.mark.slow
def test_a_long_response_compiles_as_fast():
  """The whole plan of SmolLM2 for a TPU, in seconds of the processor."""
  pytest.importorskip('libtpu', reason='needs the extra tpu')

  def seconds(prompt, response):
    spent = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    before = spent()
    subprocess.run(
        [sys.executable, '-m', 'r1jax.main',
         '--config=experiments/plan.py:small,v5e:2x2',
         f'--config.rl.prompt_tokens={prompt}',
         f'--config.rl.response_tokens={response}'],
        env=os.environ | {'XLA_FLAGS': ''}, check=True)
    return spent() - before

  short, long = seconds(*SHORT), seconds(64, 8128)  # the model's limit: 8,192
  print(f'{short:.1f} s of 576 tokens, {long:.1f} s of 8,128')
  assert long <= 1.5 * short
