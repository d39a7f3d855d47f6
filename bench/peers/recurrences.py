"""Matrix memories in PyTorch, as peers of `mneme bench lmm`: forward and backward of GLA, Mamba-2, Gated DeltaNet and RWKV-7, f32.

The layers are those of docs/systems, with the same widths: 4 heads whose keys and values are 64 wide. Their recurrences are written in
chunks, as these systems are computed on parallel machines: inside a chunk products of queries, keys and values over all chunks at
once, between chunks a loop over the states alone, or, where a state decides what is written, over chunks. Decays by channel are taken
as quotients exp(b_t) exp(-b_m), the fastest form, which holds only for decays as mild as those here. Before anything is timed each is
held against its recurrence token by token in f64.

Protocol: see pytorch_train.py. A step is one forward and backward of --batch sequences of --seq-len tokens.
"""
import argparse
import math
import sys

import peer_lib
import torch
import torch.nn.functional as F

DIM = 256


def chunks(x, size):
    """[B,T,H,...] -> [B,H,N,size,...]"""
    return x.unflatten(1, (-1, size)).movedim(3, 1)


def joined(x):
    """[B,H,N,size,V] -> [B,T,H,V]"""
    return x.movedim(1, 3).flatten(1, 2)


def states_of(writes, decay):
    """The state before each chunk: S_{n+1} = decay_n S_n + writes_n. writes [B,H,N,K,V], decay [B,H,N,K or 1,1]."""
    S, out = torch.zeros_like(writes[:, :, 0]), []
    for n in range(writes.shape[2]):
        out.append(S)
        S = decay[:, :, n] * S + writes[:, :, n]
    return torch.stack(out, 2)


def linear(q, k, v, log_a, size):
    """o_t = q_t S_t, S_t = diag(exp log_a_t) S_{t-1} + k_t^T v_t; log_a [B,T,H,K], or [B,T,H,1]."""
    q, k, v, b = (chunks(x, size) for x in (q, k, v, log_a))
    b = b.cumsum(3)
    end = b[:, :, :, -1:]
    if b.shape[-1] == 1:  # one decay per head: a triangle of its own
        scores = (q @ k.mT) * (b - b.mT).masked_fill(torch.ones(size, size).triu(1).bool(), -torch.inf).exp()
        q = q * b.exp()
    else:
        q = q * b.exp()
        scores = (q @ (k * (-b).exp()).mT).tril()
    S = states_of(((end - b).exp() * k).mT @ v, end.exp().mT)
    return joined(scores @ v + q @ S)


def gated_delta(q, k, v, log_a, beta, size):
    """S_t = a_t S_{t-1} + beta_t k_t^T (v_t - a_t k_t S_{t-1}); log_a, beta [B,T,H,1]."""
    q, k, v, b, beta = (chunks(x, size) for x in (q, k, v, log_a, beta))
    b = b.cumsum(3)
    decay = (b - b.mT).masked_fill(torch.ones(size, size).triu(1).bool(), -torch.inf).exp()
    system = torch.eye(size) + (beta * (k @ k.mT) * decay).tril(-1)
    solved = torch.linalg.solve_triangular(system, torch.cat((beta * v, beta * b.exp() * k), -1), upper=False, unitriangular=True)
    U, W = solved.split((v.shape[-1], k.shape[-1]), -1)
    scores, q, end = (q @ k.mT) * decay, q * b.exp(), b[:, :, :, -1:]
    k, S, out = ((end - b).exp() * k).mT, torch.zeros(*k.shape[:2], k.shape[-1], v.shape[-1]), []
    for n in range(q.shape[2]):
        u = U[:, :, n] - W[:, :, n] @ S
        out.append(q[:, :, n] @ S + scores[:, :, n] @ u)
        S = end[:, :, n].exp() * S + k[:, :, n] @ u
    return joined(torch.stack(out, 2))


def erasing(q, k, v, log_a, e, f, size):
    """S_t = diag(exp log_a_t) S_{t-1} - e_t^T (f_t S_{t-1}) + k_t^T v_t."""
    q, k, v, a, e, f = (chunks(x, size) for x in (q, k, v, log_a, e, f))
    b = a.cumsum(3)
    end, out_k, out_e = b[:, :, :, -1:], (-b).exp() * k, (-b).exp() * e
    q, f = q * b.exp(), f * (b - a).exp()
    system = torch.eye(size) + (f @ out_e.mT).tril(-1)
    solved = torch.linalg.solve_triangular(system, torch.cat(((f @ out_k.mT).tril(-1) @ v, f), -1), upper=False, unitriangular=True)
    U, W = solved.split((v.shape[-1], k.shape[-1]), -1)
    o, scores = (q @ out_k.mT).tril() @ v, (q @ out_e.mT).tril()
    writes, e, S, out = (end.exp() * out_k).mT @ v, (end.exp() * out_e).mT, torch.zeros(*k.shape[:2], k.shape[-1], v.shape[-1]), []
    for n in range(q.shape[2]):
        z = U[:, :, n] + W[:, :, n] @ S
        out.append(o[:, :, n] + q[:, :, n] @ S - scores[:, :, n] @ z)
        S = end[:, :, n].exp().mT * S + writes[:, :, n] - e[:, :, n] @ z
    return joined(torch.stack(out, 2))


def check():
    """Each against S_t token by token in f64."""
    torch.manual_seed(1)
    B, T, H, K, V = 2, 128, 2, 16, 16
    q, k, v, f = (torch.randn(B, T, H, K) / 4 for _ in range(4))
    k, f, beta = F.normalize(k, dim=-1), F.normalize(f, dim=-1), torch.rand(B, T, H, 1)
    log_a, log_h, e = -0.2 * torch.rand(B, T, H, K), -0.2 * torch.rand(B, T, H, 1), torch.rand(B, T, H, K) * f
    for name, got, a, e_, f_, b in (
            ("linear", linear(q, k, v, log_a, 32), log_a, 0 * k, 0 * k, torch.ones_like(beta)),
            ("linear, one decay", linear(q, k, v, log_h, 32), log_h, 0 * k, 0 * k, torch.ones_like(beta)),
            ("gated delta", gated_delta(q, k, v, log_h, beta, 32), log_h, beta * k, log_h.exp() * k, beta),
            ("erasing", erasing(q, k, v, log_a, e, f, 32), log_a, e, f, torch.ones_like(beta))):
        S, outs = torch.zeros(B, H, K, V).double(), []
        q_, k_, v_, a_, e_, f_, b_ = (x.double() for x in (q, k, v, a, e_, f_, b))
        for t in range(T):
            read = torch.einsum("bhk,bhkv->bhv", f_[:, t], S)
            S = (a_[:, t].exp()[..., None] * S - torch.einsum("bhk,bhv->bhkv", e_[:, t], read)
                 + torch.einsum("bhk,bhv->bhkv", b_[:, t] * k_[:, t], v_[:, t]))
            outs.append(torch.einsum("bhk,bhkv->bhv", q_[:, t], S))
        want = torch.stack(outs, 1)
        error = float((got - want).abs().max() / want.abs().max())
        if not error < 1e-4:
            raise SystemExit(f"the chunked form of {name} differs from its recurrence by {error:.1e}")


# ---- the layers ----
class Layer(torch.nn.Module):
    def matrix(self, name, out, width=DIM, bias=False):
        self.add_module(name, torch.nn.Linear(width, out, bias=bias))

    def vector(self, name, *shape, start=0.0):
        self.register_parameter(name, torch.nn.Parameter(torch.full(shape, start)))

    def conv(self, name, width, bias=False):
        self.add_module(name, torch.nn.Conv1d(width, width, 4, groups=width, bias=bias, padding=3))

    def convolved(self, name, x):
        return F.silu(getattr(self, name)(x.mT)[..., :x.shape[1]].mT)


def heads(x, H):
    return x.unflatten(-1, (H, -1))


def rms(x, weight):
    return F.rms_norm(x, weight.shape, weight, 1e-6)


class GLA(Layer):
    def __init__(self, H=4):
        super().__init__()
        self.H, self.K = H, DIM // H
        for name, out, width in (("q", DIM, DIM), ("k", DIM, DIM), ("v", DIM, DIM), ("down", 16, DIM), ("g", DIM, DIM),
                                 ("o", DIM, DIM)):
            self.matrix(name, out, width)
        self.matrix("up", DIM, 16, bias=True)
        self.vector("norm", DIM // H, start=1.0)

    def forward(self, x):
        H = self.H
        q, k, v = heads(self.q(x), H) * self.K ** -0.5, heads(self.k(x), H), heads(self.v(x), H)
        o = linear(q, k, v, heads(F.logsigmoid(self.up(self.down(x))), H) / 16, 64)
        return self.o(rms(o, self.norm).flatten(2) * F.silu(self.g(x)))


class Mamba2(Layer):
    def __init__(self, H=4):
        super().__init__()
        self.H, self.inner, self.N = H, DIM, 64
        self.matrix("wide", 2 * self.inner + 2 * self.N)
        self.matrix("dt", H)
        self.matrix("out", DIM, self.inner)
        self.conv("mix", self.inner + 2 * self.N, bias=True)
        self.vector("bias", H, start=-3.0)
        self.vector("A_log", H)
        self.vector("D", H, 1, start=1.0)
        self.vector("norm", self.inner, start=1.0)

    def forward(self, x):
        z, u = self.wide(x).split((self.inner, self.inner + 2 * self.N), -1)
        v, k, q = self.convolved("mix", u).split((self.inner, self.N, self.N), -1)
        v, dt = heads(v, self.H), F.softplus(self.dt(x) + self.bias)
        q, k = (m[:, :, None].expand(-1, -1, self.H, -1) for m in (q, k))
        y = linear(q, k, dt[..., None] * v, (-self.A_log.exp() * dt)[..., None], 64) + self.D * v
        return self.out(rms(y.flatten(2) * F.silu(z), self.norm))


class GatedDeltaNet(Layer):
    def __init__(self, H=4):
        super().__init__()
        self.H, self.d = H, DIM // H
        for name in "qkvgo":
            self.matrix(name, DIM)
        for name in "qkv":
            self.conv(name + "_conv", DIM)
        self.matrix("gates", 2 * H)
        self.vector("A_log", H)
        self.vector("bias", H, start=-3.0)
        self.vector("norm", self.d, start=1.0)

    def forward(self, x):
        q, k, v = (heads(self.convolved(n + "_conv", getattr(self, n)(x)), self.H) for n in "qkv")
        q, k = F.normalize(q, dim=-1) * self.d ** -0.5, F.normalize(k, dim=-1)
        a, b = self.gates(x).split(self.H, -1)
        o = gated_delta(q, k, v, (-self.A_log.exp() * F.softplus(a + self.bias))[..., None], b.sigmoid()[..., None], 64)
        return self.o(rms(o, self.norm).flatten(2) * F.silu(self.g(x)))


class RWKV7(Layer):
    def __init__(self, H=4):
        super().__init__()
        self.H, self.K = H, DIM // H
        for name in "rkvo":
            self.matrix(name, DIM)
        for name, rank, bias in (("w", 32, True), ("a", 32, True), ("g", 64, False)):
            self.matrix(name + "_down", rank)
            self.matrix(name + "_up", DIM, rank, bias=bias)
        torch.nn.init.constant_(self.w_up.bias, -2)
        self.vector("mu", 6, DIM, start=0.5)
        for name, start in (("xi", 0.85), ("alpha", 1.0), ("rho", 0.1), ("gain", 1.0), ("shift", 0.0)):
            self.vector(name, H, self.K, start=start)

    def forward(self, x):
        H, change = self.H, F.pad(x, (0, 0, 1, 0))[:, :-1] - x
        xr, xw, xk, xv, xa, xg = (x + mu * change for mu in self.mu)
        r, k, v = heads(self.r(xr), H), heads(self.k(xk), H), heads(self.v(xv), H)
        log_w = -math.exp(-0.5) * heads(self.w_up(self.w_down(xw).tanh()).sigmoid(), H)
        a = heads(self.a_up(self.a_down(xa)).sigmoid(), H)
        kappa, kt = F.normalize(k * self.xi, dim=-1), k * (1 + (a - 1) * self.alpha)
        o = erasing(r, kt, v, log_w, a * kappa, kappa, 32)
        o = F.layer_norm(o, (self.K,), eps=64e-5) * self.gain + self.shift + (r * kt * self.rho).sum(-1, keepdim=True) * v
        return self.o(o.flatten(2) * self.g_up(self.g_down(xg).sigmoid()))


LAYERS = {"gla": GLA, "mamba2": Mamba2, "gated_deltanet": GatedDeltaNet, "rwkv7": RWKV7}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--system", choices=LAYERS, required=True)
    parser.add_argument("--seq-len", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--steps-on-stdin", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    check()
    torch.manual_seed(0)
    layer = LAYERS[args.system]()
    x = torch.randn(args.batch, args.seq_len, DIM, requires_grad=True)
    dy = torch.randn(args.batch, args.seq_len, DIM)

    def step():
        for p in layer.parameters():
            p.grad = None
        x.grad = None
        layer(x).backward(dy)

    info = {"peer": f"PyTorch {torch.__version__}", "system": args.system, "seq_len": args.seq_len, "batch": args.batch,
            "threads": torch.get_num_threads(), "parameters": sum(p.numel() for p in layer.parameters()),
            "tokens_per_step": args.batch * args.seq_len}
    peer_lib.serve_or_time(args, info, step)


if __name__ == "__main__":
    sys.exit(main())
