/* soft_targets.c - see soft_targets.h. */
#include "eval/soft_targets.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/finite.h"
#include "format/safetensors.h"
#include "objective/objective.h"
#include "run/program.h"

typedef struct work {
  const mn_model *m;
  mn_source *source;
  const mn_soft_targets_config *config;
  mn_program *program;
  mn_batch batch;
  int64_t n, units, vocabulary; /* rows in all; positions of a batch; tokens to choose among */
  float *p;                     /* [units, vocabulary] */
  void *kept[MN_SOURCE_FIELDS]; /* each field of n rows; NULL: not written */
  int32_t *ids;                 /* [n * T, top] */
  float *weights;
} work;

static mn_status build(void *ctx, mn_scope *s, const mn_form *form, mn_parts *parts) {
  work *w = ctx;
  mn_graph *g = mn_scope_graph(s);
  mn_model_io in = {0}, out;
  (void)form;
  for (int i = 0; i < w->batch.n; i++) {
    const mn_source_field *f = &w->batch.field[i];
    if (!mn_model_input(w->m, f->name)) continue;
    mn_io_put(&in, f->name, mn_parts_feed(parts, f->name, f->dtype == MN_F32 ? mn_scope_exact(s) : f->dtype, f->shape));
  }
  mn_model_build(s, w->m, &in, &out);
  MN_TRY(mn_graph_status(g));
  mn_tensor *logits = mn_judge_logits(s, &out, "");
  if (!logits) return mn_graph_status(g);
  w->units = mn_dim(logits, 0);
  w->vocabulary = mn_dim(logits, 1);
  mn_parts_give(parts, "p", mn_cast(g, mn_exp(g, mn_log_softmax(g, logits)), MN_F32));
  return MN_OK;
}

int64_t mn_soft_targets_batches(const mn_source *source, const mn_soft_targets_config *c) {
  const int64_t all = mn_source_steps(source, MN_SPLIT_TRAIN, c->batch, c->seq_len);
  if (all == INT64_MAX) return c->batches ? c->batches : -1;
  return c->batches && c->batches < all ? c->batches : all;
}

/* The `top` largest of p [vocabulary], largest first; of equal ones the lower id. */
static void keep_top(const float *p, int64_t vocabulary, int64_t top, int32_t *ids, float *weights) {
  int64_t n = 0;
  for (int64_t v = 0; v < vocabulary; v++) {
    if (n == top && p[v] <= weights[n - 1]) continue;
    int64_t at = n < top ? n++ : n - 1;
    for (; at > 0 && weights[at - 1] < p[v]; at--) weights[at] = weights[at - 1], ids[at] = ids[at - 1];
    weights[at] = p[v];
    ids[at] = (int32_t)v;
  }
}

static mn_status run_batch(work *w, int64_t step) {
  const mn_soft_targets_config *c = w->config;
  const mn_form form = {.batch = c->batch, .length = c->seq_len};
  mn_routine *r;
  MN_TRY(mn_source_fill(w->source, MN_SPLIT_TRAIN, step, &w->batch));
  MN_TRY(mn_program_enter(w->program, &form, &r));
  mn_status status = MN_OK;
  for (int i = 0; i < mn_routine_feeds(r) && status == MN_OK; i++) {
    const void *data = mn_batch_get(&w->batch, mn_routine_feed_name(r, i));
    status = data ? mn_routine_put(r, i, data) : mn_fail(MN_ERR_CONFIG, "the data gives no %s", mn_routine_feed_name(r, i));
  }
  if (status == MN_OK) status = mn_routine_run(r, NULL);
  if (status == MN_OK) status = mn_routine_get_all(r, 0, w->p);
  mn_program_leave(w->program);
  MN_TRY(status);
  const int64_t bad = mn_first_not_finite(MN_F32, w->p, w->units * w->vocabulary);
  if (bad >= 0) return mn_fail(MN_ERR_NUMERIC, "the model's output is not a number: batch %lld", (long long)step);
  for (int64_t u = 0; u < w->units; u++) {
    const int64_t at = (step * w->units + u) * c->top;
    keep_top(w->p + u * w->vocabulary, w->vocabulary, c->top, w->ids + at, w->weights + at);
  }
  for (int i = 0; i < w->batch.n; i++) {
    const size_t bytes = (size_t)mn_shape_count(&w->batch.field[i].shape) * mn_dtype_size(w->batch.field[i].dtype);
    if (w->kept[i]) memcpy((char *)w->kept[i] + (size_t)step * bytes, w->batch.data[i], bytes);
  }
  return MN_OK;
}

static mn_status make_room(work *w, int64_t batches) {
  const mn_soft_targets_config *c = w->config;
  mn_routine *r; /* builds it: what the model says is known then */
  MN_TRY(mn_program_enter(w->program, &(mn_form){.batch = c->batch, .length = c->seq_len}, &r));
  mn_program_leave(w->program);
  if (w->units != c->batch * c->seq_len)
    return mn_fail(MN_ERR_CONFIG, "soft targets are of every token, and this model of type %s says one thing of each row", w->m->def->name);
  if (c->top > w->vocabulary)
    return mn_fail(MN_ERR_CONFIG, "the model chooses among %lld tokens, of which the %lld likeliest cannot be kept",
                   (long long)w->vocabulary, (long long)c->top);
  w->n = batches * c->batch;
  w->p = mn_alloc((size_t)(w->units * w->vocabulary) * sizeof *w->p);
  w->ids = mn_alloc((size_t)(batches * w->units * c->top) * sizeof *w->ids);
  w->weights = mn_alloc((size_t)(batches * w->units * c->top) * sizeof *w->weights);
  if (!w->p || !w->ids || !w->weights) return MN_ERR_MEMORY;
  for (int i = 0; i < w->batch.n; i++) {
    const mn_source_field *f = &w->batch.field[i];
    if (f->dtype == MN_BOOL) continue;
    w->kept[i] = mn_alloc((size_t)(batches * mn_shape_count(&f->shape)) * mn_dtype_size(f->dtype));
    if (!w->kept[i]) return MN_ERR_MEMORY;
  }
  return MN_OK;
}

static mn_status write(const work *w, const char *path) {
  const mn_soft_targets_config *c = w->config;
  const mn_shape soft = MN_SHAPE(w->n, c->seq_len, c->top);
  mn_st_writer *out = mn_st_writer_new();
  mn_status status = out ? MN_OK : MN_ERR_MEMORY;
  for (int i = 0; i < w->batch.n && status == MN_OK; i++) {
    mn_shape shape = w->batch.field[i].shape;
    shape.dim[0] = w->n;
    if (w->kept[i]) status = mn_st_writer_add(out, w->batch.field[i].name, w->batch.field[i].dtype, &shape, w->kept[i]);
  }
  if (status == MN_OK) status = mn_st_writer_add(out, "soft_ids", MN_I32, &soft, w->ids);
  if (status == MN_OK) status = mn_st_writer_add(out, "soft_weights", MN_F32, &soft, w->weights);
  if (status == MN_OK && c->tokenizer && *c->tokenizer) status = mn_st_writer_meta(out, "tokenizer", c->tokenizer);
  if (status == MN_OK) status = mn_st_writer_save(out, path);
  mn_st_writer_free(out);
  return status;
}

/* What stands at the name is replaced only where it is of this kind: a name mistyped is a text of the data lost. */
static mn_status may_replace(const char *path) {
  mn_file_info info;
  mn_st *st = NULL;
  MN_TRY(mn_file_stat(path, &info));
  const bool ours = !info.exists || (mn_st_open(path, &st) == MN_OK && mn_st_find(st, "soft_ids"));
  mn_st_close(st);
  return ours ? MN_OK : mn_fail(MN_ERR_CONFIG, "%s is there and holds no soft targets; give another name, or remove it", path);
}

static mn_status all(work *w, const mn_params *p, const char *path) {
  const mn_soft_targets_config *c = w->config;
  const int64_t batches = mn_soft_targets_batches(w->source, c);
  if (batches < 0) return mn_fail(MN_ERR_ARG, "a task never ends: say how many batches are kept");
  MN_TRY(may_replace(path));
  MN_TRY(mn_source_check(w->source, MN_SPLIT_TRAIN, c->batch, c->seq_len));
  MN_TRY(mn_batch_new(w->source, c->batch, c->seq_len, &w->batch));
  const mn_program_config program = {.backend = p->backend,
                                     .params = p,
                                     .build = {.param = p->dtype, .compute = c->compute},
                                     .builder = build,
                                     .ctx = w,
                                     .learn = {.batch = c->batch, .length = c->seq_len},
                                     .settled = true};
  MN_TRY(mn_program_new(&program, &w->program));
  MN_TRY(make_room(w, batches));
  bool goes_on = true;
  for (int64_t i = 0; i < batches; i++) {
    if (!goes_on || mn_watch_stops(&c->watch)) return mn_fail(MN_ERR_CANCELLED, "interrupted; nothing was written");
    MN_TRY(run_batch(w, i));
    goes_on = mn_watch_tell(&c->watch, NULL, i + 1, batches);
  }
  return write(w, path);
}

mn_status mn_soft_targets_write(const mn_model *m, const mn_params *p, mn_source *source, const mn_soft_targets_config *config,
                                const char *path, int64_t *rows) {
  work w = {.m = m, .source = source, .config = config};
  mn_status status = all(&w, p, path);
  *rows = w.n;
  mn_program_free(w.program);
  for (int i = 0; i < w.batch.n; i++) free(w.kept[i]);
  mn_batch_free(&w.batch);
  free(w.p);
  free(w.ids);
  free(w.weights);
  return status;
}
