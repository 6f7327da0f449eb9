"""What is collected: every part, counted, without repeats, the same again."""

import json

import jax
import pytest

from experiments import common
from experiments import sections
from r1jax import errors
from r1jax import stages
from r1jax.parallel import sharding
from r1jax.stages import collect
from r1jax.training import loop
from r1jax.training import files


def _row(n, task='t', response='Wait, no.', prompt=None):
  return dict(prompt=prompt or f'p{n}', response=f'{n} {response}', task=task)


def _config(**parts):
  return common.base('collect', collect=parts)


def _counts(repeats=0, beyond_rows=0, **tasks):
  return dict(tasks=tasks, repeats=repeats, beyond_rows=beyond_rows)


def _run(config, workdir):
  stage = collect.build(
      config, sharding.make_mesh({}, jax.devices()[:1]), str(workdir))
  return loop.train(stage, loop.Settings(), str(workdir), config.to_dict())


def test_parts_come_together_with_where_they_are_from(tmp_path, capsys):
  first, second = tmp_path / 'a.jsonl', tmp_path / 'b.jsonl'
  rows = [_row(n) | dict(source=dict(stage='zero', id=n), answer='7')
          for n in range(5)]
  files.write_rows(first, rows)
  files.write_rows(second, [_row(3, response='Wait,  no. '), _row(9, 'u')])
  config = _config(a_zero=sections.part(f'jsonl:{first}'),
                   other=sections.part(f'jsonl:{second}'),
                   general=sections.part('mini_general', 6, tasks='factual'))
  summary = _run(config, tmp_path / 'out')
  assert summary['steps'] == 0
  lines = files.read_rows(tmp_path / 'out' / collect.COLLECTED)
  assert len(lines) == 5 + 1 + 6  # the second's first says what was said
  by_part = {}
  for line in lines:
    assert line.keys() == {'prompt', 'response', 'task', 'source'}
    by_part.setdefault(line['source']['part'], []).append(line)
  assert sorted(line['source']['id'] for line in by_part['a_zero']) == [
      0, 1, 2, 3, 4]
  assert {line['source']['stage'] for line in by_part['a_zero']} == {'zero'}
  assert by_part['other'][0]['prompt'] == 'p9'
  parts = [line['source']['part'] for line in lines]
  assert parts != sorted(parts)  # mixed
  table = json.loads((tmp_path / 'out/collected.json').read_text())
  assert table == dict(
      a_zero=_counts(t=5), other=_counts(u=1, repeats=1),
      general=_counts(mini_general=6))
  out = capsys.readouterr().out
  assert 'collected: 12 answers' in out
  assert 'other: 1 (u 1); left out: 1 that repeat others, 0 beyond' in out
  _run(config, tmp_path / 'again')
  assert (tmp_path / 'again' / collect.COLLECTED).read_bytes() == (
      tmp_path / 'out' / collect.COLLECTED).read_bytes()


def test_a_part_has_no_more_rows_than_are_asked_for(tmp_path):
  files.write_rows(tmp_path / 'a.jsonl', [_row(n) for n in range(50)])
  config = _config(a=sections.part(f'jsonl:{tmp_path}/a.jsonl', 8))
  _run(config, tmp_path / 'out')
  lines = files.read_rows(tmp_path / 'out' / collect.COLLECTED)
  prompts = {line['prompt'] for line in lines}
  assert len(prompts) == 8 and prompts != {f'p{n}' for n in range(8)}
  config.seed += 1
  _run(config, tmp_path / 'other')
  assert prompts != {line['prompt'] for line in files.read_rows(
      tmp_path / 'other' / collect.COLLECTED)}


def test_of_equal_answers_to_a_prompt_the_first_is_taken():
  rows = [dict(prompt='a', response=' x  y', n=0),
          dict(prompt='a', response='x y', n=1),
          dict(prompt='b', response='x y', n=2)]
  taken = lambda *seen: [row['n'] for row in collect.fresh(rows, set(seen))]
  assert taken(('c', 'x y')) == [0, 2] and taken(('a', 'x y')) == [2]


def test_what_one_part_cuts_off_another_may_have(tmp_path):
  rows = [_row(n) for n in range(4)]
  files.write_rows(tmp_path / 'a.jsonl', [*rows, rows[0]])
  files.write_rows(tmp_path / 'b.jsonl', rows)
  config = _config(a=sections.part(f'jsonl:{tmp_path}/a.jsonl', 1),
                   b=sections.part(f'jsonl:{tmp_path}/b.jsonl'))
  _run(config, tmp_path / 'out')
  lines = files.read_rows(tmp_path / 'out' / collect.COLLECTED)
  assert sorted(line['prompt'] for line in lines) == ['p0', 'p1', 'p2', 'p3']
  assert sorted(line['source']['part'] for line in lines) == list('abbb')
  assert json.loads((tmp_path / 'out/collected.json').read_text()) == dict(
      a=_counts(t=1, repeats=1, beyond_rows=3), b=_counts(t=3, repeats=1))


@pytest.mark.parametrize('source', ['olympiads', ['a', 1], None, {'part': 'x'}])
def test_where_a_line_is_from_may_have_any_form(tmp_path, source):
  """The last is one that was collected before: this part is another."""
  files.write_rows(tmp_path / 'a.jsonl', [_row(0) | dict(source=source)])
  _run(_config(a=sections.part(f'jsonl:{tmp_path}/a.jsonl')), tmp_path / 'out')
  line, = files.read_rows(tmp_path / 'out' / collect.COLLECTED)
  assert line['source'] == dict(part='a', source=source)


def test_the_curated_are_various_and_thoughtful():
  rows = [_row(0), _row(1, response='Easy.'), _row(2),
          _row(3, 'u', 'Easy.'), _row(4, 'u'), _row(5, prompt='p0')]
  assert [row['response'] for row in collect.curated(rows)] == [
      '0 Wait, no.', '4 Wait, no.', '2 Wait, no.', '3 Easy.', '1 Easy.',
      '5 Wait, no.']


def test_only_a_part_that_says_so_is_curated(tmp_path):
  rows = [_row(n, response='Easy.') for n in range(9)] + [_row(9)]
  limits = {'a': ('curated', 1), 'b': ('random', 1)}
  collect.write_collected(
      str(tmp_path), 1, {'a': rows, 'b': rows}, limits, {})
  taken = {row['source']['part']: row['response'] for row in files.read_rows(
      tmp_path / collect.COLLECTED)}
  assert taken['a'] == '9 Wait, no.' and taken['b'].endswith('Easy.')


@pytest.mark.parametrize('part, message', [
    (sections.part('jsonl:nowhere.jsonl'), 'config.collect.a.task: no such file'),
    (sections.part('mini_corpus'), 'config.collect.a.task: expected one of'),
    (sections.part('mini_general', 3, order='best'), 'config.collect.a.order'),
    (sections.part('mini_general', 3, kind='x'), 'config.collect.a.options'),
    (sections.part('jsonl:nowhere.jsonl', prompts='x'),
     "config.collect.a.options: .* mean prompt"),
    (sections.part('mini_general'), 'size'),
])
def test_what_cannot_be_collected_is_refused(tmp_path, part, message):
  config = _config(a=part)
  with pytest.raises(errors.ConfigError, match=message):
    stages.check(config)
    collect.build(config, sharding.make_mesh({}, jax.devices()[:1]),
                  str(tmp_path))
