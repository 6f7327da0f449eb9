"""Rows of JSON Lines, and what is none."""

import pytest

from r1jax import errors
from r1jax.data import json_lines

GOOD = '{"a": "\\ud83d\\ude00 \\u6211 \\\\ud83d", "b": 1}'  # a pair is whole


@pytest.mark.parametrize('line, said', [
    (r'{"a": "half \ud83d"}', 'surrogates not allowed'),
    (r'{"a": [{"b": ["\ude00\ud83d"]}]}', 'surrogates not allowed'),
    (r'{"\uD83D": 1}', 'surrogates not allowed'),
    ('{"a": ' + '[' * 100_000, 'recursion'),
    ('{"a": ' + '9' * 5000 + '}', 'digits'),
    ('[1]', 'not a JSON object'), ('', 'not a JSON object'),
])
def test_what_is_no_object_of_text_is_refused_with_its_place(
    tmp_path, line, said):
  path = tmp_path / 'a.jsonl'
  path.write_text(f'{GOOD}\n{line}\n{GOOD}\n')
  with pytest.raises(errors.ConfigError,
                     match=f'^config.data.task: {path}:2: .*{said}') as e:
    json_lines.read_rows(str(path), 'train')
  str(e.value).encode()  # can be shown


def test_escapes_of_whole_characters_are_read(tmp_path):
  path = tmp_path / 'a.jsonl'
  path.write_text(GOOD + '\n')
  assert json_lines.read_rows(str(path), 'train') == [
      (f'{path}:1', dict(a='\U0001f600 我 \\ud83d', b=1))]
