"""A template that opens the thinking is noticed, whatever its source."""

import pytest

from r1jax.data import tasks
from r1jax.data import vocabs


def _records(template):
  vocab = vocabs.load_vocab('sentencepiece', 'mini')
  prompts, _ = tasks.prompt_set(
      (('mini_reasoning', 1.), ('mini_general', 1.)), vocab, 64,
      split='heldout', template=template, num_prompts=4)
  return prompts.records


@pytest.mark.parametrize('template, opened', [
    ('User: {prompt}\nAssistant: <think>\n', True),
    ('User: {prompt}\nAssistant:', False),
    ('<think>\n</think> User: {prompt}', False)])
def test_records_say_whether_their_prompt_opens_the_thinking(template, opened):
  assert [record.get('opened', False) for record in _records(template)] == (
      [opened] * 4)
