/* test_linearize.c - what must be true of a trained attention that becomes another mixer, in order: golden vectors of the kind `matching`;
 * gradients of what its students have; a student that is the attention itself matches it exactly; a stream cut anywhere; merged matrices
 * say what their policies said; `mneme adapt linearize` from a tiny teacher to a model that opens, of all layers and of some; the teacher's
 * weights stay; a run that was stopped anywhere ends in the same bits; what is refused. */
#include "model_check.h"
#include "run/merge.h"
#include "train_helpers.h"

static void golden_vectors(void) {
  static const char *const files[] = {"matching_heads", "matching_output"};
  for (int i = 0; i < 2; i++) {
    mk_golden f;
    if (!mk_golden_open(&f, files[i])) continue;
    double e = mk_golden_error(&f);
    CHECK(e < 1e-11, "%s differs by %g", files[i], e);
    mc_get(&f.m.params, "base.layers.1.mixer.feature_k")->x[0] += 1e-3;
    CHECK(mk_golden_error(&f) > 1e-7, "%s does not depend on its student", files[i]);
    const int64_t T = mc_get(&f.in, "tokens")->shape.dim[1];
    int64_t each[16];
    for (int64_t c = 1; c < T; c++) each[c - 1] = c;
    e = mk_split_error(&f.m, &f.in, "match_error", T, (int)T - 1, each);
    CHECK(e < 1e-11, "%s token by token: %g", files[i], e);
    e = mk_split_error(&f.m, &f.in, "match_error", T, 1, (int64_t[]){4});
    CHECK(e < 1e-11, "%s cut at 4: %g", files[i], e);
    mk_golden_close(&f);
  }
}

#define BASE "base: {vocab_size: 9, d_model: 8, layers: 2, block: {mixer: {type: attention, heads: 2}, hidden: 12}}"

/* The sum of errors as a function of one entry of a student's parameter, by the graph's gradient and by differences: nothing of the base
 * moves with it, which is why what stops there changes nothing here. */
static void a_student_learns_by_its_own_parameters_alone(void) {
  static const char *const of_student[] = {"mixer.feature_q",      "mixer.feature_k", "mixer.gate_proj.weight",
                                           "mixer.gate_proj.bias", "meta_logits",     "alpha"};
  mk_model m;
  mc_bag in = {0};
  mk_tokens(&in, "tokens", 2, 9, 9, 5);
  if (mk_open(&m, "{type: matching, " BASE ", students: [{mixer: {type: lizard, heads: 2, window: 3}}]}", 3)) {
    mk_built b;
    bool ok = mk_build(&m, &in, false, &b);
    const mn_param_info *info;
    mn_tensor *const *params, *d[MC_MAX + 1], *y = ok ? mn_sum(b.g, mn_io_get(&b.out, "match_error"), ~0u) : NULL;
    const int n = mn_scope_params(b.s, &info, &params);
    y = ok ? mn_reshape(b.g, y, (mn_shape){0}) : NULL;
    d[0] = y;
    ok = ok && mn_grad(b.g, 1, &y, NULL, n, params, d + 1) == MN_OK;
    mn_plan_request q = {.graph = b.g, .n_outputs = n + 1, .outputs = d, .backend = mn_backend_ref()};
    ok = ok && mn_plan_compile(&q, &b.plan) == MN_OK && mk_bind(&m, &b) && mn_plan_run(b.plan) == MN_OK;
    CHECK(ok, "%s", mn_message());
    double own[MC_MAX];
    for (int i = 0; ok && i < n; i++) own[i] = *(const double *)mn_plan_output(b.plan, i + 1)->data; /* the first entry's */
    int checked = 0;
    for (int i = 0; ok && i < n; i++) {
      double *x = b.param_mem[i], keep = x[0], f[2];
      bool student = false;
      for (int k = 0; k < 6; k++) student = student || strstr(info[i].name, of_student[k]);
      if (!student) {
        const bool shared = strstr(info[i].name, "q_proj") || strstr(info[i].name, "k_proj") || strstr(info[i].name, "v_proj");
        CHECK(shared || own[i] == 0, "a gradient of %g reaches %s", own[i], info[i].name);
        continue;
      }
      for (int s = 0; s < 2; s++) {
        x[0] = keep + (s ? 1e-5 : -1e-5);
        f[s] = mn_plan_run(b.plan) == MN_OK ? *(const double *)mn_plan_output(b.plan, 0)->data : (double)NAN;
      }
      x[0] = keep;
      const double numeric = (f[1] - f[0]) / 2e-5;
      CHECK(fabs(numeric - own[i]) < 1e-6 * fmax(1e-2, fabs(own[i])), "%s: %g and %g", info[i].name, own[i], numeric);
      checked++;
    }
    CHECK(checked == 12, "%d parameters of students", checked);
    mk_free(&b);
  }
  mk_close(&m);
  mc_bag_free(&in);
}

/* A window with positions that holds everything, and an attention, are the attention. */
static void a_student_that_is_the_attention_matches_exactly(void) {
  static const char *const students[] = {
      "{type: lizard, heads: 2, branches: window, window: 32, window_rope: true, meta_tokens: 0, alpha: fixed}",
      "{type: attention, heads: 2}", "{type: attention, heads: 2, rope: false}"};
  for (int i = 0; i < 6; i++) {
    char yaml[400];
    mk_model m;
    mc_bag in = {0}, out = {0};
    mk_tokens(&in, "tokens", 2, 20, 9, 5);
    snprintf(yaml, sizeof yaml, "{type: matching, of: %s, " BASE ", students: [{layers: [1], mixer: %s}]}", i % 2 ? "output" : "heads",
             students[i / 2]);
    if (mk_open(&m, yaml, 3) && mk_run(&m, &in, &out)) {
      double most = 0, size = 1;
      const mc_tensor *e = mc_get(&out, "match_error"), *s = mc_get(&out, "match_size");
      CHECK(e->shape.dim[2] == 1, "%lld layers are matched", (long long)e->shape.dim[2]);
      for (int k = 0; k < 40; k++) most = fmax(most, e->x[k]), size = fmin(size, s->x[k]);
      CHECK(i < 4 ? most < 1e-24 : most > 1e-3, "%s: %g", yaml, most);
      CHECK(size > 0, "nothing is said");
    }
    mk_close(&m);
    mc_bag_free(&in);
    mc_bag_free(&out);
  }
}

static void matching_refused(const char *keys, const char *words) {
  char yaml[500], part[100];
  mn_arena *arena = mn_arena_new();
  const mn_value *v = NULL;
  mn_model *m = NULL;
  snprintf(yaml, sizeof yaml, "{type: matching, %s}", keys);
  CHECK_OK(mn_yaml_parse(arena, "recipe.yaml", yaml, strlen(yaml), &v));
  mn_status status = mn_model_parse(v, "model", 0, &m);
  mn_graph *g = mn_graph_new();
  mn_scope *s = mn_scope_new(g, (mn_build){.param = MN_F32, .compute = MN_F32}, 1);
  if (status == MN_OK) mn_model_declare(s, m);
  if (status == MN_OK) status = mn_graph_status(g);
  CHECK(status != MN_OK, "%s is not refused", yaml);
  for (const char *w = words; *w; w += strlen(part) + (w[strlen(part)] == '|')) {
    snprintf(part, sizeof part, "%.*s", (int)strcspn(w, "|"), w);
    CHECK(strstr(mn_message(), part), "%s does not say '%s': %s", yaml, part, mn_message());
  }
  mn_graph_free(g);
  mn_model_free(m);
  mn_arena_free(arena);
}
static void what_a_matching_may_not_ask_for(void) {
  matching_refused("students: []", "base|must be a map");
  matching_refused(BASE, "students|must be a list");
  matching_refused(BASE ", students: [{layers: [2], mixer: {type: attention}}]", "layers|has 2|0 to 1");
  matching_refused(BASE ", students: [{layers: [0], mixer: {type: attention}}, {mixer: {type: attention}}]", "has 0|a student already");
  matching_refused(BASE ", students: [{layers: [0]}]", "mixer|must be a map");
  matching_refused(BASE ", students: [{mixer: {type: lizard, heads: 2, head_dim: 2}}]", "base.layers.0.mixer.q_proj.weight|two shapes");
  matching_refused(BASE ", students: [{mixer: {type: linear_attention, heads: 2}}]", "linear_attention|does not show its heads|of: output");
  matching_refused("base: {vocab_size: 9, d_model: 8, block: {mixer: {type: attention}}, linear: [{match: \"*\", type: lora}]}",
                   "adapt merge");
}

/* ---- merging ---- */
static double *host_of(const mn_params *p, const char *name) {
  const int i = mn_params_find(p, name);
  void *host = NULL;
  CHECK(i >= 0 && mn_params_on_host(p, i, &host) == MN_OK, "%s", name);
  if (i < 0) return NULL;
  const int64_t n = mn_shape_count(&p->info[i].shape);
  double *x = malloc((size_t)(n + 1) * sizeof *x);
  for (int64_t k = 0; k < n; k++) x[k] = (double)((float *)host)[k];
  free(host);
  return x;
}

static double say(const mn_model *m, const mn_params *p, int n, float *out) { /* hidden states of a few tokens */
  enum { T = 7 };
  mn_graph *g = mn_graph_new();
  mn_scope *s = mn_scope_new(g, (mn_build){.param = MN_F32, .compute = MN_F32}, 1);
  mn_tensor *tokens = mn_input(g, "tokens", MN_I32, MN_SHAPE(1, T)), *h = mn_model_hidden(s, m, tokens);
  mn_plan *plan = NULL;
  int32_t ids[T] = {1, 5, 2, 8, 0, 3, 3};
  mn_plan_request q = {.graph = g, .n_outputs = 1, .outputs = &h, .backend = p->backend};
  bool ok = mn_plan_compile(&q, &plan) == MN_OK && mn_params_bind(p, s, plan) == MN_OK;
  if (ok) mn_plan_bind(plan, tokens, ids);
  ok = ok && mn_plan_run(plan) == MN_OK;
  CHECK(ok, "%s", mn_message());
  double norm = 0;
  for (int i = 0; ok && i < n; i++) {
    out[i] = ((const float *)mn_plan_output(plan, 0)->data)[i];
    norm += (double)out[i] * (double)out[i];
  }
  mn_plan_free(plan);
  mn_graph_free(g);
  return norm;
}

/* Whatever made a projection, the matrix that takes its place gives the same. */
static void merged_matrices_say_what_their_policies_said(void) {
  static const char *const policies[] = {
      "{match: \"*.q_proj\", type: lora, rank: 2, alpha: 3}", "{match: \"layers.1.*\", type: low_rank, rank: 3}",
      "{match: \"*.up_proj\", type: grouped, groups: 4}", "{match: \"*.v_proj\", type: masked, keep: 1, of: 4}"};
  for (int i = 0; i < 4; i++) {
    char yaml[400];
    mn_arena *arena = mn_arena_new();
    const mn_value *v = NULL;
    mn_model *m = NULL, *plain = NULL;
    mn_params *p = NULL, *params = NULL;
    mn_backend *cpu = NULL;
    float a[7 * 16], b[7 * 16];
    int merged = 0;
    snprintf(yaml, sizeof yaml,
             "{vocab_size: 9, d_model: 16, layers: 2, linear: [%s], block: {mixer: {type: attention, heads: 2, bias: true}, hidden: 16}}",
             policies[i]);
    CHECK_OK(mn_yaml_parse(arena, "recipe.yaml", yaml, strlen(yaml), &v));
    CHECK_OK(mn_model_parse(v, "model", 0, &m));
    CHECK_OK(mn_backend_cpu_new(1, &cpu));
    CHECK_OK(mn_params_new(m, cpu, MN_F32, 3, &p));
    for (int k = 0; k < p->n; k++) /* nothing is 0 */
      for (int64_t e = 0, n = mn_shape_count(&p->info[k].shape); e < n; e++)
        ((float *)p->data[k])[e] += 0.1f * (float)mn_random_normal(9, (uint64_t)k, (uint64_t)e);
    mn_status status = mn_merge_linear(m, p, &plain, &params, &merged);
    CHECK(status == MN_OK, "%s: %s", policies[i], mn_message());
    if (status == MN_OK) {
      CHECK(merged == (i == 1 ? 7 : 2) && !plain->linear.n, "%d matrices", merged);
      CHECK(say(m, p, 7 * 16, a) > 0, "something is said");
      say(plain, params, 7 * 16, b);
      double worst = 0;
      for (int k = 0; k < 7 * 16; k++) worst = fmax(worst, fabs((double)a[k] - (double)b[k]));
      CHECK(worst < 2e-5, "%s: %g", policies[i], worst);
      mn_model *again = NULL;
      mn_params *none = NULL;
      CHECK(mn_merge_linear(plain, params, &again, &none, &merged) == MN_ERR_CONFIG && !again && !none, "merged twice");
    }
    mn_params_free(params);
    mn_params_free(p);
    mn_model_free(plain);
    mn_model_free(m);
    mn_backend_free(cpu);
    mn_arena_free(arena);
  }
}

/* ---- the verb ---- */
static char said[1 << 15];
static int sh(const char *fmt, ...) MN_PRINTF(1, 2);
static int sh(const char *fmt, ...) {
  char command[2048];
  int n = snprintf(command, sizeof command, "exec 2>&1 </dev/null; cd '%s' && ", test_dir);
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(command + n, sizeof command - (size_t)n, fmt, ap);
  va_end(ap);
  FILE *f = popen(command, "r");
  size_t got = f ? fread(said, 1, sizeof said - 1, f) : 0;
  said[got] = 0;
  int status = f ? pclose(f) : -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}
#define MNEME MN_TEST_BINARY_DIR "/mneme "
#define SMALL                                                                                                                              \
  " --mixer window=4 --match-steps 12 --tune-steps 10 --match train.optimizer.lr=1e-2 --set train.checkpoint_every=4 --quiet --threads 2"

static void a_tiny_teacher(void) {
  static const char recipe[] = "name: teacher\nseed: 2\ndata: {files: [text.txt]}\n"
                               "model: {d_model: 16, layers: 2, block: {mixer: {type: attention, heads: 2}, hidden: 32}}\n"
                               "train: {steps: 30, batch: 4, seq_len: 24, optimizer: {lr: 1e-2}, validation_batches: 2}\n";
  CHECK_OK(mn_file_write(test_path("teacher.yaml"), recipe, sizeof recipe - 1));
  CHECK(sh(MNEME "train teacher.yaml --out teacher --quiet --threads 2") == 0, "%s", said);
  CHECK(sh(MNEME "adapt linearize teacher --out lizard --json" SMALL) == 0, "%s", said);
}

static double figure(const char *key) { /* the first one of the answer */
  char word[64];
  snprintf(word, sizeof word, "\"%s\": ", key);
  const char *at = strstr(said, word);
  CHECK(at, "no %s in %s", key, said);
  return at ? atof(at + strlen(word)) : (double)NAN;
}

static void what_it_says(void) {
  CHECK(figure("match_after") < figure("match_before") && figure("match_after") > 0, "nothing was matched: %s", said);
  CHECK(figure("merged") == 6 && figure("loss") > 0 && figure("teacher_loss") > 0, "%s", said);
  CHECK(figure("state_after") < figure("state_before"), "%s", said);
}

static void the_model_opens_like_any_other(void) {
  CHECK(sh(MNEME "eval --model lizard --json --quiet") == 0, "%s", said);
  CHECK(sh(MNEME "generate --model lizard --prompt 'the old' --tokens 5") == 0, "%s", said);
  CHECK(sh(MNEME "stream --model lizard --score --tokens 200 text.txt") == 0, "%s", said);
  CHECK(sh(MNEME "inspect lizard") == 0 && strstr(said, "the tokenizer that the weights were trained with"), "%s", said);
  CHECK(sh(MNEME "inspect lizard/recipe.json") == 0, "%s", said);
}

static mn_params *opened(const char *dir, mn_backend *b, mn_model **m) {
  mn_params *p = NULL;
  CHECK_OK(mn_model_load_dir(test_path(dir), b, MN_F32, m, &p));
  return p;
}

/* What a training may not move is what it was, to the bit; what it is for has moved. */
static void the_teacher_stays_as_it_was(void) {
  mn_backend *cpu = NULL;
  mn_model *t = NULL, *m = NULL, *f = NULL;
  CHECK_OK(mn_backend_cpu_new(1, &cpu));
  mn_params *teacher = opened("teacher", cpu, &t), *matched = opened("lizard/match", cpu, &m), *final = opened("lizard", cpu, &f);
  int moved = 0;
  for (int i = 0; teacher && matched && final && i < teacher->n; i++) {
    char name[200];
    const size_t bytes = mn_params_bytes(teacher, i);
    snprintf(name, sizeof name, "base.%s", teacher->info[i].name);
    const int k = mn_params_find(matched, name), l = mn_params_find(final, teacher->info[i].name);
    CHECK(k >= 0 && l >= 0 && !memcmp(teacher->data[i], matched->data[k], bytes), "%s has moved", name);
    if (l < 0) continue;
    const bool adapted = strstr(name, "q_proj") || strstr(name, "k_proj") || strstr(name, "v_proj");
    CHECK(adapted == (memcmp(teacher->data[i], final->data[l], bytes) != 0), "%s: %s", name, adapted ? "was not adapted" : "has moved");
    moved += adapted;
  }
  CHECK(moved == 6, "%d matrices were adapted", moved);
  double *alpha = matched ? host_of(matched, "base.layers.0.mixer.alpha") : NULL;
  CHECK(alpha && alpha[0] != 1, "alpha has not moved");
  free(alpha);
  mn_params_free(teacher);
  mn_params_free(matched);
  mn_params_free(final);
  mn_model_free(t);
  mn_model_free(m);
  mn_model_free(f);
  mn_backend_free(cpu);
}

/* The merged model says what the trained one with its low-rank matrices says. */
static void the_merged_model_is_the_trained_one(void) {
  mn_backend *cpu = NULL;
  mn_model *t = NULL, *f = NULL;
  float a[7 * 16], b[7 * 16];
  CHECK_OK(mn_backend_cpu_new(1, &cpu));
  mn_params *tuned = opened("lizard/tune", cpu, &t), *final = opened("lizard", cpu, &f);
  CHECK(t && t->linear.n == 3 && f && !f->linear.n, "linear policies");
  if (tuned && final) {
    say(t, tuned, 7 * 16, a);
    say(f, final, 7 * 16, b);
    for (int i = 0; i < 7 * 16; i++) CHECK(fabsf(a[i] - b[i]) < 2e-5f * (1 + fabsf(a[i])), "%d: %g and %g", i, (double)a[i], (double)b[i]);
  }
  mn_params_free(tuned);
  mn_params_free(final);
  mn_model_free(t);
  mn_model_free(f);
  mn_backend_free(cpu);
}

/* A checkpoint on the way is where a training was stopped: with what came after it taken away, --resume gives the same files. */
static void what_was_stopped_ends_in_the_same_bits(void) {
  static const char *const gone[] = {"match/checkpoints/step-12 match/model.safetensors tune",
                                     "tune/checkpoints/step-10 tune/model.safetensors", "recipe.json"};
  static const char *const files[] = {"model.safetensors", "linearize.json", "config.json", "recipe.json", "tune/model.safetensors"};
  CHECK(sh("cp -r lizard whole") == 0, "%s", said);
  for (int i = 0; i < 3; i++) {
    CHECK(sh("cd lizard && rm -rf model.safetensors linearize.json config.json %s", gone[i]) == 0, "%s", said);
    CHECK(sh(MNEME "adapt linearize --resume --out lizard --quiet --threads 2") == 0, "%s", said);
    for (int k = 0; k < 5; k++) CHECK(sh("cmp whole/%s lizard/%s", files[k], files[k]) == 0, "stopped at %d: %s", i, said);
  }
}

/* Signals reach the training that runs, and what was done stays. */
static void interrupted_it_says_how_to_go_on(void) {
  CHECK(sh("{ " MNEME "adapt linearize teacher --out long --match-steps 100000000 --quiet --threads 1 & p=$!; "
           "until [ -s long/match/metrics.jsonl ] || ! kill -0 $p 2>/dev/null; do sleep 0.01; done; kill -TERM $p; wait $p; }") == 3,
        "%s", said);
  CHECK(strstr(said, "mneme adapt linearize --resume --out long") && strstr(said, "interrupted after step"), "%s", said);
  CHECK(sh("ls long/match/checkpoints/step-*/trainer.json") == 0, "%s", said);
  CHECK(sh(MNEME "adapt linearize teacher --out long") == 2 && strstr(said, "--resume goes on with it"), "%s", said);
}

/* The recipes are ordinary ones, which may be changed before they are trained by. */
static void recipes_alone(void) {
  CHECK(sh(MNEME "adapt linearize teacher --out recipes --recipes-only --json" SMALL) == 0 && strstr(said, "match.json"), "%s", said);
  CHECK(!mn_file_exists(test_path("recipes/match")), "something was trained");
  CHECK(sh(MNEME "train recipes/match.json --out recipes/match --quiet --threads 2") == 0, "%s", said);
  CHECK(sh("cmp lizard/match/config.json recipes/match/config.json") == 0, "%s", said);
  CHECK(sh(MNEME "adapt linearize --resume --out recipes --quiet --threads 2") == 0, "%s", said);
  CHECK(sh(MNEME "eval --model recipes --json --quiet") == 0, "%s", said);
}

/* Some layers stay what they were. */
static void of_some_layers_the_others_stay(void) {
  CHECK(sh(MNEME "adapt linearize teacher --out some --layers 1 --mixer window_rope=true --json" SMALL) == 0, "%s", said);
  CHECK(figure("merged") == 3, "%s", said);
  mn_backend *cpu = NULL;
  mn_model *m = NULL;
  CHECK_OK(mn_backend_cpu_new(1, &cpu));
  mn_params *p = opened("some", cpu, &m);
  CHECK(m && !strcmp(m->stack.blocks[0].mixer.def->name, "attention") && !strcmp(m->stack.blocks[1].mixer.def->name, "lizard"), "layers");
  mn_params_free(p);
  mn_model_free(m);
  mn_backend_free(cpu);
  CHECK(sh(MNEME "eval --model some --json --quiet") == 0, "%s", said);
}

/* A task of token ids has no tokenizer, and is what the student trains on, too. */
static void a_task_is_learned_again(void) {
  static const char recipe[] = "name: ids\ndata: {task: {name: mqar, vocab_size: 16, len: 16, kv: 2}}\n"
                               "model: {d_model: 16, layers: 1, block: {mixer: {type: attention, heads: 2, kv_heads: 1}, hidden: 32}}\n"
                               "train: {steps: 10, batch: 4, validation_batches: 2}\n";
  CHECK_OK(mn_file_write(test_path("ids.yaml"), recipe, sizeof recipe - 1));
  CHECK(sh(MNEME "train ids.yaml --out ids --quiet --threads 2") == 0, "%s", said);
  CHECK(sh(MNEME "adapt linearize ids --out ids-lizard --json" SMALL) == 0, "%s", said);
  CHECK(figure("merged") == 3, "%s", said);
  CHECK(sh(MNEME "eval --model ids-lizard --json --quiet") == 0, "%s", said);
}

static void refused(const char *command, const char *words) {
  char part[100];
  const int rc = sh(MNEME "adapt %s", command);
  CHECK(rc == 2, "adapt %s: %d, %s", command, rc, said);
  for (const char *w = words; *w; w += strlen(part) + (w[strlen(part)] == '|')) {
    snprintf(part, sizeof part, "%.*s", (int)strcspn(w, "|"), w);
    CHECK(strstr(said, part), "adapt %s does not say '%s': %s", command, part, said);
  }
}

static void what_is_refused(void) {
  static const struct {
    const char *name, *model;
  } others[] = {
      {"gla", "{d_model: 16, blocks: [{mixer: {type: attention, heads: 2}}, {mixer: {type: gla, heads: 2}}]}"},
      {"conv", "{d_model: 16, layers: 1, block: {mixer: {type: attention, heads: 2, conv: 3}}}"},
      {"nope", "{d_model: 16, layers: 1, block: {mixer: {type: attention, heads: 2, rope: false}}}"},
      {"lora",
       "{d_model: 16, layers: 1, linear: [{match: \"*.q_proj\", type: lora, rank: 2}], block: {mixer: {type: attention, heads: 2}}}"},
      {"kind", "{type: hmt, segment: 8, sensory: 2, base: {d_model: 16, layers: 1, block: {mixer: {type: attention, heads: 2}}}}"}};
  for (int i = 0; i < 5; i++)
    CHECK(sh(MNEME "train teacher.yaml --set 'model=%s' --set train.steps=1 --out %s --quiet", others[i].model, others[i].name) == 0, "%s",
          said);
  refused("linearise teacher --out x", "linearise|linearize");
  refused("linearize teacher", "--out");
  refused("linearize --out x", "needs a teacher");
  refused("linearize gla --out x", "gla: layer 1 is of type gla|--layers");
  refused("linearize conv --out x", "conv: layer 0 is an attention with conv");
  refused("linearize nope --out x --mixer window_rope=true", "layer 0 has no rotary positions");
  refused("linearize lora --out x", "layers.0.mixer.q_proj|linear policy lora|mneme adapt merge lora");
  refused("linearize kind --out x", "of type hmt; only a decoder");
  refused("linearize teacher --out x --layers 0,2", "--layers 0,2|0 to 1");
  refused("linearize teacher --out x --layers 1-0", "--layers 1-0");
  refused("linearize teacher --out x --layers some", "--layers some");
  refused("linearize teacher --out x --mixer heads=4", "heads is the teacher's");
  refused("linearize teacher --out x --mixer windoww=4", "--mixer|windoww|window");
  refused("linearize teacher --out x --mixer rope_theta=4", "rope_theta|window_rope: true");
  refused("linearize teacher --out x --mixer window", "--mixer window|KEY=VALUE");
  refused("linearize teacher --out x --set model.d_model=4", "--set model.d_model=4|comes from the teacher");
  refused("linearize teacher --out x --tune tokenizer.type=bytes", "--tune tokenizer.type=bytes|comes from the teacher");
  refused("linearize teacher --out x --match train.lr=1", "match.json|lr");
  refused("linearize teacher --out x --tune train.lr=1", "tune.json|lr");
  refused("linearize teacher --out lizard", "holds a linearization already");
  refused("linearize --resume --out nothing", "no linearization to resume");
  refused("linearize teacher --resume --out lizard", "leave out teacher");
  refused("linearize --resume --out lizard --rank 4", "--rank");
  refused("linearize ids --out x --data text.txt", "no tokenizer.json");
  refused("merge teacher --out x", "teacher|no linear policies");
  refused("merge lora --out lizard", "holds a model already");
  refused("merge lora --out x --rank 2", "--rank");
  CHECK(!mn_file_exists(test_path("x")), "what was refused left something");
  CHECK(sh(MNEME "adapt merge lora --out merged --quiet") == 0 && sh(MNEME "eval --model merged --data text.txt --batches 1") == 0, "%s",
        said);
  CHECK(sh(MNEME "adapt linearize gla --layers 0 --out mixed" SMALL) == 0, "%s", said);
}

int main(void) {
  test_setup("linearize");
  RUN(golden_vectors);
  RUN(a_student_learns_by_its_own_parameters_alone);
  RUN(a_student_that_is_the_attention_matches_exactly);
  RUN(what_a_matching_may_not_ask_for);
  RUN(merged_matrices_say_what_their_policies_said);
  RUN(a_tiny_teacher);
  RUN(what_it_says);
  RUN(the_model_opens_like_any_other);
  RUN(the_teacher_stays_as_it_was);
  RUN(the_merged_model_is_the_trained_one);
  RUN(what_was_stopped_ends_in_the_same_bits);
  RUN(interrupted_it_says_how_to_go_on);
  RUN(recipes_alone);
  RUN(of_some_layers_the_others_stay);
  RUN(a_task_is_learned_again);
  RUN(what_is_refused);
  test_cleanup();
  return test_end();
}
