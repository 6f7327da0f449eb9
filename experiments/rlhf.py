"""Classical RLHF in miniature, what R1's recipe is the alternative to.

    python -m r1jax.main --config=experiments/rlhf.py:mini --workdir=/tmp/rlhf

Fine-tuning on writings of every quality, a reward model of pairs that the
reader's taste has ranked, PPO against it with and without the penalty on the
KL, DPO on the same pairs. What the reward model says (the proxy) and what the
reader says (the gold) are both measured, over the KL: report.html. Half an hour
on two cores, wins over SFT: PPO 86.3 % at 4.4 nats a response, without the
penalty 85.1 % at 12.0 (proxy 6.06 and 6.38), DPO 71.3 %.
--config.stages.ppo.rl.beta=0.1 changes one stage; --config.dry_run=True says
what would be run.
"""

from experiments import common
from experiments import dpo
from experiments import ppo
from experiments import preferences
from experiments import reward_model
from experiments import sft


def get_config(arg: str = 'mini') -> common.ConfigDict:
  return common.variant(arg, {'mini': mini})


def mini() -> common.ConfigDict:
  stages = dict(sft=sft.mini(), preferences=preferences.mini(),
                reward_model=reward_model.mini(), ppo=ppo.mini(),
                ppo_no_kl=ppo.mini(), dpo=dpo.mini())
  for name in ('preferences', 'reward_model', 'ppo', 'ppo_no_kl', 'dpo'):
    stages[name].init_from = '{sft}'
  for name in ('reward_model', 'dpo'):
    stages[name].data.task = 'jsonl:{preferences}/preferences.jsonl'
  for name in ('ppo', 'ppo_no_kl'):
    stages[name].critic.init_from = '{reward_model}'
    stages[name].rewards.models.preference.init_from = '{reward_model}'
  # It goes on where the penalty would hold it, until the proxy misleads.
  stages['ppo_no_kl'].rl.beta = 0.0
  stages['ppo_no_kl'].steps = 120
  stages['dpo_measured'] = measured('{dpo}')
  return common.pipeline('rlhf.py:mini', 'rlhf', stages)


def measured(init_from: str) -> common.ConfigDict:
  """What the reader says of a policy: PPO's evaluation, without a step."""
  config = ppo.mini()
  config.steps = 0
  config.init_from = init_from
  config.rewards.models.preference.init_from = '{reward_model}'
  return config
