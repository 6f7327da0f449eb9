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
  return common.variant(__file__, arg, {'mini': mini})


def mini() -> common.ConfigDict:
  pairs = 'jsonl:{preferences}/preferences.jsonl'
  return common.pipeline('rlhf', dict(
      sft=sft.mini(),
      preferences=preferences.mini('{sft}'),
      reward_model=reward_model.mini('{sft}', pairs),
      ppo=ppo.mini('{sft}', '{reward_model}', critic='{reward_model}'),
      # It goes on where the penalty would hold it, until the proxy misleads.
      ppo_no_kl=ppo.mini('{sft}', '{reward_model}', critic='{reward_model}',
                         beta=0.0, steps=120),
      dpo=dpo.mini('{sft}', pairs),
      # What the reader says of it: PPO's evaluation, without a step.
      dpo_measured=ppo.mini('{dpo}', '{reward_model}', steps=0)))
