"""What the paper's models need: stages compiled for machines that are not here.

    python -m r1jax.main --config=experiments/plan.py:qwen32b_zero
    python -m r1jax.main --config=experiments/plan.py:qwen32b_zero,v6e:16x16

A plan compiles a stage's own programs ahead of time and prints the memory of a
device, what bounds each program, and what a run costs (r1jax/plan); nothing is
read or trained. After a comma comes another machine; a TPU's needs `pip install
'r1jax[tpu]'`, a GPU's (h100:64) nothing. Any experiment is planned by
--config.plan.topology=MACHINE, and --workdir=DIR keeps plan.json.
--config.plan.sweep ranks meshes, micro-batches and remat policies that fit.

The values are the paper's ([v2] arXiv 2501.12948v2, through r1_zero.py,
r1_paper.py and distill.py); machine, mesh and how the work is split are ours.
All responses have the longest length, or N tokens on average with
--config.plan.mean_response_tokens=N, which shows what --config.rl.slots and
--config.rl.packed_rows save. `:small` is a check of this file that compiles in
a minute.
"""

import functools
import re

from experiments import common
from experiments import distill
from experiments import r1_paper
from experiments import r1_zero
from experiments import reward_sections
from experiments import sections

# [v2] B.3.3 and B.4.3: passes over the 804,745 samples, 64 at a time. A sample
# is a row of its own here: an upper bound, since packed rows hold several.
SAMPLES, EPOCHS = 804_745, 2
# Weights that are gathered once per rollout, not for every token.
WHOLE = ('embed', None), ('table', None), ('latent', None)
# How a variant is split on chips with less memory than its own.
MESHES = {('qwen32b_zero', 'v6e'): dict(tensor=8)}


def get_config(arg: str = 'qwen32b_zero') -> common.ConfigDict:
  made = {
      'v3_zero': v3_zero, 'v3_zero_long': v3_zero_long,
      'qwen32b_zero': qwen32b_zero, 'qwen1.5b_grpo': qwen_grpo,
      'small': small, **{
          name: functools.partial(distillation, *values)
          for name, values in STUDENTS.items()}}
  name, _, machine = arg.partition(',')
  if machine and name in made:
    made[arg] = functools.partial(on, name, made[name], machine)
  return common.variant(__file__, arg, made)


def on(name: str, variant, machine: str) -> common.ConfigDict:
  """A variant on another machine; 'topology=' before its name may be left out.
  """
  config = variant()
  config.plan.topology = machine.removeprefix('topology=')
  chip = re.split('[:-]', config.plan.topology)[0]
  config.mesh.update(MESHES.get((name, chip), {}))
  return config


###############################################################################
# Reinforcement learning
###############################################################################


def v3_zero() -> common.ConfigDict:
  """R1-Zero's first part, 32,768 tokens, on DeepSeek-V3-Base."""
  return _of_v3(r1_paper.zero())


def v3_zero_long() -> common.ConfigDict:
  """Its second part, 65,536 tokens."""
  return _of_v3(r1_paper.zero_long())


def _of_v3(config: common.ConfigDict) -> common.ConfigDict:
  """A stage of R1-Zero, on its machine.

  In training 64 devices hold the experts, each with a part of the width of its
  own four; other weights are split over all 512. While responses are sampled
  each of 256 devices has one expert of each layer, as in DeepSeek-V3's own
  inference (arXiv 2412.19437, 3.4.2), other weights whole, and its own
  responses: the tokens travel, weights do not.
  """
  config.rl.sample_chunk = 8192
  config.mesh.update(fsdp=-1, expert=64, context=4)
  all_512 = ('fsdp', 'expert')
  config.rules = tuple((dict(config.rules) | dict(
      embed=all_512, table=all_512, latent=all_512)).items())
  config.sampling_rules = (
      *WHOLE, ('expert_embed', None), ('expert', ('expert', 'context')),
      ('batch', ('data', 'fsdp', 'expert', 'context')), ('length', None))
  config.plan.topology = 'v5p:8x16x16'
  return config


def qwen32b_zero() -> common.ConfigDict:
  """[v2] B.4.1, Qwen-32B-Zero.

  The same updates of 512 responses, but each after a rollout of its own: the
  keys and values of 8,192 responses of 32,768 tokens are 70 TB, those of 512
  are 4.4 TB, a third of the memory of 128 v5p.
  """
  config = r1_zero.paper()
  config.steps = r1_zero.SHORT_STEPS
  config.optim.lr = 2e-6  # [v2] B.4.1
  config.rl.update(
      prompts=32, mini_batches=1, ref_every_steps=r1_zero.REF_EVERY_STEPS,
      micro_batch=32, sample_chunk=8192, logp_chunk=1024)
  config.eval.every_steps = r1_zero.REF_EVERY_STEPS
  config.mesh.update(fsdp=-1, tensor=4)
  config.sampling_rules = WHOLE
  config.plan.topology = 'v5p:4x4x8'
  return config


def qwen_grpo() -> common.ConfigDict:
  """GRPO on Qwen2.5-1.5B: what a small group trains."""
  return common.base(
      'rl', steps=500, vocab=common.vocab(kind='huggingface', path=None),
      model=common.model(preset='qwen2.5_1.5b', attention_chunk=512),
      data=sections.prompts(None, template='r1_zero'),
      rl=sections.rl(
          prompts=32, group=16, prompt_tokens=512, response_tokens=1536,
          micro_batch=256, sample_chunk=512),
      rewards=reward_sections.rewards(), optim=dict(lr=1e-6),
      sampling_rules=WHOLE, plan=dict(topology='v5e:4x4'))


def small() -> common.ConfigDict:
  """SmolLM2's shape with short responses."""
  return common.base(
      'rl', steps=100, vocab=common.vocab(kind='huggingface', path=None),
      model=common.model(
          preset='smollm2_135m', dtype='bfloat16', remat='full'),
      data=sections.prompts(None, template='r1_zero'),
      rl=sections.rl(
          prompts=8, group=4, prompt_tokens=64, response_tokens=64,
          micro_batch=16),
      rewards=reward_sections.rewards(), plan=dict(topology='h100:4'))


###############################################################################
# Distillation
###############################################################################

# Its name here, in distill.py and in models/presets.py; its machine. [v2] B.4.3
STUDENTS = {
    'qwen1.5b_distill': ('qwen2.5_math_1.5b', 'qwen2.5_math_1.5b', 'v5p:2x2x4'),
    'qwen7b_distill': ('qwen2.5_math_7b', 'qwen2.5_math_7b', 'v5p:4x4x4'),
    'llama8b_distill': ('llama3.1_8b', 'llama3.1_8b', 'v5p:4x4x4'),
    'qwen14b_distill': ('qwen2.5_14b', 'qwen2.5_14b', 'v5p:4x4x4'),
    'qwen32b_distill': ('qwen2.5_32b', 'qwen2.5_32b', 'v5p:4x4x8'),
    'llama70b_distill': ('llama3.3_70b_instruct', 'llama3.3_70b', 'v5p:4x4x8'),
}


def distillation(student: str, preset: str, machine: str) -> common.ConfigDict:
  """SFT of a student on R1's samples, rows of 32,768 tokens."""
  config = distill.paper(student)
  config.steps = EPOCHS * SAMPLES // config.lm.batch
  # The released students read so far; two of their bases do not.
  config.model = common.model(
      preset=preset, max_len=config.lm.length, attention_chunk=512)
  config.mesh.update(
      fsdp=-1, tensor=2 if preset in ('llama3.3_70b', 'qwen2.5_32b') else 1)
  config.plan.topology = machine
  return config
