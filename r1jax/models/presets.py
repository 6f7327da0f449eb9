"""Shapes of published models by name, each from its own config.json."""

from r1jax.models import shape

_QWEN25 = dict(head_size=128, kv_heads=8, rms_eps=1e-6, rope_theta=1e6,
               qkv_bias=True, tied=False, max_len=131_072, dtype='bfloat16',
               remat='full')

PRESETS = {
    'smollm2_135m': shape.Config(  # HuggingFaceTB/SmolLM2-135M
        vocab=49_152, width=576, layers=30, heads=9, kv_heads=3, head_size=64,
        mlp=1536, max_len=8192, rope_theta=1e5, rms_eps=1e-5),
    'qwen2.5_32b': shape.Config(  # Qwen/Qwen2.5-32B
        vocab=152_064, width=5120, layers=64, heads=40, mlp=27_648,
        **(_QWEN25 | dict(rms_eps=1e-5))),
    'deepseek_v3': shape.Config(  # deepseek-ai/DeepSeek-V3-Base
        vocab=129_280, width=7168, layers=61, heads=128, kv_heads=128,
        head_size=192, mlp=18_432, max_len=163_840, rms_eps=1e-6, tied=False,
        latent=shape.Latent(q_rank=1536, kv_rank=512, nope_size=128,
                            rope_size=64, value_size=128),
        moe=shape.Experts(experts=256, active=8, mlp=2048, shared=1, groups=8,
                          active_groups=4, scale=2.5, dense_layers=3),
        rope_scaling=shape.RopeScaling(
            'yarn', 40., original_len=4096, mscale=1., mscale_all_dim=1.),
        dtype='bfloat16', remat='full'),
}
