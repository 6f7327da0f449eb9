"""How fast answers are sampled, beside transformers' `generate`.

SmolLM2-135M-Instruct, greedy, float32, the first 100 problems of GSM8K's test
in the model's chat template, answers of at most 128 tokens:

    R1JAX_TRANSFORMERS_PYTHON=/path/to/python python -m pytest -m slow -s -n 0 \
        tests/stages/test_generation_speed.py

Both run alone, in turn, twice; transformers in the batch size that is its
fastest. Tokens are counted up to the end token, which counts. Loading is left
out of both; of ours compilation, too, which is printed. transformers needs
accelerate and gguf to read the file.
"""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

import released
import shared_data
from r1jax.stages import model_source
from r1jax.stages import prompting

pytestmark = pytest.mark.slow

PROBLEMS, NEW = 100, 128
BATCHES = (10, 25, 50, 100)  # of transformers
PROGRAM = """
import sys, time
import jax
import numpy as np
import released
from r1jax.stages import rollouts
from r1jax.types import Prompts

path, questions, answers = sys.argv[1:]
with np.load(questions) as file:
  asked = dict(file)
model, params = released.load(path, scan_layers=False)
settings = rollouts.Settings(
    1, int(asked['new']), tuple(asked['ends'].tolist()), 0.)
order = np.argsort(asked['length'], kind='stable')
batches = order.reshape(-1, int(asked['ours']))
arguments = lambda rows: (
    params, Prompts(asked['prompts'][rows], asked['length'][rows],
                    rows.astype(np.int32)), np.uint32(0), np.uint32(0))
begin = time.perf_counter()
sample = jax.jit(rollouts.sample_groups, static_argnums=(0, 1)).lower(
    model, settings, *arguments(batches[0])).compile()
compiling = time.perf_counter() - begin
found = np.zeros((len(order), settings.response_tokens), np.int32)
begin, used = time.perf_counter(), time.process_time()
for rows in batches:
  found[rows] = sample(*arguments(rows)).tokens
seconds, used = time.perf_counter() - begin, time.process_time() - used
print(f'compiled in {compiling:.0f} s; {seconds:.1f} s, {used:.1f} of a core')
np.savez(answers, seconds=[seconds], tokens=[found])
"""


def _questions(folder, path, ours):
  """The prompts, as both are given them."""
  source = model_source.find(path)
  asked = prompting.of(source, source.model_config().vocab)
  with shared_data.path('gsm8k/test.jsonl').open(encoding='utf-8') as file:
    rows = [asked.tokens(asked.text(json.loads(line)['question']))
            for line, _ in zip(file, range(PROBLEMS))]
  length = np.array(list(map(len, rows)), np.int32)
  prompts = np.zeros((len(rows), max(length)), np.int32)
  for out, row in zip(prompts, rows):
    out[:len(row)] = row
  np.savez(folder / 'questions.npz', prompts=prompts, length=length, new=NEW,
           ends=asked.vocab.eos_ids, batches=BATCHES, ours=ours)


def _answers(folder, command, path, **environment):
  """What a program answers, and its tokens a second in each batch size."""
  began = time.perf_counter()
  done = subprocess.run(
      [*command, path, 'questions.npz', 'answers.npz'], cwd=folder, check=False,
      capture_output=True, text=True, env=os.environ | environment)
  assert done.returncode == 0, done.stderr
  print('', done.stdout, sep='\n', end='')
  with np.load(folder / 'answers.npz') as file:
    found = dict(file)
  count = (found['tokens'] > 0).sum((1, 2))
  rates = count / found['seconds']
  print(f'{count} tokens, {found["seconds"].round(1)} s, {rates.round(1)} a '
        f'second; the whole process {time.perf_counter() - began:.0f} s')
  return found['tokens'], rates


def test_answers_are_those_of_transformers_and_come_sooner(tmp_path):
  try:
    path = model_source.find('smollm2').path
  except ValueError as problem:
    pytest.skip(str(problem))
  _questions(tmp_path, path, ours=100)
  python = released.python_with_transformers()
  program = os.path.join(os.path.dirname(__file__), 'run_generation.py')
  plain = dict(XLA_FLAGS='', NPROC=str(os.cpu_count()), PYTHONPATH=os.pathsep
               .join(p for p in sys.path if p))
  ratios = []
  for _ in range(2):
    ours, our_rate = _answers(
        tmp_path, [sys.executable, '-c', PROGRAM], path, **plain)
    theirs, rates = _answers(tmp_path, [python, program], path, PYTHONPATH='')
    best = np.argmax(rates)
    same = np.mean(np.all(ours[0] == theirs[best], 1))
    ratios.append(our_rate[0] / rates[best])
    print(f'{our_rate[0]:.0f} tokens a second, transformers {rates[best]:.0f} '
          f'in batches of {BATCHES[best]}: {ratios[-1]:.2f} times; '
          f'{same:.0%} of the answers are the same')
    assert same > 0.9
  assert min(ratios) > 1
