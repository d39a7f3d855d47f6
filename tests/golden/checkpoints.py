"""Golden checkpoints: tiny models of Hugging Face's `transformers` with what they say, in float64.

Each folder of checkpoints/ is a model as `save_pretrained` writes it (config.json and safetensors, weights in BF16), every weight drawn
from its name, and expected.safetensors: `tokens` [B,T], and what transformers makes of them in float64 from the same weights, `logits`
[B,T,V] (of encoders `hidden` [B,T,D]), kept in F32. old_config.json, where there is one, says the same as programs before transformers 5
did. Same script, same bytes.

    build/golden/bin/pip install numpy torch transformers safetensors
    build/golden/bin/python checkpoints.py [NAME ...]
"""
import json
import sys
import zlib
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent / "checkpoints"
SMALL = dict(vocab_size=48, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)

CASES = {}


def case(name, cls, config, shards=1, edit=None, old=None, tokens=18):
    CASES[name] = (cls, config, shards, edit, old, tokens)


case(
    "llama",
    "LlamaForCausalLM",
    dict(
        SMALL,
        max_position_embeddings=64,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500.0,
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    ),
    shards=2,
)


def old_keys(c):
    """config.json as programs before transformers 5 wrote it."""
    rope = c.pop("rope_parameters")
    c["rope_theta"] = rope["rope_theta"]
    c["rope_scaling"] = None
    c["torch_dtype"] = c.pop("dtype")


case("smollm", "LlamaForCausalLM", dict(SMALL, tie_word_embeddings=True, attention_bias=True, rms_norm_eps=1e-5), edit=old_keys)
case("mistral", "MistralForCausalLM", dict(SMALL, head_dim=6, sliding_window=5, max_position_embeddings=32))
case(
    "qwen2",
    "Qwen2ForCausalLM",
    dict(SMALL, use_sliding_window=True, sliding_window=6, max_window_layers=1, tie_word_embeddings=True),
)
case("qwen3", "Qwen3ForCausalLM", dict(SMALL, head_dim=6))
GEMMA = dict(SMALL, num_attention_heads=2, num_key_value_heads=1, head_dim=6, intermediate_size=20, sliding_window=5)
case("gemma", "GemmaForCausalLM", {k: v for k, v in GEMMA.items() if k != "sliding_window"})
case(
    "gemma2",
    "Gemma2ForCausalLM",
    dict(GEMMA, num_hidden_layers=3, query_pre_attn_scalar=10, attn_logit_softcapping=1.5, final_logit_softcapping=2.0),
)


def old_gemma3(c):
    c.pop("layer_types")
    rope = c.pop("rope_parameters")
    c["rope_theta"], c["rope_local_base_freq"] = rope["full_attention"]["rope_theta"], rope["sliding_attention"]["rope_theta"]
    c["rope_scaling"], c["sliding_window_pattern"] = {"rope_type": "linear", "factor": 8.0}, 3
    c["torch_dtype"] = c.pop("dtype")


GEMMA3 = dict(
    GEMMA,
    num_hidden_layers=4,
    query_pre_attn_scalar=6,
    rope_parameters={
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
    },
    layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
)
case("gemma3", "Gemma3ForCausalLM", GEMMA3, old=old_gemma3)
case(
    "phi3",
    "Phi3ForCausalLM",
    dict(
        SMALL,
        hidden_size=24,
        num_attention_heads=3,
        num_key_value_heads=1,
        pad_token_id=0,
        max_position_embeddings=64,
        original_max_position_embeddings=32,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 100.0,
            "partial_rotary_factor": 0.75,
            "short_factor": [1.0, 1.25, 2.0],
            "long_factor": [2.0, 3.0, 4.0],
            "original_max_position_embeddings": 32,
        },
    ),
)
case("gpt2", "GPT2LMHeadModel", dict(vocab_size=48, n_embd=16, n_layer=2, n_head=4, n_positions=24, n_inner=24))
case(
    "bert",
    "BertModel",
    dict(vocab_size=48, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24, max_position_embeddings=24),
)


def draw(model):
    """Every weight from its name, in the shape's usual size; rounded to BF16, so that the file holds what was computed with."""
    for name, p in model.named_parameters():
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        x = rng.standard_normal(tuple(p.shape))
        if p.ndim == 1:
            x = 0.2 * x + (1.0 if "weight" in name and float(p.detach().double().mean()) > 0.5 else 0.0)
        else:
            x = x / np.sqrt(p.shape[-1])
        p.data = torch.tensor(x, dtype=torch.bfloat16).double()


def make(name):
    cls, config, shards, edit, old, T = CASES[name]
    kind = getattr(transformers, cls)
    cfg = kind.config_class(**config)
    cfg._attn_implementation = "eager"
    model = kind(cfg).double().eval()
    draw(model)
    folder = HERE / name
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    tokens = torch.tensor(rng.integers(0, cfg.vocab_size, (1, T)))
    said = {"tokens": tokens.int()}
    with torch.no_grad():
        if cls == "BertModel":
            types = torch.tensor(rng.integers(0, cfg.type_vocab_size, (1, T)))
            said["types"] = types.int()
            out = model(tokens, token_type_ids=types)
        else:
            out = model(tokens)
    if "logits" in out:
        said["logits"] = out.logits.float()
    else:
        said["hidden"] = out.last_hidden_state.float()
    save_file(said, folder / "expected.safetensors")
    cfg.architectures = [cls]
    cfg.dtype = "bfloat16"
    c = json.loads(cfg.to_json_string(use_diff=False))
    c = {k: v for k, v in sorted(c.items()) if k in WRITTEN or k in config or k.startswith("rope")}
    c["model_type"] = cfg.model_type
    if edit:
        edit(c)
    (folder / "config.json").write_text(json.dumps(c, indent=2) + "\n")
    if old:
        old(c)
        (folder / "old_config.json").write_text(json.dumps(c, indent=2) + "\n")
    save_weights(model, folder, shards, cfg)
    for f in folder.iterdir():
        f.chmod(0o644)
    print(name, sum(f.stat().st_size for f in folder.iterdir()))


# What save_pretrained writes of any model, beside what is set above.
WRITTEN = set(
    "architectures dtype transformers_version hidden_act activation_function rms_norm_eps layer_norm_eps layer_norm_epsilon head_dim "
    "attention_bias mlp_bias attention_dropout tie_word_embeddings initializer_range use_cache bos_token_id eos_token_id pad_token_id "
    "sliding_window layer_types max_position_embeddings use_sliding_window max_window_layers hidden_activation query_pre_attn_scalar "
    "attn_logit_softcapping final_logit_softcapping type_vocab_size".split()
)


def save_weights(model, folder, shards, cfg):
    state = {k: v.to(torch.bfloat16).contiguous() for k, v in model.state_dict().items() if not k.endswith("inv_freq")}
    if getattr(cfg, "tie_word_embeddings", False):
        state.pop("lm_head.weight", None)
    names = sorted(state)
    if shards == 1:
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        return
    index = {"metadata": {"total_size": sum(v.numel() * 2 for v in state.values())}, "weight_map": {}}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = {n: state[n] for n in names[i::shards]}
        save_file(part, folder / file, metadata={"format": "pt"})
        index["weight_map"].update({n: file for n in part})
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=0, sort_keys=True) + "\n")


if __name__ == "__main__":
    for name in sys.argv[1:] or CASES:
        make(name)
