"""PPO with GAE, which the paper compares with GRPO.

    python -m r1jax.main --config=experiments/ppo.py:mini \
        --config.init_from=/tmp/sft --workdir=/tmp/ppo \
        --config.rewards.models.preference.init_from=/tmp/reward_model

`:mini` trains the mini world's writer on a reward model that has learned the
reader's taste, with a KL penalty to the fine-tuned model. The metric `accuracy`
is the reader's own verdict, on which nothing is trained.
`:reasoning` is r1_zero.py:mini with a critic instead of groups, and the same
prompts, responses and steps: the comparison of [v2] arXiv 2501.12948v2, A.3, in
miniature; --config.critic.lam=0.95 is the paper's other PPO.
"""

from experiments import common
from experiments import r1_zero
from experiments import reward_sections
from experiments import sections


def get_config(arg: str = 'mini') -> common.ConfigDict:
  return common.variant(__file__, arg, {'mini': mini, 'reasoning': reasoning})


def mini(init_from: str | None = None, reward_model: str | None = None,
         critic: str | None = None, beta: float = 0.05, steps: int = 60
        ) -> common.ConfigDict:
  """On a reward model; `critic` is the model that the critic starts from."""
  return common.base(
      'rl', steps=steps, init_from=init_from, model=common.mini_model(),
      vocab=common.mini_vocab(),
      data=sections.prompts('mini_writing', num_prompts=640, seed=1),
      rl=sections.rl(
          prompts=32, group=4, prompt_tokens=40, response_tokens=128,
          micro_batch=64, sample_chunk=64, logp_chunk=64, cpu_threads=2,
          advantage='gae', aggregate='token_mean', mini_batches=2, kl='k1',
          kl_in='reward', beta=beta, measure_kl=True),
      critic=sections.critic(init_from=critic),
      rewards=reward_sections.rewards(
          answer='whole',
          weights=dict(accuracy=0.0, format=0.0, preference=1.0),
          models=dict(preference=reward_sections.reward_model(
              init_from=reward_model))),
      optim=dict(lr=1e-4, warmup_steps=3),
      eval=dict(problems=96, batch=32, samples=4))


def reasoning(lam: float = 1.0) -> common.ConfigDict:
  """r1_zero.py:mini with another estimator; `lam` is lambda of GAE."""
  config = r1_zero.mini()
  config.rl.advantage, config.rl.aggregate = 'gae', 'token_mean'
  config.critic = sections.critic(lam=lam)
  return config
