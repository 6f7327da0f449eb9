"""Sections of stages that make data sets: what is kept, searched and labelled.

As in sections.py, one function per section, which takes other values for its
fields by name.
"""

from typing import Any

from experiments import common
from r1jax import fields
from r1jax.rewards import cutting

ConfigDict, section = common.ConfigDict, common.section
field, optional = fields.field, fields.optional


def keep(**values: Any) -> ConfigDict:
  """What rejection sampling keeps; see rewards/filters.py."""
  return section(dict(
      min_accuracy=field(1.0, '>= 0, <= 1', 'lowest accuracy that is kept'),
      format=field(True, '', 'keep only responses that follow rewards.form'),
      max_repetition=optional(float, 'largest share of repeated 4-grams; '
                              'unset: any', '>= 0, <= 1', 0.5),
      max_paragraph=optional(
          int, 'longest paragraph, in characters; unset: any', '>= 1'),
      code=field(False, '', 'keep responses with code blocks, too'),
      reflection=field(False, '', 'keep only responses that reflect: "wait", '
                       '"let me check"'),
      per_prompt=optional(
          int, 'the most responses kept per prompt; unset: all', '>= 1'),
      shard_rows=field(10_000, '>= 1', 'lines of each kept-*.jsonl')), values)


def search(**values: Any) -> ConfigDict:
  """Tree search over the steps of a response; see r1jax/stages/search.py."""
  return section(dict(
      init_from=optional(str, 'the value model, a workdir of a preference '
                         'stage (loss stepwise); unset: the policy alone '
                         'guides the search'),
      simulations=field(32, '>= 0', 'steps that a search adds to a tree; 0: '
                        'plain samples, no tree'),
      width=field(4, '>= 1', 'children of a node: samples of the next step'),
      ends=field(('\n',), '', 'a step ends with a token that contains one of '
                 'these texts'),
      step_tokens=field(64, '>= 1', 'longest step, in tokens'),
      # MuZero, arXiv 1911.08265, appendix B.
      exploration=field(1.25, '>= 0', "c of PUCT, weight of the prior's term"),
      least_visits=field(4, '>= 1', 'a search takes its most visited step, and '
                         'the ones after it with at least this many visits')),
                 values)


def labels(value: bool) -> fields.Field:
  """Instead of `keep`, in a stage that grades responses."""
  return field(value, '', 'whether grades are absolute labels (for a '
               'point-wise model): prompts of equal grades are kept')


def labelling(**values: Any) -> ConfigDict:
  """How a step_labels stage labels steps (Math-Shepherd, arXiv 2312.08935)."""
  return section(dict(
      cut=field('lines', cutting.CUTS, 'what ends a step'),
      completions=field(
          8, '>= 1', 'completions per step, N of Math-Shepherd'),
      batch=field(64, '>= 1', 'steps per batch')), values)
