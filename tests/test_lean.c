/* What must be true of one step of decoding in equal shares (Sanovar et al. 2024, arXiv 2405.10480): the plan cuts all tiles into shares that
 * differ by one at most, wherever requests begin and end; what the parts of a request give is what the request gives, to the bit for any
 * number of threads; requests of any lengths, none among them, are what each is alone; caches in types of their own give what their values
 * give. */
#include "base/narrow.h"
#include "backend/cpu/isa/attention.h"
#include "cpu_kernel.h"
#include "graph/fused_attention.h"
#include <float.h>

/* ---- the plan ---- */
/* "0:(0,0,3,H) 1:(0,3,4,p)...": each share's pieces, of which output, from which tile to which, at its beginning or not. */
static void describe(const int64_t *n, int outputs, int64_t shares, char *text, size_t room) {
  int64_t first[16] = {0};
  size_t at = 0;
  for (int o = 0; o < outputs; o++) first[o + 1] = first[o] + n[o];
  for (int64_t w = 0; w < shares; w++) {
    int64_t begin, end;
    mn_lean_range(first[outputs], shares, w, &begin, &end);
    at += (size_t)snprintf(text + at, room - at, "%s%d:", w ? " " : "", (int)w);
    for (int64_t stop; begin < end; begin = stop) {
      const int64_t o = mn_lean_output_of(first, outputs, begin);
      stop = first[o + 1] < end ? first[o + 1] : end;
      at += (size_t)snprintf(text + at, room - at, "(%d,%d,%d,%c)", (int)o, (int)(begin - first[o]), (int)(stop - first[o]),
                             begin == first[o] ? 'H' : 'p');
    }
  }
}

static void plans_are_those_of_the_method(void) {
  char text[400];
  describe((int64_t[]){4, 1, 3, 5}, 4, 5, text, sizeof text);
  CHECK(!strcmp(text, "0:(0,0,3,H) 1:(0,3,4,p)(1,0,1,H)(2,0,1,H) 2:(2,1,3,p)(3,0,1,H) 3:(3,1,3,p) 4:(3,3,5,p)"), "%s", text);
  describe((int64_t[]){4, 1, 3, 7}, 4, 4, text, sizeof text);
  CHECK(!strcmp(text, "0:(0,0,4,H) 1:(1,0,1,H)(2,0,3,H) 2:(3,0,4,H) 3:(3,4,7,p)"), "%s", text);
}

static void shares_are_equal_and_cover_all(void) {
  for (uint64_t k = 0; k < 10000; k++) {
    int64_t first[10] = {0};
    const int outputs = 1 + (int)(mn_random_uniform(5, 0, k) * 9);
    for (int o = 0; o < outputs; o++) {
      const double x = mn_random_uniform(5, 1 + (uint64_t)o, k);
      first[o + 1] = first[o] + (x < 0.2 ? 0 : (int64_t)(x * x * 300));
    }
    const int64_t tiles = first[outputs];
    if (!tiles) continue;
    const int64_t wanted = 1 + (int64_t)(mn_random_uniform(5, 20, k) * 70), shares = wanted < tiles ? wanted : tiles;
    int64_t at = 0, least = tiles, most = 0;
    bool hosts = true, tails = true;
    for (int64_t w = 0; w < shares; w++) {
      int64_t begin, end, inside = 0;
      mn_lean_range(tiles, shares, w, &begin, &end);
      hosts &= begin == at;
      if (end - begin < least) least = end - begin;
      if (end - begin > most) most = end - begin;
      for (int64_t t = begin; t < end; t++) {
        const int64_t o = mn_lean_output_of(first, outputs, t);
        hosts &= first[o] <= t && t < first[o + 1] && mn_lean_share_of(tiles, shares, t) == w;
        inside += t == begin && t != first[o];
      }
      tails &= inside <= 1;
      at = end;
    }
    CHECK(at == tiles && hosts && tails && most - least <= 1 && least >= 1, "plan %d: %d tiles in %d shares of %d to %d", (int)k,
          (int)tiles, (int)shares, (int)least, (int)most);
  }
}

/* Tiles of the longest share beside those of one output a worker, the card's shapes: tiles of 128 keys, twice as many workers as
 * multiprocessors. And hardly anybody waits. */
/* FlashDecoding's splits for `outputs` of n tiles: the fewest that are nearly as busy as any; its longest share is in *tiles. */
static int64_t fixed_split(int64_t outputs, int64_t n, int64_t workers, int64_t *longest) {
  const int64_t most = workers < 128 ? workers : 128;
  int64_t best = 1;
  double busiest = 0;
  for (int turn = 0; turn < 2; turn++)
    for (int64_t s = 1; s <= most && s <= n; s++) {
      if (s > 1 && (n + s - 1) / s == (n + s - 2) / (s - 1)) continue;
      const double waves = (double)(outputs * s) / (double)workers, busy = waves / ceil(waves);
      if (!turn) busiest = fmax(busiest, busy);
      else if (busy >= 0.85 * busiest) {
        best = s;
        break;
      }
    }
  if ((double)outputs >= 0.8 * (double)workers) best = 1;
  *longest = (outputs * best + workers - 1) / workers * ((n + best - 1) / best);
  return best;
}

static void the_longest_share_is_as_short_as_can_be(void) {
  static const struct {
    int64_t outputs, keys, processors, one_each, splits, split, lean;
  } of[] = {{32, 65536, 108, 512, 6, 86, 76},
            {56, 65536, 132, 512, 4, 128, 109},
            {224, 65536, 108, 1024, 1, 1024, 531},
            {64, 131072, 108, 1024, 3, 342, 304},
            {8, 262144, 132, 2048, 29, 71, 63}};
  for (int i = 0; i < 5; i++) {
    const int64_t n = of[i].keys / 128, tiles = of[i].outputs * n, workers = 2 * of[i].processors;
    int64_t begin, end, split;
    mn_lean_range(tiles, workers, 0, &begin, &end);
    CHECK((of[i].outputs + workers - 1) / workers * n == of[i].one_each && end == of[i].lean, "%d: %d tiles", i, (int)end);
    const int64_t splits = fixed_split(of[i].outputs, n, workers, &split);
    CHECK(splits == of[i].splits && split == of[i].split, "%d: %d splits, %d tiles", i, (int)splits, (int)split);
    CHECK((double)tiles / (double)(end * workers) >= 0.98, "%d: busy for %g", i, (double)tiles / (double)(end * workers));
  }
  CHECK(mn_lean_shares(1, 1 << 20) == 1 && mn_lean_shares(1000, 1 << 20) == MN_LEAN_SHARES && mn_lean_shares(1000, 64) == 1,
        "as many as pay");
}

/* ---- the kernel ---- */
typedef struct step {
  int64_t B, S, H, G, K, V;
  mn_dtype kv;
  bool in_order; /* a ring, causal; else keys anywhere, of which the first `length` are there */
  mn_view in[5], out[2];
  float *k, *v; /* their values */
} step;

static void make(step *s, const int32_t *length) {
  const int64_t B = s->B, S = s->S, H = s->H, G = s->G, K = s->K, V = s->V;
  s->in[0] = tensor_random(TENSOR(MN_F32, 0, B, 1, H, K), 1, 1, 0);
  float **values[2] = {&s->k, &s->v};
  for (int i = 0; i < 2; i++) {
    const int64_t n = B * S * G * (i ? V : K);
    *values[i] = mn_alloc_aligned((size_t)n * sizeof(float));
    for (int64_t j = 0; j < n; j++) (*values[i])[j] = (float)mn_random_uniform(2 + (uint64_t)i, 0, (uint64_t)j) * 2 - 1;
    mn_view *x = &s->in[1 + i];
    *x = (mn_view){.dtype = s->kv, .ndim = 4, .dim = {B, S, G, i ? V : K}};
    for (int64_t d = 3, each = 1; d >= 0; each *= x->dim[d--]) x->stride[d] = each;
    x->data = mn_alloc_aligned(mn_dtype_bytes(s->kv, n));
    if (s->kv == MN_F32) memcpy(x->data, *values[i], (size_t)n * sizeof(float));
    else mn_narrow(s->kv, *values[i], n, x->data), mn_widen(s->kv, x->data, n, *values[i]);
  }
  s->in[3] = TENSOR(MN_I32, 0, B), s->in[4] = TENSOR(MN_I32, 0, B);
  for (int64_t b = 0; b < B; b++) tensor_set(&s->in[3], b, length[b] - 1), tensor_set(&s->in[4], b, length[b]);
  s->out[0] = TENSOR(MN_F32, 0, B, 1, H, V), s->out[1] = TENSOR(MN_F32, 0, B, H, 1);
}
static void done(step *s) {
  tensors_free(5, s->in), tensors_free(2, s->out);
  free(s->k), free(s->v);
}
static void run(step *s, mn_isa isa, int threads) {
  const mn_attention_attr attr = {
      .scale = 1 / sqrt((double)s->K), .causal = s->in_order, .ring = s->in_order, .has_q_pos = true, .has_length = true};
  CHECK_OK(kernel_run(mn_cpu_attention_kernels, &mn_op_attention, &attr, isa, threads, 5, s->in, 2, s->out));
}

/* Softmax of two passes in double, of request b and head h; lse: of its sum. */
static double by_definition(const step *s, int64_t b, int64_t h, int64_t length, double *o) {
  const int64_t g = h / (s->H / s->G);
  double *w = mn_alloc((size_t)(length + 1) * sizeof *w), top = -INFINITY, sum = 0;
  const float *q = (const float *)s->in[0].data + (b * s->H + h) * s->K;
  for (int64_t j = 0; j < length; j++) {
    const float *k = s->k + ((b * s->S + j) * s->G + g) * s->K;
    w[j] = 0;
    for (int64_t i = 0; i < s->K; i++) w[j] += (double)q[i] * (double)k[i];
    w[j] /= sqrt((double)s->K);
    top = fmax(top, w[j]);
  }
  memset(o, 0, (size_t)s->V * sizeof *o);
  for (int64_t j = 0; j < length; j++) {
    const float *v = s->v + ((b * s->S + j) * s->G + g) * s->V;
    const double e = exp(w[j] - top);
    sum += e;
    for (int64_t i = 0; i < s->V; i++) o[i] += e * (double)v[i];
  }
  for (int64_t i = 0; i < s->V; i++) o[i] /= length ? sum : 1;
  free(w);
  return length ? top + log(sum) : -INFINITY;
}

static const int32_t ragged[8] = {1000, 77, 9011, 5, 256, 257, 1, 0}, longer[8] = {1000, 77, 30011, 5, 256, 257, 1, 0};

/* As long as caches become: the largest error does not grow with what is summed. */
static void a_very_long_request_is_what_it_is_by_definition(void) {
  const int32_t length[1] = {262144};
  EACH_ISA(isa) {
    step s = {.B = 1, .S = 262144, .H = 2, .G = 1, .K = 16, .V = 16, .in_order = true};
    double worst = 0, o[16];
    make(&s, length);
    run(&s, isa, 3);
    for (int64_t h = 0; h < 2; h++) {
      const double lse = by_definition(&s, 0, h, length[0], o);
      for (int i = 0; i < 16; i++) worst = fmax(worst, fabs(tensor_get(&s.out[0], h * 16 + i) - o[i]));
      CHECK(fabs(tensor_get(&s.out[1], h) - lse) < 1e-5, "%s: log of the sum %g, not %g", mn_isa_name(isa), tensor_get(&s.out[1], h), lse);
    }
    CHECK(worst < 2e-6, "%s: off by %g", mn_isa_name(isa), worst);
    done(&s);
  }
}

/* Every type, grouped and multi-query heads: beside the definition, and the same bits with any number of threads. */
static void ragged_requests_are_what_they_are_by_definition(void) {
  static const mn_dtype types[] = {MN_F32, MN_BF16, MN_F16, MN_Q8_0, MN_F32};
  EACH_ISA(isa) {
    for (int t = 0; t < 5; t++) {
      const int64_t wide = t == 4 ? 16 : 64;
      const int32_t *const length = t == 4 ? longer : ragged;
      step s = {.B = 8, .S = 9024, .H = 6, .G = t == 1 ? 1 : 2, .K = wide, .V = wide, .kv = types[t], .in_order = true};
      if (t == 4) s.S = 30016, s.H = 2, s.G = 1;
      double worst = 0, worst_lse = 0, o[64];
      make(&s, length);
      run(&s, isa, 1);
      for (int64_t b = 0; b < 8; b++)
        for (int64_t h = 0; h < s.H; h++) {
          const double lse = by_definition(&s, b, h, length[b], o), got = tensor_get(&s.out[1], b * s.H + h);
          for (int i = 0; i < wide; i++) worst = fmax(worst, fabs(tensor_get(&s.out[0], (b * s.H + h) * wide + i) - o[i]));
          if (length[b]) worst_lse = fmax(worst_lse, fabs(got - lse));
          else CHECK(got == -INFINITY, "a request without keys: %g", got);
        }
      CHECK(worst < 2e-6 && worst_lse < 1e-5, "%s, %s: off by %g, %g", mn_isa_name(isa), mn_dtype_name(s.kv), worst, worst_lse);
      float *one = mn_alloc((size_t)(8 * s.H * wide) * sizeof *one);
      memcpy(one, s.out[0].data, (size_t)(8 * s.H * wide) * sizeof *one);
      for (int threads = 2; threads <= 5; threads += 3) {
        run(&s, isa, threads);
        CHECK(!memcmp(one, s.out[0].data, (size_t)(8 * s.H * wide) * sizeof *one), "%s, %s: %d threads give other bits", mn_isa_name(isa),
              mn_dtype_name(s.kv), threads);
      }
      /* each alone, cut otherwise */
      step alone = s;
      double apart = 0;
      alone.B = 1;
      for (int64_t b = 0; b < 8; b++) {
        for (int i = 0; i < 3; i++) {
          alone.in[i].dim[0] = 1;
          alone.in[i].data = (char *)s.in[i].data + mn_dtype_bytes(s.in[i].dtype, b * s.in[i].stride[0]);
        }
        for (int i = 3; i < 5; i++) alone.in[i].dim[0] = 1, alone.in[i].data = (int32_t *)s.in[i].data + b;
        alone.out[0] = TENSOR(MN_F32, 0, 1, 1, s.H, wide), alone.out[1] = TENSOR(MN_F32, 0, 1, s.H, 1);
        run(&alone, isa, 2);
        for (int64_t i = 0; i < s.H * wide; i++) apart = fmax(apart, fabs(tensor_get(&alone.out[0], i) - (double)one[b * s.H * wide + i]));
        tensors_free(2, alone.out);
      }
      CHECK(apart < 1e-6, "%s, %s: together and alone differ by %g", mn_isa_name(isa), mn_dtype_name(s.kv), apart);
      free(one);
      done(&s);
    }
  }
}

/* However many queries share a key head, and however wide rows are: all that a vector, or a few at a time, leave over. */
static void groups_and_widths_of_all_kinds(void) {
  static const mn_dtype types[] = {MN_F32, MN_BF16, MN_F16, MN_Q8_0};
  static const int64_t widths[][2] = {{64, 32}, {32, 64}, {20, 52}, {7, 3}, {96, 40}};
  static const int32_t length[2] = {131, 18};
  EACH_ISA(isa) {
    for (int64_t r = 1; r <= 9; r++)
      for (int t = 0; t < 4; t++)
        for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
          step s = {.B = 2, .S = 131, .H = 2 * r, .G = 2, .K = widths[w][0], .V = widths[w][1], .kv = types[t], .in_order = true};
          double worst = 0, o[64];
          if (s.kv == MN_Q8_0 && (s.K % 32 || s.V % 32)) continue;
          make(&s, length);
          run(&s, isa, 2);
          for (int64_t b = 0; b < 2; b++)
            for (int64_t h = 0; h < s.H; h++) {
              by_definition(&s, b, h, length[b], o);
              for (int64_t i = 0; i < s.V; i++) worst = fmax(worst, fabs(tensor_get(&s.out[0], (b * s.H + h) * s.V + i) - o[i]));
            }
          CHECK(worst < 2e-6, "%s, %s, %lld queries to a key head, keys of %lld, values of %lld: off by %g", mn_isa_name(isa),
                mn_dtype_name(s.kv), (long long)r, (long long)s.K, (long long)s.V, worst);
          done(&s);
        }
  }
}

/* A constant added to all scores changes nothing, nor does another order of the keys. */
static void what_softmax_does_not_see_changes_nothing(void) {
  const int32_t length[1] = {5000};
  EACH_ISA(isa) {
    step s = {.B = 1, .S = 5000, .H = 2, .G = 1, .K = 32, .V = 32};
    float before[64];
    make(&s, length);
    for (int64_t j = 0; j < 5000; j++) ((float *)s.in[1].data)[j * 32 + 31] = 1;
    run(&s, isa, 2);
    memcpy(before, s.out[0].data, sizeof before);
    for (int h = 0; h < 2; h++) ((float *)s.in[0].data)[h * 32 + 31] += 40;
    run(&s, isa, 2);
    CHECK(tensor_error(&s.out[0], (double[64]){0}, 1) < 1.1, "numbers");
    double moved = 0;
    for (int i = 0; i < 64; i++) moved = fmax(moved, fabs(tensor_get(&s.out[0], i) - (double)before[i]));
    CHECK(moved < 1e-5, "%s: a constant moves it by %g", mn_isa_name(isa), moved);
    for (int h = 0; h < 2; h++) ((float *)s.in[0].data)[h * 32 + 31] -= 40;
    for (int i = 1; i < 3; i++)
      for (int64_t j = 0; j < 2500; j++)
        for (int e = 0; e < 32; e++) {
          float *a = (float *)s.in[i].data + j * 32 + e, *b = (float *)s.in[i].data + (4999 - j) * 32 + e, x = *a;
          *a = *b, *b = x;
        }
    run(&s, isa, 2);
    moved = 0;
    for (int i = 0; i < 64; i++) moved = fmax(moved, fabs(tensor_get(&s.out[0], i) - (double)before[i]));
    CHECK(moved < 1e-5 && moved > 0, "%s: another order moves it by %g", mn_isa_name(isa), moved);
    done(&s);
  }
}

/* Parts are joined in any order and grouping: (x + y) + z = x + (y + z) = all at once; nothing is the neutral one. */
static void parts_are_joined_in_any_grouping(void) {
  enum { V = 8 };
  EACH_ISA(isa) {
    const mn_attention_isa *of = MN_ISA_PICK(mn_attention, isa);
    for (uint64_t k = 0; k < 200; k++) {
      float x[4][V + 2], o[3][V], lse[3];
      for (uint64_t i = 0; i < 3; i++) {
        for (uint64_t e = 0; e < V; e++) x[i][e] = (float)mn_random_normal(9, i * 16 + e, k);
        x[i][V] = (float)(mn_random_normal(9, 100 + i, k) * 20), x[i][V + 1] = (float)(1 + mn_random_uniform(9, 200 + i, k) * 50);
      }
      for (int e = 0; e < V + 2; e++) x[3][e] = 0;
      x[3][V] = -1e30f;
      mn_attn_args a = {.B = 1, .H = 1, .V = V, .o = {o[0], V, V, V}, .lse = &lse[0]};
      of->decode_join(&a, 0, 3, (const float *[]){x[0], x[1], x[2]});
      a.o.data = o[1], a.lse = &lse[1];
      of->decode_join(&a, 0, 4, (const float *[]){x[3], x[2], x[0], x[1]});
      /* y + z first, then handed on as a part: normalised, so its sum is 1 and its largest the log of the sum */
      float pair[V + 2], l;
      a.o.data = pair, a.lse = &l;
      of->decode_join(&a, 0, 2, (const float *[]){x[1], x[2]});
      pair[V] = l * 1.44269504088896341f, pair[V + 1] = 1;
      a.o.data = o[2], a.lse = &lse[2];
      of->decode_join(&a, 0, 2, (const float *[]){x[0], pair});
      /* A part beside nothing is itself, to the bit, wherever nothing stands, and of two either may come first. */
      float two[5][V], two_lse[5];
      const float *const orders[5][2] = {{x[0], NULL}, {x[0], x[3]}, {x[3], x[0]}, {x[0], x[1]}, {x[1], x[0]}};
      for (int way = 0; way < 5; way++) {
        a.o.data = two[way], a.lse = &two_lse[way];
        of->decode_join(&a, 0, way ? 2 : 1, orders[way]);
      }
      for (int way = 1; way < 3; way++)
        CHECK(!memcmp(two[way], two[0], sizeof *two) && two_lse[way] == two_lse[0], "%s: nothing changes a part", mn_isa_name(isa));
      CHECK(!memcmp(two[4], two[3], sizeof *two) && two_lse[4] == two_lse[3], "%s: turned about, two parts are others", mn_isa_name(isa));
      double most = 0, apart = 0;
      for (int i = 1; i < 3; i++)
        for (int e = 0; e < V; e++) most = fmax(most, fabs((double)o[0][e])), apart = fmax(apart, fabs((double)o[i][e] - (double)o[0][e]));
      CHECK(apart <= 1e-6 * most, "%s: %g of %g", mn_isa_name(isa), apart, most);
      for (int i = 1; i < 3; i++)
        CHECK(fabs((double)lse[i] - (double)lse[0]) <= 1e-6 * (1 + fabs((double)lse[0])), "%s: %g is %g", mn_isa_name(isa), (double)lse[0],
              (double)lse[i]);
    }
  }
}

int main(void) {
  RUN(plans_are_those_of_the_method);
  RUN(shares_are_equal_and_cover_all);
  RUN(the_longest_share_is_as_short_as_can_be);
  RUN(ragged_requests_are_what_they_are_by_definition);
  RUN(a_very_long_request_is_what_it_is_by_definition);
  RUN(groups_and_widths_of_all_kinds);
  RUN(what_softmax_does_not_see_changes_nothing);
  RUN(parts_are_joined_in_any_grouping);
  return test_end();
}
