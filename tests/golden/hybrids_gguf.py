"""GGUF files of some of the checkpoints that hybrids.py wrote, made by llama.cpp's own converter, without a tokenizer.

    build/golden/bin/python hybrids_gguf.py DIRECTORY_OF_LLAMA_CPP

They hold what model.safetensors beside them holds, so that expected.safetensors is what they say, too.
"""
import json
import sys
from pathlib import Path

root = Path(sys.argv[1])
sys.path[:0] = [str(root), str(root / "gguf-py")]

import gguf  # noqa: E402
from conversion import get_model_class  # noqa: E402

HERE = Path(__file__).resolve().parent / "hybrids"
KINDS = {"linear_attention": "mamba", "full_attention": "attention"}  # as published settings name them


def main():
    add_context_length = gguf.GGUFWriter.add_context_length
    for name in ("lfm2", "granite", "rwkv7"):
        config = json.loads((HERE / name / "config.json").read_text())
        config.pop("time_step_limit", None)
        if name == "granite":
            config["layer_types"] = [KINDS[k] for k in config["layer_types"]]
        config.setdefault("head_dim", config["hidden_size"] // config.get("num_attention_heads", 1))
        gguf.GGUFWriter.add_context_length = lambda self, n: add_context_length(self, 64)  # the converter has none for some of them
        kind = get_model_class(config["architectures"][0])
        kind.set_vocab = lambda self: None
        kind(HERE / name, gguf.LlamaFileType.MOSTLY_BF16, HERE / name / "model.gguf", hparams=config).write()


if __name__ == "__main__":
    main()
