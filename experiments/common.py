"""What every stage has: its model, machine, optimizer, saves, evaluation.

A field is declared once, here or in sections.py: its default, what it may be,
what it means; `python -m r1jax.main --config=FILE:ARG --help` prints them.
`base` gives each kind of stage the sections that it reads and no others. An
experiment is a file with `get_config(arg)`; `variant` picks among its functions
by that argument. Zero means "never" for every `_steps` of a repetition.
"""

from collections.abc import Callable, Mapping, Sequence
import os
from typing import Any

import ml_collections

from r1jax import errors
from r1jax import fields

ConfigDict = ml_collections.ConfigDict
field, optional = fields.field, fields.optional

SEED = f'>= 0, < {2**32}'
_FLOATS = ('float32', 'bfloat16')


###############################################################################
# Experiments, stages, pipelines
###############################################################################


def variant(file: str, arg: str, variants: dict[str, Callable[[], ConfigDict]]
           ) -> ConfigDict:
  """The locked config of `variants[arg]`, named after its `file` and `arg`."""
  if arg not in variants:
    raise errors.ConfigError(
        '', f'--config=...:{arg}: no such variant'
        + errors.nearest(arg, variants, ':'))
  config = variants[arg]()
  name = f'{os.path.basename(file)}:{arg}'
  config.name = name
  for key, stage in config.get('stages', {}).items():
    stage.name = f'{name}, {key}'
  return config.lock()


def base(kind: str, **changes: Any) -> ConfigDict:
  """A stage of a kind, with the fields that every stage of it has.

  Args:
    kind: lm | preference | rl | sample | collect | measure | bench.
    **changes: values of fields; of a section that it has, a dict of its
      fields; and the sections that it is given (GIVEN), of sections.py.
  """
  made = _run(kind) | dict(
      seed=field(0, SEED, 'seed of all that is drawn at random'), mesh=mesh())
  if kind != 'collect':
    made |= dict(
        init_from=optional(
            str, 'the model to begin with: mini, mini_helper, mini_student, '
            'smollm2, an .npz or .gguf file, a Hugging Face folder, or the '
            'workdir of a stage'),
        rules=field(RULES, '', 'logical axis to mesh axis, by which parameters '
                    'and batches are split'))
  if kind in ('lm', 'preference', 'rl'):
    made |= dict(
        steps=optional(int, 'steps in all', '>= 0'), lora=lora(), optim=optim(),
        checkpoint=checkpoint(kind), log=log(kind), eval=evaluation(kind))
    made['optim'].max_skipped_steps = field(
        5, '>= 1', 'updates in a row that are not finite and end the run')
  if kind in ('lm', 'preference'):
    made['epochs'] = optional(
        float, 'passes over the data, where config.steps is unset', '> 0')
  if kind == 'sample':
    made |= dict(checkpoint=checkpoint(kind), log=log(kind))
  if kind == 'measure':
    made['eval'] = evaluation(kind)
  if kind == 'bench':
    made['optim'] = optim()
  return _set(ConfigDict(made), changes, GIVEN[kind])


def _run(kind: str) -> dict[str, fields.Field]:
  """What every run has, of a stage or a pipeline."""
  return dict(
      name=field('', '', 'file and variant of the experiment'),
      stage=field(kind, '', 'kind of stage'),
      distributed=field(False, '', 'True on a pod whose hosts cannot tell by '
                        'themselves that they are several'))


GIVEN = {  # the sections that an experiment gives a stage, by its kind
    'lm': ('model', 'vocab', 'data', 'lm', 'distill'),
    'preference': ('model', 'vocab', 'data', 'preference'),
    'rl': ('model', 'vocab', 'data', 'rl', 'rewards', 'critic'),
    'sample': ('model', 'vocab', 'data', 'rl', 'rewards', 'keep', 'labels'),
    'measure': ('model', 'vocab', 'rl', 'rewards', 'tests'),
    'collect': ('collect',),
    'bench': ('model', 'rl', 'bench'),
}


def pipeline(report: str | None, stages: dict[str, ConfigDict],
             models: Sequence[str] = ()) -> ConfigDict:
  """Stages that begin from each other: '{sft}' is the workdir of that one.

  And '{base}' one of the `models`, which the user is to name.
  """
  return ConfigDict(_run('pipeline') | dict(
      report=optional(str, 'written when all stages have ended: comparison, r1 '
                      'or rlhf', value=report),
      seed=optional(int, 'seed of all stages; unset: each has its own', SEED),
      only=optional(str, 'run this stage alone'),
      until=optional(str, 'run this stage, after all that it needs'),
      dry_run=field(
          False, '', 'only say what would be run, and what is missing'),
      models={model: optional(str, 'a model that several stages begin with; '
                              'as their init_from') for model in models},
      # That it is distributed is the pipeline's to say.
      stages={key: {
          name: value for name, value in stage.items(
              preserve_field_references=True) if name != 'distributed'}
              for key, stage in stages.items()},
  ))


def section(declared: Mapping[str, Any], changes: Mapping[str, Any]
           ) -> ConfigDict:
  """The section of the `declared` fields, with other values where given."""
  return _set(ConfigDict(declared), changes)


def _set(config: ConfigDict, changes: Mapping[str, Any],
         new: Sequence[str] = ()) -> ConfigDict:
  """Sets fields that `config` has, or that are `new`, and refuses others."""
  for name, value in changes.items():
    if name not in config and name not in new:
      raise errors.ConfigError(
          name, 'no such field' + errors.nearest(name, [*config, *new]))
    if isinstance(value, dict) and name in config:
      # A section without fields takes any: they belong to who reads them.
      _set(config[name], value, () if len(config[name]) else tuple(value))
    else:
      config[name] = value
  return config


# Logical axis → mesh axis. Weights are split over `fsdp` along the width, over
# `tensor` along heads, feed-forward and vocabulary, and experts over `expert`.
RULES = (
    ('batch', ('data', 'fsdp')),
    ('length', None),
    ('activation', None),
    ('table', None),  # of the embedding: its gather wants whole rows
    ('layers', None),
    ('embed', 'fsdp'),
    ('vocab', 'tensor'),
    ('heads', 'tensor'),
    ('kv_heads', 'tensor'),
    ('head_size', None),
    ('mlp', 'tensor'),
    ('expert', 'expert'),
    ('router', None),
    ('norm', None),
    ('rank', None),  # of LoRA's factors, and of latents where they are made
    ('latent', 'fsdp'),  # where they are used
)


###############################################################################
# Models and machines
###############################################################################


def model(**values: Any) -> ConfigDict:
  """A decoder: all fields, or those that differ from where it comes from.

  That is a preset, or the model in config.init_from. The section has the
  fields that are given and no others.
  """
  known = dict(
      preset=optional(
          str, 'a published shape: smollm2_135m, qwen2.5_32b, deepseek_v3'),
      vocab=optional(int, 'size of the vocabulary', '>= 2'),
      width=optional(int, 'size of the hidden state', '>= 1'),
      layers=optional(int, 'decoder layers', '>= 1'),
      heads=optional(int, 'query heads', '>= 1'),
      kv_heads=optional(int, 'key and value heads (fewer than heads: '
                        'grouped-query attention)', '>= 1'),
      head_size=optional(
          int, 'size of a head; even, for rotary embeddings', '>= 2'),
      mlp=optional(int, 'hidden size of the MLP', '>= 1'),
      max_len=optional(
          int, 'longest sequence, prompt and response together', '>= 2'),
      rope_theta=optional(float, 'base of the rotary frequencies', '> 0'),
      rms_eps=optional(float, 'epsilon of RMSNorm', '> 0'),
      tied=optional(bool, 'the embedding is the output matrix, too'),
      scalar=optional(
          bool, 'a score in place of logits: a reward model or a critic'),
      qkv_bias=optional(bool, 'biases of queries, keys and values (Qwen2)'),
      qk_norm=optional(bool, 'norms of queries and keys (Qwen3, Gemma 3)'),
      activation=optional(str, 'activation of the MLP', ('silu', 'gelu')),
      norm_offset=optional(float, 'norms multiply by it + scale; 1: Gemma'),
      post_norms=optional(bool, 'norms after attention and MLP, too (Gemma)'),
      embed_scale=optional(bool, 'embeddings times sqrt(width) (Gemma)'),
      attention_scale=optional(
          float, 'scale of attention logits; unset: head_size ** -0.5', '> 0'),
      softcap_attention=optional(
          float, 'soft cap of attention logits (Gemma 2)', '> 0'),
      softcap_final=optional(
          float, 'soft cap of output logits (Gemma 2)', '> 0'),
      window=optional(
          int, 'local attention sees this many tokens back', '>= 1'),
      global_every=optional(
          int, 'with a window, every so many-th layer is global', '>= 1'),
      rope_theta_local=optional(float, 'base of the rotary frequencies of '
                                'local layers (Gemma 3)', '> 0'),
      attention_chunk=optional(
          int, 'queries at a time, to save memory; unset: all at once', '>= 1'),
      dtype=optional(str, 'dtype of computation', _FLOATS),
      param_dtype=optional(str, 'dtype of the parameters', _FLOATS),
      remat=optional(
          str, 'what the backward pass recomputes: nothing, everything, or '
          'everything but matrix products', ('none', 'full', 'dots')),
      scan_layers=optional(bool, 'one compiled program for all layers: '
                           'compiles sooner, runs slower on CPUs'),
  )
  return section({name: declared for name, declared in known.items()
                  if name in values}, values)


def mini_model(**changes: Any) -> ConfigDict:
  """A Llama of 1.0 million parameters."""
  return model(**dict(
      vocab=1024, width=128, layers=4, heads=4, kv_heads=2, head_size=32,
      mlp=448, max_len=256, dtype='float32', param_dtype='float32',
      remat='none', scan_layers=False) | changes)


def student_model(**changes: Any) -> ConfigDict:
  """A Qwen3 of 0.3 million parameters: another architecture, a quarter."""
  return model(**dict(
      vocab=1024, width=64, layers=4, heads=4, kv_heads=1, head_size=32,
      mlp=192, qk_norm=True, rope_theta=1e6, max_len=256, dtype='float32',
      param_dtype='float32', remat='none', scan_layers=False) | changes)


def released_model(**changes: Any) -> ConfigDict:
  """The shape is that of the model in `init_from`."""
  return model(**dict(dtype='float32', param_dtype='float32', remat='full',
                      attention_chunk=None) | changes)


def vocab(**values: Any) -> ConfigDict:
  """What turns texts into tokens: by default the model's own."""
  return section(dict(
      kind=field(
          'model', ('sentencepiece', 'huggingface', 'gguf', 'model'),
          'what path is; model: the vocabulary of init_from'),
      path=optional(str, 'file or folder; with kind model none', value=''),
      eos=optional(
          str, "token that ends a sequence; unset: the vocabulary's own")),
                 values)


def mini_vocab() -> ConfigDict:
  """The SentencePiece model that is shipped."""
  return vocab(kind='sentencepiece', path='mini')


def mesh() -> ConfigDict:
  """How many devices along each axis; the product is all devices."""
  rest = '; -1: the rest'
  return ConfigDict(dict(
      data=field(1, '', f'copies of all weights, each with its data{rest}'),
      fsdp=field(-1, '', 'parts of weights and data, weights gathered where '
                 f'they are used{rest}'),
      expert=field(1, '', f'parts of the experts{rest}'),
      tensor=field(1, '', f'parts of heads, MLP and vocabulary{rest}'),
      context=field(1, '', f'parts of a sequence, by rules of your own{rest}')))


def lora() -> ConfigDict:
  """LoRA (arXiv 2106.09685); the base stays as it is, and is the reference."""
  return ConfigDict(dict(
      rank=field(0, '>= 0', 'rank r of the factors; 0: no LoRA, all parameters '
                 'are trained'),
      alpha=field(32.0, '', 'the update is scaled by alpha / rank'),
      targets=field(('*',), '', 'projections that get factors, as patterns: '
                    'attention/*, mlp/down')))


def optim(**values: Any) -> ConfigDict:
  """AdamW (arXiv 1711.05101) under a schedule."""
  return section(dict(
      lr=field(1e-4, '>= 0', 'learning rate, at its peak'),
      schedule=field('constant', ('constant', 'cosine'), 'learning rate after '
                     'the warm-up'),
      warmup_steps=field(
          0, '>= 0', 'updates in which the learning rate rises to lr'),
      final_fraction=field(0.1, '>= 0', 'share of lr that a cosine ends at'),
      b1=field(0.9, '>= 0, < 1', 'decay of the first moment, beta_1'),
      b2=field(0.95, '>= 0, < 1', 'decay of the second moment, beta_2'),
      eps=field(1e-8, '> 0', 'added to the root of the second moment'),
      weight_decay=field(
          0.0, '>= 0', 'weight decay of matrices; norms and biases have none'),
      clip_norm=field(
          1.0, '>= 0', 'norm at which gradients are clipped; 0: never'),
      # DeepSeek-V3, arXiv 2412.19437, sec. 4.2: 0.001, and 0 for the last 500
      # of 14.8 T tokens.
      router_bias_rate=field(
          0.001, '>= 0', "step of the experts' load balancing, gamma of "
          "DeepSeek-V3; without experts unused"),
  ), values)


def checkpoint(kind: str) -> ConfigDict:
  """What is saved of a run; of a step that samples, which is long, more."""
  return ConfigDict(dict(
      every_steps=field(10 if kind in ('rl', 'sample') else 50, '>= 1',
                        'steps between two checkpoints'),
      keep=field(2, '>= 1', 'checkpoints that are kept, the latest ones')))


def log(kind: str) -> ConfigDict:
  """What is written down of a run."""
  made = ConfigDict(dict(
      tensorboard=field(
          True, '', 'write TensorBoard events beside metrics.jsonl')))
  if kind == 'rl':
    made.rollouts_every_steps = field(
        1, '>= 0', 'steps between two whose responses are kept; 0: none')
  return made


def evaluation(kind: str) -> ConfigDict:
  """What is measured on held-out data, before and after."""
  made = dict(split=optional(
      str, 'held out; a name of the data, or part of one: train[:64]'
      + ('; unset: nothing is measured' if kind == 'lm' else ''),
      value='heldout'))
  if kind != 'measure':  # where every test has its own number
    made |= dict(
        problems=field(512, '>= 1', 'prompts, or texts, that are measured'),
        every_steps=field(
            0, '>= 0', 'steps between two evaluations, besides those before '
            'the first and after the last; 0: only those'))
  if kind != 'lm':
    made['shown'] = field(6, '>= 0', 'responses that the report shows')
  if kind in ('rl', 'measure'):
    made |= dict(
        batch=field(128, '>= 1', 'prompts at a time'),
        samples=field(1, '>= 1', 'responses a prompt, k; pass@1 is their mean'),
        temperature=field(
            1.0, '>= 0', 'sampling temperature of the evaluation; 0: greedy'),
        **truncation())
  return ConfigDict(made)


def truncation() -> dict[str, fields.Field]:
  """Which tokens are sampled at all, where nothing is trained on them."""
  return dict(
      top_k=field(0, '>= 0', 'sample among so many likeliest tokens; 0: all'),
      top_p=field(1.0, '> 0, <= 1', 'sample among the likeliest tokens of this '
                  'total probability; 1: all'))
