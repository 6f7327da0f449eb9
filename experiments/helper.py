"""The helper of the mini world, who plays DeepSeek-V3's part in R1's recipe.

    python -m r1jax.main --config=experiments/helper.py:mini \\
        --workdir=/tmp/helper

The mini world's base learns from lessons (r1jax/mini/lessons.py) to reason
in detail when asked to, to rewrite what a model said in one language, to think
of a way to an answer, and to judge answers in JSON.
"""

from experiments import common


def get_config(arg: str = 'mini') -> common.ConfigDict:
  return common.variant(arg, {'mini': mini})


def mini() -> common.ConfigDict:
  config = common.base('helper.py:mini', 'lm', steps=1200)
  config.init_from = 'mini'
  config.model = common.mini_model()
  config.model.max_len = 512
  config.vocab = common.mini_vocab()
  config.data = dict(task='mini_lessons', split='train', seed=0,
                     template='mini', options=dict(size=40_000))
  config.lm = dict(batch=16, length=512, micro_batches=1, logp_chunk=64,
                   prompt_weight=0.0)
  config.optim.update(lr=2e-3, schedule='cosine', warmup_steps=20)
  config.eval.update(problems=256)
  config.checkpoint.update(every_steps=300)
  return config
