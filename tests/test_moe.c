/* test_moe.c - what must be true of a mixture of experts, in order: gradients of its networks; the kernel says what the composition says,
 * whoever is chosen and however many rows there are, to the same bits with any number of threads; equal experts are one network; who
 * is chosen is who scores highest, with its bias; choices are spread in training; what a recipe may not ask for.
 * What trained models of this kind say stands in test_hybrids.c. */
#include "compile/plan.h"
#include "format/quant.h"
#include "format/yaml.h"
#include "gradcheck.h"
#include "graph/fused_experts.h"
#include "model/model.h"

static void build_experts(mn_graph *g, mn_tensor **x, mn_tensor **y) { y[0] = mn_experts(g, x[0], x[1], x[2], x[3], x[4], x[5], false); }

static gc_case case_of(mn_dtype t, int64_t N, int64_t D, int64_t F, int64_t E, int64_t k, double lowest) {
  const mn_dtype gate = t == MN_F64 ? MN_F64 : MN_F32;
  return (gc_case){.name = "experts",
                   .n_x = 6,
                   .n_y = 1,
                   .x = {{t, MN_SHAPE(N, D), -1, 1, false},
                         {t, MN_SHAPE(E, F, D), -0.5, 0.5, false},
                         {t, MN_SHAPE(E, F, D), -0.5, 0.5, false},
                         {t, MN_SHAPE(E, D, F), -0.5, 0.5, false},
                         {MN_I32, MN_SHAPE(N, k), lowest, (double)E - 1, false},
                         {gate, MN_SHAPE(N, k), 0, 1, false}},
                   .f = build_experts};
}

static void gradients_agree_with_differences(void) {
  const gc_case c = case_of(MN_F64, 5, 4, 3, 4, 2, 0);
  for (int order = 1; order <= 2; order++) {
    double e = gc_gradient_error(&c, order, 3);
    CHECK(e < 1e-6, "order %d: %g", order, e);
  }
}

/* y of the case, on a backend. */
static double *said(const gc_case *c, mn_backend *b) {
  mn_graph *g = mn_graph_new();
  mn_tensor *x[GC_MAX], *y;
  double *value[GC_MAX], *out = NULL;
  for (int i = 0; i < c->n_x; i++) {
    x[i] = mn_input(g, c->name, c->x[i].dtype, c->x[i].shape);
    value[i] = malloc((size_t)(mn_shape_count(&c->x[i].shape) + 1) * sizeof(double));
    gc_fill(value[i], &c->x[i], 5, i);
  }
  c->f(g, x, &y);
  CHECK_OK(mn_graph_status(g));
  gc_run(g, b, 0, MN_KEEP, c->n_x, x, value, 1, &y, &out);
  for (int i = 0; i < c->n_x; i++) free(value[i]);
  mn_graph_free(g);
  return out;
}

static void the_kernel_says_what_the_composition_says(void) {
  /* N, D, F, E, k, the lowest index: one token, few rows, experts that nobody chose, more rows than a piece, numbers that are no expert */
  static const int64_t shapes[][6] = {{1, 33, 17, 5, 2, 0},  {7, 8, 24, 3, 1, 0},    {9, 16, 5, 40, 4, 0},
                                      {300, 13, 7, 2, 2, 0}, {21, 64, 48, 6, 3, -3}, {700, 4, 3, 1, 1, 0}};
  mn_backend *cpu[2] = {NULL};
  for (int i = 0; i < 2; i++) CHECK_OK(mn_backend_cpu_new(i + 1, &cpu[i]));
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes && cpu[0] && cpu[1]; i++) {
    const int64_t *z = shapes[i];
    for (int bf16 = 0; bf16 < 2; bf16++) {
      const gc_case c = case_of(bf16 ? MN_BF16 : MN_F32, z[0], z[1], z[2], z[3], z[4], (double)z[5]);
      double *want = said(&c, mn_backend_ref()), *one = said(&c, cpu[0]), *two = said(&c, cpu[1]), most = 1e-3, worst = 0;
      for (int64_t n = 0; want && one && two && n < z[0] * z[1]; n++) {
        most = fmax(most, fabs(want[n]));
        worst = fmax(worst, fabs(want[n] - one[n]));
        CHECK(one[n] == two[n], "shape %d: element %lld differs between one thread and two", (int)i, (long long)n);
      }
      CHECK(want && one && two && worst <= (bf16 ? 2e-2 : 1e-5) * most, "shape %d, %s: %g of %g", (int)i, bf16 ? "bf16" : "f32", worst,
            most);
      free(want), free(one), free(two);
    }
  }
  for (int i = 0; i < 2; i++) mn_backend_free(cpu[i]);
}

/* Of matrices in blocks, or bf16, for few rows of an expert and for many: what the same numbers in f32 say, to what x loses in 8 bits;
 * nothing is lost where it is to be exact. Gradients reach x. */
static void experts_are_kept_in_types_of_storage(void) {
  enum { N = 40, D = 64, F = 96, E = 3, K = 2, MATRIX = E * F * D };
  static const mn_dtype types[][3] = {
      {MN_STORED_BF16, MN_STORED_BF16, MN_STORED_BF16}, {MN_Q8_0, MN_Q8_0, MN_Q8_0}, {MN_Q4_1, MN_F16, MN_Q5_0}};
  static float x[N * D], weight[N * K], raw[MATRIX], wide[3][MATRIX];
  static uint8_t kept[3][MATRIX * 4];
  static int32_t index[N * K];
  for (int i = 0; i < N * D; i++) x[i] = (float)mn_random_normal(1, 0, (uint64_t)i);
  for (int i = 0; i < N * K; i++) index[i] = (i * 7 + i / 5) % (i < 60 ? 2 : E), weight[i] = (float)mn_random_uniform(2, 0, (uint64_t)i);
  for (size_t form = 0; form < sizeof types / sizeof *types; form++)
    for (int exact = 0; exact < 2; exact++)
      for (int rows = 1; rows <= N; rows += N - 1) {
        double *y[2] = {NULL, NULL}, most = 0, worst = 0, slope_most = 0, slope_worst = 0;
        for (int m = 0; m < 3; m++) {
          for (int i = 0; i < MATRIX; i++) raw[i] = 0.1f * (float)mn_random_normal(3 + (uint64_t)m, 0, (uint64_t)i);
          CHECK_OK(mn_quantize(NULL, types[form][m], raw, MATRIX, kept[m]));
          mn_dequantize(types[form][m], kept[m], MATRIX, wide[m]);
        }
        for (int stored = 0; stored < 2; stored++) {
          mn_backend *b = NULL;
          mn_plan *p = NULL;
          mn_graph *g = mn_graph_new();
          mn_tensor *in = mn_input(g, "x", MN_F32, MN_SHAPE(rows, D)), *w[3], *out[2], *dx;
          mn_tensor *idx = mn_input(g, "index", MN_I32, MN_SHAPE(rows, K)), *by = mn_input(g, "weight", MN_F32, MN_SHAPE(rows, K));
          CHECK_OK(mn_backend_cpu_new(2, &b));
          for (int m = 0; m < 3; m++)
            w[m] = mn_variable(g, "w", stored ? types[form][m] : MN_F32, m < 2 ? MN_SHAPE(E, F, D) : MN_SHAPE(E, D, F));
          out[0] = mn_experts(g, in, w[0], w[1], w[2], idx, by, exact);
          mn_tensor *sum = mn_sum(g, mn_square(g, out[0]), MN_ALL_AXES);
          CHECK_OK(mn_grad(g, 1, &sum, NULL, 1, &in, &dx));
          out[1] = dx;
          CHECK_OK(mn_plan_compile(&(mn_plan_request){.graph = g, .n_outputs = 2, .outputs = out, .backend = b}, &p));
          y[stored] = calloc((size_t)(2 * N * D), sizeof **y);
          if (p) {
            mn_plan_bind(p, in, x), mn_plan_bind(p, idx, index), mn_plan_bind(p, by, weight);
            for (int m = 0; m < 3; m++) mn_plan_bind(p, w[m], stored ? (void *)kept[m] : (void *)wide[m]);
            CHECK_OK(mn_plan_run(p));
            for (int i = 0; i < 2 * rows * D; i++)
              y[stored][i] = (double)((const float *)mn_plan_output(p, i / (rows * D))->data)[i % (rows * D)];
          }
          mn_plan_free(p);
          mn_graph_free(g);
          mn_backend_free(b);
        }
        for (int i = 0; i < rows * D; i++) {
          most = fmax(most, fabs(y[0][i])), worst = fmax(worst, fabs(y[0][i] - y[1][i]));
          slope_most = fmax(slope_most, fabs(y[0][rows * D + i]));
          slope_worst = fmax(slope_worst, fabs(y[0][rows * D + i] - y[1][rows * D + i]));
        }
        const double bound = exact || form == 0 ? 1e-5 : 3e-2; /* bf16 meets x as it is; 8 bits are off by 1/254 of the largest */
        CHECK(most > 0.1 && worst < bound * most, "form %zu, %d rows, exact %d: %g of %g", form, rows, exact, worst, most);
        CHECK(slope_most > 0.1 && slope_worst < bound * slope_most, "form %zu, %d rows, exact %d: gradients %g of %g", form, rows, exact,
              slope_worst, slope_most);
        if (!exact && form) CHECK(worst > 1e-5 * most, "form %zu, %d rows: nothing was rounded", form, rows);
        free(y[0]);
        free(y[1]);
      }
}

/* ---- the channel part ---- */
static mn_model *model_of(const char *channel) {
  char yaml[512];
  mn_arena *arena = mn_arena_new();
  const mn_value *map = NULL;
  mn_model *m = NULL;
  snprintf(yaml, sizeof yaml, "{vocab_size: 10, d_model: 8, layers: 1, block: {mixer: {type: short_conv}, hidden: 5, channel: %s}}",
           channel);
  CHECK_OK(mn_yaml_parse(arena, "recipe.yaml", yaml, strlen(yaml), &map));
  if (map) CHECK_OK(mn_model_parse(map, NULL, 0, &m));
  mn_arena_free(arena);
  return m;
}

typedef struct ran { /* a channel part on [1,T,8], and what it was made of */
  double y[64 * 8], balance;
  int n_losses;
} ran;

/* set: values of the parameter `name`, element i of n. */
typedef double (*setter)(const char *name, int64_t i, int64_t n);
static void run_channel(const char *channel, int64_t T, bool training, setter set, ran *out) {
  mn_model *m = model_of(channel);
  mn_graph *g = mn_graph_new();
  mn_scope *s = mn_scope_new(g, (mn_build){.param = MN_F64, .compute = MN_F64, .training = training}, 1);
  mn_tensor *x = mn_input(g, "x", MN_F64, MN_SHAPE(1, T, 8)), *y[2] = {m ? mn_channel_apply(s, &m->stack.blocks[0].channel, x) : NULL};
  const mn_built_loss *losses;
  const mn_param_info *info;
  mn_tensor *const *param, *leaf[GC_MAX] = {x};
  double *value[GC_MAX], *result[2] = {NULL};
  out->n_losses = mn_scope_losses(s, &losses);
  if (out->n_losses) y[1] = losses[0].value;
  int n = mn_scope_params(s, &info, &param);
  for (int i = 0; i <= n; i++) {
    if (i) leaf[i] = param[i - 1];
    const int64_t count = mn_shape_count(&leaf[i]->shape);
    value[i] = malloc((size_t)count * sizeof(double));
    for (int64_t k = 0; k < count; k++) {
      value[i][k] = mn_random_normal(11 + (uint64_t)i, 0, (uint64_t)k) * (i ? 0.5 : 1);
      if (i && set) value[i][k] = set(info[i - 1].name, k, count);
    }
  }
  CHECK_OK(mn_graph_status(g));
  if (y[0] && gc_run(g, mn_backend_ref(), 0, MN_KEEP, n + 1, leaf, value, out->n_losses ? 2 : 1, y, result)) {
    memcpy(out->y, result[0], (size_t)(T * 8) * sizeof(double));
    out->balance = result[1] ? result[1][0] : 0;
  }
  for (int i = 0; i <= n; i++) free(value[i]);
  for (int i = 0; i < 2; i++) free(result[i]);
  mn_graph_free(g);
  mn_model_free(m);
}

/* The same numbers for every expert, and some for the router. */
static double equal_experts(const char *name, int64_t i, int64_t n) {
  const int64_t each = strncmp(name, "experts.", 8) ? n : 5 * 8;
  return sin(1.7 * (double)(i % each) + (double)strlen(name));
}

static void equal_experts_are_one_network(void) {
  ran one, other;
  run_channel("{type: moe, experts: 4, top_k: 1}", 20, false, equal_experts, &one);
  run_channel("{type: moe, experts: 4, top_k: 3}", 20, false, equal_experts, &other);
  double worst = 0, most = 0;
  for (int i = 0; i < 20 * 8; i++) worst = fmax(worst, fabs(one.y[i] - other.y[i])), most = fmax(most, fabs(one.y[i]));
  CHECK(most > 0.1 && worst < 1e-12, "%g of %g", worst, most);
  run_channel("{type: moe, experts: 4, top_k: 3, scale: 2.5}", 20, false, equal_experts, &other);
  for (int i = 0; i < 20 * 8; i++) worst = fmax(worst, fabs(2.5 * one.y[i] - other.y[i]));
  CHECK(worst < 1e-12, "a scale: %g", worst);
}

/* A bias that no score outweighs sends all tokens to expert 2, whose network alone says something. */
static double second_expert(const char *name, int64_t i, int64_t n) {
  if (!strcmp(name, "choice_bias")) return i == 2 ? 50 : 0;
  if (!strcmp(name, "experts.down_proj.weight")) return i / (n / 4) == 2 ? sin((double)i) : 0;
  return sin(1.7 * (double)i + (double)strlen(name));
}
static void a_bias_moves_the_choice_and_nothing_else(void) {
  ran biased, normalised, plain;
  run_channel("{type: moe, experts: 4, top_k: 1, score: sigmoid, choice_bias: true}", 20, false, second_expert, &biased);
  run_channel("{type: moe, experts: 4, top_k: 1, score: sigmoid, choice_bias: true, normalize: false}", 20, false, second_expert,
              &normalised);
  run_channel("{type: moe, experts: 4, top_k: 1, score: sigmoid}", 20, false, second_expert, &plain);
  int silent = 0, scaled = 0;
  for (int t = 0; t < 20; t++) {
    CHECK(fabs(biased.y[8 * t]) > 1e-9, "token %d did not go to expert 2", t);
    silent += plain.y[8 * t] == 0;
    scaled += fabs(normalised.y[8 * t]) < fabs(biased.y[8 * t]); /* by a score below 1, not by what was added to it */
  }
  CHECK(silent > 0 && silent < 20, "%d of 20 tokens went elsewhere without the bias", silent);
  CHECK(scaled == 20, "%d of 20", scaled);
}

/* Where all score alike each has its share, E sum f P = 1; where one is always chosen, by all of the score, it is E. */
static double alike(const char *name, int64_t i, int64_t n) { return strcmp(name, "router.weight") ? sin((double)(i + n)) : 0; }
static void choices_are_spread_in_training(void) {
  ran r;
  run_channel("{type: moe, experts: 4, top_k: 2}", 20, true, alike, &r);
  CHECK(r.n_losses == 1 && fabs(r.balance - 1) < 1e-12, "%d losses, %.15g", r.n_losses, r.balance);
  run_channel("{type: moe, experts: 4, top_k: 2, balance: 0}", 20, true, alike, &r);
  CHECK(r.n_losses == 0, "%d losses", r.n_losses);
  run_channel("{type: moe, experts: 4, top_k: 2}", 20, false, alike, &r);
  CHECK(r.n_losses == 0, "%d losses in evaluation", r.n_losses);
}

static void refused(const char *channel, const char *why) {
  char yaml[512];
  mn_arena *arena = mn_arena_new();
  const mn_value *map = NULL;
  mn_model *m = NULL;
  snprintf(yaml, sizeof yaml, "{vocab_size: 10, d_model: 8, layers: 1, block: {mixer: {type: short_conv}, channel: %s}}", channel);
  CHECK_OK(mn_yaml_parse(arena, "recipe.yaml", yaml, strlen(yaml), &map));
  CHECK(mn_model_parse(map, NULL, 0, &m) == MN_ERR_CONFIG && strstr(mn_message(), why), "%s: %s", channel, mn_message());
  mn_model_free(m);
  mn_arena_free(arena);
}

static void what_a_recipe_may_not_ask_for(void) {
  refused("{type: moe, experts: 4, top_k: 5}", "top_k must be at most experts, which is 4");
  refused("{type: moe, shared_gate: true}", "shared_gate has no effect without a shared network");
  refused("{type: moe, expert: 4}", "experts");
}

int main(void) {
  RUN(gradients_agree_with_differences);
  RUN(the_kernel_says_what_the_composition_says);
  RUN(experts_are_kept_in_types_of_storage);
  RUN(equal_experts_are_one_network);
  RUN(a_bias_moves_the_choice_and_nothing_else);
  RUN(choices_are_spread_in_training);
  RUN(what_a_recipe_may_not_ask_for);
  return test_end();
}
