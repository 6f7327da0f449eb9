"""Times of complete GRPO steps, as one JSON line (stages/bench.py).

    python -m r1jax.main --config=experiments/bench.py:tiny
    python -m r1jax.main --config=experiments/bench.py:smollm2

Random weights and prompts, responses that never end early, KL to a frozen
reference, AdamW, one update a rollout. Both are sized for a CPU of two cores
and a few minutes; measure on a machine that does nothing else.
`--config.bench.profile=DIR` traces one more step for a profile viewer.
"""

from experiments import common


def get_config(arg: str = 'tiny') -> common.ConfigDict:
  return common.variant(arg, {'tiny': tiny, 'smollm2': smollm2})


def tiny() -> common.ConfigDict:
  """A Llama of 3.1 million parameters, 32,768 new tokens a step."""
  config = _bench('bench.py:tiny')
  config.model = dict(
      vocab=512, width=256, layers=4, heads=4, kv_heads=2, head_size=64,
      mlp=704, max_len=192, tied=True, dtype='float32', param_dtype='float32',
      remat='none', scan_layers=False)
  config.rl.update(prompts=16, group=16, prompt_tokens=64, response_tokens=128,
                   micro_batch=16, logp_chunk=32)
  return config


def smollm2() -> common.ConfigDict:
  """The shape of SmolLM2-135M, 2,048 new tokens a step."""
  config = _bench('bench.py:smollm2')
  config.model = dict(preset='smollm2_135m', dtype='float32',
                      param_dtype='float32', remat='full')
  config.rl.update(prompts=4, group=8, prompt_tokens=64, response_tokens=64,
                   logp_chunk=16)
  return config


def _bench(name: str) -> common.ConfigDict:
  config = common.ConfigDict(dict(
      name=name, stage='bench', seed=0, distributed=False,
      mesh=common.mesh(), rules=common.RULES, rl=common.rl(),
      optim=common.optim(),
      init_from=common.placeholder(str),  # unset: random weights
      bench=dict(
          steps=7,
          warmup=2,  # the first of them, left out of the medians
          matmul=2048,  # side of the square product that gives the bound
          profile=common.placeholder(str))))  # a directory for one step's trace
  del config.rl.ref_every_steps  # not used
  config.optim.lr = 1e-6
  return config
