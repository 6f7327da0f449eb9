"""The base model of the mini world, trained from nothing.

    python -m r1jax.main --config=experiments/pretrain.py:mini \
        --workdir=/tmp/pretrain

2000 steps of 8,192 tokens, 41 minutes on two cores; the loss ends at 0.61 nats
a token, the random numbers of the pages of sums included. The shipped
file, r1jax/mini/assets/mini.npz, is that run's last parameters with seed 0,
written by `models/packaged.py`.
"""

from experiments import common


def get_config(arg: str = 'mini') -> common.ConfigDict:
  return common.variant(arg, {'mini': mini, 'student': student})


def mini() -> common.ConfigDict:
  config = common.base('pretrain.py:mini', 'lm', steps=2000)
  config.model = common.mini_model()
  config.init_from = common.placeholder(str)
  config.vocab = common.mini_vocab()
  config.data = dict(task='mini_corpus', split='train', seed=0,
                     options=dict(size=275_000))
  config.lm = dict(batch=32, length=256, micro_batches=1, logp_chunk=64)
  config.eval.split = None
  config.optim.update(lr=4e-3, schedule='cosine', warmup_steps=50,
                      final_fraction=0.05, weight_decay=0.1)
  config.checkpoint.update(every_steps=400)
  return config


def student() -> common.ConfigDict:
  """A smaller model of another architecture on the same corpus."""
  config = mini()
  config.name = 'pretrain.py:student'
  config.steps = 1200
  config.model = common.student_model()
  return config
