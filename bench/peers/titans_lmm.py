"""titans-pytorch's NeuralMemory as the peer of `mneme bench lmm`: forward and backward of a linear memory or a deep one, f32.

dim 256, 4 heads of 64, a memory of --depth matrices per head (1: one of 64 x 64; else hidden widths of --expand times 64, and no norm or
residual around the memory), momentum and decay on; --orthogonal: what is written is made orthogonal by Newton-Schulz steps. Gradients of a fixed
cotangent reach every parameter and the input. NeuralMemory's own defaults otherwise: with batch_size unset it takes every
inner gradient at the initial weights, its fastest form.

Protocol: see pytorch_train.py. A step is one forward and backward of --batch sequences of --seq-len tokens.
"""
import argparse
import importlib.metadata
import sys

import peer_lib
import torch


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chunk", type=int, default=16)
    parser.add_argument("--depth", type=int, default=1)
    parser.add_argument("--expand", type=float, default=2)
    parser.add_argument("--orthogonal", action="store_true")
    parser.add_argument("--seq-len", type=int, default=8192)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--steps-on-stdin", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)

    rss_before = peer_lib.rss_bytes()
    from titans_pytorch import MemoryMLP, NeuralMemory
    deep = {"mem_model_norm_add_residual": False} if args.depth > 1 else {}
    memory = NeuralMemory(dim=256, heads=4, dim_head=64, chunk_size=args.chunk, default_step_transform_max_lr=0.1,
                          spectral_norm_surprises=args.orthogonal,
                          model=MemoryMLP(64, depth=args.depth, expansion_factor=args.expand), **deep)
    x = torch.randn(args.batch, args.seq_len, 256, requires_grad=True)
    dy = torch.randn(args.batch, args.seq_len, 256)

    def step():
        for p in memory.parameters():
            p.grad = None
        x.grad = None
        y, _ = memory(x)
        y.backward(dy)

    info = {
        "peer": f"titans-pytorch {importlib.metadata.version('titans-pytorch')} on PyTorch {torch.__version__}",
        "chunk": args.chunk, "seq_len": args.seq_len, "batch": args.batch, "threads": torch.get_num_threads(),
        "tokens_per_step": args.batch * args.seq_len, "rss_before_bytes": rss_before,
    }
    peer_lib.serve_or_time(args, info, step)


if __name__ == "__main__":
    sys.exit(main())
