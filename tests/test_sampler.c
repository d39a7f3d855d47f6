/* test_sampler.c - what must be true of draws: how often a token is drawn is its probability, whatever is left out before; weights are
 * exponentials to the last bits of f32, also of a long vocabulary; a draw is a function of seed, stream and position. */
#include "backend/cpu/isa/weights.h"
#include "run/sampler.h"
#include "test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { V = 1000, DRAWS = 40000 };

static void logits_of(float *x, int64_t n) { /* falling, so that a few take most, and shuffled by a step that is coprime to n */
  for (int64_t i = 0; i < n; i++) x[i * 7 % n] = 5 - 2.5f * logf((float)(i + 1));
}

static void weights_are_exponentials_of(const mn_weights_vec *vec) {
  static const int64_t lengths[] = {1, 7, 8, 255, 256, 257, 5000};
  static const double temperatures[] = {0.01, 0.8, 1, 30};
  float x[5000], w[5000];
  double sums[20];
  for (int l = 0; l < 7; l++)
    for (int t = 0; t < 4; t++) {
      const int64_t n = lengths[l];
      double all = 0;
      for (int64_t i = 0; i < n; i++) x[i] = (float)(-0.011 * (double)(i * 3 % n));
      if (n > 7) x[5] = -INFINITY;
      const double sum = vec->weigh(x, n, x[0], temperatures[t], 0, w, sums);
      for (int64_t i = 0; i < n; i++) {
        const double right =
            ((double)x[i] - x[0]) / temperatures[t] * 1.4426950408889634 < -126 ? 0 : exp(((double)x[i] - x[0]) / temperatures[t]);
        const double bound = right > 0 ? 2e-7 * (2 + fabs(log(right))) * right : 1.2e-38;
        CHECK(fabs(w[i] - right) <= bound, "n %d, temperature %g: weight %d is %.9g, not %.9g", (int)n, temperatures[t], (int)i,
              (double)w[i], right);
        all += (double)w[i];
      }
      CHECK(fabs(sum - all) <= 1e-6 * all, "n %d: sum %.9g, of all %.9g", (int)n, sum, all);
    }
  CHECK(vec->weigh(x, 5000, x[0], 1, 0.5, w, sums) > 0, "nothing is left above a half");
  for (int i = 0; i < 5000; i++) CHECK(w[i] == 0 || w[i] >= 0.5f, "weight %d is %g", i, (double)w[i]);
}

/* Largest values of blocks, and whether all are numbers, wherever one stands. */
static void peaks_are_the_largest_of(const mn_weights_vec *vec) {
  static const int64_t lengths[] = {1, 7, 33, 256, 257, 1000};
  float x[1000], peaks[4];
  for (int l = 0; l < 6; l++)
    for (int64_t at = 0; at < lengths[l]; at += 1 + at / 8) {
      const int64_t n = lengths[l], block = at / MN_WEIGHTS_BLOCK;
      for (int64_t i = 0; i < n; i++) x[i] = -5 - (float)(i % 7);
      x[at] = -1;
      CHECK(vec->peaks(x, n, peaks), "all of %d are numbers", (int)n);
      for (int64_t b = 0; b < mn_weights_blocks(n); b++)
        CHECK(b == block ? peaks[b] == -1 : peaks[b] <= -5, "%d: block %d", (int)at, (int)b);
      for (int k = 0; k < 3; k++) {
        x[at] = k == 0 ? NAN : k == 1 ? INFINITY : -INFINITY;
        CHECK(!vec->peaks(x, n, peaks), "%g at %d of %d", (double)x[at], (int)at, (int)n);
      }
    }
}

/* With every set of instructions that this processor has. */
static void weights_are_exponentials(void) {
  for (mn_isa isa = MN_ISA_LEVEL_GENERIC; isa <= mn_isa_best(); isa++) weights_are_exponentials_of(MN_ISA_PICK(mn_weights_table, isa));
}
static void peaks_are_the_largest(void) {
  for (mn_isa isa = MN_ISA_LEVEL_GENERIC; isa <= mn_isa_best(); isa++) peaks_are_the_largest_of(MN_ISA_PICK(mn_weights_table, isa));
}

/* Probabilities as the ways of leaving out say, in f64, with the definitions written out. */
static void expected(const mn_sampling *c, const float *logits, double *p) {
  int order[V];
  double sum = 0, reached = 0;
  for (int i = 0; i < V; i++) order[i] = i;
  for (int i = 1; i < V; i++) /* the likeliest first */
    for (int j = i; j > 0 && logits[order[j]] > logits[order[j - 1]]; j--) {
      const int other = order[j];
      order[j] = order[j - 1], order[j - 1] = other;
    }
  for (int i = 0; i < V; i++) {
    const int t = order[i];
    p[t] = exp(((double)logits[t] - logits[order[0]]) / c->temperature);
    if (p[t] < c->min_p || (c->top_k && i >= c->top_k)) p[t] = 0;
    sum += p[t];
  }
  for (int i = 0; i < V; i++) {
    if (i > 0 && reached >= c->top_p * sum) p[order[i]] = 0;
    reached += p[order[i]];
  }
  for (int i = 0; i < V; i++) p[i] /= reached;
  for (int i = 0; i < V; i++)
    if (p[i] < 0) p[i] = 0;
}

static void draws_follow_probabilities(void) {
  static const struct {
    double temperature, top_p, min_p;
    int top_k;
  } ways[] = {{1, 1, 0, 0}, {0.7, 1, 0, 0}, {1, 0.9, 0, 0}, {1, 1, 0, 20}, {1, 1, 0.05, 0}, {1.3, 0.8, 0.01, 50}, {2, 0.999, 0, 0}};
  float logits[V];
  double p[V];
  logits_of(logits, V);
  for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
    mn_sampling c;
    mn_sampler *s = NULL;
    int count[V] = {0};
    mn_config_defaults(mn_sampling_fields, &c);
    c.temperature = ways[w].temperature, c.top_p = ways[w].top_p, c.min_p = ways[w].min_p, c.top_k = ways[w].top_k;
    double apart = 0;
    /* a total: half the sum of differences, whose mean is about sqrt(p / (2 pi draws)) for each token */
    double bound = 0;
    expected(&c, logits, p);
    CHECK_OK(mn_sampler_new(&c, V, &s));
    for (int i = 0; i < DRAWS; i++) {
      int32_t t = 0;
      CHECK_OK(mn_sampler_next(s, 3, i, logits, &t));
      count[t]++;
    }
    for (int i = 0; i < V; i++) {
      apart += fabs((double)count[i] / DRAWS - p[i]) / 2;
      bound += sqrt(p[i] / DRAWS) / 2;
      CHECK(count[i] == 0 || p[i] > 0, "way %d: token %d was left out and drawn", (int)w, i);
    }
    CHECK(apart < bound, "way %d: draws lie %.4f from their probabilities, %.4f expected at most", (int)w, apart, bound);
    mn_sampler_free(s);
  }
}

static void a_draw_is_a_function_of_where_it_stands(void) {
  float logits[V];
  mn_sampling c;
  mn_sampler *s = NULL, *again = NULL;
  int same = 0, other = 0;
  logits_of(logits, V);
  mn_config_defaults(mn_sampling_fields, &c);
  CHECK_OK(mn_sampler_new(&c, V, &s));
  CHECK_OK(mn_sampler_new(&c, V, &again));
  for (int i = 0; i < 200; i++) {
    int32_t a, b, d;
    CHECK_OK(mn_sampler_next(s, 1, i, logits, &a));
    CHECK_OK(mn_sampler_next(again, 1, 199 - i, logits, &d));
    CHECK_OK(mn_sampler_next(again, 1, i, logits, &b));
    same += a == b, other += a != d;
  }
  CHECK(same == 200, "%d of 200 draws are the same again", same);
  CHECK(other > 50, "only %d draws of other positions differ", other);
  mn_sampler_free(s);
  mn_sampler_free(again);
}

static void a_mask_is_kept_to(void) {
  float logits[V];
  uint64_t mask[(V + 63) / 64] = {0};
  mn_sampling c;
  logits_of(logits, V);
  mask[0] = 1u << 9 | 1u << 11, mask[V / 64] = 1;
  mn_config_defaults(mn_sampling_fields, &c);
  for (int way = 0; way < 4; way++) {
    mn_sampler *s = NULL;
    int seen[3] = {0};
    c.temperature = way == 1 ? 0 : 100, c.top_k = way == 2 ? 2 : 0, c.top_p = way == 3 ? 0.99 : 1;
    CHECK_OK(mn_sampler_new(&c, V, &s));
    for (int i = 0; i < 300; i++) {
      int32_t t;
      mn_sampler_only(s, mask);
      CHECK_OK(mn_sampler_next(s, 0, i, logits, &t));
      CHECK(t == 9 || t == 11 || t == V / 64 * 64, "way %d: token %d was drawn", way, (int)t);
      seen[t == 9 ? 0 : t == 11 ? 1 : 2]++;
    }
    const int kinds = !!seen[0] + !!seen[1] + !!seen[2], right = way == 1 ? 1 : way == 2 ? 2 : 3;
    CHECK(kinds == right, "way %d: %d tokens were drawn, not %d", way, kinds, right);
    mn_sampler_free(s);
  }
}

/* However cold, the likeliest token; nothing that may be drawn, or a logit without a bound, is said and not drawn from. */
static void ends_of_the_scale(void) {
  static const double temperatures[] = {0, 1e-300, 1e-40, 1e-38, 1e-3};
  float logits[V];
  uint64_t none[(V + 63) / 64] = {0};
  mn_sampling c;
  mn_sampler *s = NULL;
  int32_t token = 0;
  logits_of(logits, V);
  logits[3] = 40;
  mn_config_defaults(mn_sampling_fields, &c);
  for (int i = 0; i < 10; i++) {
    c.temperature = temperatures[i / 2], c.top_p = i % 2 ? 0.9 : 1;
    CHECK_OK(mn_sampler_new(&c, V, &s));
    CHECK_OK(mn_sampler_next(s, 0, i, logits, &token));
    CHECK(token == 3, "temperature %g, top_p %g: token %d", c.temperature, c.top_p, (int)token);
    mn_sampler_only(s, none);
    CHECK(mn_sampler_next(s, 0, i, logits, &token) == MN_ERR_NUMERIC && strstr(mn_message(), "no token may be drawn"), "%s", mn_message());
    mn_sampler_free(s);
  }
  c.repetition_penalty = 0.01, c.temperature = 1, c.top_p = 1;
  logits[3] = 3.3e38f;
  CHECK_OK(mn_sampler_new(&c, V, &s));
  mn_sampler_note(s, 3);
  CHECK(mn_sampler_next(s, 0, 0, logits, &token) == MN_ERR_NUMERIC && strstr(mn_message(), "the penalty"), "%s", mn_message());
  mn_sampler_free(s);
}

int main(void) {
  RUN(weights_are_exponentials);
  RUN(peaks_are_the_largest);
  RUN(draws_follow_probabilities);
  RUN(a_draw_is_a_function_of_where_it_stands);
  RUN(a_mask_is_kept_to);
  RUN(ends_of_the_scale);
  return test_end();
}
