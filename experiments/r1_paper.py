"""R1's recipe at the paper's scale, on DeepSeek-V3: r1.py:paper.

The values are those of [v2] arXiv 2501.12948v2, each with its source; those
that are not published are marked (those of R1-Zero and the reward models in
r1_zero.py and reward_model.py). A step of the paper's RL is one of the 16
updates of a rollout; a step here is a rollout.

You must name two models: --config.models.base, DeepSeek-V3-Base, and
--config.models.helper, in the paper DeepSeek-V3; and a judge, a model in
--config.stages.judged.rewards.judge.init_from or an endpoint in its .url and
.model. Your data are train.jsonl and test.jsonl in folders of the working
directory. With lines {"prompt": ..., "answer": ...}: reasoning/ (problems with
answers), judged/ (problems that no rule can check), examples/ (long worked
answers), general/ (general tasks with answers: what DeepSeek-V3 was fine-tuned
on), helpful/ and harmless/ (general prompts for the last RL; the answer may be
empty). For the reward models pairs/, with lines {"prompt": ..., "chosen": ...,
"rejected": ...}, and labels/, with {"prompt": ..., "responses": [...],
"grades": [...]}, where a grade is 1 for a safe response, else 0.
"""

from experiments import common
from experiments import r1_zero
from experiments import reward_model
from experiments import reward_sections
from experiments import sample_sections
from experiments import sections

_PROMPT, _CONTEXT = 1024, 32_768  # tokens; of a prompt, not published
_REASONING = 'jsonl:reasoning/{split}.jsonl'

# The helper's instructions. The sentence on the language is from [v2] B.3.2. In
# our own words, after the paper: reflection and verification ([v1] 2.3.1), the
# summary that ends a rewritten draft, and the thoughts before a general answer
# ([v2] B.3.3).
_REASON = (
    'Solve this in detail: reason step by step within <think> and </think>, '
    'reflect on what you have found, verify it, and correct yourself. Then '
    'write a summary of the solution with the final answer.')
_REFINE = (
    'Translate the thinking process to the same language as the question. Put '
    'it within <think> and </think>, in the first person and easy to read, and '
    'change nothing of what it concludes. Then write a summary: the key steps '
    'and the final answer, well formatted.')
_THINK = (
    'Write down the thoughts that lead to this answer within <think> and '
    '</think>, then the answer itself, unchanged.')


def pipeline() -> common.ConfigDict:
  """Every stage that makes R1, without those that only measure."""
  return common.pipeline(None, dict(
      zero=zero(), zero_long=zero_long(),
      few_shot=few_shot(), instructed=instructed(),
      zero_samples=zero_samples(), refined=refined(), collected=collected(),
      cold_start=cold_start(), reasoning=reasoning(), rejection=rejection(),
      judged=judged(), thoughts=thoughts(), sft_data=sft_data(), sft=sft(),
      helpful=helpful(), harmless=harmless(), rules=rules(), r1=secondary(),
  ), models=('base', 'helper'))


def _model(scalar: bool = False) -> common.ConfigDict:
  return common.model(
      preset='deepseek_v3', attention_chunk=512, scalar=scalar)


def _on(config: common.ConfigDict, init_from: str, task: str
       ) -> common.ConfigDict:
  """A stage of another experiment, on DeepSeek-V3 and its data."""
  config.init_from, config.data.task = init_from, task
  config.model = _model(scalar=config.stage == 'preference')
  config.vocab = common.vocab()
  return config


###############################################################################
# Reinforcement learning
###############################################################################


def zero() -> common.ConfigDict:
  """R1-Zero's first part, [v2] 2.1: 8,200 steps."""
  return _on(r1_zero.paper(), '{base}', _REASONING)


def zero_long() -> common.ConfigDict:
  """Its second part, [v2] 2.1: up to step 10,400, with 65,536 tokens."""
  return _on(r1_zero.paper_long(), '{zero}', _REASONING)


def reasoning() -> common.ConfigDict:
  """[v2] 3.2.1: as R1-Zero, with the language reward.

  How many steps is not published: as many as R1-Zero's first part.
  """
  config = zero()
  config.init_from, config.data.template = '{cold_start}', 'chat'
  config.rl.clip_low = config.rl.clip_high = 10.0
  config.rewards = reward_sections.rewards(
      answer='summary', form='summary', weights=dict(language=1.0))
  return config


def rules() -> common.ConfigDict:
  """[v2] 3.2.2, all but the last 400 of 1,700 steps: reasoning, with rules."""
  config = reasoning()
  config.steps, config.init_from = (1_700 - 400) // r1_zero.UPDATES, '{sft}'
  config.rl.temperature = 0.7
  return config


def secondary() -> common.ConfigDict:
  """[v2] 3.2.2: general prompts and reward models in the last 400 steps alone.

  A general prompt is scored by the reward model of its own kind; format and
  language count for all. The rates of the three kinds are not published.
  """
  kinds = ('helpful', 'harmless')
  config = rules()
  config.steps, config.init_from = 400 // r1_zero.UPDATES, '{rules}'
  config.data = sections.prompts(
      ((_REASONING, 0.5), ('jsonl:helpful/{split}.jsonl', 0.25),
       ('jsonl:harmless/{split}.jsonl', 0.25)),
      template='chat', num_prompts=208_000, options={
          '1': dict(task='helpful', verifier='exact'),
          '2': dict(task='harmless', verifier='exact')})
  config.rewards = reward_sections.rewards(
      answer='summary', form='summary', weights=dict(language=1.0),
      tasks={kind: {'accuracy': 0.0, kind: 1.0} for kind in kinds},
      models={kind: reward_sections.reward_model(init_from=f'{{{kind}}}')
              for kind in kinds})
  return config


###############################################################################
# Samples, and fine-tuning on them
###############################################################################


_JUDGE = dict(prompt_tokens=8192, response_tokens=4096)


def _summaries(**values) -> common.ConfigDict:
  """The rewards of responses in R1's form: thinking, then a summary."""
  return reward_sections.rewards(**dict(
      answer='summary', form='summary', judge=_JUDGE) | values)


def _samples(init_from: str, task: str, *, prompt_tokens: int = _PROMPT,
             rewards: common.ConfigDict | None = None,
             reflection: bool = False, **prompts) -> common.ConfigDict:
  """Responses of full length, filtered; the group size is not published."""
  return common.base(
      'sample', init_from=init_from, model=_model(), vocab=common.vocab(),
      data=sections.prompts(
          task, **dict(template='chat', num_prompts=100_000) | prompts),
      rl=sections.sampling(
          prompts=512, group=4, prompt_tokens=prompt_tokens,
          response_tokens=_CONTEXT - _PROMPT, sample_chunk=1024),
      rewards=rewards or _summaries(),
      # No mixed languages (config.rewards.languages), long paragraphs or code.
      keep=sample_sections.keep(max_paragraph=4000, reflection=reflection))


def few_shot() -> common.ConfigDict:
  """[v2] B.3.2: the helper is shown a long worked example."""
  return _samples(
      '{helper}', _REASONING, seed=3, shots=1,
      examples='jsonl:examples/{split}.jsonl',
      prompt_tokens=_PROMPT + _CONTEXT,  # one example, long
      reflection=True)


def instructed() -> common.ConfigDict:
  """[v2] B.3.2: it is prompted for detail, reflection and verification."""
  return _samples(
      '{helper}', _REASONING, seed=4, instruction=_REASON, reflection=True)


def zero_samples() -> common.ConfigDict:
  """[v2] B.3.2: R1-Zero's responses, in the template of its training."""
  return _samples(
      '{zero_long}', _REASONING, template='r1_zero', seed=5,
      rewards=reward_sections.rewards(
          answer='tags', form='answer', languages=(), judge=_JUDGE))


def refined() -> common.ConfigDict:
  """[v2] B.3.2: rewritten by the helper; the draft is in the prompt."""
  return _samples(
      '{helper}', 'drafts:jsonl:{zero_samples}/kept-*.jsonl', seed=2,
      instruction=_REFINE, prompt_tokens=_PROMPT + _CONTEXT)


def collected() -> common.ConfigDict:
  return common.base('collect', collect={
      name: sections.part(f'jsonl:{{{name}}}/kept-*.jsonl')
      for name in ('few_shot', 'instructed', 'refined')})


def cold_start() -> common.ConfigDict:
  """[v2] B.4.2."""
  return _fine_tuning('jsonl:{collected}/collected.jsonl')


def rejection() -> common.ConfigDict:
  """[v2] B.3.3: correct responses of the policy after reasoning RL."""
  return _samples('{reasoning}', _REASONING, seed=1)


def judged() -> common.ConfigDict:
  """[v2] B.3.3: problems that a model judges instead of a rule."""
  return _samples(
      '{reasoning}', 'jsonl:judged/{split}.jsonl', seed=1,
      options=dict(verifier='judge'))


def thoughts() -> common.ConfigDict:
  """[v2] B.3.3: a chain of thought before general answers."""
  return _samples(
      '{helper}', 'drafts:jsonl:general/{split}.jsonl', seed=1,
      instruction=_THINK, prompt_tokens=4 * _PROMPT,
      rewards=_summaries(languages=()))


def sft_data() -> common.ConfigDict:
  """Of the 804,745 examples 177,812 are general, some of them with thoughts.

  Trivial queries have none.
  """
  return common.base('collect', collect=dict(
      rejection=sections.part('jsonl:{rejection}/kept-*.jsonl'),
      judged=sections.part('jsonl:{judged}/kept-*.jsonl'),
      thoughts=sections.part('jsonl:{thoughts}/kept-*.jsonl'),
      trivial=sections.part('jsonl:general/{split}.jsonl', 177_812)))


def sft() -> common.ConfigDict:
  """[v2] B.4.2, the second fine-tuning: from the base again."""
  return _fine_tuning('jsonl:{sft_data}/collected.jsonl')


def _fine_tuning(task: str) -> common.ConfigDict:
  """[v2] B.4.2, of both fine-tunings."""
  return common.base(
      'lm', epochs=2.,  # 2 to 3
      init_from='{base}', model=_model(), vocab=common.vocab(),
      data=sections.texts(task, template='chat'),
      lm=sections.lm(batch=128, length=_CONTEXT, logp_chunk=128),
      optim=dict(lr=5e-5, schedule='cosine', final_fraction=0.1,
                 warmup_steps=5),  # not published
      eval=dict(split=None))


###############################################################################
# Reward models
###############################################################################


def helpful() -> common.ConfigDict:
  """[v2] 3.1, of pairs."""
  return _on(reward_model.helpful(), '{sft}', 'jsonl:pairs/{split}.jsonl')


def harmless() -> common.ConfigDict:
  """[v2] 3.1, of single responses, safe or unsafe, judged whole."""
  return _on(reward_model.harmless(), '{sft}', 'jsonl:labels/{split}.jsonl')
