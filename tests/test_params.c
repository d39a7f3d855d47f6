/* What must be true of a model's memory: parameters and buffers lie side by side, each in its type; drawing, saving, loading and
 * the fingerprint take both; training assigns a buffer and evaluation does not; what a graph does not use stays where it is. */
#include "base/file.h"
#include "format/yaml.h"
#include "run/session.h"
#include "scratch.h"
#include "test.h"

enum { D = 4 };

/* y = w x + the mean so far; the mean moves toward x's, and a number counts. */
static mn_tensor *build(mn_scope *s, mn_tensor *x) {
  mn_graph *g = mn_scope_graph(s);
  mn_scope *in = mn_scope_in(s, "norm");
  mn_tensor *w = mn_param(in, "weight", MN_SHAPE(D), MN_NORMAL(1), 0, "gain");
  mn_tensor *mean = mn_model_buffer(in, "mean", MN_F32, MN_SHAPE(D), 0.5, "running mean");
  mn_tensor *seen = mn_model_buffer(in, "seen", MN_I64, MN_SHAPE(1), 3, "batches");
  mn_model_buffer_set(in, "mean", mn_mul_scalar(g, mn_add(g, mean, mn_reshape(g, x, MN_SHAPE(D))), 0.5));
  mn_model_buffer_set(in, "seen", mn_add_scalar(g, seen, 1));
  return mn_add(g, mn_mul(g, x, w), mean);
}

static mn_params *make(mn_backend *b, mn_graph *g, bool training, mn_scope **s, mn_tensor **x, mn_tensor **y) {
  mn_params *p = NULL;
  *s = mn_scope_new(g, (mn_build){.param = MN_F32, .compute = MN_F32, .training = training}, 1);
  *x = mn_input(g, "x", MN_F32, MN_SHAPE(1, D));
  *y = build(*s, *x);
  CHECK_OK(mn_graph_status(g));
  CHECK_OK(mn_params_declare_scope(*s, b, MN_F32, &p));
  return p;
}

/* Runs it once; buffers that building set are assigned. */
static void run(mn_backend *b, const mn_params *p, mn_graph *g, mn_scope *s, mn_tensor *x, mn_tensor *y, const float *in) {
  const mn_built_buffer *buffers;
  mn_tensor *variables[8], *values[8];
  int n = 0;
  for (int i = 0, m = mn_scope_buffers(s, &buffers); i < m; i++)
    if (buffers[i].value != buffers[i].leaf) variables[n] = buffers[i].leaf, values[n++] = buffers[i].value;
  mn_plan_request q = {.graph = g, .n_outputs = 1, .outputs = &y, .n_assigns = n, .variables = variables, .values = values, .backend = b};
  mn_plan *plan = NULL;
  CHECK_OK(mn_plan_compile(&q, &plan));
  mn_params_bind(p, s, plan);
  float memory[D];
  memcpy(memory, in, sizeof memory);
  mn_plan_bind(plan, x, memory);
  CHECK_OK(mn_plan_run(plan));
  mn_plan_free(plan);
}

static void buffers_lie_beside_parameters(void) {
  const char *path = "buffers.safetensors";
  mn_backend *b = mn_backend_ref();
  mn_scope *s;
  mn_tensor *x, *y;
  for (int training = 1; training >= 0; training--) {
    mn_graph *g = mn_graph_new();
    mn_params *p = make(b, g, training, &s, &x, &y), *other = NULL;
    if (!p) continue;
    CHECK(p->n == 1 && p->n_all == 3 && mn_params_count(p) == D, "%d parameters, %d tensors", p->n, p->n_all);
    const int mean = mn_params_find(p, "norm.mean"), seen = mn_params_find(p, "norm.seen");
    CHECK(mean >= p->n && p->type[mean] == MN_F32 && seen >= p->n && p->type[seen] == MN_I64, "types of their own");
    CHECK_OK(mn_params_draw(p, 7));
    CHECK(((float *)p->data[mean])[2] == 0.5f && *(int64_t *)p->data[seen] == 3, "their first values");
    run(b, p, g, s, x, y, (float[]){1, 2, 3, 4});
    const float expect = training ? 1.75f : 0.5f;
    CHECK(((float *)p->data[mean])[2] == expect && *(int64_t *)p->data[seen] == 3 + training, "training %d: mean %g, seen %d", training,
          (double)((float *)p->data[mean])[2], (int)*(int64_t *)p->data[seen]);
    CHECK_OK(mn_params_save(p, path));
    CHECK_OK(mn_params_declare_scope(s, b, MN_F32, &other));
    CHECK_OK(mn_params_load(other, path));
    for (int i = 0; other && i < 3; i++)
      CHECK(memcmp(p->data[i], other->data[i], (size_t)mn_shape_count(&p->info[i].shape) * mn_dtype_size(p->type[i])) == 0, "%s",
            p->info[i].name);
    ((float *)p->data[mean])[1] = INFINITY;
    CHECK(mn_params_check_finite(p) == MN_ERR_NUMERIC && strstr(mn_message(), "norm.mean"), "%s", mn_message());
    mn_params_free(other);
    mn_params_free(p);
    mn_graph_free(g);
  }
}

static void a_file_without_its_buffers_is_refused(void) {
  const char *path = "no-buffers.safetensors";
  mn_scope *s;
  mn_tensor *x, *y;
  mn_graph *g = mn_graph_new();
  mn_params *p = make(mn_backend_ref(), g, false, &s, &x, &y);
  mn_st_writer *w = mn_st_writer_new();
  float zeros[D] = {0};
  const mn_shape shape = MN_SHAPE(D);
  CHECK_OK(mn_st_writer_add(w, "norm.weight", MN_F32, &shape, zeros));
  CHECK_OK(mn_st_writer_save(w, path));
  CHECK(mn_params_load(p, path) != MN_OK && strstr(mn_message(), "norm.mean"), "%s", mn_message());
  mn_st_writer_free(w);
  mn_params_free(p);
  mn_graph_free(g);
}

/* A program that asks for less than the model has: the head is not used, and is loaded, kept and saved all the same. */
static mn_status hidden_alone(void *ctx, mn_scope *s, const mn_form *form, mn_parts *parts) {
  mn_parts_give(parts, "hidden", mn_model_hidden(s, ctx, mn_parts_feed(parts, "tokens", MN_I32, MN_SHAPE(form->batch, form->length))));
  return MN_OK;
}

static void what_is_not_used_stays(void) {
  static const char text[] =
      "{vocab_size: 20, d_model: 8, layers: 1, tie_embeddings: false, block: {mixer: {type: aaren, heads: 2}, hidden: 8}}";
  mn_arena *arena = mn_arena_new();
  const mn_value *v = NULL;
  mn_model *model = NULL;
  mn_params *p = NULL;
  mn_program *program = NULL;
  mn_routine *r = NULL;
  CHECK_OK(mn_yaml_parse(arena, "test", text, strlen(text), &v));
  CHECK_OK(mn_model_parse(v, "test", 0, &model));
  CHECK_OK(mn_params_new(model, mn_backend_ref(), MN_F32, 3, &p));
  mn_program_config c = {.backend = mn_backend_ref(), .params = p, .builder = hidden_alone, .ctx = model, .settled = true};
  c.build = (mn_build){.param = MN_F32, .compute = MN_F32, .carried = true};
  CHECK_OK(mn_program_new(&c, &program));
  mn_states *states = NULL;
  CHECK_OK(mn_program_states(program, 1, &states));
  CHECK_OK(mn_program_enter(program, &(mn_form){.batch = 1, .length = 3}, &r));
  if (r) {
    CHECK_OK(mn_routine_run(r, states));
    mn_program_leave(program);
  }
  CHECK(p && mn_params_find(p, "lm_head.weight") >= 0, "the head is there");
  mn_states_free(states);
  mn_program_free(program);
  mn_params_free(p);
  mn_model_free(model);
  mn_arena_free(arena);
}

int main(void) {
  RUN(buffers_lie_beside_parameters);
  RUN(a_file_without_its_buffers_is_refused);
  RUN(what_is_not_used_stays);
  return test_end();
}
