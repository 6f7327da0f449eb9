"""PPO against GRPO on one reasoning task, the comparison of the paper's A.3.

    python -m r1jax.main --config=experiments/ppo_vs_grpo.py:mini \\
        --workdir=/tmp/ppo_vs_grpo

R1-Zero in miniature three times, on the same prompts and as many responses:
with GRPO, and with PPO at lambda 1.0 and 0.95 of GAE. In [v2] arXiv
2501.12948v2, A.3, PPO at 0.95 is far worse than GRPO, and at 1.0 nearly as
good, at the cost of a second model's memory and time.
"""

from experiments import common
from experiments import ppo
from experiments import r1_zero


def get_config(arg: str = 'mini') -> common.ConfigDict:
  return common.variant(__file__, arg, {'mini': mini})


def mini() -> common.ConfigDict:
  return common.pipeline('comparison', dict(
      grpo=r1_zero.mini(), ppo=ppo.reasoning(),
      ppo_095=ppo.reasoning(lam=0.95)))
