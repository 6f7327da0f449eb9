"""PPO beside GRPO on one reasoning task, the comparison of the paper's A.3.

    python -m r1jax.main --config=experiments/ppo_vs_grpo.py:mini \\
        --workdir=/tmp/ppo_vs_grpo

R1-Zero in miniature three times, at the same prompts and number of responses:
with GRPO, with PPO at GAE's lambda 1.0, and at 0.95. In [v2] arXiv
2501.12948v2, A.3, PPO at 0.95 stays far behind GRPO and at 1.0 nearly reaches
it, for a second model's memory and time.
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
