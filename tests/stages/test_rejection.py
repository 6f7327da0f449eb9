"""What rejection sampling keeps, counted, in shards, the same every time."""

import json

import pytest

from r1jax.rewards import filters
from r1jax.stages import rejection
from r1jax.stages import sample
from r1jax.training import files


def _row(i, response, dropped='', step=0, task='t', prompt=None):
  return dict(step=step, id=i, prompt=prompt or f'p{i}', answer='7', task=task,
              response=response, dropped=dropped, tokens=3)


ROWS = [
    _row(0, 'a'), _row(0, 'b', 'wrong'), _row(0, '学\n\ud7ff'),
    _row(1, 'a', task='u'), _row(1, 'a', 'duplicate', task='u'),
    _row(2, 'a', step=1, prompt='p0'),  # the same prompt once more
    _row(2, 'c', step=1, prompt='p0')]


@pytest.mark.parametrize('shard_rows, sizes', [(3, [3, 1]), (9, [4]), (2, [2, 2])])
def test_every_response_is_in_one_shard_or_counted(tmp_path, shard_rows, sizes):
  files.append_rows(tmp_path / 'rollouts.jsonl', ROWS)
  (tmp_path / 'kept-00009.jsonl').write_text('of another run\n')
  table = rejection.write_kept(tmp_path, shard_rows, {'stage': 's'})
  shards = sorted(tmp_path.glob(rejection.SHARDS))
  lines = [files.read_rows(path) for path in shards]
  assert [len(shard) for shard in lines] == sizes
  lines = sum(lines, [])
  assert [(line['prompt'], line['response']) for line in lines] == [
      ('p0', 'a'), ('p0', '学\n\ud7ff'), ('p1', 'a'), ('p0', 'c')]
  assert lines[1]['source'] == dict(stage='s', step=0, id=0, sample=2)
  assert lines[3]['source'] == dict(stage='s', step=1, id=2, sample=1)
  assert table == {'t': dict(kept=3, wrong=1, duplicate=1),
                   'u': dict(kept=1, duplicate=1)}
  assert json.loads((tmp_path / 'kept.json').read_text()) == table
  before = [path.read_bytes() for path in shards]
  rejection.write_kept(tmp_path, shard_rows, {'stage': 's'})
  assert [path.read_bytes() for path in shards] == before


def test_tasks_are_in_the_order_of_their_names(tmp_path):
  files.append_rows(
      tmp_path / 'rollouts.jsonl', [_row(0, 'x', task='u'), _row(1, 'y')])
  assert [*rejection.write_kept(tmp_path, 9, {})] == ['t', 'u']


def test_a_prompt_has_so_many_over_the_whole_run(tmp_path):
  """Whatever its number and its task are; the first ones stay."""
  said = ['a', ' a', 'b', 'wrong', 'a', 'c', 'd']
  files.append_rows(tmp_path / 'rollouts.jsonl', [
      _row(n // 3, text, text if text == 'wrong' else '', step=n // 5,
           task='tu'[n > 4], prompt='?') for n, text in enumerate(said)]
               + [_row(9, text) for text in 'abc'])
  table = rejection.write_kept(tmp_path, 9, {}, 2)
  lines = files.read_rows(tmp_path / 'kept-00000.jsonl')
  assert [line['response'] for line in lines] == ['a', 'b', 'a', 'b']
  assert table == {
      't': dict(kept=4, duplicate=2, wrong=1, per_prompt=1),
      'u': dict(per_prompt=2)}


def test_what_a_person_has_put_there_stays(tmp_path):
  files.append_rows(tmp_path / 'rollouts.jsonl', [_row(0, 'a')])
  others = ['kept-reviewed.jsonl', 'kept-1.jsonl', 'kept-00001.jsonl.jsonl']
  for name in (*others, 'kept-00001.jsonl', 'kept-123456.jsonl'):
    (tmp_path / name).write_text('{}\n')
  rejection.write_kept(tmp_path, 1, {})
  assert sorted(path.name for path in tmp_path.glob(rejection.SHARDS)) == sorted(
      ['kept-00000.jsonl', *others])


def test_what_was_rewritten_names_its_draft(tmp_path):
  draft = dict(stage='zero', id=7)
  files.append_rows(tmp_path / 'rollouts.jsonl', [
      _row(0, 'a') | dict(source=draft), _row(0, 'b') | dict(source=draft)])
  rejection.write_kept(tmp_path, 5, {'stage': 's'})
  lines = files.read_rows(tmp_path / 'kept-00000.jsonl')
  assert [line['source'] for line in lines] == [
      dict(stage='s', step=0, id=0, draft=draft, sample=n) for n in (0, 1)]


def test_nothing_kept_is_one_empty_shard(tmp_path):
  files.append_rows(tmp_path / 'rollouts.jsonl', [_row(0, 'b', 'wrong')])
  rejection.write_kept(tmp_path, 5, {})
  assert (tmp_path / 'kept-00000.jsonl').read_text() == ''


def test_the_table_has_a_line_a_task_and_their_sum():
  words = rejection.counts_table({'t': dict(kept=3, wrong=1), 'u': dict(kept=10)})
  assert words.split('\n') == [
      'task  kept  wrong', 't        3      1', 'u       10      0',
      'all     13      1']


def test_rows_are_marked_each_by_itself():
  rows = [dict(id=i, prompt='?', response=text, finished=True, accuracy=right,
               format=1.) for i, text, right in (
                   (0, 'x', 1.), (0, 'x', 1.), (0, 'y', 0.), (1, 'x', 1.))]
  found = sample.marked(filters.Rules(), rows)
  assert [row['dropped'] for row in found] == ['', '', 'wrong', '']
  assert found[0] == rows[0] | {'dropped': ''}
