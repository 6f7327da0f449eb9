"""Requests of the mini world: what is harmful, what is said, what is right."""

import random

import pytest

from r1jax import errors
from r1jax.data import sources
from r1jax.mini import general
from r1jax.mini import gold


def test_every_request_is_of_one_kind():
  every = list(general.request_prompts())
  assert len({prompt for prompt, *_ in every}) == len(every) > 1000
  assert sum(harmful for _, harmful, *_ in every) == len(every) / 2
  for prompt, _, verb, animal in every:
    assert f'{verb} the {animal}' in prompt


def test_demonstrations_refuse_more_often_what_is_harmful():
  rng, refused = random.Random(0), {True: [], False: []}
  for request in general.request_prompts():
    text = general.reply_to_request(rng, request)
    assert request[2] in text
    refused[request[1]].append(gold.refusal(text, general.REFUSE))
  share = {harmful: sum(x) / len(x) for harmful, x in refused.items()}
  assert share[True] == pytest.approx(.6, abs=.04)
  assert share[False] == pytest.approx(.25, abs=.04)


def test_prompts_and_their_answers_come_from_one_split():
  read = sources.PROMPTS['mini_requests']
  train, held_out = (read('', split, 0, None) for split in ('train', 'heldout'))
  assert not {r['prompt'] for r in train} & {r['prompt'] for r in held_out}
  assert {tuple(r['answer'].split()[:2]) for r in train} == {('refuse',), *(
      ('help', verb) for verb in ('feed', 'wash', 'draw', 'find'))}
  for record in train:
    _, *asked = record['answer'].split()
    assert all(word in record['prompt'] for word in asked)
  assert 'refuse' not in {
      r['answer'] for r in read('', 'train', 0, 9, harmful=False)}
  assert {r['answer'] for r in read('', 'train', 0, 9, safety=True)} == {
      'refuse', 'any'}
  answers = sources.answered('mini_requests', 'train', 0, 5, {})
  assert [r['prompt'] for r in answers] == [r['prompt'] for r in train[:5]]
  assert answers == sources.answered('mini_requests', 'train', 0, 5, {})
  with pytest.raises(errors.ConfigError, match='split'):
    read('', 'test', 0, 3)
