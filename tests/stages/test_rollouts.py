"""Prompts as stages that sample are given them, and how they are sampled."""

import types

import jax
import numpy as np
import pytest

import tiny
from experiments import r1_zero
from r1jax import errors
from r1jax.data import batches
from r1jax.data import sources
from r1jax.data import tasks
from r1jax.data import vocabs
from r1jax.kernels import group_sampling
from r1jax.parallel import sharding
from r1jax.stages import rollouts
from r1jax.stages import scoring


def _read(tmp_path, **data):
  path = tmp_path / 'asked.jsonl'
  path.write_text('{"prompt": "Name a city.", "answer": "Paris"}\n')
  config = r1_zero.get_config('mini').unlock()
  config.data.update(dict(task=f'jsonl:{path}') | data)
  vocab = vocabs.load_vocab('sentencepiece', 'mini')
  found = rollouts.read_prompts(
      config.data, vocab, 200, split='train', count=9)
  scoring.check_judge(config.rewards, found)
  first, = found.tokens[np.array([0])]
  return vocab.decode(first[:found.length[0]].tolist())


def test_examples_and_an_instruction_reach_the_tokens(tmp_path):
  text = _read(tmp_path, shots=1, examples='mini_worked:short_en',
               instruction='Think.')
  assert text.count('User:') == text.count('Assistant:') == 2
  assert text.endswith('.\nUser: Name a city.\nThink.\nAssistant:')


def test_what_only_a_judge_can_tell_needs_one(tmp_path):
  with pytest.raises(errors.ConfigError, match='rewards.judge.init_from'):
    _read(tmp_path, options=dict(verifier='judge'))


def test_prompts_are_read_as_the_section_says(monkeypatch, capsys):
  told, prompts = {}, tiny.prompts()

  def prompt_set(*given, **named):
    told.update(named, given=given)
    return prompts, {'too_long': 2}

  monkeypatch.setattr(tasks, 'prompt_set', prompt_set)
  monkeypatch.setattr(sources, 'examples', lambda *given: given)
  data = r1_zero.get_config('mini').data.unlock()
  says = dict(template='r1_zero', system='Be brief.', instruction='Think.',
              seed=7, options={'a': 1})
  data.update(task='t', shots=3, examples='e', **says)
  found = rollouts.read_prompts(data, 'vocab', 9, split='heldout', count=5)
  assert found is prompts and told == says | dict(
      given=('t', 'vocab', 9), split='heldout', examples=('e', 3, 7),
      num_prompts=5)
  assert "2 prompts of split 'heldout' are longer" in capsys.readouterr().out


SETTINGS = rollouts.Settings(2, 6, (1, 4), .7, 3)


def test_a_policy_is_sampled_as_its_section_says():
  section = types.SimpleNamespace(
      group=2, prompt_tokens=9, response_tokens=6, temperature=.7,
      sample_chunk=3, slots=None, cpu_threads=1)
  vocab = types.SimpleNamespace(eos_ids=(1, 4))
  assert rollouts.policy_settings(section, vocab) == SETTINGS
  assert rollouts.policy_settings(section, vocab, 5, .5) == SETTINGS._replace(
      top_k=5, top_p=.5)
  assert rollouts.policy_settings(
      section, vocab, 5, keep_support=True).keep_support
  assert rollouts.longest_sequence(section)[1] == 15


def test_seed_stream_and_ids_name_the_random_numbers(monkeypatch):
  class Keys(tuple):
    size = 8

  monkeypatch.setattr(
      group_sampling, 'sample_keys', lambda *given: Keys(given))
  monkeypatch.setattr(
      group_sampling, 'sample', lambda *given, **named: (given, named))
  monkeypatch.setattr(
      rollouts, 'jitted_sampling', lambda mesh, parts: rollouts.sample_groups)
  prompts = tiny.prompts()
  place = types.SimpleNamespace(
      sampling='model', batch=None,
      mesh=sharding.make_mesh({}, jax.devices()[:1]))
  (model, params, given, (seed, stream, ids, group)), named = rollouts.Sampler(
      place, SETTINGS)('params', batches.PromptBatch(*prompts[:3], ()), 8, 9)
  assert (model, params, seed, stream, group) == ('model', 'params', 8, 9, 2)
  np.testing.assert_array_equal(ids, prompts.id)
  np.testing.assert_array_equal(given.tokens, prompts.tokens)
  assert named == dict(response_tokens=6, eos_ids=(1, 4), temperature=.7,
                       chunk=3, top_k=0, top_p=1., keep_support=False,
                       keep_experts=False)
