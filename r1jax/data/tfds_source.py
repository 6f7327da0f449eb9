"""TFDS data sets that are on disk, as records of prompts."""

from collections.abc import Callable, Mapping, Sequence
import os
import pickle
from typing import Any

import gin
import numpy as np
import seqio
import tensorflow as tf
import tensorflow_datasets as tfds

from r1jax import errors
from r1jax.data import columns
from r1jax.data import sources
from r1jax.data import splits

_CALL = 1024  # strings that one call into Python handles
_Tfds = gin.external_configurable(seqio.TfdsDataSource, module='seqio')


def prompt_source(name: str, split: str, *, data_dir: str | None = None,
                  prompt: str | None = None, answer: str | None = None,
                  extract: str | None = None, task: str | None = None,
                  verifier: str = 'math'
                  ) -> tuple[seqio.DataSource, Sequence[Callable]]:
  """A TFDS data set that is on disk; the options name its features."""
  errors.check_choice('data.options.verifier', verifier, sources.VERIFIERS)
  if not isinstance(task, str | None):
    raise errors.expected('data.options.task', 'a name', task)
  pair = columns.Pair(
      columns.Column(columns.question, ('question',), 'prompt', prompt),
      columns.Column(sources.answer_type(extract), ('answer',), 'answer',
                     answer))
  data_dir = data_dir and os.path.expanduser(data_dir)
  builder = _builder(name, split, data_dir)
  asked, said = (
      _feature(builder.info.features, column) for column in pair[:2])

  def pickled(number, *values):
    return pickle.dumps(record(
        pair, dict(zip((asked, said), values)),
        f'tfds:{name}/{split}[{number}]', task or builder.name, verifier))

  def rows(dataset):
    return _called(dataset.enumerate().map(
        lambda number, x: (number, x[asked], x[said])), pickled)

  return _Tfds(builder.get_reference().tfds_name(), data_dir,
               splits={split: split}, read_only=True), [rows]


def _builder(name: str, split: str, data_dir: str | None
             ) -> tfds.core.DatasetBuilder:
  """The builder of a data set that is on disk and has rows in `split`."""
  absent = errors.ConfigError(
      'data.options.data_dir', f'no prepared TFDS data set {name!r} under '
      f'{data_dir!r}; with a network, run: tfds build {name} --data_dir=DIR')
  try:
    builder = tfds.builder(name, data_dir=data_dir)
  except tfds.core.DatasetNotFoundError as e:
    raise absent from e
  except (AssertionError, ValueError) as e:  # a wrong version or config
    raise errors.ConfigError('data.task', ' '.join(str(e).split())) from e
  if not builder.is_prepared():
    raise absent
  known = builder.info.splits
  errors.check_choice(splits.FIELD, split.split('[')[0], [*known, 'all'])
  try:
    size = known[split].num_examples
  except (KeyError, ValueError) as e:
    raise errors.ConfigError(splits.FIELD, str(e)) from e
  if not size:
    raise errors.ConfigError(
        'data.task', f'tfds:{name} is empty, in split {split!r}')
  return builder


def record(pair: columns.Pair, example: Mapping[str, Any], place: str,
           task: str, verifier: str) -> sources.Record:
  """The record of an example, whose texts are bytes."""
  row = {name: value.decode(errors='surrogateescape')  # which is then refused
         if isinstance(value, bytes) else value
         for name, value in example.items()}
  made = sources.checked_record(pair, row, place, task, verifier)
  return {name: made[name] for name in made if name != 'row'}


def _feature(features: tfds.features.FeaturesDict, column: columns.Column
             ) -> str:
  """The name of a feature: of a text, or of an answer that is one number."""
  name = column.given or column.usual[0]
  field = f'data.options.{column.option}'
  errors.check_choice(field, name, features)
  shape, kind = features[name].shape, features[name].tf_dtype
  number = column.option == 'answer' and isinstance(kind, tf.DType) and (
      kind.is_integer or kind.is_floating)
  if shape != () or not (kind == tf.string or number):
    raise errors.expected(field, 'a feature that is a text',
                          f'{name}, {type(features[name]).__name__}')
  return name


def _called(dataset: tf.data.Dataset, function: Callable[..., bytes]
            ) -> tf.data.Dataset:
  """The feature 'row', what a Python function makes of each example's values.

  A ConfigError of the function becomes the feature 'problem', pickled and else
  b'', for the reader to raise: TensorFlow would make it an error of its own,
  and log a traceback.
  """
  def one(*values):
    try:
      return function(*values), b''
    except errors.ConfigError as e:
      return b'', pickle.dumps(e)

  def call(*values):
    return [np.array(column, object)
            for column in zip(*(one(*row) for row in zip(*values)))]

  def step(*values):
    found = tf.numpy_function(
        call, values, (tf.string, tf.string), stateful=False)
    row, problem = (tf.ensure_shape(column, [None]) for column in found)
    return {'row': row, 'problem': problem}

  return dataset.batch(_CALL).map(step).unbatch()
