"""config.json of a stage that another begins from: what it says of its model.

It may be edited or of another hand, and is checked as any other file is.
"""

from collections.abc import Mapping
from typing import Any

from r1jax import errors
from r1jax.data import vocabs
from r1jax.models import architecture

_KINDS = ('model', *vocabs.KINDS)


def check(fields: Mapping[str, Any], field: str, where: str) -> None:
  """Checks the types of model, init_from, vocab and lora.

  Args:
    fields: of the file.
    field: that names the workdir.
    where: its path.

  Raises:
    ConfigError: of `field`; names the file and what is not as expected.
  """
  def need(name, wanted, value, fits):
    if not fits:
      raise errors.expected(field, f'{name} to be {wanted}', value)

  def text(name, value):
    need(name, 'a text', value, value is None or isinstance(value, str))

  def section(name):
    value = fields.get(name)
    need(name, 'a section', value, isinstance(value, Mapping) or (
        value is None and name != 'model'))
    return value or {}

  with errors.at(where):
    text('model.preset', section('model').get('preset'))
    text('init_from', fields.get('init_from'))
    vocab = section('vocab')
    for name in ('path', 'eos'):
      text(f'vocab.{name}', vocab.get(name))
    if vocab:
      kind = vocab.get('kind')
      need('vocab.kind', 'one of ' + ', '.join(_KINDS), kind,
           isinstance(kind, str) and kind in _KINDS)
      need('init_from', "a model, for vocab.kind = 'model'",
           fields.get('init_from'), kind != 'model' or fields.get('init_from'))
    _check_lora(section('lora'), need)


def _check_lora(lora: Mapping[str, Any], need: Any) -> None:
  if not lora:
    return
  rank, targets = lora.get('rank'), lora.get('targets')
  wanted = architecture.misfit_plain(rank, int, '>= 0')
  need('lora.rank', wanted, rank, not wanted)
  if rank:
    alpha = lora.get('alpha')
    wanted = architecture.misfit_plain(alpha, float)
    need('lora.alpha', wanted, alpha, not wanted)
    need('lora.targets', 'a list of texts', targets, isinstance(
        targets, (list, tuple)) and all(isinstance(x, str) for x in targets))
