"""The helper of the mini world, which plays DeepSeek-V3's part in R1's recipe.

    python -m r1jax.main --config=experiments/helper.py:mini \\
        --workdir=/tmp/helper

The mini world's base learns from lessons (r1jax/mini/lessons.py) to reason in
detail on request, to rewrite a response in one language, to write the thoughts
that lead to a given answer, and to judge answers in JSON.
"""

from experiments import common
from experiments import sections


def get_config(arg: str = 'mini') -> common.ConfigDict:
  return common.variant(__file__, arg, {'mini': mini})


def mini() -> common.ConfigDict:
  return common.base(
      'lm', steps=1200, init_from='mini',
      model=common.mini_model(max_len=512), vocab=common.mini_vocab(),
      data=sections.texts(
          'mini_lessons', template='mini', options=dict(size=40_000)),
      lm=sections.lm(batch=16, length=512),
      optim=dict(lr=2e-3, schedule='cosine', warmup_steps=20),
      checkpoint=dict(every_steps=300), eval=dict(problems=256))
