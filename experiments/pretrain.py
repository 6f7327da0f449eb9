"""The base model of the mini world, trained from scratch.

    python -m r1jax.main --config=experiments/pretrain.py:mini \
        --workdir=/tmp/pretrain

2000 steps of 8,192 tokens, 41 minutes on two cores. The loss ends at 0.61 nats
per token, the random numbers in the pages of sums included. The shipped file,
r1jax/mini/assets/mini.npz, holds the last parameters of that run with seed 0,
written by `models/packaged.py`.
"""

from experiments import common
from experiments import sections


def get_config(arg: str = 'mini') -> common.ConfigDict:
  return common.variant(__file__, arg, {'mini': mini, 'student': student})


def mini() -> common.ConfigDict:
  return common.base(
      'lm', steps=2000, model=common.mini_model(), vocab=common.mini_vocab(),
      data=sections.texts('mini_corpus', options=dict(size=275_000)),
      lm=sections.lm(batch=32, length=256, prompt_weight=None),
      optim=dict(lr=4e-3, schedule='cosine', warmup_steps=50,
                 final_fraction=0.05, weight_decay=0.1),
      checkpoint=dict(every_steps=400), eval=dict(split=None))


def student() -> common.ConfigDict:
  """A smaller model of another architecture on the same corpus."""
  config = mini()
  config.steps = 1200
  config.model = common.student_model()
  return config
