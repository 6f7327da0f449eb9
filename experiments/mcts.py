"""Tree search over reasoning steps, which the paper tried and gave up.

    python -m r1jax.main --config=experiments/mcts.py:mini --workdir=/tmp/mcts

The loop of AlphaZero on the mini world's problems ([v1] arXiv 2501.12948, 4.2):
a tree of steps is searched for each problem, guided by a value model; the
policy learns from the correct responses that were found, the value model which
steps led to them; and the search begins again with both, for two rounds. The
first search has no value model: it makes the data of the first one. In each
round the search is compared on held-out problems with greedy decoding, majority
vote and best of N by the same value model, over the tokens that each samples.

ReST-MCTS* (arXiv 2406.03816) is the same loop; its targets of the value model
are process rewards that are inferred from the trees. Rejection sampling is the
loop without trees or values, with about as many tokens. report.html has the
figures, and which of the paper's reasons they show.

The policy's learning rate is low: at 2.5 times this, one round takes greedy
decoding from answering at once to reasoning throughout, from 14 to 100 %, and
leaves the next nothing to find. Samples at temperature 1 show the progress.
"""

from experiments import common
from experiments import reward_sections
from experiments import sample_sections
from experiments import sections

ROUNDS = (1, 2)
LOOPS = ('alphazero', 'rest', 'rejection')
_TOKENS = dict(prompt_tokens=32, response_tokens=112, sample_chunk=56)
_BATCH = 64  # prompts


def get_config(arg: str = 'mini') -> common.ConfigDict:
  return common.variant(__file__, arg, {'mini': mini})


def mini() -> common.ConfigDict:
  stages = dict(
      first=search('mini', None),
      alphazero_value_0=value('{first}', 'outcome'),
      rest_value_0=value('{first}', 'quality'))
  for n in ROUNDS:
    for loop, labels in (('alphazero', 'outcome'), ('rest', 'quality')):
      stages[f'{loop}_search_{n}'] = search(
          _policy(loop, n - 1), f'{{{loop}_value_{n - 1}}}', seed=n)
      if (loop, n) != ('rest', ROUNDS[-1]):  # nothing would read that one
        stages[f'{loop}_value_{n}'] = value(f'{{{loop}_search_{n}}}', labels)
    stages[f'rejection_search_{n}'] = search(
        _policy('rejection', n - 1), None, seed=n, simulations=0, group=16)
    for loop in LOOPS:
      stages[f'{loop}_policy_{n}'] = policy(
          _policy(loop, n - 1), f'{{{loop}_search_{n}}}')
  for n in (0, *ROUNDS):
    models = _policy('alphazero', n), f'{{alphazero_value_{n}}}'
    stages |= {
        f'greedy_{n}': test(models[0], None, simulations=0, top_k=1),
        f'tree_{n}': test(*models, group=16),
        f'small_tree_{n}': test(*models, group=16, simulations=4),
        f'samples_{n}': test(*models, simulations=0, group=32)}
    for loop in LOOPS[1:] if n else ():
      stages[f'{loop}_samples_{n}'] = test(
          _policy(loop, n), None, simulations=0, group=8)
  return common.pipeline('mcts', stages)


def _policy(loop: str, n: int) -> str:
  return f'{{{loop}_policy_{n}}}' if n else 'mini'


def search(policy: str, value: str | None, *, seed: int = 0, group: int = 8,
           **changes) -> common.ConfigDict:
  """Responses to problems, found by trees or sampled, and those that are kept.

  Each round has problems of its own.
  """
  return _search(policy, value, sections.prompts(
      'mini_reasoning', num_prompts=128, seed=30 + seed),
                 sections.searched(prompts=_BATCH, group=group, **_TOKENS),
                 dict(keep=sample_sections.keep(per_prompt=2)), **changes)


def test(policy: str, value: str | None, *, group: int = 1, top_k: int = 0,
         **changes) -> common.ConfigDict:
  """The responses chosen for held-out problems, the same for all."""
  return _search(policy, value, sections.prompts(
      'mini_reasoning', num_prompts=128, seed=20, split='heldout'),
                 sections.searched(
                     prompts=_BATCH, group=group, top_k=top_k, **_TOKENS),
                 {}, **changes)


def _search(policy, value, data, sampling, parts, **changes
           ) -> common.ConfigDict:
  return common.base(
      'search', init_from=policy, model=common.mini_model(),
      vocab=common.mini_vocab(), data=data, rl=sampling,
      rewards=reward_sections.rewards(), search=sample_sections.search(
          init_from=value, ends=('.', '。', '\n'), step_tokens=24,
          **dict(simulations=16, least_visits=2) | changes), **parts)


def value(search: str, labels: str) -> common.ConfigDict:
  """The value model, from the base, on the steps that a search has found."""
  return common.base(
      'preference', init_from='mini', epochs=2.,
      model=common.mini_model(scalar=True), vocab=common.mini_vocab(),
      data=sections.preferences(
          f'jsonl:{search}/steps.jsonl', split='train[:-64]',
          options=dict(labels=labels)),
      # Rows are split, not prompts: responses to the prompt at the boundary
      # may be on both sides. A step's own end is in its text.
      preference=sections.preference(
          loss='stepwise', separator='', batch=8, length=256,
          balance_length=False),
      optim=dict(lr=1e-3, schedule='cosine', warmup_steps=5),
      eval=dict(split='train[-64:]', problems=64))


def policy(init_from: str, search: str) -> common.ConfigDict:
  """The policy fine-tuned on the responses that are correct and readable."""
  return common.base(
      'lm', init_from=init_from, epochs=3., model=common.mini_model(),
      vocab=common.mini_vocab(),
      data=sections.texts(f'jsonl:{search}/kept-*.jsonl', template='mini'),
      lm=sections.lm(batch=4, length=256),
      optim=dict(lr=1e-4, schedule='cosine', warmup_steps=3),
      eval=dict(split=None))
