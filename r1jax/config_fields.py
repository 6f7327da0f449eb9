"""What single fields of a configuration may hold, as tables."""

import operator

MESH_AXES = ('data', 'fsdp', 'expert', 'tensor', 'context')

CHOICES = {
    'vocab.kind': ('sentencepiece', 'huggingface', 'gguf', 'model'),
    'model.remat': ('none', 'full', 'dots'),
    'model.activation': ('silu', 'gelu'),
    'model.dtype': ('float32', 'bfloat16'),
    'model.param_dtype': ('float32', 'bfloat16'),
    'rl.advantage': ('grpo', 'rloo', 'gae'),
    'preference.loss': ('pairwise', 'pointwise', 'dpo'),
    'preference.scores': ('response', 'summary'),
    'rl.std': ('population', 'sample', 'none'),
    'rl.aggregate': ('sequence_mean', 'token_mean', 'constant'),
    'rl.kl': ('none', 'k1', 'k2', 'k3'),
    'rl.kl_in': ('loss', 'reward'),
    'optim.schedule': ('constant', 'cosine'),
    'distill.kind': ('forward', 'reverse'),
}

BOUNDS = (  # what a number must keep to, and the fields that hold one
    (operator.ge, 'at least', 0, (
        'steps', 'seed', 'data.seed', 'data.shots', 'lora.rank', 'rl.beta',
        'rl.ref_every_steps', 'rl.sampling_rounds', 'optim.lr', 'eval.shown',
        'optim.warmup_steps', 'optim.weight_decay', 'optim.clip_norm',
        'optim.final_fraction', 'optim.b1', 'optim.b2', 'eval.temperature',
        'optim.router_bias_rate', 'eval.every_steps', 'eval.top_k',
        'log.rollouts_every_steps', 'lm.prompt_weight', 'preference.margin',
        'critic.lora.rank', 'critic.gamma', 'critic.lam',
        'keep.min_accuracy', 'keep.max_repetition', 'distill.weight',
        'distill.top_k')),
    (operator.ge, 'at least', 1, (
        'model.layers', 'model.width', 'model.heads', 'model.kv_heads',
        'model.attention_chunk', 'model.window', 'model.global_every',
        'data.num_prompts', 'lm.batch', 'lm.micro_batches', 'lm.logp_chunk',
        'rl.prompts', 'rl.prompt_tokens', 'rl.response_tokens',
        'rl.mini_batches', 'rl.micro_batch', 'rl.epochs', 'rl.sample_chunk',
        'rl.logp_chunk', 'rewards.workers', 'rewards.overlong_cache_tokens',
        'optim.max_skipped_steps', 'checkpoint.every_steps', 'checkpoint.keep',
        'eval.problems', 'eval.batch', 'eval.samples', 'preference.batch',
        'preference.micro_batches', 'preference.reference',
        'preference.logp_chunk', 'rl.group', 'keep.shard_rows',
        'keep.per_prompt', 'keep.max_paragraph')),
    (operator.ge, 'at least', 2, (
        'model.vocab', 'model.max_len', 'model.head_size', 'lm.length',
        'preference.length')),
    (operator.gt, 'more than', 0, (
        'rl.temperature', 'rl.clip_low', 'rl.clip_high', 'optim.eps',
        'rewards.timeout_seconds', 'eval.top_p', 'rl.kl_target', 'epochs',
        'preference.beta',
        'critic.value_clip', 'distill.temperature')),
    (operator.gt, 'more than', 1, ('rl.dual_clip',)),
    (operator.le, 'at most', 1, (
        'eval.top_p', 'critic.gamma', 'critic.lam', 'distill.weight')),
    (operator.lt, 'less than', 1, ('optim.b1', 'optim.b2')),
    (operator.lt, 'less than', 2**32, ('seed', 'data.seed')),
)

SPLIT = {  # logical axis: the field that a mesh axis must divide
    'embed': 'model.width', 'vocab': 'model.vocab', 'heads': 'model.heads',
    'kv_heads': 'model.kv_heads', 'mlp': 'model.mlp',
}

# What a resumed run may change: none of it reaches a parameter.
CHANGEABLE = ('log.', 'checkpoint.', 'distributed')
