"""GRPO on a code reward: programs are run on tests, in a sandbox.

    python -m r1jax.main --config=experiments/code.py:mini --workdir=/tmp/code

The mini world's base is fine-tuned on small programs (r1jax/mini/programs.py)
of which fewer than one in five are correct, and then learns by GRPO which of
them pass their tests. In a quarter of an hour on two busy cores pass@1 rises
from 11.3 to 91.0 % (seed 0). The sandbox is bubblewrap's (`apt-get install
bubblewrap`).
"""

from experiments import common
from experiments import reward_sections
from experiments import sections


def get_config(arg: str = 'mini') -> common.ConfigDict:
  return common.variant(__file__, arg, {'mini': mini})


def mini() -> common.ConfigDict:
  return common.pipeline(None, dict(sft=_sft(), rl=_rl('{sft}')))


def _sft() -> common.ConfigDict:
  """The base on programs of every quality."""
  return common.base(
      'lm', epochs=1., init_from='mini', model=common.mini_model(),
      vocab=common.mini_vocab(),
      data=sections.texts(
          'mini_code', template='mini', options=dict(size=4096)),
      lm=sections.lm(batch=16, length=256),
      optim=dict(lr=1e-3, schedule='cosine', warmup_steps=5),
      eval=dict(problems=64))


def _rl(init_from: str) -> common.ConfigDict:
  return common.base(
      'rl', steps=30, init_from=init_from, model=common.mini_model(),
      vocab=common.mini_vocab(),
      data=sections.prompts('mini_code', num_prompts=2048),
      rl=sections.rl(
          prompts=16, group=8, prompt_tokens=64, response_tokens=96,
          micro_batch=64, sample_chunk=96, logp_chunk=48, cpu_threads=2),
      # Only a correct program counts, with thinking or without.
      rewards=reward_sections.rewards(
          weights=dict(format=0.0), form='summary', languages=()),
      optim=dict(lr=3e-4, warmup_steps=5), eval=dict(problems=256))
