"""The peers' side of bench/gguf-in-llama-cpp: gguf_in_llama_cpp.py MNEME GOLDEN [FAMILY...]; see there."""
import ctypes
import importlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

BAR = 2e-3
ROPE = {"rope_type": "default", "rope_theta": 500.0}
SMALL = dict(vocab_size=48, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64)
MAMBA = dict(mamba_n_heads=8, mamba_d_head=16, mamba_d_state=16, mamba_n_groups=1, mamba_expand=2, mamba_d_conv=4, mamba_chunk_size=8)
EXPERTS = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, norm_topk_prob=True)
GEMMA = dict(SMALL, num_key_value_heads=1, head_dim=32, hidden_activation="gelu_pytorch_tanh")
DELTA = dict(SMALL, num_hidden_layers=4, head_dim=32, linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=16, linear_value_head_dim=16,
             linear_conv_kernel_dim=4, rope_parameters=dict(ROPE, partial_rotary_factor=0.25))
CHECKPOINTS = {  # made by checkpoints.py
    "llama": ("LlamaForCausalLM", dict(SMALL, rope_parameters=ROPE)),
    "llama, llama3 positions": ("LlamaForCausalLM", dict(SMALL, rope_parameters={"rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0,
                                                                                  "high_freq_factor": 4.0, "original_max_position_embeddings": 16})),
    "mistral": ("MistralForCausalLM", dict(SMALL, sliding_window=None, head_dim=24, rope_parameters=ROPE)),
    "qwen2": ("Qwen2ForCausalLM", dict(SMALL, rope_parameters=ROPE)),
    "qwen3": ("Qwen3ForCausalLM", dict(SMALL, head_dim=32, rope_parameters=ROPE)),
    "gemma": ("GemmaForCausalLM", GEMMA),
    "gemma2": ("Gemma2ForCausalLM", dict(GEMMA, query_pre_attn_scalar=32, sliding_window=8, attn_logit_softcapping=1.5, final_logit_softcapping=2.0)),
    "gemma3": ("Gemma3ForCausalLM", dict(GEMMA, num_hidden_layers=6, query_pre_attn_scalar=32, sliding_window=8,
                                         layer_types=["sliding_attention"] * 5 + ["full_attention"])),
    "phi3": ("Phi3ForCausalLM", dict(SMALL, num_key_value_heads=4, pad_token_id=0, original_max_position_embeddings=64, sliding_window=None, rope_parameters=ROPE)),
    "gpt2": ("GPT2LMHeadModel", dict(vocab_size=48, n_embd=64, n_layer=2, n_head=4, n_positions=64, n_inner=96)),
}
HYBRIDS = {  # made by hybrids.py
    "mixtral": ("MixtralForCausalLM", dict(SMALL, num_local_experts=4, num_experts_per_tok=2, sliding_window=None, rope_parameters=ROPE)),
    "qwen3_moe": ("Qwen3MoeForCausalLM", dict(SMALL, **EXPERTS, head_dim=32, rope_parameters=ROPE)),
    "olmoe": ("OlmoeForCausalLM", dict(SMALL, num_key_value_heads=4, num_experts=4, num_experts_per_tok=2, norm_topk_prob=False, eos_token_id=None, pad_token_id=None,
                                       rope_parameters=ROPE)),
    "lfm2": ("Lfm2ForCausalLM", dict(SMALL, layer_types=["conv", "full_attention"], block_multiple_of=8, conv_L_cache=3, rope_parameters=ROPE)),
    "lfm2_moe": ("Lfm2MoeForCausalLM", dict(SMALL, num_hidden_layers=3, layer_types=["conv", "full_attention", "conv"], moe_intermediate_size=32, num_experts=4,
                                            num_experts_per_tok=2, num_dense_layers=1, use_expert_bias=True, norm_topk_prob=True, routed_scaling_factor=1.0, conv_L_cache=3,
                                            conv_bias=False, rope_parameters=ROPE)),
    "mamba2": ("Mamba2ForCausalLM", dict(vocab_size=48, hidden_size=64, num_hidden_layers=2, num_heads=8, head_dim=16, state_size=16, n_groups=1, expand=2, conv_kernel=4,
                                         use_bias=False, chunk_size=8, tie_word_embeddings=True)),
    "bamba": ("BambaForCausalLM", dict(SMALL, **MAMBA, attn_layer_indices=[1], rope_parameters=dict(ROPE, partial_rotary_factor=0.5))),
    "granite": ("GraniteMoeHybridForCausalLM", dict(SMALL, **MAMBA, layer_types=["linear_attention", "full_attention"], num_local_experts=0, shared_intermediate_size=96,
                                                    embedding_multiplier=6.0, logits_scaling=2.0, residual_multiplier=0.4, attention_multiplier=0.2,
                                                    position_embedding_type=None, tie_word_embeddings=True)),
    "granite_moe": ("GraniteMoeHybridForCausalLM", dict(dict(SMALL, intermediate_size=32), **MAMBA, layer_types=["linear_attention", "full_attention"], num_local_experts=4,
                                                        num_experts_per_tok=2, shared_intermediate_size=48, embedding_multiplier=3.0, logits_scaling=0.5,
                                                        residual_multiplier=0.6, attention_multiplier=0.2, position_embedding_type="rope")),
    "falcon_h1": ("FalconH1ForCausalLM", dict(SMALL, mamba_d_ssm=128, **MAMBA, mamba_rms_norm=True, mamba_norm_before_gate=False, rope_parameters=ROPE)),
    "qwen3_next": ("Qwen3NextForCausalLM", dict(DELTA, **EXPERTS, shared_expert_intermediate_size=48)),
    "qwen3_5": ("Qwen3_5ForCausalLM", DELTA),
    "qwen3_5_moe": ("Qwen3_5MoeForCausalLM", dict({k: v for k, v in DELTA.items() if k != "intermediate_size"}, num_experts=4, num_experts_per_tok=2,
                                                  moe_intermediate_size=32, shared_expert_intermediate_size=48)),
    "kimi_linear": ("KimiLinearForCausalLM", dict(
        vocab_size=48, hidden_size=64, intermediate_size=96, moe_intermediate_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
        num_local_experts=4, num_experts_per_tok=2, n_shared_experts=1, n_group=1, topk_group=1, kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=16,
        v_head_dim=16, linear_head_dim=16, linear_num_heads=4, layer_types=["linear_attention", "full_attention"], mlp_layer_types=["dense", "sparse"],
        max_position_embeddings=64, pad_token_id=None, bos_token_id=None, eos_token_id=None)),
}


def llama_logits(path, tokens, pieces):
    """In a process of its own, as llama.cpp ends it where a file is not what it expects."""
    import llama_cpp

    said = []
    log = llama_cpp.llama_log_callback(lambda level, text, user: said.append(text.decode("utf8", "replace")) if level >= 3 else None)
    llama_cpp.llama_log_set(log, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    m = llama_cpp.llama_model_default_params()
    m.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(path.encode(), m)
    if not model:
        sys.exit(" ".join(x.strip() for x in said if "error loading model" in x) or "no model")
    c = llama_cpp.llama_context_default_params()
    c.n_ctx, c.n_batch, c.n_ubatch, c.n_threads, c.n_threads_batch, c.type_k, c.type_v, c.flash_attn_type = 32, 32, 32, 1, 1, 0, 0, 0
    ctx = llama_cpp.llama_init_from_model(model, c)
    words = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    out = np.zeros((len(tokens), words), np.float32)
    for first, last in pieces:
        b = llama_cpp.llama_batch_init(last - first, 0, 1)
        b.n_tokens = last - first
        for i in range(last - first):
            b.token[i], b.pos[i], b.n_seq_id[i], b.logits[i] = int(tokens[first + i]), first + i, 1, 1
            b.seq_id[i][0] = 0
        if llama_cpp.llama_decode(ctx, b):
            sys.exit("llama_decode failed")
        for i in range(last - first):
            out[first + i] = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(ctx, i), shape=(words,))
    return out


def ask(folder):
    from safetensors.numpy import load_file

    expected = load_file(folder + "/expected.safetensors")
    tokens, want = expected["tokens"][0], expected["logits"][0]
    n, apart = len(tokens), []
    for pieces in ([(0, n)], [(i, i + 1) for i in range(n)]):
        got = llama_logits(folder + "/model.gguf", tokens, pieces)[:, : want.shape[1]]
        apart.append(float(np.abs(got - want).max() / np.abs(want).max()))
    print(json.dumps(apart))


def make(golden, name, folder):
    """The checkpoint, in folder/NAME."""
    if name in CHECKPOINTS:
        m = importlib.import_module("checkpoints")
        cls, config = CHECKPOINTS[name]
        m.CASES = {name: (cls, config, 1, None, None, 18)}
    else:
        m = importlib.import_module("hybrids")
        if name in HYBRIDS:
            m.CASES = {name: HYBRIDS[name]}
    m.HERE = pathlib.Path(folder)
    if name == "rwkv7":
        m.make_rwkv7(D=64, N=64)
    else:
        m.make(name)
    os.rename(f"{folder}/{name}", folder + "/x")


def main():
    mneme, golden, *families = sys.argv[1:]
    if mneme == "--make":
        sys.path.insert(0, golden)
        for name in families[1:]:
            os.mkdir(f"{families[0]}/{name}")
            make(golden, name, f"{families[0]}/{name}")
        return 0
    if mneme == "--ask":
        return ask(golden)
    short, families = [], families or [*CHECKPOINTS, *HYBRIDS, "rwkv7"]
    with tempfile.TemporaryDirectory() as folder:
        made = subprocess.run([sys.executable, __file__, "--make", golden, folder, *families], capture_output=True, text=True)
        if made.returncode:
            raise SystemExit(made.stderr)
        print("| family | at once | token by token |\n|---|---|---|")
        for name in families:
            x = f"{folder}/{name}/x"
            asked = wrote = subprocess.run([mneme, "convert", x, "--out", x + "/model.gguf", "--type", "f32"], capture_output=True, text=True)
            if not wrote.returncode:
                asked = subprocess.run([sys.executable, __file__, "--ask", x], capture_output=True, text=True, env=dict(os.environ, GGML_NO_BACKTRACE="1"))
            if asked.returncode:
                why = next((line for line in asked.stderr.splitlines() if "ASSERT" in line or "error" in line or "mneme:" in line), asked.stderr.strip()[-200:])
                print(f"| {name} | {'not written' if asked is wrote else 'refused'}: {why.replace(x, '')} | |", flush=True)
                short.append(name)
                continue
            apart = json.loads(asked.stdout)
            print(f"| {name} | {apart[0]:.1e} | {apart[1]:.1e} |", flush=True)
            if max(apart) > BAR:
                short.append(name)
    print("\nevery family is met" if not short else "\nshort: " + ", ".join(short))
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
