"""Sections of the machine that a run has: its mesh, what lies where, a plan."""

import ml_collections

from r1jax import fields

ConfigDict = ml_collections.ConfigDict
field, optional = fields.field, fields.optional

# Logical axis → mesh axis. Weights are split over `fsdp` along the width, over
# `tensor` along heads, feed-forward and vocabulary, and experts over `expert`.
RULES = (
    ('batch', ('data', 'fsdp', 'expert')),
    ('length', 'context'),
    ('activation', None),
    ('table', 'fsdp'),  # the width of embedding and output
    ('layers', None),
    ('embed', 'fsdp'),
    ('vocab', 'tensor'),
    ('heads', 'tensor'),
    ('kv_heads', 'tensor'),
    ('head_size', None),
    ('mlp', 'tensor'),
    ('expert', 'expert'),
    ('expert_embed', 'fsdp'),  # the width of experts
    ('router', None),
    ('norm', None),
    ('rank', None),  # of LoRA's factors; of latents as outputs (mla.py)
    ('latent', 'fsdp'),  # of latents as inputs
)


def placement(kind: str) -> dict[str, fields.Field]:
  """Where a stage of some kind has its arrays, and how long it waits."""
  made = dict(rules=field(
      RULES, '', 'how parameters and batches are sharded: logical axis to mesh '
      'axis'))
  if kind in ('rl', 'sample', 'search', 'step_labels', 'evaluate'):
    made['sampling_rules'] = field(
        (), '', 'overrides of `rules` while sampling; '
        "(('embed', None), ('table', None)) replicates weights over fsdp "
        'instead of gathering them for every token; the batch may be split '
        'over more axes, and experts over others')
  if kind != 'bench':
    made['hang_seconds'] = field(
        3600.0, '0 or >= 1', 'several processes: the run ends, to be '
        'restarted, when a step (after the first) takes longer than this and '
        'than three times the longest before it; 0: never')
  return made


def mesh() -> ConfigDict:
  """Devices along each axis; the product is all devices."""
  rest = '; -1: the rest'
  return ConfigDict(dict(
      data=field(1, '', f'data-parallel replicas{rest}'),
      fsdp=field(-1, '', f'FSDP shards of weights and batch{rest}'),
      expert=field(1, '', f'expert parallelism{rest}'),
      tensor=field(
          1, '', f'tensor parallelism: heads, MLP and vocabulary{rest}'),
      context=field(1, '', 'parts of a sequence, in scoring and updates'
                    f'{rest}')))


def plan() -> ConfigDict:
  """A plan instead of a run: see r1jax/plan."""
  return ConfigDict(dict(
      topology=optional(str, 'compile for this machine, print what fits and '
                        'what it costs, and run nothing: v5p:4x4x8, v6e-256, '
                        'h100:64'),
      sweep=optional(bool, 'also plan other meshes, slots, micro-batches and '
                     'remat, and rank those that fit; unset: no'),
      mean_response_tokens=optional(
          int, 'expected mean tokens of a response; lengths are log-normal '
          '(sigma 1); unset: all have rl.response_tokens', '>= 1'),
      price=optional(float, 'dollars per chip-hour; unset: its list price',
                     '> 0')))
