"""The PyTorch eager peer of `mneme bench train`: a Llama-style decoder and its whole training step.

The step is what everyone writes: forward, cross-entropy, backward, clip the gradient's norm to 1.0, AdamW. The settings
are the fastest eager ones we found, so that the comparison is with PyTorch at its best: one query/key/value product,
scaled_dot_product_attention, F.rms_norm, the fused AdamW, gradients set to None, and for bf16 both
autocast (f32 weights) and all-bf16 weights are timed first and the faster is kept.

Protocol, shared by every peer and by `mneme bench ... --steps-on-stdin` (side_by_side.py speaks it):
  the program prints one line of JSON when it is ready;
  for each line `step K` on standard input it runs K steps and prints one line of JSON with
      {"steps": K, "seconds": S, "seconds_per_step": S/K, "tokens_per_second": ..., "peak_rss_bytes": ...};
  `quit` or the end of the input ends it.
Without --steps-on-stdin it warms up, times --steps steps one by one and prints one line with the medians.
"""
import argparse
import gc
import sys
import time

import peer_lib
import torch
import torch.nn.functional as F
from torch import nn

SIZES = {  # name: (d_model, layers, heads, channel width, batch)
    "10m": (320, 6, 5, 864, 8),
    "30m": (512, 8, 8, 1408, 4),
}
VOCAB, SEQ_LEN, ROPE_THETA = 8192, 512, 10000.0


def rotate(x, cos, sin):  # x [B,H,T,K], halves
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Block(nn.Module):
    def __init__(self, d_model, heads, hidden):
        super().__init__()
        self.heads, self.head_dim = heads, d_model // heads
        self.norm1, self.norm2 = nn.RMSNorm(d_model, eps=1e-6), nn.RMSNorm(d_model, eps=1e-6)
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)
        self.gate = nn.Linear(d_model, hidden, bias=False)
        self.up = nn.Linear(d_model, hidden, bias=False)
        self.down = nn.Linear(hidden, d_model, bias=False)

    def forward(self, x, cos, sin):
        B, T, D = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(B, T, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4)
        o = F.scaled_dot_product_attention(rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype), v,
                                           is_causal=True)
        x = x + self.out(o.transpose(1, 2).reshape(B, T, D))
        h = self.norm2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Decoder(nn.Module):
    def __init__(self, d_model, layers, heads, hidden):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, d_model)
        self.blocks = nn.ModuleList(Block(d_model, heads, hidden) for _ in range(layers))
        self.norm = nn.RMSNorm(d_model, eps=1e-6)
        head_dim = d_model // heads
        angle = torch.arange(SEQ_LEN)[:, None] * ROPE_THETA ** (-torch.arange(0, head_dim, 2) / head_dim)[None]
        self.register_buffer("cos", angle.cos(), persistent=False)  # [T, K/2]
        self.register_buffer("sin", angle.sin(), persistent=False)
        for p in self.parameters():
            if p.ndim == 2:
                nn.init.normal_(p, std=0.02)

    def forward(self, tokens, targets):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        logits = F.linear(self.norm(x), self.embed.weight)  # tied
        return F.cross_entropy(logits.view(-1, VOCAB).float(), targets.reshape(-1))


class Trainer:
    def __init__(self, size, precision):
        d_model, layers, heads, hidden, self.batch = SIZES[size]
        torch.manual_seed(0)
        self.model = Decoder(d_model, layers, heads, hidden)
        if precision == "bf16-weights":
            self.model = self.model.to(torch.bfloat16)
        self.autocast = precision == "bf16-autocast"
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1,
                                           fused=True)
        self.data = torch.randint(0, VOCAB, (16, self.batch, SEQ_LEN + 1))
        self.at = 0

    def step(self):
        tokens = self.data[self.at % len(self.data)]
        self.at += 1
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            loss = self.model(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()


def seconds_of(trainer, steps):
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        trainer.step()
        times.append(time.perf_counter() - start)
    return times


def faster_bf16(size):
    """Times both ways of computing in bf16; each in this process, freed before the run proper."""
    timed = {}
    for precision in ("bf16-autocast", "bf16-weights"):
        trainer = Trainer(size, precision)
        timed[precision] = min(seconds_of(trainer, 4)[1:])
        del trainer
        gc.collect()
    return min(timed, key=timed.get), timed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="10m")
    parser.add_argument("--precision", choices=["f32", "bf16", "bf16-autocast", "bf16-weights"], default="f32",
                        help="bf16 tries both bf16 forms and keeps the faster")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--steps-on-stdin", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    rss_before, precision, tried = peer_lib.rss_bytes(), args.precision, None
    if precision == "bf16":
        # The trial's memory must not count: it runs in a child of its own.
        precision, tried = peer_lib.in_child(faster_bf16, args.size, threads=args.threads)
    trainer = Trainer(args.size, precision)
    info = {
        "peer": f"PyTorch {torch.__version__} eager", "size": args.size, "precision": precision,
        "parameters": sum(p.numel() for p in trainer.model.parameters()), "threads": torch.get_num_threads(),
        "tokens_per_step": trainer.batch * SEQ_LEN, "rss_before_bytes": rss_before,
    }
    if tried:
        info["tried_seconds_per_step"] = tried
    peer_lib.serve_or_time(args, info, lambda: trainer.step())


if __name__ == "__main__":
    sys.exit(main())
