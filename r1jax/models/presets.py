"""Published architectures by name: `config.model.preset`.

Each has the values of the published model's config.json, named beside it; how
it is computed (dtype, remat) is ours.
"""

from r1jax.models import architecture

_BIG = dict(dtype='bfloat16', remat='full')
_QWEN = dict(head_size=128, qkv_bias=True, **_BIG)  # Qwen2
_LLAMA_31 = dict(
    vocab=128_256, head_size=128, kv_heads=8, max_len=131_072, rope_theta=5e5,
    rms_eps=1e-5, tied=False, rope_scaling=architecture.RopeScaling(
        'llama3', 8., original_len=8192, low_freq=1., high_freq=4.), **_BIG)

PRESETS = {
    'smollm2_135m': architecture.Config(  # HuggingFaceTB/SmolLM2-135M
        vocab=49_152, width=576, layers=30, heads=9, kv_heads=3, head_size=64,
        mlp=1536, max_len=8192, rope_theta=1e5, rms_eps=1e-5),
    'qwen2.5_0.5b': architecture.Config(  # Qwen/Qwen2.5-0.5B
        vocab=151_936, width=896, layers=24, heads=14, kv_heads=2, mlp=4864,
        max_len=32_768, rope_theta=1e6, **_QWEN | dict(head_size=64)),
    'qwen2.5_1.5b': architecture.Config(  # Qwen/Qwen2.5-1.5B
        vocab=151_936, width=1536, layers=28, heads=12, kv_heads=2, mlp=8960,
        max_len=131_072, rope_theta=1e6, **_QWEN),
    'qwen2.5_math_1.5b': architecture.Config(  # Qwen/Qwen2.5-Math-1.5B
        vocab=151_936, width=1536, layers=28, heads=12, kv_heads=2, mlp=8960,
        max_len=4096, rope_theta=1e4, **_QWEN),
    'qwen2.5_7b': architecture.Config(  # Qwen/Qwen2.5-7B
        vocab=152_064, width=3584, layers=28, heads=28, kv_heads=4, mlp=18_944,
        max_len=131_072, rope_theta=1e6, tied=False, **_QWEN),
    'qwen2.5_math_7b': architecture.Config(  # Qwen/Qwen2.5-Math-7B
        vocab=152_064, width=3584, layers=28, heads=28, kv_heads=4, mlp=18_944,
        max_len=4096, rope_theta=1e4, tied=False, **_QWEN),
    'qwen2.5_14b': architecture.Config(  # Qwen/Qwen2.5-14B
        vocab=152_064, width=5120, layers=48, heads=40, kv_heads=8, mlp=13_824,
        max_len=131_072, rope_theta=1e6, rms_eps=1e-5, tied=False, **_QWEN),
    'qwen2.5_32b': architecture.Config(  # Qwen/Qwen2.5-32B
        vocab=152_064, width=5120, layers=64, heads=40, kv_heads=8, mlp=27_648,
        max_len=131_072, rope_theta=1e6, rms_eps=1e-5, tied=False, **_QWEN),
    'llama3.1_8b': architecture.Config(  # meta-llama/Llama-3.1-8B
        width=4096, layers=32, heads=32, mlp=14_336, **_LLAMA_31),
    'llama3.3_70b': architecture.Config(  # meta-llama/Llama-3.3-70B-Instruct
        width=8192, layers=80, heads=64, mlp=28_672, **_LLAMA_31),
    'deepseek_v3': architecture.Config(  # deepseek-ai/DeepSeek-V3-Base
        vocab=129_280, width=7168, layers=61, heads=128, kv_heads=128,
        head_size=192, mlp=18_432, max_len=163_840, rms_eps=1e-6, tied=False,
        latent=architecture.Latent(
            q_rank=1536, kv_rank=512, nope_size=128, rope_size=64,
            value_size=128),
        moe=architecture.Experts(
            experts=256, active=8, mlp=2048, shared=1, groups=8,
            active_groups=4, scale=2.5, dense_layers=3),
        rope_scaling=architecture.RopeScaling(
            'yarn', 40., original_len=4096, mscale=1., mscale_all_dim=1.),
        **_BIG),
}
