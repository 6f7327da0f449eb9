"""The miniature world: problems, base corpus and vocabulary, all from a seed.

What a base model of a few million parameters is pretrained on, and what R1's
recipe is then run on, with nothing to download: reasoning tasks of
reasoning_gym with direct and worked responses (arithmetic), and general tasks
in two languages (general).

A prompt is held out iff a hash of its words says so. `documents` and records of
'train' never draw such a prompt and records of 'heldout' draw no other: the two
are disjoint by construction, whatever the seeds and counts.

The vocabulary shipped with the package was made by
    python -m r1jax.mini.corpus --out=r1jax/mini/assets/mini.model
"""

import argparse
import hashlib
import io
import itertools
import pathlib
import random
import string
from typing import Any, Iterator, Sequence

from r1jax import errors
from r1jax.data import splits
from r1jax.data import templates
from r1jax.data import thinking
from r1jax.mini import arithmetic
from r1jax.mini import general
from r1jax.mini import questions

TASKS = tuple(arithmetic.TASKS)
MODEL = pathlib.Path(__file__).parent / 'assets' / 'mini.model'
REASONING = .62  # share of the documents that are reasoning dialogues

# The field named where there are too few prompts: either may have set it.
_COUNT = 'data.num_prompts (or config.eval.problems)'
_PATIENCE = 2000  # problems drawn in vain before a split is called exhausted

# Never part of another piece: the text before and after them is encoded the
# same alone as together.
_SYMBOLS = ['\n', 'User:', 'Assistant:', *thinking.TAGS]
_VOCABULARY = 1024
_LONGEST_PIECE = 32  # characters
_SAMPLE = 20_000  # documents that the vocabulary is made from


def _seed(*parts: Any) -> int:
  """Makes one seed of several parts; similar ones give unrelated streams."""
  text = '/'.join(map(str, parts))
  digest = hashlib.blake2b(text.encode(), digest_size=6).digest()
  return int.from_bytes(digest, 'big')


def entries(task: str, split: str, *seed: Any) -> Iterator[dict[str, Any]]:
  """Yields a split's reasoning_gym entries of a task, endlessly."""
  import reasoning_gym  # pylint: disable=g-import-not-at-top
  errors.check_choice('data.options.tasks', task, TASKS)
  dataset = reasoning_gym.create_dataset(
      task, seed=_seed(task, *seed), **arithmetic.TASKS[task].settings)
  for index in itertools.count():
    entry = dataset[index]
    if splits.in_split(entry['question'], split) and (
        arithmetic.TASKS[task].suits(entry)):
      yield entry


def dialogue(prompt: str, response: str) -> str:
  """A question and its answer in the base's frame."""
  return f'{templates.mini(prompt)} {response}'


def _pairs(task: str, split: str) -> list[tuple[str, str]]:
  """Lists a split's (prompt, answer) of a general task."""
  return [pair for pair in general.prompt_answer_pairs(task)
          if splits.in_split(pair[0], split)]


def reasoning_records(split: str, count: int, seed: int = 0,
                      tasks: Sequence[str] = TASKS,
                      languages: Sequence[str] = ('en',)
                      ) -> list[dict[str, Any]]:
  """Draws `count` distinct problems; tasks take turns, and languages.

  The problems are the same in whatever languages they are asked.

  Raises:
    ConfigError: a split or task is unknown, or a task has too few problems
      (only `complex_arithmetic` is small: 6,561 in both splits together).
  """
  streams = [entries(task, split, 'records', seed) for task in tasks]
  records, seen = [], set()
  for i in range(count):
    fresh = (e for e in itertools.islice(streams[i % len(tasks)], _PATIENCE)
             if e['question'] not in seen)
    entry = next(fresh, None)
    if entry is None:
      raise errors.ConfigError(
          _COUNT, f'count {count} is more than the distinct {split!r} problems '
          f'of {tasks[i % len(tasks)]!r}')
    seen.add(entry['question'])
    language = languages[i // len(tasks) % len(languages)]
    records.append(dict(prompt=questions.asked(entry, language),
                        answer=entry['answer'],
                        task=tasks[i % len(tasks)], verifier='reasoning_gym',
                        entry=entry))
  return records


def general_records(split: str, count: int, seed: int = 0,
                    tasks: Sequence[str] = general.CHECKABLE
                    ) -> list[dict[str, Any]]:
  """Draws `count` distinct prompts of the general tasks, in turn.

  A task that runs out leaves its turns to the others. The answer to a
  `writing` prompt is one example of many.
  """
  rng = random.Random(_seed('general', split, seed))
  streams = {}
  for task in tasks:
    pairs = _pairs(task, split)
    rng.shuffle(pairs)
    streams[task] = dict(pairs)
  if sum(map(len, streams.values())) < count:
    raise errors.ConfigError(
        _COUNT, f'count {count} is more than the distinct {split!r} prompts of '
        f'{tasks}')
  records = []
  for task in itertools.cycle(tasks):
    if len(records) == count:
      return records
    if streams[task]:
      prompt, answer = streams[task].popitem()
      records.append(
          dict(prompt=prompt, answer=answer, task=task, verifier='exact'))


def writing_records(split: str, count: int | None, seed: int = 0
                    ) -> list[dict[str, Any]]:
  """Draws `count` distinct prompts for a text, all of the split if None.

  A record's `answer` is the topic, by which the verifier 'taste' judges it.

  Raises:
    ConfigError: the split has fewer prompts.
  """
  known = [p for p in general.writing_prompts() if splits.in_split(p[0], split)]
  random.Random(_seed('writings', split, seed)).shuffle(known)
  if count is not None and count > len(known):
    raise errors.ConfigError(
        _COUNT, f'count {count} is more than the {len(known)} distinct '
        f'{split!r} prompts of mini_writing')
  return [dict(prompt=prompt, answer=topic, task='writing', verifier='taste',
               language=language) for prompt, topic, language in known[:count]]


def demonstrations(split: str, count: int, seed: int = 0
                   ) -> list[tuple[str, str]]:
  """Writes (prompt, text) of any quality; all prompts come before a repeat."""
  rng = random.Random(_seed('demonstrations', split, seed))
  return [
      (record['prompt'], general.written(
          rng, record['answer'], record['language']))
      for record in itertools.islice(
          itertools.cycle(writing_records(split, None, seed)), count)]


def documents(count: int, seed: int = 0) -> list[str]:
  """Writes the base corpus: dialogues and plain texts, without end marks.

  The problems are other draws than those of `reasoning_records` with this seed.
  """
  rng = random.Random(_seed('documents', seed))
  problems = {task: entries(task, 'train', 'documents', seed)
              for task in TASKS}
  dialogues = {task: _pairs(task, 'train') for task in general.GENERAL}
  kinds = general.DOCUMENTS
  written = []
  for _ in range(count):
    if rng.random() < REASONING:
      entry = next(problems[rng.choice(TASKS)])
      response = arithmetic.respond(rng, entry)
      written.append(dialogue(entry['question'], response.text))
      continue
    kind = rng.choices(list(kinds), kinds.values())[0]
    if kind in dialogues:
      prompt, answer = rng.choice(dialogues[kind])
      written.append(dialogue(prompt, general.say(rng, answer)))
    else:
      written.append(general.TEXTS[kind](rng))
  return written


def train_vocab(seed: int = 0) -> bytes:
  """Makes the SentencePiece model from a sample of the corpus.

  Pieces may span words, so that a task's fixed sentences cost few tokens;
  digits, tags, line breaks and the speakers' names are always separate pieces.
  """
  import sentencepiece  # pylint: disable=g-import-not-at-top
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(documents(_SAMPLE, seed)), model_writer=model,
      model_type='bpe', vocab_size=_VOCABULARY, character_coverage=1.,
      required_chars=string.printable[:94], byte_fallback=True,
      user_defined_symbols=_SYMBOLS, split_digits=True,
      split_by_whitespace=False, split_by_unicode_script=False,
      max_sentencepiece_length=_LONGEST_PIECE,
      normalization_rule_name='identity', remove_extra_whitespaces=False,
      add_dummy_prefix=False, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
      num_threads=1, minloglevel=1)
  return model.getvalue()


def main() -> None:
  parser = argparse.ArgumentParser(description=train_vocab.__doc__)
  parser.add_argument('--out', type=pathlib.Path, default=MODEL)
  parser.add_argument('--seed', type=int, default=0)
  args = parser.parse_args()
  args.out.write_bytes(train_vocab(args.seed))


if __name__ == '__main__':
  main()
