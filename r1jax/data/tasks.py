"""Tasks of seqio: a source's prompts and documents, tokenised.

The only module that imports TensorFlow and seqio. A source (sources.py, or a
TFDS data set, 'tfds:NAME') becomes a Task of seqio.TaskRegistry, a list of
(task, rate) a Mixture of seqio.MixtureRegistry; they are read once, unshuffled,
into arrays: shuffling is batches.py's, a function of the step. Prompts have
the feature 'inputs', documents 'targets', which ends in EOS. Gin reaches
`tasks.mark_long`, `seqio.TfdsDataSource`, `seqio.SentencePieceVocabulary`.
"""

from collections.abc import Callable, Sequence
import functools
import pickle
import re
from typing import Any

import gin
import numpy as np
import seqio
import tensorflow as tf
import tensorflow_datasets as tfds

from r1jax import config as config_lib
from r1jax.data import batches
from r1jax.data import names
from r1jax.data import sources
from r1jax.data import templates
from r1jax.data import vocab as vocab_lib

tf.config.set_visible_devices([], 'GPU')  # they are jax's

_CALL = 1024  # strings that one call into Python handles
_Tasks = str | Sequence[tuple[str, float]]
_Step = Callable[[tf.data.Dataset], tf.data.Dataset]
_Source = tuple[seqio.DataSource, Sequence[_Step]]

_SentencePiece = gin.external_configurable(
    seqio.SentencePieceVocabulary, module='seqio')
_Tfds = gin.external_configurable(seqio.TfdsDataSource, module='seqio')


def prompt_set(
    task: _Tasks, vocab: vocab_lib.Vocab, prompt_tokens: int, *,
    split: str = 'train', template: str = 'r1_zero', seed: int = 0,
    num_prompts: int | None = None, options: dict[str, Any] | None = None,
) -> tuple[batches.PromptSet, dict[str, int]]:
  """Returns a task's prompts, and {'prompts': kept, 'too_long': left out}.

  Args:
    task: 'mini_reasoning', 'jsonl:PATH', 'tfds:NAME', 'reasoning_gym:NAME',
      or a list of (task, rate), drawn from by `seed` until one runs out.
    vocab: turns the prompts into tokens.
    prompt_tokens: P; a longer prompt is left out and counted, never cut.
    split: 'train', 'heldout', or a name that the source knows.
    template: a key of templates.TEMPLATES.
    seed: of sources that generate, and of the mixing.
    num_prompts: at most so many are taken, all if None.
    options: of the source; for a mixture, {'0': options, ...} by its place.

  Raises:
    ConfigError: names the field of config.data that is wrong.
  """
  names.check('config.data.template', template, templates.TEMPLATES)
  frame = functools.partial(
      _add_text, feature='inputs', inputs=['inputs'],
      function=lambda prompt: templates.apply(template, prompt.decode()))
  dataset = _dataset(
      task, 'inputs', vocab, split, seed, num_prompts, options or {}, [frame],
      passthrough=('record', 'long'), limit=prompt_tokens)
  tokens, records, too_long = [], [], 0
  for example in dataset.as_numpy_iterator():
    if len(records) == num_prompts:
      break
    if example['long']:
      too_long += 1
    else:
      tokens.append(example['inputs'])
      records.append(pickle.loads(example['record']))  # json loses tuples
  if not records:
    raise config_lib.ConfigError(
        f'config.rl.prompt_tokens: all {too_long} prompts of {task!r} have '
        f'more than {prompt_tokens} tokens')
  return (batches.prompt_set(tokens, records, prompt_tokens, vocab.pad_id),
          {'prompts': len(records), 'too_long': too_long})


def documents(
    task: _Tasks, vocab: vocab_lib.Vocab, *, split: str = 'train',
    seed: int = 0, num_documents: int | None = None,
    options: dict[str, Any] | None = None) -> list[np.ndarray]:
  """Returns the documents of a task, i32[n] each, ending in EOS.

  As prompt_set, with 'mini_corpus' and 'jsonl:PATH'.
  """
  dataset = _dataset(task, 'targets', vocab, split, seed, num_documents,
                     options or {})
  dataset = dataset.take(-1 if num_documents is None else num_documents)
  return [example['targets'] for example in dataset.as_numpy_iterator()]


def seqio_vocabulary(vocab: vocab_lib.Vocab) -> seqio.Vocabulary:
  """Returns seqio's form of a vocabulary, with the same ids."""
  if isinstance(vocab, vocab_lib.SentencePieceVocab):
    native = _SentencePiece(vocab.path)
    if native.eos_id == vocab.eos_id:
      return native
  return Vocabulary(vocab)


class Vocabulary(seqio.Vocabulary):
  """Any of our vocabularies as one of seqio's."""

  def __init__(self, vocab: vocab_lib.Vocab):
    super().__init__()
    self._vocab = vocab

  bos_id = property(lambda self: self._vocab.bos_id)
  eos_id = property(lambda self: self._vocab.eos_id)
  pad_id = property(lambda self: self._vocab.pad_id)
  unk_id = property(lambda self: None)
  _base_vocab_size = property(lambda self: self._vocab.size)
  _encode = property(lambda self: self._vocab.encode)
  _decode = property(lambda self: self._vocab.decode)

  def _encode_tf(self, s):
    def encode(text):  # bytes in a graph, an array of them outside
      text = np.asarray(text, object).item().decode()
      return np.array(self._vocab.encode(text), np.int32)
    return tf.ensure_shape(tf.numpy_function(encode, [s], tf.int32), [None])

  def _decode_tf(self, ids):
    decode = np.vectorize(self._vocab.decode, signature='(n)->()', otypes='O')
    return tf.numpy_function(decode, [ids], tf.string)


@gin.configurable(module='tasks')
def mark_long(dataset: tf.data.Dataset, sequence_length: dict[str, int],
              max_tokens: int | None = None) -> tf.data.Dataset:
  """Adds 'long', whether 'inputs' is; the reader drops those, and counts."""
  limit = min(sequence_length['inputs'], max_tokens or np.inf)
  return dataset.map(lambda x: {**x, 'long': tf.size(x['inputs']) > limit})


def _dataset(
    task: _Tasks, feature: str, vocab: vocab_lib.Vocab, split: str, seed: int,
    count: int | None, options: dict[str, Any], frame: Sequence[_Step] = (),
    passthrough: Sequence[str] = (), limit: int | None = None,
) -> tf.data.Dataset:
  """Registers the tasks and their mixture, and reads it once, in order."""
  features = {feature: seqio.Feature(
      seqio_vocabulary(vocab), add_eos=feature == 'targets', dtype=tf.int32)}
  tokenize = functools.partial(
      seqio.preprocessors.tokenize, copy_pretokenized=False)
  last = [mark_long if feature == 'inputs' else seqio.preprocessors.append_eos]
  if vocab.bos_id is not None:
    last.insert(0, lambda d: d.map(
        lambda x: {**x, feature: tf.concat([[vocab.bos_id], x[feature]], 0)}))
  mixture = re.sub(r'\W', '_', f'r1jax_{feature}_{split}')
  rates = []
  for i, (name, rate, settings) in enumerate(sources.parts(task, options)):
    source, steps = _source(name, feature, split, count, settings)
    # The place comes first: seqio mixes tasks in the order of their names.
    title = re.sub(r'[^\w.:]', '_', f'{mixture}:{i:03}:{name}')
    seqio.TaskRegistry.remove(title)
    seqio.TaskRegistry.add(
        title, source=source, output_features=features,
        preprocessors=[*steps, *frame, tokenize, *last])
    rates.append((title, rate))
  seqio.MixtureRegistry.remove(mixture)
  return seqio.MixtureRegistry.add(mixture, rates).get_dataset(
      {feature: limit}, split=split, shuffle=False, seed=seed, num_epochs=1,
      trim_output_features=False, passthrough_features=passthrough)


def _source(name: str, feature: str, split: str, count: int | None,
            options: dict[str, Any]) -> _Source:
  """Returns seqio's source of a task, and the steps that give it `feature`."""
  kind, _, argument = name.partition(':')
  known = sources.DOCUMENTS if feature == 'targets' else {
      **sources.PROMPTS, 'tfds': _tfds}
  names.check('config.data.task', kind, known)
  read = known[kind]
  sources.check_options(read, options)
  if kind == 'tfds':
    return read(argument, split, **options)

  def dataset(split, shuffle_files, seed=None):
    del shuffle_files
    found = read(argument, split, seed, count, **options)
    if not found:
      raise config_lib.ConfigError(f'config.data.task: {name!r} is empty')
    columns = {feature: found}
    if feature == 'inputs':
      columns = {feature: [r['prompt'] for r in found],
                 'record': [pickle.dumps(r) for r in found]}
    return tf.data.Dataset.from_tensor_slices(columns)

  return seqio.FunctionDataSource(dataset, splits=[split]), ()


def _tfds(name: str, split: str, *, data_dir: str | None = None,
          prompt: str = 'question', answer: str = 'answer',
          task: str | None = None, verifier: str = 'math') -> _Source:
  """A TFDS data set that is on disk; the options name its features."""
  names.check('config.data.options.verifier', verifier, sources.VERIFIERS)
  absent = config_lib.ConfigError(
      f'config.data.options.data_dir: no prepared TFDS data set {name!r} under '
      f'{data_dir!r}; on a network, run: tfds build {name} --data_dir=DIR')
  try:
    builder = tfds.builder(name, data_dir=data_dir)
  except tfds.core.DatasetNotFoundError as e:
    raise absent from e
  except (AssertionError, ValueError) as e:  # a wrong version or config
    raise config_lib.ConfigError(f'config.data.task: {e}') from e
  if not builder.is_prepared():
    raise absent
  info = builder.info
  names.check(names.SPLIT, split.split('[')[0], [*info.splits, 'all'])
  try:
    info.splits[split]
  except (KeyError, ValueError) as e:
    raise config_lib.ConfigError(f'{names.SPLIT}: {e}') from e
  names.check('config.data.options.prompt', prompt, info.features)
  names.check('config.data.options.answer', answer, info.features)

  def pickled(question, reference):
    return pickle.dumps(sources.record(
        question.decode(), reference.decode(), task or builder.name, verifier))

  def records(dataset):
    dataset = dataset.map(lambda x: {'inputs': x[prompt], 'answer': x[answer]})
    return _add_text(dataset, 'record', pickled, ['inputs', 'answer'])

  return _Tfds(builder.get_reference().tfds_name(), data_dir,
               splits={split: split}, read_only=True), [records]


def _add_text(dataset: tf.data.Dataset, feature: str,
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
