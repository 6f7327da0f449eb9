"""PPO with GAE: the pipeline that R1's GRPO is measured against.

    python -m r1jax.main --config=experiments/ppo.py:mini \
        --config.init_from=/tmp/sft --workdir=/tmp/ppo \
        --config.rewards.models.preference.init_from=/tmp/reward_model

`:mini` improves the mini world's writer against a reward model that has learned
its reader's taste, with a penalty on leaving the fine-tuned model. `accuracy`
in its metrics is the reader's own verdict, which it never sees.
`:reasoning` is r1_zero.py:mini with a critic in the place of groups, at the
same prompts, responses and steps: the comparison of [v2] arXiv 2501.12948v2,
A.3, in miniature; --config.critic.lam=0.95 is its other PPO.
"""

from experiments import common
from experiments import r1_zero


def get_config(arg: str = 'mini') -> common.ConfigDict:
  return common.variant(arg, {'mini': mini, 'reasoning': reasoning})


def mini() -> common.ConfigDict:
  config = common.base('ppo.py:mini', 'rl', steps=60)
  config.init_from = common.placeholder(str)
  config.model = common.mini_model()
  config.vocab = common.mini_vocab()
  config.data = common.prompts('mini_writing', num_prompts=640, seed=1)
  config.rl = common.rl()
  config.rl.update(prompts=32, group=4, prompt_tokens=40, response_tokens=128,
                   micro_batch=64, sample_chunk=64, logp_chunk=64,
                   advantage='gae', aggregate='token_mean', mini_batches=2,
                   kl='k1', kl_in='reward', beta=0.05, measure_kl=True)
  config.critic = critic()
  config.rewards = r1_zero.rewards()
  config.rewards.update(answer='whole')
  config.rewards.weights.update(accuracy=0.0, format=0.0)
  config.rewards.weights.preference = 1.0
  config.rewards.models = dict(preference=reward_model())
  config.optim.update(lr=1e-4, warmup_steps=3)
  config.eval.update(problems=96, batch=32, samples=4)
  return config


def reasoning() -> common.ConfigDict:
  config = r1_zero.mini()
  config.name = 'ppo.py:reasoning'
  config.rl.update(advantage='gae', aggregate='token_mean')
  config.critic = critic()
  return config


def critic() -> common.ConfigDict:
  """GAE (arXiv 1506.02438) and the critic that it takes values from."""
  optim = common.optim()
  optim.update(lr=1e-3, warmup_steps=3)
  return common.ConfigDict(dict(
      # A reward model; unset: the policy's layers under a new head.
      init_from=common.placeholder(str),
      gamma=1.0,
      lam=1.0,  # 0.95 was far worse in the paper's comparison ([v2] A.3)
      whiten=True,
      value_clip=common.optional(float, 0.2),
      lora=common.lora(),
      optim=optim,
  ))


def reward_model() -> common.ConfigDict:
  return common.ConfigDict(dict(
      init_from=common.placeholder(str),
      scores=common.placeholder(str),  # summary | response; unset: its own
      template=common.placeholder(str),  # unset: its own, or its chat template
      batch=64,  # responses at a time
  ))
