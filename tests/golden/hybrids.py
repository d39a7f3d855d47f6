"""Golden checkpoints of hybrid models and state-space models: tiny models of Hugging Face's `transformers` with what they say, in float64.

Each folder of hybrids/ is as checkpoints.py describes it: config.json, model.safetensors with weights in BF16 that are drawn from their
names, and expected.safetensors with `tokens` [B,T] and `logits` [B,T,V]. Tensors have the names that published checkpoints have. The
library computes norms and recurrences in float32; here that type is float64, too, so that what is kept has no rounding of its own.
RWKV-7, which the library does not have, is written out below from the paper and the shapes of its published checkpoints.

    build/golden/bin/pip install numpy torch transformers safetensors
    build/golden/bin/python hybrids.py [NAME ...]
"""
import json
import sys
import zlib
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent / "hybrids"
B, T = 2, 17

# ---- float32 is float64 ----
real_to = torch.Tensor.to
torch.Tensor.float = torch.Tensor.double


def to(x, *args, **kwargs):
    args = tuple(torch.float64 if a is torch.float32 else a for a in args)
    kwargs = {k: torch.float64 if v is torch.float32 else v for k, v in kwargs.items()}
    return real_to(x, *args, **kwargs)


torch.Tensor.to = to
real_softmax = torch.nn.functional.softmax
torch.nn.functional.softmax = lambda x, dim=None, _stacklevel=3, dtype=None: real_softmax(x, dim=dim)

SMALL = dict(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=64)
TINY = dict(SMALL, vocab_size=12, hidden_size=8, intermediate_size=10, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1)
MAMBA = dict(num_hidden_layers=2, mamba_n_heads=8, mamba_d_head=4, mamba_d_state=6, mamba_n_groups=2, mamba_expand=2, mamba_d_conv=4)
CASES = {
    "lfm2": ("Lfm2ForCausalLM", dict(
        SMALL, layer_types=["conv", "full_attention", "conv"], block_multiple_of=8, conv_L_cache=3,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0})),
    "lfm2_moe": ("Lfm2MoeForCausalLM", dict(
        SMALL, num_hidden_layers=2, layer_types=["conv", "full_attention"], moe_intermediate_size=6, num_experts=4, num_experts_per_tok=2,
        num_dense_layers=1, use_expert_bias=True, norm_topk_prob=True, routed_scaling_factor=1.5, conv_L_cache=4, conv_bias=True,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0})),
    "mamba2": ("Mamba2ForCausalLM", dict(
        vocab_size=32, hidden_size=16, num_hidden_layers=2, num_heads=8, head_dim=4, state_size=6, n_groups=2, expand=2, conv_kernel=4,
        use_bias=True, chunk_size=8, tie_word_embeddings=True)),
    "bamba": ("BambaForCausalLM", {**SMALL, **MAMBA, "attn_layer_indices": [1], "mamba_chunk_size": 8}),
    "granite": ("GraniteMoeHybridForCausalLM", dict(
        {**SMALL, **MAMBA}, layer_types=["linear_attention", "full_attention"], num_local_experts=0,
        shared_intermediate_size=24, embedding_multiplier=6.0, logits_scaling=2.0, residual_multiplier=0.4, attention_multiplier=0.35,
        position_embedding_type=None, mamba_chunk_size=8, tie_word_embeddings=True)),
    "granite_moe": ("GraniteMoeHybridForCausalLM", dict(
        {**SMALL, **MAMBA}, layer_types=["linear_attention", "full_attention"], num_local_experts=4, num_experts_per_tok=2,
        intermediate_size=6, shared_intermediate_size=8, embedding_multiplier=3.0, logits_scaling=0.5, residual_multiplier=0.6,
        attention_multiplier=0.5, position_embedding_type="rope", mamba_chunk_size=8)),
    "falcon_h1": ("FalconH1ForCausalLM", dict(
        SMALL, num_hidden_layers=2, num_key_value_heads=1, mamba_d_ssm=24, mamba_n_heads=4, mamba_d_head=6, mamba_d_state=5, mamba_n_groups=2,
        mamba_expand=2, mamba_d_conv=3, mamba_chunk_size=8, mamba_rms_norm=False, lm_head_multiplier=0.4, embedding_multiplier=3.0,
        mlp_multipliers=[0.7, 1.4], key_multiplier=0.8, attention_out_multiplier=1.2, attention_in_multiplier=0.9,
        ssm_multipliers=[0.9, 1.1, 0.8, 1.3, 0.7], ssm_in_multiplier=1.25, ssm_out_multiplier=0.6)),
    "falcon_h1_norm": ("FalconH1ForCausalLM", dict(
        SMALL, num_hidden_layers=1, mamba_d_ssm=24, mamba_n_heads=4, mamba_d_head=6, mamba_d_state=5, mamba_n_groups=2, mamba_expand=2,
        mamba_d_conv=3, mamba_chunk_size=8, mamba_rms_norm=True, mamba_norm_before_gate=True, tie_word_embeddings=True)),
    "qwen3_next": ("Qwen3NextForCausalLM", dict(
        SMALL, num_hidden_layers=2, head_dim=8, layer_types=["linear_attention", "full_attention"], linear_num_key_heads=2,
        linear_num_value_heads=4, linear_key_head_dim=4, linear_value_head_dim=6, linear_conv_kernel_dim=4, num_experts=4,
        num_experts_per_tok=2, moe_intermediate_size=6, shared_expert_intermediate_size=8, mlp_only_layers=[1],
        rope_parameters={"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.25})),
    "qwen3_5": ("Qwen3_5ForCausalLM", dict(
        SMALL, num_hidden_layers=2, head_dim=8, layer_types=["linear_attention", "full_attention"], linear_num_key_heads=2,
        linear_num_value_heads=4, linear_key_head_dim=4, linear_value_head_dim=6, linear_conv_kernel_dim=4,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5})),
    "qwen3_5_moe": ("Qwen3_5MoeForCausalLM", dict(
        {k: v for k, v in TINY.items() if k != "intermediate_size"}, num_hidden_layers=2, head_dim=4,
        layer_types=["linear_attention", "full_attention"], linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=2,
        linear_value_head_dim=2, linear_conv_kernel_dim=3, num_experts=3, num_experts_per_tok=2, moe_intermediate_size=4,
        shared_expert_intermediate_size=4,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5})),
    "mixtral": ("MixtralForCausalLM", dict(
        TINY, intermediate_size=4, num_local_experts=3, num_experts_per_tok=2, sliding_window=5,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0})),
    "qwen3_moe": ("Qwen3MoeForCausalLM", dict(
        TINY, num_hidden_layers=2, head_dim=6, moe_intermediate_size=4, num_experts=3, num_experts_per_tok=2, mlp_only_layers=[1],
        norm_topk_prob=True, rope_parameters={"rope_type": "default", "rope_theta": 500.0})),
    "olmoe": ("OlmoeForCausalLM", dict(
        TINY, intermediate_size=4, num_experts=3, num_experts_per_tok=2, eos_token_id=None, pad_token_id=None,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0})),
    "kimi_linear": ("KimiLinearForCausalLM", dict(
        vocab_size=12, hidden_size=8, intermediate_size=10, moe_intermediate_size=4, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, num_local_experts=3, num_experts_per_tok=2, n_shared_experts=1, n_group=1, topk_group=1, kv_lora_rank=6,
        qk_nope_head_dim=4, qk_rope_head_dim=2, v_head_dim=4, linear_head_dim=4, linear_num_heads=2,
        layer_types=["linear_attention", "full_attention"], mlp_layer_types=["dense", "sparse"], max_position_embeddings=64,
        pad_token_id=None, bos_token_id=None, eos_token_id=None)),
}


THREE = ("lfm2_moe", "mixtral", "kimi_linear")  # an expert's matrices are w1, w3 and w2


def random(name, shape, scale=1.0, shift=0.0):
    x = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(tuple(shape)) * scale + shift
    return torch.tensor(x, dtype=torch.bfloat16).double()


def draw(model):
    """Every weight from its name, in the usual size of its kind; rounded to BF16, so that the file holds what was computed with."""
    for name, p in list(model.named_parameters()) + list(model.named_buffers()):
        last = name.rsplit(".", 1)[-1]
        if not p.is_floating_point() or "inv_freq" in name or last == "mup_vector":
            continue
        if last == "A_log":
            p.data = random(name, p.shape, 0.5)
        elif last in ("dt_bias", "D", "expert_bias", "e_score_correction_bias"):
            p.data = random(name, p.shape, 0.5)
        elif p.ndim == 1:
            p.data = random(name, p.shape, 0.2, 1.0 if "weight" in last and float(p.detach().double().mean()) > 0.5 else 0.0)
        else:
            p.data = random(name, p.shape, p.shape[-1] ** -0.5)


def published(name, state, cfg):
    """Tensors by the names that published checkpoints have."""
    out = {}
    for k, v in state.items():
        if k.endswith("inv_freq") or k.endswith("mup_vector") or (k == "lm_head.weight" and cfg.tie_word_embeddings):
            continue
        if name == "kimi_linear" and ".mlp." in k and not k.startswith("model.layers.0."):
            k = k.replace(".mlp.", ".block_sparse_moe.")
        if name == "mixtral":
            k = k.replace(".mlp.", ".block_sparse_moe.")
        if name == "granite_moe":
            k = k.replace("experts.gate_up_proj", "input_linear.weight").replace("experts.down_proj", "output_linear.weight")
            k = k.replace("block_sparse_moe.router.weight", "block_sparse_moe.router.layer.weight")
        elif name == "qwen3_5_moe":
            pass  # experts are one tensor there
        elif k.endswith("experts.gate_up_proj"):
            words = ("w1", "w3") if name in THREE else ("gate_proj", "up_proj")
            for e in range(v.shape[0]):
                for w, part in zip(words, v[e].chunk(2, 0)):
                    out[f"{k[:-12]}{e}.{w}.weight"] = part
            continue
        elif k.endswith("experts.down_proj"):
            word = "w2" if name in THREE else "down_proj"
            for e in range(v.shape[0]):
                out[f"{k[:-9]}{e}.{word}.weight"] = v[e]
            continue
        if name == "kimi_linear":
            k = k.replace("self_attn.forget_gate.", "self_attn.")
            if k.endswith("conv1d.weight"):
                for w, part in zip("qkv", v.chunk(3, 0)):
                    out[k.replace("conv1d", w + "_conv1d")] = part
                continue
        out[k] = v
    return {k: v.to(torch.bfloat16).contiguous() for k, v in out.items()}


def make(name):
    cls, config = CASES[name]
    kind = getattr(transformers, cls)
    cfg = kind.config_class(**config)
    cfg._attn_implementation = "eager"
    cfg._experts_implementation = "eager"
    torch.manual_seed(0)
    model = kind(cfg).double().eval()
    draw(model)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    tokens = torch.tensor(rng.integers(0, cfg.vocab_size, (B, T)))
    with torch.no_grad():
        logits = model(tokens, use_cache=False).logits
    cfg.architectures = [cls]
    cfg.dtype = "bfloat16"
    c = json.loads(cfg.to_json_string(use_diff=False))
    drop = ("_name_or_path", "transformers_version", "output_hidden_states", "return_dict", "problem_type", "id2label", "label2id",
            "is_encoder_decoder", "chunk_size_feed_forward", "output_attentions", "output_router_logits", "_attn_implementation",
            "_experts_implementation")
    c = {k: v for k, v in sorted(c.items()) if k not in drop}
    c["model_type"] = cfg.model_type
    write(name, c, published(name, model.state_dict(), cfg), tokens, logits)


def write(name, config, weights, tokens, logits):
    folder = HERE / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    save_file({"tokens": tokens.int(), "logits": real_to(logits, torch.float32)}, folder / "expected.safetensors")
    for f in folder.iterdir():
        f.chmod(0o644)
    print(name, sum(f.stat().st_size for f in folder.iterdir()), "|logits|", round(float(logits.abs().max()), 3))


# ---- RWKV-7 ---- one token at a time, the memory S [V,K] as the paper writes it; tensors as the library fla names them.
def rwkv7(p, c, tokens):
    D, N, L = c["hidden_size"], c["head_dim"], c["num_hidden_layers"]
    H = D // N

    def norm(x, name, eps=None):
        y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + (eps or c["norm_eps"]))
        return y if name is None else y * p[name + ".weight"] + p[name + ".bias"]

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    logits = np.zeros(tokens.shape + (c["vocab_size"],))
    for b in range(len(tokens)):
        S = np.zeros((L, H, N, N))
        before = np.zeros((L, 2, D))
        for t, token in enumerate(tokens[b]):
            h = norm(p["model.embeddings.weight"][token], "model.layers.0.pre_norm")
            first = None
            for l in range(L):
                a_, f_ = f"model.layers.{l}.attn.", f"model.layers.{l}.ffn."
                low = lambda n, x, act: p[a_ + n + "_lora.lora.2.weight"] @ act(p[a_ + n + "_lora.lora.0.weight"] @ x)  # noqa: E731
                x = norm(h, f"model.layers.{l}.attn_norm")
                xs = {n: x + (before[l, 0] - x) * p[a_ + "x_" + n].reshape(-1) for n in "rwkvag"}
                before[l, 0] = x
                r, k, v = (p[a_ + n + "_proj.weight"] @ xs[n] for n in "rkv")
                z = low("w", xs["w"], np.tanh) + p[a_ + "w_lora.lora.2.bias"]
                w = np.exp(-np.exp(-0.5) * sigmoid(z))
                if l == 0:
                    first = v
                else:
                    v = v + (first - v) * sigmoid(low("v", xs["v"], lambda y: y) + p[a_ + "v_lora.lora.2.bias"])
                a = sigmoid(low("a", xs["a"], lambda y: y) + p[a_ + "a_lora.lora.2.bias"])
                g = low("g", xs["g"], sigmoid)
                kappa = (k * p[a_ + "k_k"]).reshape(H, N)
                kappa = kappa / np.sqrt((kappa ** 2).sum(-1, keepdims=True) + 1e-6)
                k = (k * (1 + (a - 1) * p[a_ + "k_a"])).reshape(H, N)
                r, v, w, a = (y.reshape(H, N) for y in (r, v, w, a))
                o = np.zeros((H, N))
                for i in range(H):
                    S[l, i] = S[l, i] @ (np.diag(w[i]) - np.outer(kappa[i], a[i] * kappa[i])) + np.outer(v[i], k[i])
                    o[i] = S[l, i] @ r[i]
                o = norm(o, None, N * c["norm_eps"]).reshape(-1) * p[a_ + "g_norm.weight"] + p[a_ + "g_norm.bias"]
                o = o.reshape(H, N) + (r * k * p[a_ + "r_k"]).sum(-1, keepdims=True) * v
                h = h + p[a_ + "o_proj.weight"] @ (o.reshape(-1) * g)
                x = norm(h, f"model.layers.{l}.ffn_norm")
                k = p[f_ + "key.weight"] @ (x + (before[l, 1] - x) * p[f_ + "x_k"])
                before[l, 1] = x
                h = h + p[f_ + "value.weight"] @ np.maximum(k, 0) ** 2
            logits[b, t] = p["lm_head.weight"] @ norm(h, "model.norm")
    return logits


def make_rwkv7(D=16, N=4):
    L, V, F = 2, 32, 20
    c = dict(architectures=["RWKV7ForCausalLM"], model_type="rwkv7", hidden_size=D, head_dim=N, num_hidden_layers=L, vocab_size=V, norm_eps=1e-5,
             intermediate_size=F, hidden_act="sqrelu", norm_first=True, norm_bias=True, decay_low_rank_dim=4, a_low_rank_dim=3,
             v_low_rank_dim=2, gate_low_rank_dim=5, tie_word_embeddings=False, attn=None, max_position_embeddings=2048)
    ranks = dict(w=4, a=3, v=2, g=5)
    p = {}

    def add(name, shape, scale=None, shift=0.0):
        p[name] = random("rwkv7." + name, shape, shape[-1] ** -0.5 if scale is None else scale, shift)

    def add_norm(name):
        add(name + ".weight", (D,), 0.2, 1.0)
        add(name + ".bias", (D,), 0.2)

    add("model.embeddings.weight", (V, D), 1.0)
    add_norm("model.layers.0.pre_norm")
    for l in range(L):
        a_, f_ = f"model.layers.{l}.attn.", f"model.layers.{l}.ffn."
        for n in ("attn_norm", "ffn_norm", "attn.g_norm"):
            add_norm(f"model.layers.{l}.{n}")
        for n in "rwkvag":
            add(a_ + "x_" + n, (1, 1, D), 0.3, 0.5)
        for n in "rkvo":
            add(a_ + n + "_proj.weight", (D, D))
        for n in "wavg" if l else "wag":
            add(a_ + n + "_lora.lora.0.weight", (ranks[n], D))
            add(a_ + n + "_lora.lora.2.weight", (D, ranks[n]))
            if n != "g":
                add(a_ + n + "_lora.lora.2.bias", (D,), 0.5)
        add(a_ + "k_k", (D,), 0.2, 0.85)
        add(a_ + "k_a", (D,), 0.2, 1.0)
        add(a_ + "r_k", (D // N, N), 0.3)
        add(f_ + "x_k", (D,), 0.3, 0.5)
        add(f_ + "key.weight", (F, D))
        add(f_ + "value.weight", (D, F))
    add_norm("model.norm")
    add("lm_head.weight", (V, D))
    tokens = np.random.default_rng(zlib.crc32(b"rwkv7")).integers(0, V, (B, T))
    logits = rwkv7({k: v.numpy() for k, v in p.items()}, c, tokens)
    write("rwkv7", c, {k: v.to(torch.bfloat16) for k, v in p.items()}, torch.tensor(tokens), torch.tensor(logits))


if __name__ == "__main__":
    for name in sys.argv[1:] or [*CASES, "rwkv7"]:
        make_rwkv7() if name == "rwkv7" else make(name)
