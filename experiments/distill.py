"""Distillation: a small model learns from what R1 says, or from its logits.

    python -m r1jax.main --config=experiments/distill.py:mini \
        --config.data.task=jsonl:/tmp/r1/sft_data/collected.jsonl \
        --workdir=/tmp/student

`:mini` fine-tunes a student of another architecture on a teacher's samples, the
paper's way ([v2] arXiv 2501.12948v2, B.4.3); `:forward` and `:reverse` add the
divergence from a teacher's next-token logits (--config.distill.init_from=DIR,
the same vocabulary); `:rl` is what it is compared with, RL on the student
itself. The other variants are the paper's six students: the released model in
--config.init_from, the samples in --config.data.task.
"""

from experiments import cold_start
from experiments import common
from experiments import r1_zero

STUDENTS = {  # [v2] B.4.3: the learning rate of each
    'qwen2.5_math_1.5b': 1e-4, 'qwen2.5_math_7b': 8e-5, 'qwen2.5_14b': 7e-5,
    'qwen2.5_32b': 6e-5, 'llama3.1_8b': 5e-5, 'llama3.3_70b_instruct': 2e-5}


def get_config(arg: str = 'mini') -> common.ConfigDict:
  return common.variant(arg, {
      'mini': mini, 'forward': lambda: mini('forward'),
      'reverse': lambda: mini('reverse'), 'rl': rl,
      **{name: lambda name=name: paper(name) for name in STUDENTS}})


def mini(kind: str | None = None) -> common.ConfigDict:
  """On a teacher's samples; of a `kind` of divergence, on its logits too.

  Half of the loss is the samples': a reverse KL's gradient is weighted by the
  student's own probabilities, and this one begins with next to none for what
  the teacher says. Alone (weight 1) it was right 0 % of the time.
  """
  config = cold_start.sft()
  config.name = f'distill.py:{kind or "mini"}'
  config.init_from = 'mini_student'
  config.model = common.student_model()
  config.epochs = 2.
  config.data.task = common.placeholder(str)
  if kind is not None:
    config.distill = common.distill(kind=kind, weight=0.5, top_k=64)
  return config


def rl() -> common.ConfigDict:
  """R1-Zero's RL, on the student."""
  config = r1_zero.mini()
  config.name = 'distill.py:rl'
  config.init_from = 'mini_student'
  config.model = common.student_model()
  return config


def paper(name: str) -> common.ConfigDict:
  config = common.base(f'distill.py:{name}', 'lm', epochs=2.)  # 2 to 3
  config.init_from = common.placeholder(str)
  config.model = common.released_model()
  config.model.update(dtype='bfloat16', attention_chunk=512)
  config.vocab = common.released_vocab()
  config.data = dict(task=common.placeholder(str), split='train', seed=0,
                     template='chat', options=dict())
  config.lm = dict(batch=64, length=32_768, micro_batches=1, logp_chunk=128,
                   prompt_weight=0.0)
  config.optim.update(lr=STUDENTS[name], schedule='cosine')
  config.eval.split = None
  return config
