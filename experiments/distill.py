"""Distillation: a small model learns from R1's responses, or from its logits.

    python -m r1jax.main --config=experiments/distill.py:mini \
        --config.data.task=jsonl:/tmp/r1/sft_data/collected.jsonl \
        --workdir=/tmp/student

`:mini` fine-tunes a student of another architecture on a teacher's samples, the
paper's way ([v2] arXiv 2501.12948v2, B.4.3); `:forward` and `:reverse` add the
divergence from a teacher's next-token logits (--config.distill.init_from=DIR,
of the same vocabulary); `:rl` is the comparison, RL on the student itself. The
other variants are the paper's six students: name the published model in
--config.init_from and the samples in --config.data.task.
"""

from experiments import common
from experiments import r1_zero
from experiments import sections


STUDENTS = {  # [v2] B.4.3: the learning rate of each
    'qwen2.5_math_1.5b': 1e-4, 'qwen2.5_math_7b': 8e-5, 'qwen2.5_14b': 7e-5,
    'qwen2.5_32b': 6e-5, 'llama3.1_8b': 5e-5, 'llama3.3_70b_instruct': 2e-5}


def get_config(arg: str = 'mini') -> common.ConfigDict:
  return common.variant(__file__, arg, {
      'mini': mini, 'forward': lambda: mini(teaching='forward'),
      'reverse': lambda: mini(teaching='reverse'), 'rl': rl,
      **{name: lambda name=name: paper(name) for name in STUDENTS}})


def mini(task: str | None = None, teaching: str | None = None,
         teacher: str | None = None) -> common.ConfigDict:
  """On a teacher's samples; with `teaching`, a kind of KL, on its logits too.

  Half of the loss is the cross-entropy of the samples: the gradient of a
  reverse KL is weighted by the student's probabilities, which are near 0 at
  first for the teacher's tokens. With the reverse KL alone (weight 1) accuracy
  was 0 %.
  """
  logits = {} if teaching is None else dict(distill=sections.distill(
      init_from=teacher, kind=teaching, weight=0.5, top_k=64))
  return common.base(
      'lm', epochs=2., init_from='mini_student', model=common.student_model(),
      vocab=common.mini_vocab(), data=sections.texts(task, template='mini'),
      lm=sections.lm(batch=8, length=256),
      optim=dict(lr=3e-3, schedule='cosine', warmup_steps=5),
      eval=dict(split=None), **logits)


def rl(steps: int = 60) -> common.ConfigDict:
  """R1-Zero's RL (r1_zero.py:mini), on the student."""
  config = r1_zero.mini()
  config.steps, config.init_from = steps, 'mini_student'
  config.model = common.student_model()
  return config


def paper(name: str) -> common.ConfigDict:
  """[v2] B.4.3."""
  return common.base(
      'lm', epochs=2.,  # 2 to 3
      model=common.released_model(dtype='bfloat16', attention_chunk=512),
      vocab=common.vocab(), data=sections.texts(None, template='chat'),
      lm=sections.lm(batch=64, length=32_768, logp_chunk=128),
      optim=dict(lr=STUDENTS[name], schedule='cosine'),
      eval=dict(split=None))
