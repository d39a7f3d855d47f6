/* lean.c - one step of decoding over requests of given lengths: equal shares (backend/cpu/lean.h) beside one output, a request's key head,
 * at a time for each thread, and caches in each type, by turns in one run.
 *
 *     bench-lean [--threads N] [--heads N] [--kv-heads N] [--width N] [--repeat N] LENGTH...
 *
 * Printed are medians, the rate at which keys and values are read, the median ratio of turns that follow each other, and the largest
 * difference of the results. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/isa/attention.h"
#include "base/narrow.h"

enum { MOST = 64, TYPES = 4, TURNS = 401 };
static const mn_dtype types[TYPES] = {MN_F32, MN_BF16, MN_F16, MN_Q8_0};
static int64_t threads = 2, heads = 1, kv_heads = 1, width = 64, repeat = 21, B, S, length[MOST];

static mn_backend *backend;
static const mn_attention_isa *isa;
static mn_view in[TYPES][5], out[2];
static mn_attention_attr attr = {.causal = true, .ring = true, .has_q_pos = true, .has_length = true};

static mn_view view(mn_dtype t, int n, const int64_t *dim) {
  mn_view v = {.dtype = t, .ndim = n};
  int64_t all = 1;
  for (int i = n - 1; i >= 0; i--) v.dim[i] = dim[i], v.stride[i] = all, all *= dim[i];
  v.data = mn_alloc_aligned(mn_dtype_bytes(t, all));
  if (!v.data) exit(1);
  return v;
}
#define VIEW(t, n, ...) view(t, n, (const int64_t[]){__VA_ARGS__})

static void make(void) {
  float *row = mn_alloc((size_t)width * sizeof *row);
  const mn_view q = VIEW(MN_F32, 4, B, 1, heads, width), at = VIEW(MN_I32, 1, B), filled = VIEW(MN_I32, 1, B);
  if (!row) exit(1);
  for (int64_t i = 0; i < B * heads * width; i++) ((float *)q.data)[i] = (float)mn_random_normal(1, 0, (uint64_t)i);
  for (int64_t b = 0; b < B; b++) ((int32_t *)at.data)[b] = (int32_t)length[b] - 1, ((int32_t *)filled.data)[b] = (int32_t)length[b];
  for (int t = 0; t < TYPES; t++) {
    in[t][0] = q, in[t][3] = at, in[t][4] = filled;
    for (int i = 1; i < 3; i++) {
      in[t][i] = VIEW(types[t], 4, B, S, kv_heads, width);
      for (int64_t r = 0; r < B * S * kv_heads; r++) {
        for (int64_t e = 0; e < width; e++) row[e] = (float)(mn_random_uniform((uint64_t)i, 0, (uint64_t)(r * width + e)) * 2 - 1);
        char *to = (char *)in[t][i].data + mn_dtype_bytes(types[t], r * width);
        if (t) mn_narrow(types[t], row, width, to);
        else memcpy(to, row, (size_t)width * sizeof *row);
      }
    }
  }
  free(row);
  out[0] = VIEW(MN_F32, 4, B, 1, heads, width), out[1] = VIEW(MN_F32, 3, B, heads, 1);
}

/* ---- equal shares: the kernel as it is ---- */
static void lean(int t, void *workspace, size_t *bytes) {
  int n;
  const mn_kernel *kernel = mn_cpu_attention_kernels(mn_cpu_isa(backend), &n)[0];
  mn_call c = {.kernel = kernel,
               .attr = &attr,
               .n_in = 5,
               .n_out = 2,
               .in = in[t],
               .out = out,
               .workspace = workspace,
               .pool = backend->pool,
               .backend = backend};
  if (bytes) *bytes = kernel->workspace(&c);
  else if (kernel->run(&c) != MN_OK) exit(1);
}

/* ---- one output at a time for each thread ---- */
typedef struct one_head {
  mn_attn_args a; /* of all */
  char *scratch;
  size_t each, part;
} one_head;
static void head_task(void *ctx, int64_t i, int thread) {
  const one_head *o = ctx;
  const int64_t b = i / kv_heads, g = i % kv_heads, r = heads / kv_heads;
  mn_attn_args a = o->a;
  char *own = o->scratch + (size_t)thread * (o->each + o->part);
  float *part = (float *)(void *)(own + o->each);
  a.H = r, a.G = 1;
  a.q.data = (float *)a.q.data + g * r * width, a.o.data = (float *)a.o.data + g * r * width, a.lse += g * r;
  a.k.data = (float *)a.k.data + g * width, a.v.data = (float *)a.v.data + g * width;
  isa->decode(&a, b, 0, length[b], part, own);
  isa->decode_join(&a, b, 1, (const float *[]){part});
}
static mn_attn_tensor tensor(const mn_view *v) { return (mn_attn_tensor){v->data, v->stride[0], v->stride[1], v->stride[2]}; }
static void one_at_a_time(char *scratch, size_t each, size_t part) {
  const mn_view *x = in[0];
  one_head o = {.a = {.B = B,
                      .T = 1,
                      .S = S,
                      .H = heads,
                      .G = kv_heads,
                      .K = width,
                      .V = width,
                      .scale = (float)attr.scale,
                      .causal = true,
                      .ring = true,
                      .kv = MN_F32,
                      .q = tensor(&x[0]),
                      .k = tensor(&x[1]),
                      .v = tensor(&x[2]),
                      .o = tensor(&out[0]),
                      .q_pos = x[3].data,
                      .q_pos_b = 1,
                      .length = x[4].data,
                      .length_b = 1,
                      .lse = out[1].data,
                      .lse_b = heads,
                      .lse_h = 1},
                .scratch = scratch,
                .each = each,
                .part = part};
  mn_pool_run(backend->pool, B * kv_heads, head_task, &o);
}

static int by_size(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}
static double median(double *x, int64_t n) {
  qsort(x, (size_t)n, sizeof *x, by_size);
  return x[n / 2];
}

static bool number(const char *text, int64_t *to) {
  char *end;
  *to = strtoll(text, &end, 10);
  return end != text && !*end && *to > 0;
}

int main(int argc, char **argv) {
  static const char *const names[] = {"--threads", "--heads", "--kv-heads", "--width", "--repeat"};
  int64_t *const values[] = {&threads, &heads, &kv_heads, &width, &repeat};
  bool fits = true;
  for (int i = 1; i < argc && fits; i++) {
    int k = 0;
    while (k < 5 && strcmp(argv[i], names[k]) != 0) k++;
    if (k < 5) fits = i + 1 < argc && number(argv[++i], values[k]);
    else fits = B < MOST && number(argv[i], &length[B++]);
  }
  if (!fits || !B || heads % kv_heads || width % 32 || repeat > TURNS || mn_backend_cpu_new((int)threads, &backend) != MN_OK) {
    printf("usage: bench-lean [--threads N] [--heads N] [--kv-heads N] [--width N] [--repeat N] LENGTH...\n");
    return 2;
  }
  int64_t keys = 0;
  for (int64_t b = 0; b < B; b++) S = length[b] > S ? length[b] : S, keys += length[b];
  attr.scale = 1 / sqrt((double)width);
  isa = MN_ISA_PICK(mn_attention, mn_cpu_isa(backend));
  make();
  size_t bytes = 0, most = 0;
  for (int t = 0; t < TYPES; t++) lean(t, NULL, &bytes), most = bytes > most ? bytes : most;
  const size_t part = mn_align((size_t)(heads * (width + 2)) * sizeof(float), 64), each = most;
  char *workspace = mn_alloc_aligned(most), *scratch = mn_alloc_aligned((size_t)threads * (each + part));
  float *first = mn_alloc((size_t)(B * heads * width) * sizeof *first);
  static double one[TURNS], of[TYPES][TURNS], ratio[TYPES][TURNS];
  if (!workspace || !scratch || !first) return 1;
  for (int64_t i = -2; i < repeat; i++) { /* the first two are not counted */
    double t0 = mn_now();
    one_at_a_time(scratch, each, part);
    const double alone = mn_now() - t0;
    memcpy(first, out[0].data, (size_t)(B * heads * width) * sizeof *first);
    for (int t = 0; t < TYPES; t++) {
      t0 = mn_now();
      lean(t, workspace, NULL);
      const double took = mn_now() - t0;
      if (i >= 0) of[t][i] = took, ratio[t][i] = alone / took;
      double apart = 0;
      for (int64_t e = 0; e < B * heads * width; e++) apart = fmax(apart, fabs((double)first[e] - (double)((float *)out[0].data)[e]));
      if (i == 0) printf("%-5s equal to one at a time within %.1e\n", mn_dtype_name(types[t]), apart);
    }
    if (i >= 0) one[i] = alone;
  }
  printf("%lld requests, %lld keys, heads %lld of %lld, width %lld, %lld threads\n", (long long)B, (long long)keys, (long long)heads,
         (long long)kv_heads, (long long)width, (long long)threads);
  printf("%-22s %9.1f us\n", "one at a time, f32", median(one, repeat) * 1e6);
  for (int t = 0; t < TYPES; t++) {
    const double size = (double)mn_dtype_bytes(types[t], 2 * keys * kv_heads * width), time = median(of[t], repeat);
    printf("equal shares, %-8s %9.1f us   %6.2f GB/s   %.2f times as fast\n", mn_dtype_name(types[t]), time * 1e6, size / time / 1e9,
           median(ratio[t], repeat));
  }
  free(workspace), free(scratch), free(first);
  return 0;
}
