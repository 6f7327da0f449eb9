"""Supervised fine-tuning: a model learns from worked answers.

    python -m r1jax.main --config=experiments/sft.py:mini --workdir=/tmp/sft
    python -m r1jax.main --config=experiments/sft.py:smollm2 \
        --config.data.task=jsonl:gsm8k/{split}.jsonl --workdir=/tmp/sft

`:mini` teaches the mini world's base to write, well and badly: what RLHF
begins from, in a minute. `:smollm2` takes a file with a question and an answer
a line, as GSM8K's, or messages. The loss is on the answers alone;
--config.lora.rank=16 trains factors.
"""

from experiments import common


def get_config(arg: str = 'mini') -> common.ConfigDict:
  return common.variant(arg, {'mini': mini, 'smollm2': smollm2})


def mini() -> common.ConfigDict:
  """The mini base on texts of a reader's world, of every quality."""
  config = common.base('sft.py:mini', 'lm', epochs=3.)
  config.init_from = 'mini'
  config.model = common.mini_model()
  config.vocab = common.mini_vocab()
  config.data = dict(task='mini_writing', split='train', seed=0,
                     template='mini', options=dict(size=4096))
  config.lm = dict(batch=16, length=256, micro_batches=1, logp_chunk=64,
                   prompt_weight=0.0)
  config.optim.update(lr=1e-3, schedule='cosine', warmup_steps=5)
  config.eval.update(problems=64)
  return config


def smollm2() -> common.ConfigDict:
  """SmolLM2-135M-Instruct on GSM8K's 7,473 training answers."""
  config = common.base('sft.py:smollm2', 'lm', steps=100)
  config.init_from = 'smollm2'
  config.model = common.released_model()
  config.vocab = common.released_vocab()
  config.data = dict(task=common.placeholder(str), split='train', seed=0,
                     template='chat', options=dict())
  config.lm = dict(batch=8, length=512, micro_batches=4, logp_chunk=64,
                   prompt_weight=0.0)
  config.optim.update(lr=1e-4, schedule='cosine', warmup_steps=5)
  config.eval.update(split='test', problems=64)
  return config
