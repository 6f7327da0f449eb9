"""DPO: a policy learns from pairs at once, the cheap baseline of PPO.

    python -m r1jax.main --config=experiments/dpo.py:mini \
        --config.init_from=/tmp/sft --workdir=/tmp/dpo \
        --config.data.task=jsonl:/tmp/preferences/preferences.jsonl

The pairs are those of the reward model (Rafailov et al., arXiv 2305.18290).
"""

from experiments import common
from experiments import reward_model


def get_config(arg: str = 'mini') -> common.ConfigDict:
  return common.variant(arg, {'mini': mini})


def mini() -> common.ConfigDict:
  config = reward_model.mini()
  config.name = 'dpo.py:mini'
  config.model.scalar = False
  config.preference.update(loss='dpo', logp_chunk=256)
  config.optim.lr = 2e-4
  return config
