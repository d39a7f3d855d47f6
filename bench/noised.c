/* noised.c - what a language model says of a text in which some tokens are others: loss of the true next token, where each token that is
 * read was replaced with probability R by any token; and, where its mixers tell how much they write (`rho_heads`), the mean of it, how far it
 * varies, and whether it goes with how surprising a token is.
 *
 *     bench-noised MODEL TEXT [--rates "0.05 0.1 0.2"] [--seq-len T] [--segments N] [--seed S]
 *
 * N segments of T + 1 tokens are spread evenly over the text. Prints one line of JSON: loss, perplexity, perplexity_R and ratio_R for each
 * rate, and rho_mean, rho_std (over tokens and heads, mean of the layers), rho_surprise (correlation with -log p of the token that is read). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "graph/fused_loss.h"
#include "checkpoint/bundle.h"
#include "run/program.h"

enum { BATCH = 8, MOST_RATES = 8 };

static mn_status build(void *ctx, mn_scope *s, const mn_form *form, mn_parts *parts) {
  mn_model_io in = {0}, out = {0};
  mn_graph *g = mn_scope_graph(s);
  const mn_shape shape = MN_SHAPE(form->batch, form->length);
  const int64_t N = form->batch * form->length;
  mn_io_put(&in, "tokens", mn_parts_feed(parts, "tokens", MN_I32, shape));
  mn_tensor *target = mn_parts_feed(parts, "target", MN_I32, shape), *each;
  mn_model_build(s, ctx, &in, &out);
  mn_tensor *h = mn_io_get(&out, "hidden"), *head = mn_io_get(&out, "head");
  mn_linear_cross_entropy(g, mn_reshape(g, h, MN_SHAPE(N, mn_dim(h, 2))), head, mn_reshape(g, target, MN_SHAPE(N)), NULL, &each);
  mn_parts_give(parts, "each", each);
  return mn_graph_status(g);
}

typedef struct sums { /* of rho, of one layer */
  double n, r, rr, pairs, pr, prr, s, ss, rs;
} sums;

typedef struct judged {
  int64_t T, segments;
  const int32_t *ids;
  int64_t n_ids;
  int32_t vocab_size;
  uint64_t seed;
  sums layers[64];
  int n_layers;
} judged;

/* rho_heads [B,T,H] beside the surprise of the token that is read: -log p said one place before. */
static void add_rho(sums *x, const float *rho, int64_t H, const float *each, int64_t rows, int64_t T) {
  for (int64_t b = 0; b < rows; b++)
    for (int64_t t = 0; t < T; t++) {
      double mean = 0;
      for (int64_t h = 0; h < H; h++) {
        const double r = rho[(b * T + t) * H + h];
        mean += r / (double)H;
        x->n++, x->r += r, x->rr += r * r;
      }
      if (!t) continue;
      const double s = each[b * T + t - 1];
      x->pairs++, x->pr += mean, x->prr += mean * mean, x->s += s, x->ss += s * s, x->rs += mean * s;
    }
}

/* Mean loss at a rate; rho at rate 0. */
static mn_status loss_at(judged *j, mn_program *p, double rate, double *loss) {
  const int64_t T = j->T, n = BATCH * T;
  mn_routine *r;
  int32_t *x = mn_alloc((size_t)n * sizeof *x), *y = mn_alloc((size_t)n * sizeof *y);
  float *each = mn_alloc((size_t)n * sizeof *each);
  if (!x || !y || !each) return MN_ERR_MEMORY;
  MN_TRY(mn_program_enter(p, &(mn_form){.batch = BATCH, .length = T, .report = "rho_heads"}, &r));
  double sum = 0;
  for (int64_t first = 0; first < j->segments; first += BATCH) {
    const int64_t rows = j->segments - first < BATCH ? j->segments - first : BATCH;
    for (int64_t b = 0; b < BATCH; b++) {
      const int64_t segment = first + (b < rows ? b : 0), at = (j->n_ids - T - 1) / j->segments * segment;
      for (int64_t t = 0; t < T; t++) {
        const uint64_t place = (uint64_t)(segment * T + t);
        const bool other = mn_random_uniform(j->seed, 1, place) < rate;
        x[b * T + t] = other ? (int32_t)(mn_random_uniform(j->seed, 2, place) * j->vocab_size) : j->ids[at + t];
        y[b * T + t] = j->ids[at + t + 1];
      }
    }
    MN_TRY(mn_routine_put(r, mn_routine_feed(r, "tokens"), x));
    MN_TRY(mn_routine_put(r, mn_routine_feed(r, "target"), y));
    MN_TRY(mn_routine_run(r, NULL));
    MN_TRY(mn_routine_get_all(r, 0, each));
    for (int64_t i = 0; i < rows * T; i++) sum += each[i];
    j->n_layers = mn_routine_reports(r);
    for (int k = 0; rate == 0 && k < j->n_layers && k < 64; k++) {
      const int result = mn_routine_results(r) - j->n_layers + k;
      const int64_t H = mn_routine_result_shape(r, result)->dim[2];
      float *rho = mn_alloc((size_t)(n * H) * sizeof *rho);
      if (!rho) return MN_ERR_MEMORY;
      MN_TRY(mn_routine_get_all(r, result, rho));
      add_rho(&j->layers[k], rho, H, each, rows, T);
      free(rho);
    }
  }
  mn_program_leave(p);
  free(x);
  free(y);
  free(each);
  *loss = sum / (double)(j->segments * T);
  return MN_OK;
}

static void say_rho(const judged *j) {
  double mean = 0, std = 0, with = 0;
  for (int k = 0; k < j->n_layers; k++) {
    const sums *x = &j->layers[k];
    mean += x->r / x->n / j->n_layers;
    std += sqrt(fmax(0, x->rr / x->n - x->r / x->n * (x->r / x->n))) / j->n_layers;
    const double rs = x->rs / x->pairs - x->pr / x->pairs * (x->s / x->pairs);
    const double rr = x->prr / x->pairs - x->pr / x->pairs * (x->pr / x->pairs),
                 ss = x->ss / x->pairs - x->s / x->pairs * (x->s / x->pairs);
    with += rr > 0 && ss > 0 ? rs / sqrt(rr * ss) / j->n_layers : 0;
  }
  if (j->n_layers) printf(", \"rho_mean\": %.4f, \"rho_std\": %.4f, \"rho_surprise\": %.4f", mean, std, with);
}

static mn_status run(const char *dir, const char *text, const char *rates, judged *j) {
  mn_bundle b;
  mn_ids ids = {0};
  char *bytes;
  size_t n;
  MN_TRY(mn_bundle_open(dir, "cpu", 1, &b));
  MN_TRY(mn_bundle_need_tokenizer(&b, dir));
  MN_TRY(mn_file_read(text, SIZE_MAX, &bytes, &n));
  MN_TRY(mn_tokenizer_encode(b.tokenizer, bytes, n, 0, &ids));
  j->ids = ids.data, j->n_ids = (int64_t)ids.len, j->vocab_size = mn_tokenizer_vocab_size(b.tokenizer);
  if (j->n_ids / j->segments <= j->T)
    return mn_fail(MN_ERR_ARG, "%s has %lld tokens, too few for %lld segments of %lld", text, (long long)j->n_ids, (long long)j->segments,
                   (long long)j->T + 1);
  mn_program_config c = {.backend = b.backend,
                         .params = b.params,
                         .build = {.param = b.params->dtype, .compute = MN_F32},
                         .builder = build,
                         .ctx = b.model,
                         .settled = true};
  mn_program *p;
  double clean, noised;
  MN_TRY(mn_program_new(&c, &p));
  MN_TRY(loss_at(j, p, 0, &clean));
  printf("{\"loss\": %.5f, \"perplexity\": %.5f", clean, exp(clean));
  for (const char *at = rates; *at;) {
    char *end;
    const double rate = strtod(at, &end);
    if (end == at || !(rate > 0 && rate <= 1)) return mn_fail(MN_ERR_ARG, "--rates are numbers above 0 and up to 1, not '%s'", at);
    MN_TRY(loss_at(j, p, rate, &noised));
    printf(", \"perplexity_%.*s\": %.5f, \"ratio_%.*s\": %.5f", (int)(end - at), at, exp(noised), (int)(end - at), at, exp(noised - clean));
    for (at = end; *at == ' '; at++) continue;
  }
  say_rho(j);
  printf("}\n");
  return MN_OK; /* everything else ends with the process */
}

int main(int argc, char **argv) {
  const char *rates = "0.05 0.1 0.2";
  judged j = {.T = 128, .segments = 256, .seed = 1};
  if (argc < 3 || argc % 2 == 0)
    return fprintf(stderr, "usage: bench-noised MODEL TEXT [--rates LIST] [--seq-len T] [--segments N] [--seed S]\n"), 2;
  for (int i = 3; i < argc; i += 2) {
    if (!strcmp(argv[i], "--rates")) rates = argv[i + 1];
    else if (!strcmp(argv[i], "--seq-len")) j.T = atoll(argv[i + 1]);
    else if (!strcmp(argv[i], "--segments")) j.segments = atoll(argv[i + 1]);
    else if (!strcmp(argv[i], "--seed")) j.seed = strtoull(argv[i + 1], NULL, 10);
    else return fprintf(stderr, "bench-noised: what is %s?\n", argv[i]), 2;
  }
  if (j.T < 1 || j.segments < 1) return fprintf(stderr, "bench-noised: --seq-len and --segments are at least 1\n"), 2;
  const mn_status status = run(argv[1], argv[2], rates, &j);
  if (status != MN_OK) fprintf(stderr, "bench-noised: %s\n", mn_message());
  return status != MN_OK;
}
