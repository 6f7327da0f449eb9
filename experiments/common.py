"""Sections that many stages share: model, mesh, optimizer, evaluation, ...

A field is declared once, here or in sections.py: its default, its bound and its
meaning; `python -m r1jax.main --config=FILE:ARG --help` prints them. `base`
gives each kind of stage the sections that it reads and no others. An experiment
is a file with `get_config(arg)`; `variant` calls one of its functions. For
`eval.every_steps`, `log.rollouts_every_steps` and `rl.ref_every_steps`, 0 means
never.
"""

from collections.abc import Callable, Mapping, Sequence
import os
from typing import Any

import ml_collections

from experiments import machine_sections
from r1jax import errors
from r1jax import fields

ConfigDict = ml_collections.ConfigDict
field, optional = fields.field, fields.optional

SEED = f'>= 0, < {2**32}'
# Of logits: divided by less or by more, they are infinite or all equal.
TEMPERATURE = '>= 1e-4, <= 1e4'
OR_GREEDY = f'0 or {TEMPERATURE}'
SECONDS = '>= 0.01, <= 86400'  # a day; sockets take no limit of years


###############################################################################
# Experiments, stages, pipelines
###############################################################################


def variant(file: str, arg: str, variants: dict[str, Callable[[], ConfigDict]]
           ) -> ConfigDict:
  """The locked config of `variants[arg]`, named after its `file` and `arg`."""
  if arg not in variants:
    raise errors.ConfigError(
        '', f'--config=...:{arg}: no such variant'
        + errors.nearest(arg.partition(',')[0], variants, ':'))
  config = variants[arg]()
  name = f'{os.path.basename(file)}:{arg}'
  config.name = name
  for key, stage in config.get('stages', {}).items():
    stage.name = f'{name}, {key}'
  return config.lock()


def base(kind: str, **changes: Any) -> ConfigDict:
  """A stage of a kind, with the fields that all such stages have.

  Args:
    kind: lm | preference | rl | sample | search | step_labels | collect |
      evaluate | bench.
    **changes: values by field name: a dict of fields for a section that every
      stage of the kind has; for one of OPTIONAL_SECTIONS the whole section,
      made by `model`, `vocab` or a function of sections.py.
  """
  made = _run(kind) | dict(
      seed=field(0, SEED, 'seed of all random numbers'),
      mesh=machine_sections.mesh())
  if kind != 'collect':
    made |= dict(
        init_from=optional(
            str, 'the model to start from: mini, mini_helper, mini_student, '
            'smollm2, an .npz or .gguf file, a Hugging Face folder, or the '
            'workdir of a stage'))
    made |= machine_sections.placement(kind)
  if kind in ('lm', 'preference', 'rl'):
    made |= dict(
        steps=optional(int, 'number of steps', '>= 0'), lora=lora(),
        optim=optim(), checkpoint=checkpoint(kind), log=log(kind),
        eval=evaluation(kind))
    made['optim'].max_skipped_steps = field(
        5, '>= 1', 'the run ends after this many non-finite updates in a row')
  if kind in ('lm', 'preference'):
    made['epochs'] = optional(
        float, 'passes over the data, if config.steps is unset', '> 0, <= 1e6')
  if kind in ('sample', 'search', 'step_labels'):
    made |= dict(checkpoint=checkpoint(kind), log=log(kind))
  if kind == 'evaluate':
    made |= dict(checkpoint=checkpoint(kind), eval=evaluation(kind))
  if kind == 'bench':
    made['optim'] = optim()
  return _set(ConfigDict(made), changes, OPTIONAL_SECTIONS[kind])


def _run(kind: str) -> dict[str, Any]:
  """The fields of every run, of a stage or a pipeline."""
  return dict(
      name=field('', '', 'file and variant of the experiment'),
      plan=machine_sections.plan(),
      stage=field(kind, '', 'kind of stage'),
      distributed=field(False, '', 'set True on a pod where JAX cannot detect '
                        'from the environment that there are several hosts'))


OPTIONAL_SECTIONS = {  # by kind of stage; an experiment gives those it needs
    'lm': ('model', 'vocab', 'data', 'lm', 'distill'),
    'preference': ('model', 'vocab', 'data', 'preference'),
    'rl': ('model', 'vocab', 'data', 'rl', 'rewards', 'critic', 'tests'),
    'sample': ('model', 'vocab', 'data', 'rl', 'rewards', 'keep', 'labels'),
    'search': ('model', 'vocab', 'data', 'rl', 'rewards', 'keep', 'search'),
    'step_labels': ('model', 'vocab', 'data', 'rl', 'rewards', 'labelling'),
    'evaluate': ('model', 'vocab', 'rl', 'rewards', 'tests'),
    'collect': ('collect',),
    'bench': ('model', 'rl', 'bench'),
}


def pipeline(report: str | None, stages: dict[str, ConfigDict],
             models: Sequence[str] = ()) -> ConfigDict:
  """A pipeline of stages, and the `models` that its user must name.

  In a stage's config '{sft}' is the workdir of stage sft, and '{base}' the
  value of config.models.base.
  """
  return ConfigDict(_run('pipeline') | dict(
      report=optional(str, 'report at the end of all stages, one of '
                      'r1jax/reports', value=report),
      seed=optional(int, 'seed of all stages; unset: each has its own', SEED),
      only=optional(str, 'run this stage alone'),
      until=optional(str, 'run this stage and all that it depends on'),
      dry_run=field(
          False, '', 'only print what would run, and what is missing'),
      models={model: optional(str, 'a model that several stages start from, '
                              'named as in init_from') for model in models},
      # These are fields of the pipeline, not of its stages.
      stages={key: {
          name: value for name, value in stage.items(
              preserve_field_references=True) if name not in (
                  'distributed', 'plan')}
              for key, stage in stages.items()},
  ))


def section(declared: Mapping[str, Any], changes: Mapping[str, Any]
           ) -> ConfigDict:
  """The section of the `declared` fields, with `changes` to their values."""
  return _set(ConfigDict(declared), changes)


def _set(config: ConfigDict, changes: Mapping[str, Any],
         new: Sequence[str] = ()) -> ConfigDict:
  """Sets fields that are in `config` or in `new`; refuses all others."""
  for name, value in changes.items():
    if name not in config and name not in new:
      raise errors.ConfigError(
          name, 'no such field' + errors.nearest(name, [*config, *new]))
    if isinstance(value, dict) and name in config:
      # A section declared empty takes any field; its reader checks them.
      _set(config[name], value, () if len(config[name]) else tuple(value))
    else:
      config[name] = value
  return config


###############################################################################
# Models and machines
###############################################################################


def model(**values: Any) -> ConfigDict:
  """A decoder: all its fields, or only those that differ from its source.

  The source is a preset or the model in config.init_from. The section has only
  the fields that are given.
  """
  known = dict(
      preset=(str, 'a published shape of models/presets.py: qwen2.5_7b, ...'),
      vocab=(int, 'size of the vocabulary'),
      width=(int, 'size of the hidden state'),
      layers=(int, 'decoder layers'),
      heads=(int, 'query heads'),
      kv_heads=(int, 'key and value heads (fewer than heads: grouped-query '
                'attention)'),
      head_size=(int, 'size of a head; even, for rotary embeddings'),
      mlp=(int, 'hidden size of the MLP'),
      max_len=(int, 'longest sequence, prompt and response together'),
      rope_theta=(float, 'base of the rotary frequencies'),
      rms_eps=(float, 'epsilon of RMSNorm'),
      tied=(bool, 'the embedding is also the output matrix'),
      scalar=(bool, 'a score instead of logits: a reward model or a critic'),
      qkv_bias=(bool, 'biases of queries, keys and values (Qwen2)'),
      qk_norm=(bool, 'norms of queries and keys (Qwen3, Gemma 3)'),
      activation=(str, 'activation of the MLP; gelu: its tanh form'),
      norm_offset=(float, 'norms multiply by this + scale; 1: Gemma'),
      post_norms=(bool, 'norms after attention and MLP, too (Gemma)'),
      embed_scale=(bool, 'embeddings times sqrt(width) (Gemma)'),
      attention_scale=(
          float, 'scale of attention logits; unset: head_size ** -0.5'),
      softcap_attention=(float, 'soft cap of attention logits (Gemma 2)'),
      softcap_final=(float, 'soft cap of output logits (Gemma 2)'),
      window=(int, 'tokens that a query of a local layer sees'),
      global_every=(
          int, 'with a window: every n-th layer attends globally'),
      local_layers=(
          tuple, 'for each layer, whether it attends only within the window; '
          'instead of global_every'),
      rope_theta_local=(float, 'base of the rotary frequencies of local layers '
                        '(Gemma 3)'),
      attention_chunk=(int, 'queries computed at once, to save memory; unset: '
                       'all'),
      attention_kernel=(str, 'kernel of attention to whole rows; XLA where it '
                        'does not apply; unset: splash on TPUs, cuDNN on GPUs, '
                        'XLA elsewhere'),
      dtype=(str, 'dtype of computation'),
      param_dtype=(str, 'dtype of the parameters'),
      remat=(str, 'what the backward pass recomputes: nothing, everything, or '
             'everything but matrix products'),
      scan_layers=(bool, 'one compiled program for all layers: compiles '
                   'faster, runs slower on CPUs'),
  )
  return section({
      name: optional(kind, meaning, fields.MODEL.get(name, ''))
      for name, (kind, meaning) in known.items() if name in values}, values)


def mini_model(**changes: Any) -> ConfigDict:
  """A Llama of 1.0 million parameters."""
  return model(**dict(
      vocab=1024, width=128, layers=4, heads=4, kv_heads=2, head_size=32,
      mlp=448, max_len=256, dtype='float32', param_dtype='float32',
      remat='none', scan_layers=False) | changes)


def student_model(**changes: Any) -> ConfigDict:
  """A Qwen3 of 0.3 million parameters: smaller, and another architecture."""
  return model(**dict(
      vocab=1024, width=64, layers=4, heads=4, kv_heads=1, head_size=32,
      mlp=192, qk_norm=True, rope_theta=1e6, max_len=256, dtype='float32',
      param_dtype='float32', remat='none', scan_layers=False) | changes)


def released_model(**changes: Any) -> ConfigDict:
  """A model of the shape of the one in `init_from`."""
  return model(**dict(dtype='float32', param_dtype='float32', remat='full',
                      attention_chunk=None) | changes)


def vocab(**values: Any) -> ConfigDict:
  """The vocabulary: by default the model's own."""
  return section(dict(
      kind=field(
          'model', ('sentencepiece', 'huggingface', 'gguf', 'model'),
          "format of path; model: init_from's own vocabulary, without a path"),
      path=optional(str, 'file or folder; not with kind model', value=''),
      eos=optional(
          str, "token that ends a sequence; unset: the vocabulary's own")),
                 values)


def mini_vocab() -> ConfigDict:
  """The SentencePiece model that ships with the package."""
  return vocab(kind='sentencepiece', path='mini')


def lora() -> ConfigDict:
  """LoRA (arXiv 2106.09685); the base is frozen, and is the reference."""
  return ConfigDict(dict(
      rank=field(0, '>= 0', 'rank r of the factors; 0: no LoRA, all parameters '
                 'are trained'),
      alpha=field(32.0, '> 0', 'the update is scaled by alpha / rank'),
      targets=field(('*',), '', 'patterns of the projections that get factors: '
                    'attention/*, mlp/down')))


def optim(**values: Any) -> ConfigDict:
  """AdamW (arXiv 1711.05101) under a schedule."""
  return section(dict(
      # By less, no float32 weight of a usual size changes.
      lr=field(1e-4, '>= 1e-10', 'peak learning rate'),
      schedule=field('constant', ('constant', 'cosine'), 'learning rate after '
                     'the warm-up'),
      warmup_steps=field(
          0, '>= 0', 'updates in which the learning rate rises to lr'),
      final_fraction=field(
          0.1, '>= 0, <= 1', 'a cosine ends at this share of lr'),
      b1=field(0.9, '>= 0, < 1', 'decay of the first moment, beta_1'),
      b2=field(0.95, '>= 0, < 1', 'decay of the second moment, beta_2'),
      eps=field(1e-8, '> 0, <= 1', 'added to the root of the second moment'),
      weight_decay=field(
          0.0, '>= 0', 'weight decay of matrices; norms and biases have none'),
      clip_norm=field(
          1.0, '0 or >= 1e-6', 'norm at which gradients are clipped; 0: never'),
      master_weights=field(
          False, '', 'keep float32 copies of bfloat16 parameters in the '
          "optimizer's state, where small updates are not rounded away"),
      first_moment=field(
          'float32', ('float32', 'bfloat16'), 'how the first moment is stored; '
          'bfloat16 needs b1 <= 0.96875'),
      second_moment=field(
          'float32', ('float32', 'bfloat16', 'factored'), 'how the second '
          'moment is stored; bfloat16 needs b2 <= 0.96875, factored is '
          "Adafactor's (arXiv 1804.04235), rows and columns of matrices"),
      offload=field(
          False, '', "keep the optimizer's state in host memory; one layer of "
          'it at a time is moved to the devices and updated'),
      # DeepSeek-V3, arXiv 2412.19437, sec. 4.2: 0.001, and 0 for the last 500
      # of 14.8 T tokens.
      router_bias_rate=field(
          0.001, '>= 0, <= 1', "step of the experts' load balancing, gamma of "
          "DeepSeek-V3; unused without experts"),
  ), values)


def checkpoint(kind: str) -> ConfigDict:
  """When state is saved: more often where a step samples, which is slow."""
  every = {'lm': 50, 'preference': 50, 'evaluate': 1}.get(kind, 10)
  return ConfigDict(dict(
      every_steps=field(every, '>= 1', 'steps between two checkpoints'),
      keep=field(2, '>= 1', 'number of latest checkpoints that are kept')))


def log(kind: str) -> ConfigDict:
  """What is logged of a run."""
  made = ConfigDict(dict(
      tensorboard=field(
          True, '', 'write TensorBoard events in addition to metrics.jsonl')))
  if kind == 'rl':
    made.rollouts_every_steps = field(
        1, '>= 0', 'steps between logged rollouts; 0: never')
  return made


def evaluation(kind: str) -> ConfigDict:
  """Evaluation on held-out data."""
  made = dict(split=optional(
      str, 'held-out split, or a part of one: train[:64]'
      + ('; unset: no evaluation' if kind == 'lm' else ''),
      value='heldout'))
  if kind != 'evaluate':  # there every test sets its own number of problems
    made |= dict(
        problems=field(512, '>= 1', 'held-out prompts or texts, at most'),
        every_steps=field(
            0, '>= 0', 'steps between evaluations, in addition to those before '
            'the first step and after the last; 0: only those'))
  if kind != 'lm':
    made['shown'] = field(6, '>= 0', 'responses that the report shows')
  if kind in ('rl', 'evaluate'):
    made |= dict(
        batch=field(
            128, '>= 1', 'prompts per batch (in `tests`: responses)'),
        samples=field(
            1, '>= 1', 'responses per prompt, k; pass@1 is their mean'),
        temperature=field(
            1.0, OR_GREEDY, 'temperature of the evaluation; 0: greedy'),
        **truncation())
  return ConfigDict(made)


def truncation() -> dict[str, fields.Field]:
  """Truncated sampling, of evaluations and stages that only sample."""
  return dict(
      top_k=field(0, '>= 0', 'sample among the k most likely tokens; 0: all'),
      top_p=field(1.0, '> 0, <= 1', 'sample among the most likely tokens of '
                  'this total probability; 1: all'))
