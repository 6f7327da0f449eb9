"""TFDS data sets that are on disk, as records of prompts."""

from collections.abc import Callable, Sequence
import pickle

import gin
import numpy as np
import seqio
import tensorflow as tf
import tensorflow_datasets as tfds

from r1jax import errors
from r1jax.data import sources
from r1jax.data import splits

_CALL = 1024  # strings that one call into Python handles
_Tfds = gin.external_configurable(seqio.TfdsDataSource, module='seqio')


def prompt_source(name: str, split: str, *, data_dir: str | None = None,
                  prompt: str = 'question', answer: str = 'answer',
                  task: str | None = None, verifier: str = 'math'
                  ) -> tuple[seqio.DataSource, Sequence[Callable]]:
  """A TFDS data set that is on disk; the options name its features."""
  errors.check_choice('data.options.verifier', verifier, sources.VERIFIERS)
  absent = errors.ConfigError(
      'data.options.data_dir', f'no prepared TFDS data set {name!r} under '
      f'{data_dir!r}; with a network, run: tfds build {name} --data_dir=DIR')
  try:
    builder = tfds.builder(name, data_dir=data_dir)
  except tfds.core.DatasetNotFoundError as e:
    raise absent from e
  except (AssertionError, ValueError) as e:  # a wrong version or config
    raise errors.ConfigError('data.task', str(e)) from e
  if not builder.is_prepared():
    raise absent
  info = builder.info
  errors.check_choice(splits.FIELD, split.split('[')[0], [*info.splits, 'all'])
  try:
    info.splits[split]
  except (KeyError, ValueError) as e:
    raise errors.ConfigError(splits.FIELD, str(e)) from e
  errors.check_choice('data.options.prompt', prompt, info.features)
  errors.check_choice('data.options.answer', answer, info.features)

  def pickled(question, reference):
    return pickle.dumps(sources.record(
        question.decode(), reference.decode(), task or builder.name, verifier))

  def records(dataset):
    dataset = dataset.map(lambda x: {'inputs': x[prompt], 'answer': x[answer]})
    return add_text(dataset, 'record', pickled, ['inputs', 'answer'])

  return _Tfds(builder.get_reference().tfds_name(), data_dir,
               splits={split: split}, read_only=True), [records]


def add_text(dataset: tf.data.Dataset, feature: str,
             function: Callable[..., str | bytes], inputs: Sequence[str]
             ) -> tf.data.Dataset:
  """Sets `feature` to a Python function of the byte strings in `inputs`."""
  def call(*columns):
    return np.array([function(*row) for row in zip(*columns)], object)

  def step(x):
    text = tf.numpy_function(
        call, [x[name] for name in inputs], tf.string, stateful=False)
    return {**x, feature: tf.ensure_shape(text, [None])}

  return dataset.batch(_CALL).map(step).unbatch()
