"""TFDS data sets and mixtures, read by seqio.

Only this module and tfds_source.py import TensorFlow and seqio, and only where
a data set of TFDS or a mixture is read, since that takes seconds and most of a
gigabyte. What another source (sources.py) gives, and each data set of TFDS, is
a Task of seqio's registry, a list of (task, rate) a Mixture; its feature 'row'
is a row, pickled. Gin can configure `seqio.TfdsDataSource`.
"""

from collections.abc import Callable, Iterator, Sequence
import pickle
import re
from typing import Any, NamedTuple

import seqio
import tensorflow as tf

from r1jax.data import sources
from r1jax.data import tfds_source

tf.config.set_visible_devices([], 'GPU')  # GPUs are left to JAX

_FEATURE = seqio.Feature(
    seqio.PassThroughVocabulary(0), False, dtype=tf.string, rank=0)


class Part(NamedTuple):
  """A task of a mixture."""
  name: str
  rate: float
  rows: Sequence[Any] | None  # None: a data set of TFDS
  options: dict[str, Any]  # of that


def read(parts: Sequence[Part], title: str, split: str, seed: int
        ) -> Iterator[Any]:
  """Yields the rows of a mixture, in an order that `seed` draws.

  Args:
    parts: its tasks.
    title: a word for what the rows are.
    split: of all of them.
    seed: of the order; a single task keeps its own.

  Raises:
    ConfigError: names the field of config.data that is wrong.
  """
  mixture = re.sub(r'\W', '_', f'r1jax_{title}_{split}')
  rates = []
  for number, part in enumerate(parts):
    # The position comes first: seqio mixes tasks in the order of their names.
    name = re.sub(r'[^\w.:]', '_', f'{mixture}:{number:03}:{part.name}')
    seqio.TaskRegistry.remove(name)
    source, steps = _source(part, split)
    seqio.TaskRegistry.add(
        name, source=source, preprocessors=steps,
        output_features={'row': _FEATURE})
    rates.append((name, part.rate))
  seqio.MixtureRegistry.remove(mixture)
  dataset = seqio.MixtureRegistry.add(mixture, rates).get_dataset(
      {'row': None}, split=split, shuffle=False, seed=seed, num_epochs=1,
      trim_output_features=False, passthrough_features=('problem',))
  for example in dataset.as_numpy_iterator():
    if example['problem']:
      raise pickle.loads(example['problem'])
    yield pickle.loads(example['row'])


def _source(part: Part, split: str
            ) -> tuple[seqio.DataSource, Sequence[Callable]]:
  """A task's source, and the steps that give it the features of a row."""
  if part.rows is None:
    sources.check_options(tfds_source.prompt_source, part.options)
    return tfds_source.prompt_source(
        part.name.partition(':')[2], split, **part.options)

  def dataset(split, shuffle_files, seed=None):
    del split, shuffle_files, seed
    return tf.data.Dataset.from_tensor_slices({
        'row': list(map(pickle.dumps, part.rows)),
        'problem': [b''] * len(part.rows)})

  return seqio.FunctionDataSource(dataset, splits=[split]), ()
