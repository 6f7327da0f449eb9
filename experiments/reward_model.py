"""Reward models: a fine-tuned model learns to say how good a response is.

    python -m r1jax.main --config=experiments/reward_model.py:mini \
        --config.init_from=/tmp/sft --workdir=/tmp/reward_model \
        --config.data.task=jsonl:/tmp/preferences/preferences.jsonl

A file has a prompt, responses and grades a line, or a prompt, chosen and
rejected, or HH's pairs of conversations (r1jax/data/preferences.py). `:mini`
learns the taste of the mini world's reader. `:helpful` and `:harmless` hold the
published values of [v2] arXiv 2501.12948v2, 3.1, and need a pod: pairs of which
the summary is judged, and single responses, safe or unsafe, judged whole.
`:hh` is SmolLM2-135M on HH's harmless pairs: 67.2 % [63.0, 71.2] of 500 others
in the right order, 70 to 90 minutes on two cores.
"""

from experiments import common


def get_config(arg: str = 'mini') -> common.ConfigDict:
  return common.variant(arg, {
      'mini': mini, 'helpful': helpful, 'harmless': harmless, 'hh': hh})


def mini() -> common.ConfigDict:
  config = common.base('reward_model.py:mini', 'preference', epochs=2.)
  config.init_from = common.placeholder(str)
  config.model = common.mini_model()
  config.model.scalar = True
  config.vocab = common.mini_vocab()
  config.data = data(template='mini', split='train[:560]')
  # The reader wishes for several lines: the length is a part of the taste.
  config.preference = common.preference(
      batch=4, length=1024, balance_length=False)
  config.optim.update(lr=1e-3, schedule='cosine', warmup_steps=5)
  config.eval.update(split='train[560:]', problems=80)
  return config


def helpful() -> common.ConfigDict:
  config = released('helpful')
  config.preference = common.preference(
      scores='summary',  # [v2] 3.1: the final summary alone
      length=2 * 8192,  # [v2] 3.1: 8,192 tokens a response
      batch=256)  # [v2] 3.1: pairs; a row of full length holds one
  return config


def harmless() -> common.ConfigDict:
  config = released('harmless')
  config.preference = common.preference(
      loss='pointwise', length=8192, batch=256, balance_length=False)
  return config


def released(name: str) -> common.ConfigDict:
  """What the paper's two reward models share: [v2] 3.1."""
  config = common.base(f'reward_model.py:{name}', 'preference', epochs=1.)
  config.init_from = common.placeholder(str)
  config.model = common.released_model()
  config.model.update(scalar=True, attention_chunk=512)
  config.vocab = common.released_vocab()
  config.data = data(template='chat', split='train')
  config.optim.lr = 6e-6
  config.eval.split = 'test'
  return config


def hh() -> common.ConfigDict:
  """SmolLM2-135M-Instruct on 1,800 of HH's harmless pairs, tested on 500.

  Of the first 1,804 two part before the last answer and two do not fit.
  """
  config = common.base('reward_model.py:hh', 'preference', epochs=1.)
  config.init_from = 'smollm2'
  config.model = common.released_model()
  config.model.update(scalar=True, attention_chunk=256, remat='none')
  config.vocab = common.released_vocab()
  config.data = data(template='chat', split='train[:1804]')
  config.preference = common.preference(
      batch=4, micro_batches=4, length=1024, balance_length=False)
  config.optim.update(lr=2e-5, schedule='cosine', warmup_steps=5)
  config.eval.update(split='train[1804:]', problems=500)
  return config


def data(**fields) -> common.ConfigDict:
  return common.ConfigDict(dict(
      task=common.placeholder(str), system=common.placeholder(str),
      options=dict(), **fields))
