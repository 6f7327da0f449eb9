"""DPO: a policy learns from pairs without a reward model; a baseline of PPO.

    python -m r1jax.main --config=experiments/dpo.py:mini \
        --config.init_from=/tmp/sft --workdir=/tmp/dpo \
        --config.data.task=jsonl:/tmp/preferences/preferences.jsonl

Rafailov et al., arXiv 2305.18290. The pairs are those of reward_model.py.
"""

from experiments import common
from experiments import sections


def get_config(arg: str = 'mini') -> common.ConfigDict:
  return common.variant(__file__, arg, {'mini': mini})


def mini(init_from: str | None = None, task: str | None = None
        ) -> common.ConfigDict:
  return common.base(
      'preference', epochs=2., init_from=init_from,
      model=common.mini_model(scalar=False), vocab=common.mini_vocab(),
      data=sections.preferences(task, template='mini', split='train[:560]'),
      preference=sections.preference(
          loss='dpo', batch=4, length=1024, balance_length=False,
          logp_chunk=256),
      optim=dict(lr=2e-4, schedule='cosine', warmup_steps=5),
      eval=dict(split='train[560:]', problems=80))
