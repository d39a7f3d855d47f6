/* test_event_forecaster.c - what must be true of events in time, in order: golden vectors from NumPy, and gradients; a stream cut anywhere is the
 * stream; the density of gaps is one: it adds up to 1, and its expected gap is what the objective says; the processes are what they say they
 * are: what a rate adds up to between events is exponential with mean 1; batches are functions of their step; what is learned beats events
 * that come by chance; what is refused. */
#include "gradcheck.h"
#include "model_check.h"
#include "objective/objective.h"
#include "source/source.h"
#include "program.h"

static void golden_vectors_and_gradients(void) {
  mk_golden f;
  if (!mk_golden_open(&f, "event_forecaster")) return;
  double e = mk_golden_error(&f);
  CHECK(e < 1e-11, "differs by %g", e);
  mc_get(&f.m.params, "gap.bias")->x[5] += 1e-3;
  CHECK(mk_golden_error(&f) > 1e-7, "does not depend on its deviations");
  e = mk_gradient_error(&f.m, &f.in, 12, 3);
  CHECK(e < 1e-7, "gradients: %g", e);
  mk_golden_close(&f);
}

static void a_stream_cut_anywhere_is_the_stream(void) {
  static const char *const said[] = {"density", "logits"};
  mk_golden f;
  if (!mk_golden_open(&f, "event_forecaster")) return;
  CHECK_OK(mn_model_check_stream(f.m.model));
  for (int k = 0; k < 2; k++)
    for (int64_t c = 1; c < 9; c++) {
      double e = mk_split_error(&f.m, &f.in, said[k], 9, 1, &c);
      CHECK(e < 1e-11, "%s cut at %lld: %g", said[k], (long long)c, e);
    }
  mk_golden_close(&f);
}

/* ---- the objective ---- */
enum { K = 3 };
static const double w[K] = {0.2, 0.5, 0.3}, mean[K] = {-0.5, 0.3, 1.2}, deviation[K] = {0.4, 0.7, 0.2};

static double density_at(double s) {
  double p = 0;
  for (int k = 0; k < K; k++) {
    const double z = (log(s) - mean[k]) / deviation[k];
    p += w[k] * exp(-z * z / 2) / (deviation[k] * sqrt(2 * 3.14159265358979323846) * s);
  }
  return p;
}

static void the_density_is_one(void) {
  static const double gaps[] = {0.05, 0.7, 1.5, 9};
  static const int32_t marks[] = {0, 2, 1, 1};
  enum { N = 4 };
  mn_graph *g = mn_graph_new();
  const mn_objective_def *def = NULL;
  for (int i = 0; i < mn_objective_count(); i++)
    if (!strcmp(mn_objective_at(i)->name, "events")) def = mn_objective_at(i);
  double density[N * 3 * K], logits[N * 3], weight[N] = {1, 1, 1, 1}, target[N], gap[N], *got[4] = {NULL}, sum = 0, expected = 0;
  for (int i = 0; i < N; i++) {
    for (int k = 0; k < K; k++) {
      density[i * 3 * K + k] = log(w[k]) + 0.1 * i; /* logits: a shift is nothing */
      density[i * 3 * K + K + k] = mean[k];
      density[i * 3 * K + 2 * K + k] = log(deviation[k]);
    }
    for (int m = 0; m < 3; m++) logits[i * 3 + m] = (m + 1) * 0.3 * i;
    target[i] = marks[i];
    gap[i] = gaps[i];
  }
  mn_tensor *leaf[] = {mn_input(g, "density", MN_F64, MN_SHAPE(1, N, 3 * K)), mn_input(g, "logits", MN_F64, MN_SHAPE(1, N, 3)),
                       mn_input(g, "weight", MN_F64, MN_SHAPE(N)), mn_input(g, "target", MN_I32, MN_SHAPE(1, N)),
                       mn_input(g, "target_gaps", MN_F64, MN_SHAPE(1, N))};
  double *value[] = {density, logits, weight, target, gap};
  mn_model_io outputs = {0}, data = {0};
  mn_io_put(&outputs, "density", leaf[0]);
  mn_io_put(&outputs, "logits", leaf[1]);
  mn_io_put(&data, "target", leaf[3]);
  mn_io_put(&data, "target_gaps", leaf[4]);
  mn_scope *s = mn_scope_new(g, (mn_build){.param = MN_F64, .compute = MN_F64}, 1);
  mn_verdict v = {0};
  if (def) def->build(s, NULL, &(mn_judge){&outputs, &data, leaf[2], true, false, NULL}, &v);
  CHECK(def && mn_graph_status(g) == MN_OK, "%s", mn_message());
  bool ran = def && gc_run(g, mn_backend_ref(), 0, MN_KEEP, 5, leaf, value, 4,
                           (mn_tensor *[]){v.each, v.metric[0], v.metric[1], v.metric[2]}, got);
  CHECK(ran, "%s", mn_message());
  for (double s2 = 1e-4; s2 < 400; s2 *= 1.0005) { /* by the middle of steps that grow */
    const double next = s2 * 1.0005, at = (s2 + next) / 2;
    sum += density_at(at) * (next - s2);
    expected += at * density_at(at) * (next - s2);
  }
  CHECK(fabs(sum - 1) < 1e-5, "adds up to %g", sum);
  for (int i = 0; ran && i < N; i++) {
    double all = 0;
    for (int m = 0; m < 3; m++) all += exp(logits[i * 3 + m]);
    const double of_gap = -log(density_at(gaps[i])), of_mark = log(all) - logits[i * 3 + marks[i]];
    CHECK(fabs(got[1][i] - of_gap) < 1e-10 && fabs(got[0][i] - of_gap - of_mark) < 1e-10, "gap %g: %g, not %g", gaps[i], got[1][i], of_gap);
    CHECK(fabs(sqrt(got[2][i]) - fabs(expected - gaps[i])) < 1e-3, "expected gap: off by %g, not %g", sqrt(got[2][i]),
          fabs(expected - gaps[i]));
    CHECK(got[3][i] == (i == 0 ? marks[i] == 0 : marks[i] == 2), "likeliest mark");
  }
  for (int i = 0; i < 4; i++) free(got[i]);
  mn_graph_free(g);
}

/* ---- the source ---- */
static mn_arena *arena;

static mn_status try_open(const char *yaml, mn_source **opened) {
  const mn_value *v = NULL;
  mn_source_config *c = mn_arena_alloc(arena, sizeof *c);
  *opened = NULL;
  MN_TRY(mn_yaml_parse(arena, "recipe.yaml", yaml, strlen(yaml), &v));
  MN_TRY(mn_source_parse(arena, v, "data", 3, c));
  return mn_source_open(c, NULL, NULL, opened);
}

/* Time rescaling (Papangelou 1972): the integral of the true rate from event to event has mean 1 and variance 1. Rows without warm-up begin
 * where nothing was before. */
static void processes_are_what_they_say(void) {
  static const char *const yaml[] = {"{type: events, warm: 0, events: 400, marks: 3, base: 0.3, follow: 0.5, repeat: 0.2, decay: 1.5}",
                                     "{type: events, process: wave, warm: 0, events: 400, marks: 4, base: 2, period: 5}"};
  for (int p = 0; p < 2; p++) {
    mn_source *s;
    mn_batch b;
    if (try_open(yaml[p], &s) != MN_OK) {
      CHECK(false, "%s", mn_message());
      continue;
    }
    CHECK_OK(mn_batch_new(s, 6, 400, &b));
    CHECK_OK(mn_source_fill(s, MN_SPLIT_TRAIN, 1, &b));
    double sum = 0, square = 0, n = 0, gaps = 0, follows = 0;
    const double scale = p ? 1 / 2.0 : (1 - 0.7) / (0.3 * 3);
    for (int row = 0; row < 6; row++) {
      const int32_t *mark = mn_batch_row(&b, 0, row), *target = mn_batch_row(&b, 2, row);
      const float *gap = mn_batch_row(&b, 1, row), *target_gap = mn_batch_row(&b, 3, row);
      double excited = 0;
      for (int t = 0; t < 400; t++) {
        const double d = (double)gap[t] * scale;
        CHECK(gap[t] > 0 && (t == 399 || (target[t] == mark[t + 1] && target_gap[t] == gap[t + 1])), "what follows is what is asked for");
        gaps += (double)gap[t];
        follows += t < 399 && mark[t + 1] == (mark[t] + 1) % 3;
        if (p == 1) continue;
        const double area = 0.9 * d + excited / 1.5 * (1 - exp(-1.5 * d));
        excited = excited * exp(-1.5 * d) + 0.7 * 1.5;
        sum += area, square += area * area, n++;
      }
    }
    if (p == 0) {
      CHECK(fabs(sum / n - 1) < 5 / sqrt(n) && fabs(square / n - sum / n * sum / n - 1) < 15 / sqrt(n), "mean %g, variance %g", sum / n,
            square / n - sum / n * sum / n);
      CHECK(follows / 2394 > 1.0 / 3 + 0.03, "marks follow in a ring: %g", follows / 2394);
    }
    CHECK(fabs(gaps / 2400 - 1) < 0.2, "gaps are in mean gaps: %g", gaps / 2400);
    float again[400];
    memcpy(again, mn_batch_row(&b, 1, 4), sizeof again);
    CHECK_OK(mn_source_fill(s, MN_SPLIT_TRAIN, 7, &b));
    CHECK(memcmp(again, mn_batch_row(&b, 1, 4), sizeof again) != 0, "another step is another row");
    CHECK_OK(mn_source_fill(s, MN_SPLIT_TRAIN, 1, &b));
    CHECK(!memcmp(again, mn_batch_row(&b, 1, 4), sizeof again), "a batch is a function of its step");
    mn_batch_free(&b);
    mn_source_close(s);
  }
}

static void what_is_refused(void) {
  mn_source *s;
  CHECK(try_open("{type: events, follow: 0.8, repeat: 0.3}", &s) == MN_ERR_CONFIG && strstr(mn_message(), "without end"), "%s",
        mn_message());
  CHECK(try_open("{type: events, process: wave, follow: 0.2}", &s) == MN_ERR_CONFIG && strstr(mn_message(), "follow"), "%s", mn_message());
  CHECK(try_open("{type: events, marks: 65}", &s) == MN_ERR_CONFIG && strstr(mn_message(), "marks"), "%s", mn_message());
  mk_refused("{type: event_forecaster, d_model: 8, block: {mixer: {type: attention}}}", "vocab_size");
  mk_refused("{type: event_forecaster, vocab_size: 3, components: 0, d_model: 8, block: {mixer: {type: attention}}}", "components");
}

/* Events of a rate that never changes, of marks all alike, cost 1 + log 3. */
static void what_is_learned_beats_chance(void) {
  CHECK(
      sh("cd " MN_TEST_BINARY_DIR " && rm -rf events && mkdir events && MNEME_HOME=events " MNEME "train " MN_TEST_SOURCE_DIR
         "/recipes/events-aaren.yaml --out events/m --set train.steps=60 --set train.schedule.warmup_steps=5 --set model.d_model=16 --set "
         "model.layers=1 --quiet --threads 1 2>&1") == 0,
      "%s", out);
  CHECK(sh("cd " MN_TEST_BINARY_DIR " && MNEME_HOME=events " MNEME "eval --model events/m --examples 64 --json --threads 1 2>/dev/null") ==
            0,
        "%s", out);
  const char *at = strstr(out, "\"loss\": ");
  CHECK(at && atof(at + 8) < 1 + log(3) - 0.1, "%s", out);
  CHECK(strstr(out, "gap_rmse") && strstr(out, "mark_accuracy"), "%s", out);
}

int main(void) {
  arena = mn_arena_new();
  RUN(golden_vectors_and_gradients);
  RUN(a_stream_cut_anywhere_is_the_stream);
  RUN(the_density_is_one);
  RUN(processes_are_what_they_say);
  RUN(what_is_refused);
  RUN(what_is_learned_beats_chance);
  mn_arena_free(arena);
  return test_end();
}
