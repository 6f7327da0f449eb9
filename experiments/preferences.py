"""Pairs for a reward model: a model's responses, ranked by a rule.

    python -m r1jax.main --config=experiments/preferences.py:mini \
        --config.init_from=/tmp/sft --workdir=/tmp/preferences

Writes preferences.jsonl: each prompt with its distinct responses, graded. In
the mini world the rule is the reader's taste (r1jax/mini/gold.py).
"""

from experiments import common
from experiments import reward_sections
from experiments import sample_sections
from experiments import sections


def get_config(arg: str = 'mini') -> common.ConfigDict:
  return common.variant(__file__, arg, {'mini': mini})


def mini(init_from: str | None = None) -> common.ConfigDict:
  return common.base(
      'sample', init_from=init_from, model=common.mini_model(),
      vocab=common.mini_vocab(),
      data=sections.prompts('mini_writing', num_prompts=640),
      rl=sections.sampling(
          prompts=32, group=8, prompt_tokens=40, response_tokens=128,
          cpu_threads=2),
      labels=sample_sections.labels(False),
      rewards=reward_sections.rewards(answer='whole', weights=dict(format=0.0)))
