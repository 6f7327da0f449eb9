r"""The benchmarks: where a suite's problems are, how it is asked and checked.

    python -m r1jax.evaluate --model=smollm2 --suite=gsm8k,math500 --data=FOLDER
    python -m r1jax.contamination --train=jsonl:MY_DATA.jsonl --suite=gsm8k \
        --data=FOLDER

`{data}` stands for that folder; below it lie the files as their authors publish
them, under their names. A suite can also be read from TFDS or any other source
of data/sources.py: only its task changes.

Samples and lengths are those of DeepSeek-R1's evaluation: temperature 0.6,
top-p 0.95, 32,768 tokens; 64 samples a problem for AIME and GPQA, 16 for MATH
and Codeforces, 8 for LiveCodeBench ([v1] arXiv 2501.12948v1, 3; [v2] its second
version, D.1). Where the paper gives no number of samples, it is one.
"""

from typing import Any, NamedTuple

from r1jax import errors

TEMPERATURE, TOP_P = 0.6, 0.95  # [v1] 3
RESPONSE_TOKENS = 32_768  # [v1] 3

# As DeepSeek-R1's model card advises, without a system message.
_BOXED = ('Please reason step by step, and put your final answer within '
          r'\boxed{}.')
_FOLDER = 'jsonl:{data}/evaluation_suite'  # of five suites of mathematics

_V1, _V2 = 'arXiv 2501.12948v1, 3', 'arXiv 2501.12948v2, D.1'


class Suite(NamedTuple):
  """A benchmark: the sections `data`, `rewards`, `rl` and `eval` of a test."""
  task: str  # config.data.task; {data}: the folder with the files
  problems: int  # as published
  source: str  # of the problems, and of what is set here
  split: str = 'train'  # a single file is that split
  samples: int = 1  # responses to a problem, k
  answer: str = 'boxed'  # config.rewards.answer
  instruction: str | None = _BOXED  # appended to every prompt
  template: str = 'chat'
  prompt_tokens: int = 1_024  # a longer prompt is left out, and counted
  response_tokens: int = RESPONSE_TOKENS
  options: dict[str, Any] = {}  # config.data.options
  functions: dict[str, str] = {}  # config.rewards.functions: further figures


SUITES = {
    # Mathematics. The answer of a box is compared as mathematics: units, lists,
    # intervals and alternatives as the references have them.
    'gsm8k': Suite(
        'jsonl:{data}/gsm8k/test.jsonl', 1_319, 'arXiv 2110.14168',
        answer='last', prompt_tokens=384),
    'aime': Suite(
        f'{_FOLDER}/aime.jsonl', 30, f'AIME 2024; {_V1}', samples=64),
    'amc': Suite(f'{_FOLDER}/amc.jsonl', 83, 'AMC 12 2022 and 2023'),
    'math500': Suite(
        f'{_FOLDER}/math.jsonl', 500,
        f'arXiv 2103.03874, the 500 of 2305.20050; {_V2}', samples=16),
    'minerva': Suite(
        f'{_FOLDER}/minerva.jsonl', 272, 'arXiv 2206.14858, OCWCourses; '
        'decimals within 1 %', options=dict(tolerance=0.01)),
    'olympiad_bench': Suite(
        f'{_FOLDER}/olympiad_bench.jsonl', 675,
        'arXiv 2402.14008, open-ended, English, text only',
        prompt_tokens=2_048),
    # Multiple choice, asked as in simple-evals, and rules.
    'gpqa': Suite(
        'gpqa:{data}/gpqa/gpqa_diamond.csv', 198,
        f'arXiv 2311.12022, Diamond; {_V1}', samples=64, answer='whole',
        instruction=None, prompt_tokens=2_048),
    'mmlu': Suite(
        'mmlu:{data}/mmlu/test/*.csv', 14_042, f'arXiv 2009.03300; {_V1}',
        answer='whole', instruction=None, prompt_tokens=2_048),
    'mmlu_pro': Suite(
        'mmlu:{data}/mmlu_pro/test-*.parquet', 12_032,
        f'arXiv 2406.01574; {_V1}', answer='whole', instruction=None,
        prompt_tokens=2_048, options=dict(task='mmlu_pro')),
    'ifeval': Suite(
        'ifeval:{data}/ifeval/input_data.jsonl', 541,
        f'arXiv 2311.07911, prompt-level, strict; {_V1}', answer='whole',
        instruction=None,
        functions=dict(ifeval='r1jax.rewards.instructions:reward')),
    # Programs, run against tests in a sandbox (rewards/code).
    'humaneval': Suite(
        'humaneval:{data}/humaneval/HumanEval.jsonl.gz', 164,
        'arXiv 2107.03374', answer='whole', instruction=None),
    'mbpp': Suite(
        'mbpp:{data}/mbpp/mbpp.jsonl', 500,
        'arXiv 2108.07732, tasks 11 to 510', 'train[10:510]', answer='whole',
        instruction=None),
    'livecodebench': Suite(
        'livecodebench:{data}/livecodebench/test*.jsonl', 1_055,
        f'arXiv 2403.07974, release v6; {_V2}', samples=8, answer='whole',
        instruction=None, prompt_tokens=4_096),
    'codeforces': Suite(
        'codeforces:{data}/codeforces/test*.parquet', 468,
        f'open-r1/codeforces; {_V2}', samples=16, answer='whole',
        instruction=None, prompt_tokens=4_096),
    # Software engineering: --data=experiments.
    'repair': Suite(
        'code:{data}/repair.jsonl', 20, 'experiments/repair.jsonl',
        answer='whole', instruction=None, response_tokens=2_048),
    # The miniature world: problems that no stage has seen.
    'mini_reasoning': Suite(
        'mini_reasoning', 512, 'r1jax/mini', 'heldout', answer='summary',
        instruction=None, template='mini', prompt_tokens=48,
        response_tokens=160),
    'mini_general': Suite(
        'mini_general', 192, 'r1jax/mini', 'heldout', answer='summary',
        instruction=None, template='mini', prompt_tokens=48,
        response_tokens=160),
}

_GYM = 'reasoning_gym:'


def find(name: str, data: str = '.') -> Suite:
  """The suite of a name, its files below the folder `data`.

  'reasoning_gym:NAME' is 100 held-out problems of that data set.

  Raises:
    ConfigError: there is none of this name.
  """
  if name.startswith(_GYM):
    return Suite(name, 100, 'reasoning_gym', 'heldout')
  if name not in SUITES:
    raise errors.expected(
        '--suite', 'one or several, by comma, of '
        f'{", ".join(SUITES)}, {_GYM}NAME', name)
  suite = SUITES[name]
  return suite._replace(task=suite.task.replace('{data}', data))
