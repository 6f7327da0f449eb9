"""Tests of the table of benchmarks, on the real files where they are here."""

import pytest

from experiments import evaluate
from experiments import r1_zero
from experiments import suites
from r1jax import errors
from r1jax.data import sources
from r1jax.data import templates
from r1jax.rewards import answers
from r1jax.rewards import verifiers
import shared_data


def _records(suite):
  kind, argument = sources.split_task(suite.task, sources.PROMPTS)
  read = sources.PROMPTS[kind]
  sources.check_options(read, suite.options)
  return list(
      read(argument, suite.split, 0, suite.problems, **suite.options))


@pytest.mark.parametrize('name', suites.SUITES)
def test_a_suite_can_be_read_and_asked(name):
  suite = suites.find(name, 'FOLDER')
  kind, argument = sources.split_task(suite.task, sources.PROMPTS)
  sources.check_options(sources.PROMPTS[kind], suite.options)
  assert suite.answer in answers.ANSWERS
  assert suite.template in (*templates.TEMPLATES, templates.CHAT)
  assert '{data}' not in argument
  assert suite.samples >= 1 and suite.problems >= 1 and suite.source


def test_the_fields_of_a_suite_can_be_set_on_the_command_line():
  """--config.tests.NAME.samples=4 is read as an expression of Python."""
  names = [*suites.SUITES, 'reasoning_gym:leg_counting']
  tests = evaluate.of_suites(names).tests
  assert len(tests) == len(names) and all(map(str.isidentifier, tests))


def test_while_training_suites_are_asked_as_the_training_is():
  arg = 'smollm2,gsm8k,mmlu,reasoning_gym:leg_counting'
  config = r1_zero.get_config(arg)
  assert config.name == f'r1_zero.py:{arg}'
  assert list(config.tests) == ['gsm8k', 'mmlu', 'reasoning_gym_leg_counting']
  for name, answer in (('gsm8k', 'number'), ('mmlu', 'whole')):
    test = config.tests[name]
    assert test.data.template == 'chat' and test.data.instruction is None
    assert test.rewards.answer == answer
    assert test.problems == 64 and test.samples is test.response_tokens is None
  assert config.is_locked
  assert 'tests' not in r1_zero.get_config('smollm2')
  assert r1_zero.get_config('paper,aime').tests.aime.problems == 30
  for arg, said in (('mini,gsm8kk', '--config: .*of gsm8k, aime'),
                    ('minni,gsm8k', 'no such variant; did you mean :mini')):
    with pytest.raises(errors.ConfigError, match=said):
      r1_zero.get_config(arg)


_HERE = {'jsonl:{data}/gsm8k': 'math', 'jsonl:{data}/evaluation_suite': 'math',
         'humaneval:': 'code'}  # those whose files are here, their verifiers


@pytest.mark.parametrize('name', [
    name for name, suite in suites.SUITES.items()
    if suite.task.startswith(tuple(_HERE))])
def test_the_real_files_have_the_problems_of_the_paper(name):
  path = suites.SUITES[name].task.partition('{data}/')[2]
  folder = str(shared_data.path(path)).removesuffix(f'/{path}')
  suite = suites.find(name, folder)
  records = _records(suite)
  assert len(records) == suite.problems
  verifier, = (_HERE[task] for task in _HERE if suite.task.startswith(
      task.replace('{data}', folder)))
  assert {record['verifier'] for record in records} == {verifier}
  longest = max(len(record['prompt']) for record in records)
  assert longest / 3 < suite.prompt_tokens  # three letters a token, at least


@pytest.mark.parametrize('name', [
    name for name, suite in suites.SUITES.items()
    if suite.task.startswith('jsonl:')])
def test_a_reference_in_the_form_that_is_asked_for_is_right(name):
  path = suites.SUITES[name].task.partition('{data}/')[2]
  suite = suites.find(
      name, str(shared_data.path(path)).removesuffix(f'/{path}'))
  equal = verifiers.load_verifier('math', '')
  for record in _records(suite):
    for reference in (record['answer'], *record.get('alternatives', ())):
      found = answers.extract_answer(
          f'<think> \\boxed{{0}} </think> So it is \\boxed{{{reference}}}.',
          suite.answer)
      terms = verifiers.VERIFIERS['math'].terms(record, reference)
      assert equal(found, terms) == 1., (found, terms)


def test_a_suite_of_reasoning_gym_and_one_that_does_not_exist():
  suite = suites.find('reasoning_gym:chain_sum')
  assert suite.task == 'reasoning_gym:chain_sum' and suite.split == 'heldout'
  assert '{data}' in suites.SUITES['gsm8k'].task
  with pytest.raises(errors.ConfigError, match='math500, minerva, .*math50'):
    suites.find('math50')


def test_the_paper_samples_aime_64_times():
  samples = {name: suite.samples for name, suite in suites.SUITES.items()}
  assert samples['aime'] == 64 and samples['math500'] == 16
  assert (suites.TEMPERATURE, suites.TOP_P) == (.6, .95)
