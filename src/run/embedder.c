/* embedder.c - see embedder.h. */
#include "run/embedder.h"

#include "base/finite.h"
#include "run/ladder.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_ROWS = 16, MOST_PLACES = 4096, MOST_TOKENS = 32768 }; /* of a batch: texts, and tokens of them all; of a text */

struct mn_embedder {
  const mn_model *model;
  mn_program *program;
  int64_t width, most;
  mn_pooling pooling;
};

static mn_status build(void *ctx, mn_scope *s, const mn_form *form, mn_parts *parts) {
  const mn_model *m = ((mn_embedder *)ctx)->model;
  mn_model_io in = {0}, out = {0};
  mn_io_put(&in, "tokens", mn_parts_feed(parts, "tokens", MN_I32, MN_SHAPE(form->batch, form->length)));
  mn_io_put(&in, "length", mn_parts_feed(parts, "length", MN_I32, MN_SHAPE(form->batch)));
  mn_model_build(s, m, &in, &out);
  MN_TRY(mn_graph_status(mn_scope_graph(s)));
  mn_parts_give(parts, "hidden", mn_cast(mn_scope_graph(s), mn_io_get(&out, "hidden"), MN_F32));
  return MN_OK;
}

static mn_status check(mn_embedder *e) {
  const mn_model *m = e->model;
  const mn_port *hidden = mn_model_output(m, "hidden");
  if (!hidden || !m->inputs->name || strcmp(m->inputs->name, "tokens") || !mn_model_input(m, "length") || mn_model_check_stream(m) == MN_OK)
    return mn_fail(MN_ERR_CONFIG, "a model of type %s makes no vectors of texts: an encoder of tokens does", m->def->name);
  e->width = m->config.d_model;
  e->most = m->config.positions == MN_POSITIONS_LEARNED ? m->config.max_positions : MOST_TOKENS;
  const int64_t places = mn_model_most(m, 'T');
  if (places < e->most) e->most = places;
  return MN_OK;
}

mn_status mn_embedder_new(const mn_embedder_config *config, mn_embedder **out) {
  const mn_params *params = config->params;
  mn_embedder *e = *out = mn_calloc(1, sizeof *e);
  if (!e) return MN_ERR_MEMORY;
  e->model = config->model;
  e->pooling = config->pooling;
  mn_status status = check(e);
  if (config->most > 0 && config->most < e->most) e->most = config->most;
  const mn_program_config c = {.backend = params->backend,
                               .params = params,
                               .build = {.param = params->dtype, .compute = config->compute == MN_BF16 ? MN_BF16 : params->dtype},
                               .builder = build,
                               .ctx = e,
                               .settled = true};
  if (status == MN_OK) status = mn_program_new(&c, &e->program);
  if (status == MN_OK) return MN_OK;
  mn_embedder_free(e);
  *out = NULL;
  return status;
}

void mn_embedder_free(mn_embedder *e) {
  if (!e) return;
  mn_program_free(e->program);
  free(e);
}

int64_t mn_embedder_width(const mn_embedder *e) { return e->width; }
int64_t mn_embedder_most(const mn_embedder *e) { return e->most; }

/* h [T, D], the first n of which count. */
static mn_status pool(mn_pooling how, const float *h, int64_t n, int64_t D, float *out) {
  const int64_t bad = mn_first_not_finite(MN_F32, h, n * D);
  double squares = 0;
  if (bad >= 0) return mn_fail(MN_ERR_NUMERIC, "what the model says of token %lld is not a number", (long long)(bad / D));
  for (int64_t d = 0; d < D; d++) {
    const int64_t first = how == MN_POOL_LAST ? n - 1 : 0, end = how == MN_POOL_FIRST ? 1 : n;
    double sum = 0;
    for (int64_t t = first; t < end; t++) sum += (double)h[t * D + d];
    out[d] = (float)(sum / (double)(end - first));
    squares += (double)out[d] * (double)out[d];
  }
  const double norm = sqrt(squares);
  for (int64_t d = 0; d < D && norm > 0; d++) out[d] = (float)((double)out[d] / norm);
  return MN_OK;
}

typedef struct place { /* of a text in the order in which they are read */
  int64_t length, text;
} place;

/* The texts of places[0..rows), in a batch of B rows of T places. */
static mn_status run(mn_embedder *e, int64_t B, int64_t T, int64_t rows, const place *places, const int32_t *const *tokens, float *out) {
  mn_routine *r;
  int32_t *ids = mn_calloc((size_t)(B * T), sizeof *ids), counts[MOST_ROWS];
  float *h = mn_alloc((size_t)(T * e->width) * sizeof *h);
  mn_status status = ids && h ? MN_OK : MN_ERR_MEMORY;
  for (int64_t b = 0; b < B && status == MN_OK; b++) {
    counts[b] = b < rows ? (int32_t)places[b].length : 1;
    if (b < rows) memcpy(ids + b * T, tokens[places[b].text], (size_t)counts[b] * sizeof *ids);
  }
  if (status == MN_OK) status = mn_program_enter(e->program, &(mn_form){.batch = B, .length = T}, &r);
  if (status == MN_OK) {
    status = mn_routine_put(r, mn_routine_feed(r, "tokens"), ids);
    if (status == MN_OK) status = mn_routine_put(r, mn_routine_feed(r, "length"), counts);
    if (status == MN_OK) status = mn_routine_run(r, NULL);
    for (int64_t b = 0; b < rows && status == MN_OK; b++) {
      status = mn_routine_get(r, 0, b * T * e->width, T * e->width, h);
      if (status == MN_OK) status = pool(e->pooling, h, counts[b], e->width, out + places[b].text * e->width);
    }
    mn_program_leave(e->program);
  }
  free(ids);
  free(h);
  return status;
}

static mn_status check_text(const mn_embedder *e, int64_t i, const int32_t *tokens, int64_t n) {
  if (n < 1) return mn_fail(MN_ERR_ARG, "text %lld has no tokens", (long long)i);
  if (n > e->most)
    return mn_fail(MN_ERR_CONFIG, "text %lld has %lld tokens; this model reads %lld", (long long)i, (long long)n, (long long)e->most);
  for (int64_t t = 0; t < n; t++)
    if (tokens[t] < 0 || tokens[t] >= e->model->config.vocab_size)
      return mn_fail(MN_ERR_ARG, "token %lld of text %lld is %d; this model has %lld", (long long)t, (long long)i, (int)tokens[t],
                     (long long)e->model->config.vocab_size);
  return MN_OK;
}

static int longest_first(const void *a, const void *b) {
  const place *x = a, *y = b;
  if (x->length != y->length) return x->length < y->length ? 1 : -1;
  return x->text < y->text ? -1 : x->text > y->text;
}

mn_status mn_embedder_texts(mn_embedder *e, int64_t n, const int32_t *const *tokens, const int64_t *length, float *out) {
  place *places = mn_alloc((size_t)(n + 1) * sizeof *places);
  mn_status status = places ? MN_OK : MN_ERR_MEMORY;
  for (int64_t i = 0; i < n && status == MN_OK; i++) status = check_text(e, i, tokens[i], length[i]);
  for (int64_t i = 0; i < n && status == MN_OK; i++) places[i] = (place){length[i], i};
  if (status == MN_OK) qsort(places, (size_t)n, sizeof *places, longest_first);
  for (int64_t at = 0; at < n && status == MN_OK;) {
    const int64_t T = mn_ladder_cover(places[at].length, e->most);
    int64_t rows = 1, B = 1;
    while (rows < MOST_ROWS && at + rows < n && (rows + 1) * T <= MOST_PLACES && places[at + rows].length * 2 > T) rows++;
    while (B < rows) B *= 2;
    status = run(e, B, T, rows, places + at, tokens, out);
    at += rows;
    if (status == MN_OK && at < n) status = mn_stop_check("reading texts");
  }
  free(places);
  return status;
}
