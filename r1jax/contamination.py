r"""Says which problems of a benchmark a training set holds.

    python -m r1jax.contamination --train=jsonl:MY_DATA.jsonl \
        --suite=gsm8k,math500 --data=FOLDER --out=/tmp/contamination

Every text of the training set is compared: of a file's row all columns, of
another source (data/sources.py) prompts, answers, documents or conversations. A
problem counts as exact if one of them holds its whole question, word for word;
by its question or solution if the training set has --n words in a row of it
(data/overlap.py); as half if it has at least half of all such n-grams of the
question, which a phrase in common does not explain. A question of fewer words
(short) is found only as a whole text. With --out the problems found are written
to OUT/SUITE.jsonl, each with the place that has most of it, and the counts to
OUT/contamination.json.
"""

from r1jax import interrupts
from r1jax import terminal

if __name__ == '__main__':  # before the imports, which take their time
  interrupts.install()
  terminal.secure()

# pylint: disable=wrong-import-position
from collections.abc import Iterator, Mapping, Sequence
import importlib
import pathlib

from r1jax import command
from r1jax import errors
from r1jax import flags
from r1jax import workdir as workdir_lib
from r1jax.data import json_lines
from r1jax.data import overlap
from r1jax.data import sources
from r1jax.data import user_code
from r1jax.training import files

N = 10  # as DeepSeek-R1, arXiv 2501.12948v2, D.1
ROWS = 512  # made of a source that generates
_SHOWN = 300  # letters of a text in OUT/SUITE.jsonl


def training_texts(task: str, split: str = 'train', count: int = ROWS
                  ) -> Iterator[overlap.Texts]:
  """(place, texts) of each row of a training set.

  Args:
    task: a source of prompts, documents or conversations.
    split: of it.
    count: rows to make, of a source that generates them; a file is read whole.

  Raises:
    ConfigError: there is no such source, or a row cannot be read.
  """
  known = {**sources.DOCUMENTS, **sources.CONVERSATIONS, **sources.PROMPTS}
  kind, argument = sources.split_task(task, known, '--train')
  if kind in ('jsonl', sources.USER):
    rows = (json_lines.read_rows(argument, split) if kind == 'jsonl' else
            user_code.rows(argument, split, 0, None, {}))
    for place, row in rows:
      yield place, list(overlap.texts_within(row))
    return
  for number, row in enumerate(known[kind](argument, split, 0, count)):
    if kind in sources.PROMPTS:
      row = [row['prompt'], row.get('row', row['answer'])]
    yield f'{task}[{number}]', list(overlap.texts_within(row))


def suite_problems(name: str, data: str) -> list[overlap.Problem]:
  """The problems of a benchmark, by its name or as the task of a source.

  Raises:
    ConfigError: there is none of this name, or its file cannot be read.
  """
  if ':' in name and not name.startswith('reasoning_gym:'):
    task, split, count, options = name, 'train', None, {}
  else:
    flags.experiments_folder()
    suite = importlib.import_module('experiments.suites').find(name, data)
    task, split, count, options = (
        suite.task, suite.split, suite.problems, suite.options)
  kind, argument = sources.split_task(task, sources.PROMPTS, '--suite')
  with errors.renamed('data.task', to='--suite'):
    return list(map(overlap.problem, sources.PROMPTS[kind](
        argument, split, 0, count, **options)))


def table(found: Mapping[str, overlap.Overlap], n: int) -> str:
  """The counts for the terminal, a line per benchmark."""
  some = next(iter(found.values()))
  lines = [f'training set: {some.rows:,} rows, {some.words:,} words; {n} words '
           'in a row count',
           f'{"suite":20} {"problems":>8} {"short":>6} {"exact":>6} '
           f'{"half":>6} {"question":>8} {"solution":>8} {"any":>6}  share']
  for name, each in found.items():
    counts = each.counts()
    share = counts['any'] / max(each.problems, 1)
    lines.append(
        f'{name:20} {counts["problems"]:8} {counts["short"]:6} '
        f'{counts["exact"]:6} {counts["half"]:6} {counts["question"]:8} '
        f'{counts["solution"]:8} '
        f'{counts["any"]:6}  {share:.1%}')
  return '\n'.join(lines)


def write(out: pathlib.Path, train: Sequence[str], n: int,
          suites: Mapping[str, Sequence[overlap.Problem]],
          found: Mapping[str, overlap.Overlap]) -> None:
  """Writes OUT/contamination.json, and the problems found as JSONL."""
  files.make_folder(out)
  for name, each in found.items():
    files.write_rows(out / f'{_file_name(name)}.jsonl', [
        match._asdict() | dict(
            question=suites[name][match.problem].question,
            text=match.text[:_SHOWN])
        for match in each.matches])
  some = next(iter(found.values()))
  files.write_json(out / 'contamination.json', dict(
      train=list(train), n=n, rows=some.rows, words=some.words,
      suites={name: each.counts() for name, each in found.items()}))


def _file_name(suite: str) -> str:
  return ''.join(c if c.isalnum() or c in '._-' else '_' for c in suite)


def _parser() -> command.Parser:
  parser = command.Parser(description=__doc__.partition('\n')[0])
  add = parser.add_argument
  add('--train', required=True, action='append', help='a source, as '
      'config.data.task: jsonl:PATH, ...; may be given several times')
  add('--suite', required=True, help='one or several, by comma: gsm8k, aime, '
      '... (experiments/suites.py), or sources: jsonl:PATH')
  add('--data', default='data', help='folder with the files of the suites; '
      'left out: ./data')
  add('--split', default='train', help='split of the training set')
  add('--rows', type=int, default=ROWS, help='rows of a training set that is '
      'generated (mini_reasoning, reasoning_gym:NAME, ...); %(default)s')
  add('--n', type=int, default=N, help='words in a row that count: %(default)s '
      "is DeepSeek-R1's, 13 GPT-3's")
  add('--out', help='folder to write what is found')
  return parser


def main() -> None:
  args = _parser().parse_args()
  with command.reported():
    interrupts.begin()
    for flag in ('n', 'rows'):
      if getattr(args, flag) < 1:
        raise errors.expected(f'--{flag}', 'at least 1', getattr(args, flag))
    data = workdir_lib.expanded(args.data, '--data')
    suites = {name: suite_problems(name, data)
              for name in filter(None, args.suite.split(','))}
    if not suites:
      raise errors.expected('--suite', 'a suite', args.suite)
    with errors.renamed('data.task', to='--train'):
      rows = (row for task in args.train
              for row in training_texts(task, args.split, args.rows))
      found = overlap.overlaps(suites, rows, args.n)
    terminal.say(table(found, args.n))
    if args.out is not None:
      out = pathlib.Path(workdir_lib.expanded(args.out, '--out'))
      with errors.faults(out):
        write(out, args.train, args.n, suites, found)
      terminal.say(f'written: {out}')


if __name__ == '__main__':
  main()
