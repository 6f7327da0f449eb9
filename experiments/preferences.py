"""Pairs for a reward model: a model's responses, ranked by a rule.

    python -m r1jax.main --config=experiments/preferences.py:mini \
        --config.init_from=/tmp/sft --workdir=/tmp/preferences

Leaves preferences.jsonl: to each prompt its different responses, graded. Of
the mini world's writings the reader's taste is the rule (rewards/taste.py).
"""

from experiments import common
from experiments import r1_zero


def get_config(arg: str = 'mini') -> common.ConfigDict:
  return common.variant(arg, {'mini': mini})


def mini() -> common.ConfigDict:
  config = common.base('preferences.py:mini', 'sample')
  config.init_from = common.placeholder(str)
  config.model = common.mini_model()
  config.vocab = common.mini_vocab()
  config.data = common.prompts('mini_writing', num_prompts=640)
  config.rl = common.sampling(prompts=32, group=8, prompt_tokens=40,
                              response_tokens=128)
  config.labels = False  # grades are labels: equal ones are not left out
  config.rewards = r1_zero.rewards()
  config.rewards.update(answer='whole')
  config.rewards.weights.update(format=0.0)
  return config
