"""Classical RLHF in miniature, to which R1's recipe is the alternative.

    python -m r1jax.main --config=experiments/rlhf.py:mini --workdir=/tmp/rlhf

Fine-tuning on writings of every quality, a reward model trained on pairs that
the reader's taste ranks, PPO on its scores with and without the KL penalty, and
DPO on the same pairs. report.html shows the score of the reward model (the
proxy) and the reader's own (the gold) over the KL. Half an hour on two cores.
Win rates over SFT: PPO 86.3 % at 4.4 nats per response, without the penalty
85.1 % at 12.0 (proxy 6.06 and 6.38), DPO 71.3 %.
--config.stages.ppo.rl.beta=0.1 changes one stage; --config.dry_run=True prints
what would run.
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
      # Past the KL where the penalty would hold it: the proxy misleads it.
      ppo_no_kl=ppo.mini('{sft}', '{reward_model}', critic='{reward_model}',
                         beta=0.0, steps=120),
      dpo=dpo.mini('{sft}', pairs),
      # The reader's score of the DPO policy: PPO's evaluation, without a step.
      dpo_measured=ppo.mini('{dpo}', '{reward_model}', steps=0)))
