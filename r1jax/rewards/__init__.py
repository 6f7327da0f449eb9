"""Rewards, on the host: decoded responses in, numbers out.

A reward is a weighted sum of named parts, each a number per response:

    accuracy    1 if the answer is right, else 0        (accuracy, verifiers)
    format      1 if thinking and answer are well formed, else 0     (format)
    language    share of the thinking's words in its language    (language)
    mixed       1 if more than a tenth of the words is in another (language)
    overlong    0 down to -1 near the token limit                    (length)
    repetition  0 down to -1 as word n-grams repeat              (repetition)
    any other   the score of a reward model                           (model)

Where no rule can tell accuracy a model may                           (judge)
Answers are judged by third-party code, in worker processes that can be killed
(workers, the parent's side; sandbox, the child's).
"""

from r1jax.rewards.judge import GenerativeJudge
from r1jax.rewards.model import Asked
from r1jax.rewards.model import RewardModel
from r1jax.rewards.score import Response
from r1jax.rewards.score import Scorer
from r1jax.rewards.score import Scores

Judge = RewardModel | GenerativeJudge  # what scores by a model

__all__ = ['Asked', 'GenerativeJudge', 'Judge', 'Response', 'RewardModel',
           'Scorer', 'Scores']
