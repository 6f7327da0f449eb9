"""Times of complete GRPO steps, as one JSON line (stages/bench.py).

    python -m r1jax.main --config=experiments/bench.py:tiny
    python -m r1jax.main --config=experiments/bench.py:smollm2
    python -m r1jax.main --config=experiments/bench.py:tail
    python -m r1jax.main --config=experiments/bench.py:long_prompt

Random weights and prompts, KL to a frozen reference, AdamW, one update per
rollout. All responses have the longest length, except in `tail`, where lengths
have a long tail; there `--config.rl.slots=None` samples without continuous
batching, and `--config.rl.packed_rows=None` updates without packed rows. All
are sized for a CPU of two cores, a thread for each (`--config.rl.cpu_threads`),
and take a few minutes; run nothing else on the machine meanwhile.
`--config.bench.profile=DIR` traces one more step for a profile viewer. There is
no workdir; only compiled programs are cached, for the next run.
"""

from experiments import common
from experiments import sections


def get_config(arg: str = 'tiny') -> common.ConfigDict:
  return common.variant(__file__, arg, {
      'tiny': tiny, 'smollm2': smollm2, 'tail': tail,
      'long_prompt': long_prompt})


def tiny() -> common.ConfigDict:
  """A Llama of 3.1 million parameters, 32,768 new tokens per step."""
  return common.base(
      'bench', bench=sections.bench(), optim=dict(lr=1e-6),
      model=common.model(
          vocab=512, width=256, layers=4, heads=4, kv_heads=2, head_size=64,
          mlp=704, max_len=192, tied=True, dtype='float32',
          param_dtype='float32', remat='none', scan_layers=False),
      rl=sections.timed_rl(
          prompts=16, group=16, prompt_tokens=64, response_tokens=128,
          micro_batch=16, logp_chunk=32, cpu_threads=2))


def tail() -> common.ConfigDict:
  """`tiny` with responses of 1 to 384 tokens, 64 on average."""
  config = tiny().unlock()
  config.bench.mean_length = 64
  config.model.max_len = 448
  config.rl.update(
      response_tokens=384, slots=64, micro_batch=8, packed_rows=1)
  return config.lock()


def long_prompt() -> common.ConfigDict:
  """`tiny` with prompts of 512 tokens, 16,384 new tokens per step."""
  config = tiny().unlock()
  config.model.max_len = 576
  config.rl.update(prompt_tokens=512, response_tokens=64)
  return config.lock()


def smollm2() -> common.ConfigDict:
  """The shape of SmolLM2-135M, 2,048 new tokens per step."""
  return common.base(
      'bench', bench=sections.bench(), optim=dict(lr=1e-6),
      model=common.model(
          preset='smollm2_135m', dtype='float32', param_dtype='float32',
          remat='dots'),
      rl=sections.timed_rl(
          prompts=4, group=8, prompt_tokens=64, response_tokens=64,
          micro_batch=8, logp_chunk=64, cpu_threads=2))
