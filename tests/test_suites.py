"""Tests of the table of benchmarks, on the real files where they are here."""

import pytest

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
  return read(argument, suite.split, 0, suite.problems, **suite.options)


@pytest.mark.parametrize('name', suites.SUITES)
def test_a_suite_can_be_read_and_asked(name):
  suite = suites.find(name, 'FOLDER')
  kind, argument = sources.split_task(suite.task, sources.PROMPTS)
  sources.check_options(sources.PROMPTS[kind], suite.options)
  assert suite.answer in answers.ANSWERS
  assert suite.template in (*templates.TEMPLATES, templates.CHAT)
  assert '{data}' not in argument
  assert suite.samples >= 1 and suite.problems >= 1 and suite.source


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
  with pytest.raises(errors.ConfigError, match='did you mean math500'):
    suites.find('math50')


def test_the_paper_samples_aime_64_times():
  samples = {name: suite.samples for name, suite in suites.SUITES.items()}
  assert samples['aime'] == 64 and samples['math500'] == 16
  assert (suites.TEMPERATURE, suites.TOP_P) == (.6, .95)
