/* test_model.c - what must be true of a model, in order: how many parameters it has; a list of blocks with repeats; tied and
 * untied heads; its directory gives it back bit by bit, and wrong files are refused; a model is a segment in, a segment out:
 * wrapped in a loop over segments it is what it is in one piece, gradients included; faults of a recipe. */
#include "base/element.h"
#include "base/file.h"
#include "format/json.h"
#include "format/safetensors.h"
#include "format/yaml.h"
#include "run/program.h"
#include "base/file.h"
#include "model/model_dir.h"
#include "scratch.h"
#include "test.h"

static mn_status parse(mn_arena *arena, const char *yaml, int64_t vocab_size, mn_model **m) {
  const mn_value *v = NULL;
  *m = NULL;
  MN_TRY(mn_yaml_parse(arena, "recipe.yaml", yaml, strlen(yaml), &v));
  return mn_model_parse(v, NULL, vocab_size, m);
}

typedef struct parameter_list {
  int n;
  int64_t elements;
  char names[128][64];
} parameter_list;

/* Every parameter of the model, declared but not filled. */
static void parameters(const char *yaml, parameter_list *list) {
  mn_arena *arena = mn_arena_new();
  mn_graph *g = mn_graph_new();
  mn_scope *s = mn_scope_new(g, (mn_build){.param = MN_F32, .compute = MN_F32}, 1);
  mn_model *m;
  *list = (parameter_list){0};
  CHECK_OK(parse(arena, yaml, 0, &m));
  if (m) {
    mn_model_apply(s, m, mn_input(g, "tokens", MN_I32, MN_SHAPE(1, 8)));
    CHECK_OK(mn_graph_status(g));
    const mn_param_info *info;
    list->n = mn_scope_params(s, &info, NULL);
    for (int i = 0; i < list->n; i++) {
      list->elements += mn_shape_count(&info[i].shape);
      if (i < 128) snprintf(list->names[i], sizeof list->names[i], "%s", info[i].name);
    }
  }
  mn_model_free(m);
  mn_graph_free(g);
  mn_arena_free(arena);
}
static bool has(const parameter_list *list, const char *name) {
  for (int i = 0; i < list->n && i < 128; i++)
    if (strcmp(list->names[i], name) == 0) return true;
  return false;
}

static void parameters_are_counted(void) {
  parameter_list p;
  parameters("{vocab_size: 8192, d_model: 320, layers: 6, block: {mixer: {type: attention, heads: 5}, channel: swiglu, hidden: 864}}", &p);
  CHECK(p.elements == 10059840, "10.1M decoder: %lld", (long long)p.elements);
  parameters("{vocab_size: 8192, d_model: 512, layers: 8, block: {mixer: {type: attention, heads: 8}, channel: swiglu, hidden: 1408}}", &p);
  CHECK(p.elements == 29893120, "29.9M decoder: %lld", (long long)p.elements);
  /* one block of every channel part, by hand: D 8, F 16, norms of 8 (layer: and 8), attention 4 D D */
  parameters("{vocab_size: 10, d_model: 8, layers: 1, block: {mixer: {type: attention, heads: 2}, channel: none}}", &p);
  CHECK(p.elements == 80 + 8 + 256 + 8, "none: %lld", (long long)p.elements);
  parameters("{vocab_size: 10, d_model: 8, layers: 1, block: {mixer: {type: attention, heads: 2}, channel: geglu, hidden: 16}}", &p);
  CHECK(p.elements == 80 + 8 + 256 + 8 + 3 * 128 + 8, "geglu: %lld", (long long)p.elements);
  parameters("{vocab_size: 10, d_model: 8, layers: 1, norm: layer, block: {mixer: {type: attention, heads: 2}, channel: mlp, hidden: 16}}",
             &p);
  CHECK(p.elements == 80 + 16 + 256 + 16 + 2 * 128 + 16 + 8 + 16, "mlp, layer norm: %lld", (long long)p.elements);
}

static void tied_and_untied_heads(void) {
  parameter_list tied, untied;
  parameters("{vocab_size: 10, d_model: 8, layers: 1, block: {mixer: {type: attention, heads: 2}}}", &tied);
  parameters("{vocab_size: 10, d_model: 8, layers: 1, tie_embeddings: false, block: {mixer: {type: attention, heads: 2}}}", &untied);
  CHECK(untied.elements == tied.elements + 80 && untied.n == tied.n + 1, "%lld and %lld", (long long)tied.elements,
        (long long)untied.elements);
  CHECK(has(&untied, "lm_head.weight") && !has(&tied, "lm_head.weight") && has(&tied, "embed_tokens.weight"), "names");
}

static const char mixed[] = "vocab_size: 40\n"
                            "d_model: 8\n"
                            "blocks:\n"
                            "  - repeat: 2\n"
                            "    mixer: {type: gated_deltanet, heads: 2, chunk: 4}\n"
                            "    hidden: 16\n"
                            "  - mixer: {type: attention, heads: 2, window: 6, persistent: 2}\n"
                            "    channel: none\n"
                            "  - mixer: {type: titans_lmm, heads: 2, chunk: 4}\n"
                            "    channel: mlp\n"
                            "    hidden: 12\n";

static void blocks_of_several_kinds(void) {
  mn_arena *arena = mn_arena_new();
  mn_model *m, *again;
  parameter_list p;
  CHECK_OK(parse(arena, mixed, 0, &m));
  if (!m) return;
  static const char *const types[] = {"gated_deltanet", "gated_deltanet", "attention", "titans_lmm"};
  CHECK(m->stack.n == 4 && m->config.layers == 4, "%d blocks", m->stack.n);
  for (int i = 0; i < m->stack.n && i < 4; i++)
    CHECK(strcmp(m->stack.blocks[i].mixer.def->name, types[i]) == 0, "block %d: %s", i, m->stack.blocks[i].mixer.def->name);
  parameters(mixed, &p);
  CHECK(has(&p, "layers.1.mixer.A_log") && has(&p, "layers.2.mixer.prefix_k") && has(&p, "layers.3.channel.up_proj.bias") &&
            !has(&p, "layers.2.channel_norm.weight"),
        "names of parameters");
  const mn_value *v = mn_model_to_value(arena, m), *w; /* what config.json says is the same model */
  CHECK_OK(mn_model_parse(v, NULL, 0, &again));
  if (again) {
    w = mn_model_to_value(arena, again);
    mn_text a = {0}, b = {0};
    CHECK_OK(mn_value_to_json(v, 0, &a));
    CHECK_OK(mn_value_to_json(w, 0, &b));
    CHECK(a.data && b.data && strcmp(a.data, b.data) == 0, "%s\n%s", a.data, b.data);
    CHECK(a.data && strstr(a.data, "\"repeat\": 2"), "equal neighbours are joined: %s", a.data);
    mn_text_free(&a);
    mn_text_free(&b);
  }
  mn_model_free(again);
  mn_model_free(m);
  mn_arena_free(arena);
}

/* A kind is found by its name; what says nothing is a decoder, and is written as it always was. */
static void kinds_are_found_by_name(void) {
  static const char decoder[] = "{vocab_size: 10, d_model: 8, layers: 1, block: {mixer: {type: gated_deltanet, heads: 2}}}";
  static const char written[] =
      "{\"vocab_size\": 10, \"d_model\": 8, \"layers\": 1, \"tie_embeddings\": true, \"norm\": \"rms\", \"norm_eps\": 1e-06, "
      "\"init_std\": 0.02, \"block\": null, \"blocks\": [{\"mixer\": {\"type\": \"gated_deltanet\", \"heads\": 2, \"head_dim\": 4, "
      "\"conv\": 4, \"chunk\": 64}, \"channel\": \"swiglu\", \"hidden\": 32, \"repeat\": 1}]}";
  mn_arena *arena = mn_arena_new();
  mn_model *m = NULL;
  mn_text json = {0};
  CHECK_OK(parse(arena, decoder, 0, &m));
  CHECK(m && strcmp(m->def->name, "decoder") == 0, "kind");
  const mn_value *v = m ? mn_model_to_value(arena, m) : NULL;
  if (v) CHECK_OK(mn_value_to_json(v, 0, &json));
  CHECK(json.data && strcmp(json.data, written) == 0, "%s", json.data);
  if (m) CHECK_OK(mn_model_check_stream(m));
  if (m) CHECK(mn_model_input(m, "tokens") && !mn_model_input(m, "images") && mn_model_output(m, "head"), "ports");
  if (m)
    CHECK(mn_model_owner(m, "layers.0.mixer.A_log") == &m->stack.blocks[0].mixer && !mn_model_owner(m, "layers.1.mixer.A_log"), "owner");
  mn_text_free(&json);
  mn_model_free(m);
  m = NULL;
  CHECK(parse(arena, "{type: decodr, vocab_size: 10, block: {mixer: {type: aaren}}}", 0, &m) != MN_OK &&
            strstr(mn_message(), "recipe.yaml:1: unknown model type 'decodr'; did you mean 'decoder'?"),
        "%s", mn_message());
  mn_arena_free(arena);
}

/* Types of one file own their keys. Files of models spell out the whole struct for each, and are read as they always were. */
static void a_type_owns_its_keys(void) {
  static const struct {
    const char *mixer, *expect;
  } cases[] = {
      {"{type: titans_lmm, segment: 128}", "segment has no effect with type titans_lmm (it is for titans_mac); leave it out"},
      {"{type: titans_lmm, memory_depth: 4}", "memory_depth has no effect with memory_net: linear"},
      {"{type: titans_lmm, memory_expand: 2}", "memory_expand has no effect on a memory of one matrix"},
      {"{type: titans_lmm, memory_net: mlp, memory_depth: 1, memory_expand: 2}", "memory_expand has no effect on a memory of one matrix"},
      {"{type: titans_mag, memory_residual: false}", "memory_residual has no effect with this memory_net"},
      {"{type: titans_lmm, memory_net: ln_mlp, memory_residual: false}", "memory_residual has no effect with this memory_net"},
      {"{type: atlas, memory_net: linear, memory_expand: 1}", "memory_expand has no effect on a memory of one matrix"},
      {"{type: swla, memory_residual: false}", "memory_residual has no effect with this memory_net"},
      {"{type: dot, memory_net: linear, memory_expand: 1}", "memory_expand has no effect on a memory of one matrix"},
      {"{type: titans, window: 8}", "window has no effect with type titans (it is for titans_mag, titans_mal); leave it out"},
      {"{type: titans_mac, max_context: 8}", "max_context has no effect with type titans_mac"},
      {"{type: titans_mag, segment: 8}", "segment has no effect with type titans_mag"},
      {"{type: titans_mac, segmnt: 8}", "unknown key 'segmnt'"},
      {"{type: aaren, heads: 3}", "heads must divide d_model 16"},
      {"{type: gated_deltanet, heads: 3}", "heads must divide d_model 16"},
      {"{type: attention, heads: 3}", "heads must divide d_model 16"},
      {"{type: titans_mag, heads: 3}", "heads must divide d_model 16"},
  };
  mn_arena *arena = mn_arena_new();
  mn_mixer m, again;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const mn_value *v = NULL;
    CHECK_OK(mn_yaml_parse(arena, "r.yaml", cases[i].mixer, strlen(cases[i].mixer), &v));
    CHECK(mn_mixer_parse(arena, v, NULL, 16, &m) != MN_OK && strstr(mn_message(), cases[i].expect), "%s: %s", cases[i].mixer, mn_message());
  }
  const mn_value *v = NULL, *back = NULL;
  mn_text a = {0}, b = {0};
  CHECK_OK(mn_yaml_parse(arena, "r.yaml", "{type: titans_lmm, heads: 2}", 28, &v));
  CHECK_OK(mn_mixer_parse(arena, v, NULL, 16, &m));
  CHECK_OK(mn_value_to_json(mn_mixer_to_value(arena, &m), 0, &a));
  CHECK(a.data && strstr(a.data, "\"segment\": 256"), "%s", a.data);
  CHECK_OK(mn_json_parse(arena, "config.json", a.data, strlen(a.data), &back));
  CHECK_OK(mn_mixer_parse(arena, back, NULL, 16, &again));
  CHECK_OK(mn_value_to_json(mn_mixer_to_value(arena, &again), 0, &b));
  CHECK(a.data && b.data && !strcmp(a.data, b.data), "%s", b.data);
  mn_text_free(&a);
  mn_text_free(&b);
  mn_arena_free(arena);
}

/* ---- running ---- */
typedef struct fixture {
  mn_arena *arena;
  mn_backend *backend;
  mn_model *model;
  mn_params *params;
} fixture;

static bool set_up(fixture *f, const char *yaml, mn_dtype t) {
  *f = (fixture){.arena = mn_arena_new(), .backend = mn_backend_ref()};
  CHECK_OK(parse(f->arena, yaml, 0, &f->model));
  if (f->model) CHECK_OK(mn_params_new(f->model, f->backend, t, 7, &f->params));
  for (int i = 0; f->params && i < f->params->n; i++) /* small matrices at the start would hide what state does */
    for (int64_t k = 0; k < mn_shape_count(&f->params->info[i].shape); k++)
      mn_element_store(f->params->data[i], t, k,
                       mn_element_load(f->params->data[i], t, k) +
                           0.3 * mn_random_normal(mn_random_key(5, f->params->info[i].name), 1, (uint64_t)k));
  return f->params != NULL;
}
static void tear_down(fixture *f) {
  mn_params_free(f->params);
  mn_model_free(f->model);
  mn_arena_free(f->arena);
}

static mn_tensor *hidden(mn_scope *s, void *ctx, mn_tensor *tokens) { return mn_model_hidden(s, ctx, tokens); }

enum { B = 2, T = 29, MAX = 128 };
/* The model over tokens [B,T]: h after the last norm, and gradients of sum(h * h) for every parameter, all in f64 and one
 * after another in `out` (its count is returned). length 0: in one piece; else wrapped in a loop over segments. */
static int64_t run_whole(fixture *f, const int32_t *tokens, int64_t length, double *out, int64_t room) {
  mn_graph *g = mn_graph_new();
  mn_scope *s = mn_scope_new(g, (mn_build){.param = MN_F64, .compute = MN_F64}, B);
  mn_tensor *in = mn_input(g, "tokens", MN_I32, MN_SHAPE(B, T)), *outs[MAX], *h;
  h = length ? mn_scope_loop(s, length, hidden, f->model, in) : mn_model_hidden(s, f->model, in);
  const mn_param_info *info;
  mn_tensor *const *params, *loss = mn_sum(g, mn_mul(g, h, h), 7);
  int n = mn_scope_params(s, &info, &params);
  CHECK(n < MAX, "%d parameters", n);
  int64_t count = 0;
  mn_plan *p = NULL;
  CHECK_OK(mn_graph_status(g));
  CHECK_OK(mn_grad(g, 1, &loss, NULL, n, params, outs + 1));
  outs[0] = h;
  mn_plan_request q = {.graph = g, .n_outputs = n + 1, .outputs = outs, .backend = f->backend};
  CHECK_OK(mn_plan_compile(&q, &p));
  if (p) {
    mn_params_bind(f->params, s, p);
    mn_plan_bind(p, in, (void *)tokens);
    CHECK_OK(mn_plan_run(p));
    for (int j = 0; j < n + 1; j++) {
      const mn_view *v = mn_plan_output(p, j);
      CHECK(count + mn_view_count(v) <= room, "room");
      if (count + mn_view_count(v) > room) break;
      memcpy(out + count, v->data, (size_t)mn_view_count(v) * sizeof *out);
      count += mn_view_count(v);
    }
  }
  mn_plan_free(p);
  mn_graph_free(g);
  return count;
}

static double difference(const double *a, const double *b, int64_t n) {
  double worst = 0, scale = 1e-12;
  for (int64_t i = 0; i < n; i++) scale = fmax(scale, fabs(b[i]));
  for (int64_t i = 0; i < n; i++) {
    double e = fabs(a[i] - b[i]) / scale;
    if (!(e <= worst)) worst = isfinite(e) ? e : INFINITY;
  }
  return worst;
}

static void a_model_in_a_loop_is_the_model(void) {
  fixture f;
  if (!set_up(&f, mixed, MN_F64)) return;
  enum { ROOM = 20000 };
  int32_t tokens[B * T];
  double *one = malloc(sizeof(double) * ROOM), *looped = malloc(sizeof(double) * ROOM);
  for (int i = 0; i < B * T; i++) tokens[i] = (int32_t)(mn_random_uniform(3, 0, (uint64_t)i) * 40);
  int64_t n = run_whole(&f, tokens, 0, one, ROOM), h = B * T * 8;
  for (int64_t length = 1; length <= T + 1; length = length < 5 ? length + 3 : length * 2 + 3) { /* 1, 4, 7, 17 */
    int64_t m = run_whole(&f, tokens, length, looped, ROOM);
    CHECK(n == m && n > h, "%lld and %lld numbers", (long long)n, (long long)m);
    CHECK(difference(looped, one, h) < 1e-10, "segments of %lld: h differs by %g", (long long)length, difference(looped, one, h));
    CHECK(difference(looped + h, one + h, n - h) < 1e-9, "segments of %lld: gradients differ by %g", (long long)length,
          difference(looped + h, one + h, n - h));
  }
  free(one);
  free(looped);
  tear_down(&f);
}

/* A stream of two segments, each run as a loop of smaller ones, gives what one piece gives; the position has moved on. */
typedef struct looping {
  mn_model *model;
  int64_t length; /* of the loop's segments */
} looping;
static mn_status loop_over_segments(void *ctx, mn_scope *s, const mn_form *form, mn_parts *parts) {
  const looping *l = ctx;
  mn_tensor *in = mn_parts_feed(parts, "tokens", MN_I32, MN_SHAPE(B, form->length));
  mn_parts_give(parts, "h", mn_scope_loop(s, l->length, hidden, l->model, in));
  mn_scope_advance(s, form->length);
  return MN_OK;
}

static void looped_stream(int64_t length) {
  fixture f;
  if (!set_up(&f, mixed, MN_F64)) return;
  enum { ROOM = 20000, HALF = 14 };
  int32_t tokens[B * T], piece[B * HALF], position[B];
  double *one = malloc(sizeof(double) * ROOM), *y = malloc(sizeof(double) * B * HALF * 8);
  for (int i = 0; i < B * T; i++) tokens[i] = (int32_t)(mn_random_uniform(3, 0, (uint64_t)i) * 40);
  run_whole(&f, tokens, 0, one, ROOM);
  looping l = {f.model, length};
  const mn_form form = {.batch = B, .length = HALF};
  const mn_program_config config = {.backend = f.backend,
                                    .params = f.params,
                                    .build = {.param = MN_F64, .compute = MN_F64, .carried = true},
                                    .builder = loop_over_segments,
                                    .ctx = &l,
                                    .learn = form};
  mn_program *program = NULL;
  mn_states *states = NULL;
  CHECK_OK(mn_program_new(&config, &program));
  if (program) CHECK_OK(mn_program_states(program, B, &states));
  for (int part = 0; states && part < 2; part++) {
    mn_routine *r = NULL;
    for (int b = 0; b < B; b++) memcpy(piece + b * HALF, tokens + b * T + part * HALF, sizeof(int32_t) * HALF);
    CHECK_OK(mn_program_enter(program, &form, &r));
    if (!r) break;
    CHECK_OK(mn_routine_put(r, 0, piece));
    CHECK_OK(mn_routine_run(r, states));
    CHECK_OK(mn_routine_get_all(r, 0, y));
    mn_program_leave(program);
    for (int b = 0; b < B; b++) {
      double e = difference(y + b * HALF * 8, one + (b * T + part * HALF) * 8, HALF * 8);
      CHECK(e < 1e-10, "part %d, sequence %d: %g", part, b, e);
    }
    CHECK_OK(mn_states_get(states, 0, position));
    CHECK(position[0] == (part + 1) * HALF && mn_states_position(states)[1] == (part + 1) * HALF, "position %d", position[0]);
  }
  mn_states_free(states);
  mn_program_free(program);
  free(one);
  free(y);
  tear_down(&f);
}

static void a_looped_model_streams(void) {
  looped_stream(5); /* a rest of 4 */
  looped_stream(7); /* no rest     */
}

/* ---- files ---- */
static void a_directory_gives_the_model_back(void) {
  fixture f;
  const char *dir = "model-dir";
  mn_model *m = NULL;
  mn_params *p = NULL;
  if (!set_up(&f, mixed, MN_F32)) return;
  CHECK_OK(mn_model_save_dir(f.model, f.params, dir));
  CHECK_OK(mn_model_load_dir(dir, f.backend, MN_F32, &m, &p));
  CHECK(p && p->n == f.params->n && mn_params_count(p) == mn_params_count(f.params), "parameters");
  for (int i = 0; p && i < p->n; i++)
    CHECK(strcmp(p->info[i].name, f.params->info[i].name) == 0 &&
              memcmp(p->data[i], f.params->data[i], (size_t)mn_shape_count(&p->info[i].shape) * sizeof(float)) == 0,
          "%s", p->info[i].name);
  char a[33] = "", b[33] = "", c[33] = "";
  CHECK_OK(mn_model_fingerprint(f.model, f.params, a));
  if (m && p) CHECK_OK(mn_model_fingerprint(m, p, b));
  CHECK(strcmp(a, b) == 0 && strlen(a) == 32, "%s and %s", a, b);
  ((float *)f.params->data[0])[3] += 1;
  CHECK_OK(mn_model_fingerprint(f.model, f.params, c));
  CHECK(strcmp(a, c) != 0, "other weights have another fingerprint");
  mn_params_free(p);
  mn_model_free(m);
  tear_down(&f);
}

/* A file that comes between the look and the end is another program's, and stays; what was written beside it is gone again, or as it was. */
static void what_comes_meanwhile_is_not_replaced(void) {
  static const char *const files[] = {"config.json", "tokenizer.json", "model.safetensors"};
  fixture f;
  mn_tokenizer *tok = NULL;
  mn_model_dir there;
  char path[64], before[33], after[33];
  if (!set_up(&f, mixed, MN_F32)) return;
  CHECK_OK(mn_tokenizer_bytes(NULL, 0, &tok));
  CHECK_OK(mn_model_dir_look("model-new", &there));
  CHECK_OK(mn_model_dir_save("model-new", f.model, f.params, tok, &there));
  CHECK_OK(mn_model_dir_save("model-new", f.model, f.params, tok, &there)); /* over its own, as often as one likes */
  for (int i = 0; i < 6; i++) {
    const char *dir = i < 3 ? "model-met" : "model-new"; /* where nothing was, and where there was one */
    snprintf(path, sizeof path, "%s/%s", dir, files[i % 3]);
    CHECK_OK(mn_make_dirs(dir));
    CHECK_OK(mn_model_dir_look(dir, &there));
    CHECK_OK(mn_file_write(path, "mine\n", 5));
    CHECK_OK(mn_file_hash(path, before));
    CHECK(mn_model_dir_save(dir, f.model, f.params, tok, &there) == MN_ERR_IO && strstr(mn_message(), path) &&
              strstr(mn_message(), "another program has written it"),
          "%s: %s", path, mn_message());
    CHECK_OK(mn_file_hash(path, after));
    CHECK(!strcmp(before, after), "%s was replaced", path);
    char **names = NULL;
    size_t n = 0;
    CHECK_OK(mn_dir_list(dir, &names, &n));
    CHECK(n == (i < 3 ? 1 : 3), "%s holds %zu files after %s", dir, n, path);
    mn_dir_list_free(names, n);
    CHECK_OK(mn_file_remove(path));
    if (i >= 3) CHECK_OK(mn_model_dir_look(dir, &there));
    if (i >= 3) CHECK_OK(mn_model_dir_save(dir, f.model, f.params, tok, &there));
  }
  mn_tokenizer_free(tok);
  tear_down(&f);
}

/* model.safetensors with one tensor dropped, one added, or one of another shape */
static void wrong_files_are_refused(void) {
  fixture f;
  const char *path = "model-wrong.safetensors";
  static const char *const words[] = {"missing.weight", "layers.2.mixer.prefix_k", "layers.0.mixer.A_log"};
  if (!set_up(&f, mixed, MN_F32)) return;
  float *first = f.params->data[0], more[4] = {0};
  for (int k = 0; k < 3; k++) {
    mn_st_writer *w = mn_st_writer_new();
    for (int i = 0; i < f.params->n; i++) {
      const mn_param_info *info = &f.params->info[i];
      mn_shape shape = info->shape;
      bool chosen = strcmp(info->name, words[k]) == 0;
      if (k == 1 && chosen) continue;
      if (k == 2 && chosen) shape = MN_SHAPE(1, 2);
      CHECK_OK(mn_st_writer_add(w, info->name, MN_F32, &shape, f.params->data[i]));
    }
    mn_shape four = MN_SHAPE(4);
    if (k == 0) CHECK_OK(mn_st_writer_add(w, words[0], MN_F32, &four, more));
    CHECK_OK(mn_st_writer_save(w, path));
    mn_st_writer_free(w);
    float kept = first[0] += 1; /* not what is in the file */
    CHECK(mn_params_load(f.params, path) != MN_OK && strstr(mn_message(), words[k]) && strstr(mn_message(), "model-wrong"), "case %d: %s",
          k, mn_message());
    CHECK(first[0] == kept, "case %d: a refused file leaves the parameters alone", k);
  }
  CHECK_OK(mn_file_write(path, "short", 5));
  CHECK(mn_params_load(f.params, path) == MN_ERR_FORMAT, "a cut file: %s", mn_message());
  mn_model *m = NULL;
  mn_params *p = NULL;
  CHECK(mn_model_load_dir("no-such-model", f.backend, MN_F32, &m, &p) != MN_OK && strstr(mn_message(), "no-such-model"), "%s",
        mn_message());
  tear_down(&f);
}

static void parameters_that_are_not_finite_are_named(void) {
  fixture f;
  if (!set_up(&f, mixed, MN_F32)) return;
  CHECK_OK(mn_params_check_finite(f.params));
  int i = mn_params_find(f.params, "layers.2.mixer.prefix_k");
  CHECK(i >= 0, "find");
  if (i >= 0) ((float *)f.params->data[i])[1] = NAN;
  CHECK(mn_params_check_finite(f.params) == MN_ERR_NUMERIC && strstr(mn_message(), "layers.2.mixer.prefix_k"), "%s", mn_message());
  tear_down(&f);
}

/* Wherever in a file it stands, a value that is no number is refused by its tensor, element and kind. */
static void weights_that_are_not_finite_are_refused(void) {
  fixture f;
  const char *path = "model-not-finite.safetensors";
  static const float values[] = {NAN, INFINITY, -INFINITY};
  static const char *const kinds[] = {"is NaN", "is infinity", "is -infinity"};
  if (!set_up(&f, mixed, MN_F32)) return;
  int i = mn_params_find(f.params, "layers.0.channel.down_proj.weight");
  CHECK(i >= 0, "find");
  int64_t n = i >= 0 ? mn_shape_count(&f.params->info[i].shape) : 0;
  float *x = i >= 0 ? f.params->data[i] : NULL;
  for (int k = 0; x && k < 3; k++) {
    int64_t at = k == 0 ? 0 : k == 1 ? n / 2 + 1 : n - 1;
    float was = x[at];
    char element[64];
    snprintf(element, sizeof element, "element %lld %s", (long long)at, kinds[k]);
    x[at] = values[k];
    CHECK_OK(mn_params_save(f.params, path));
    CHECK(mn_params_load(f.params, path) == MN_ERR_NUMERIC && strstr(mn_message(), element) && strstr(mn_message(), "down_proj") &&
              strstr(mn_message(), "not-finite"),
          "%s", mn_message());
    x[at] = was;
  }
  tear_down(&f);
}

/* A value is a function of seed, name and element: threads and pieces do not show. */
static void drawing_does_not_depend_on_threads(void) {
  mn_arena *arena = mn_arena_new();
  mn_model *m = NULL;
  char of[3][33] = {"", "", ""};
  CHECK_OK(parse(arena, "{vocab_size: 700, d_model: 32, layers: 2, block: {mixer: {type: gated_deltanet, heads: 2}}}", 0, &m));
  for (int k = 0; m && k < 3; k++) {
    mn_backend *b = k == 0 ? mn_backend_ref() : NULL;
    mn_params *p = NULL;
    if (k) CHECK_OK(mn_backend_cpu_new(k == 1 ? 1 : 4, &b));
    CHECK_OK(mn_params_new(m, b, MN_F32, 11, &p));
    if (p) CHECK_OK(mn_model_fingerprint(m, p, of[k]));
    mn_params_free(p);
    if (k) mn_backend_free(b);
  }
  CHECK(strlen(of[0]) == 32 && strcmp(of[0], of[1]) == 0 && strcmp(of[0], of[2]) == 0, "%s, %s, %s", of[0], of[1], of[2]);
  mn_model_free(m);
  mn_arena_free(arena);
}

/* ---- recipes ---- */
/* What stood in the tree is gone: texts, names of keys, what there was of lists and maps. */
static void wipe(const mn_value *v) {
  for (size_t i = 0; v->kind == MN_LIST && i < v->count; i++) wipe(v->as.items[i]);
  for (size_t i = 0; v->kind == MN_MAP && i < v->count; i++) {
    wipe(v->as.entries[i].value);
    memset((char *)v->as.entries[i].key, '?', strlen(v->as.entries[i].key));
  }
  if (v->kind == MN_TEXT) memset((char *)v->as.text, '?', v->count);
  else if (v->kind != MN_LIST && v->kind != MN_MAP) memset((void *)&v->as, 0x3f, sizeof v->as);
  else ((mn_value *)v)->count = 0;
}

/* The tree is the caller's, who may free it: a model keeps nothing of it. */
static void a_model_outlives_what_it_was_read_from(void) {
  static const char *const models[] = {
      "{vocab_size: 9, d_model: 8, layers: 1, block: {mixer: {type: bmojo_f, fading: none}}}",
      "{vocab_size: 9, d_model: 8, blocks: [{mixer: {type: bmojo, fading: identity}}, {mixer: {type: bmojo, fading: gla}, repeat: 2}, {mixer: "
      "{type: bmojo_f, fading: {type: gla, key_dim: 4}}}]}",
      "{vocab_size: 9, d_model: 8, blocks: [{mixer: {type: synaptic}}, {mixer: {type: synaptic, base: aaren}}, {mixer: {type: synaptic, base: "
      "{type: lmu, order: 3}}}]}",
      "{vocab_size: 9, d_model: 8, layers: 1, block: {channel: {type: moe, experts: 2}, mixer: {type: parallel, mixers: [{type: aaren}, {type: "
      "attention, rope_divisors: [1]}]}}, linear: [{match: '*.q_proj', type: lora, rank: 2}]}",
      "{type: rxt, vocab_size: 9, d_model: 8, memory: {heads: 2}, block: {mixer: {type: aaren}, cross: {heads: 2}}, encoder: {block: {mixer: {type: "
      "attention, causal: false}}}}",
      "{type: hmt, base: {vocab_size: 9, d_model: 8, layers: 1, block: {mixer: {type: bmojo_f, fading: identity, window: 4}}}}",
      "{type: matching, base: {vocab_size: 9, d_model: 8, layers: 1, block: {mixer: {type: attention}}}, students: [{layers: [0], mixer: {type: "
      "lizard}}]}",
      "{type: encoder_decoder, vocab_size: 9, d_model: 8, layers: 1, block: {mixer: {type: aaren}}, encoder: {layers: 1, block: {mixer: {type: "
      "attention}}}}",
  };
  for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
    mn_arena *arena = mn_arena_new();
    const mn_value *v = NULL;
    mn_model *m = NULL;
    mn_text before = {0}, after = {0};
    CHECK_OK(mn_yaml_parse(arena, "recipe.yaml", models[i], strlen(models[i]), &v));
    if (v) CHECK_OK(mn_model_parse(v, NULL, 0, &m));
    if (m) CHECK_OK(mn_value_to_json(mn_model_to_value(arena, m), 0, &before));
    if (v) wipe(v);
    if (m) CHECK_OK(mn_value_to_json(mn_model_to_value(arena, m), 0, &after));
    CHECK(before.data && after.data && !strcmp(before.data, after.data), "%s\n%s", before.data, after.data);
    mn_text_free(&before), mn_text_free(&after);
    mn_model_free(m);
    mn_arena_free(arena);
  }
}

static void refused(const char *yaml, const char *words) {
  mn_arena *arena = mn_arena_new();
  mn_model *m;
  char word[64];
  mn_status status = parse(arena, yaml, 0, &m);
  CHECK(status == MN_ERR_CONFIG, "%s: %s", yaml, mn_status_name(status));
  for (const char *p = words; *p && status != MN_OK;) {
    size_t n = strcspn(p, "|");
    snprintf(word, sizeof word, "%.*s", (int)n, p);
    CHECK(strstr(mn_message(), word) != NULL, "the message \"%s\" does not say %s", mn_message(), word);
    p += n + (p[n] == '|');
  }
  mn_model_free(m);
  mn_arena_free(arena);
}

static void faults_of_a_recipe(void) {
#define BLOCK "block: {mixer: {type: attention, heads: 2}}\n"
  refused("vocab_size: 10\nd_modle: 8\n" BLOCK, "recipe.yaml:2|d_modle|d_model");
  refused("vocab_size: 10\nd_model: wide\n" BLOCK, "recipe.yaml:2|d_model|wide");
  refused("vocab_size: 10\nd_model: -8\n" BLOCK, "recipe.yaml:2|d_model|-8");
  refused("vocab_size: 10\nd_model: 7\n" BLOCK, "recipe.yaml:3|heads|d_model 7");
  refused("d_model: 8\n" BLOCK, "vocab_size|tokenizer");
  refused("vocab_size: 10\nd_model: 8\n", "block");
  refused("vocab_size: 10\nd_model: 8\n" BLOCK "blocks: []\n", "block|blocks");
  refused("vocab_size: 10\nd_model: 8\nblocks: []\n", "recipe.yaml:3|blocks");
  refused("vocab_size: 10\nd_model: 8\nblock:\n  mixer: {type: attention, heads: 2}\n  chanel: swiglu\n", "recipe.yaml:5|chanel|channel");
  refused("vocab_size: 10\nd_model: 8\nblock:\n  mixer: {type: attention, heads: 2}\n  channel: swigluu\n", "recipe.yaml:5|swiglu");
  refused("vocab_size: 10\nd_model: 8\nblock:\n  mixer: {type: attention, heads: 2}\n  hidden: -4\n", "recipe.yaml:5|hidden");
  refused("vocab_size: 10\nd_model: 8\nblock:\n  mixer: attention\n", "recipe.yaml:4|mixer|type: attention");
  refused("vocab_size: 10\nd_model: 8\nblock:\n  mixer: {type: attenton}\n", "recipe.yaml:4|attenton|attention");
  refused("vocab_size: 10\nd_model: 8\nblock:\n  channel: none\n", "mixer");
  refused("vocab_size: 10\nd_model: 8\nblock:\n  mixer:\n    type: attention\n    heads: 2\n    windw: 4\n", "recipe.yaml:7|windw|window");
  refused("vocab_size: 10\nd_model: 8\nblocks:\n  - {repeat: 5000, mixer: {type: attention, heads: 2}}\n", "recipe.yaml:4|repeat");
  refused("vocab_size: 10\nd_model: 8\nblocks:\n  - {repeat: 4000, mixer: {type: attention, heads: 2}}\n  - {repeat: 4000, mixer: {type: "
          "attention, heads: 2}}\n",
          "blocks|4096");
  mn_arena *arena = mn_arena_new();
  mn_model *m;
  CHECK(parse(arena, "vocab_size: 10\nd_model: 8\n" BLOCK, 20, &m) == MN_ERR_CONFIG && strstr(mn_message(), "20 tokens"), "%s",
        mn_message());
  CHECK_OK(parse(arena, "d_model: 8\n" BLOCK, 20, &m));
  CHECK(m && m->config.vocab_size == 20, "the tokenizer's vocabulary");
  mn_model_free(m);
  mn_arena_free(arena);
}

int main(void) {
  RUN(parameters_are_counted);
  RUN(tied_and_untied_heads);
  RUN(blocks_of_several_kinds);
  RUN(kinds_are_found_by_name);
  RUN(a_type_owns_its_keys);
  RUN(a_model_in_a_loop_is_the_model);
  RUN(a_looped_model_streams);
  RUN(a_directory_gives_the_model_back);
  RUN(what_comes_meanwhile_is_not_replaced);
  RUN(wrong_files_are_refused);
  RUN(parameters_that_are_not_finite_are_named);
  RUN(weights_that_are_not_finite_are_refused);
  RUN(drawing_does_not_depend_on_threads);
  RUN(a_model_outlives_what_it_was_read_from);
  RUN(faults_of_a_recipe);
  return test_end();
}
