/* lm.c - mneme.h's models and streams: thin covers over bundle.h, session.h and sampler.h that check what a foreign caller
 * may get wrong. */
#include "api/door.h"
#include "api/lm.h"
#include "api/loaded.h"
#include "api/settings.h"
#include "base/precision.h"
#include "checkpoint/bundle.h"
#include "run/sampler.h"
#include "run/session.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct mn_lm {
  mn_bundle bundle;
  pthread_mutex_t mutex;
  mn_program *programs[2][2]; /* by precision and forget: what all streams of that kind run; NULL: none yet */
};

struct mn_stream {
  const mn_lm *lm;
  mn_session *session;
  int64_t batch;
  int64_t told; /* tokens that the reports are about */
  mn_loaded loaded;
};

const char *mn_version(void) { return MN_VERSION; }
void mn_release(void *p) { free(p); }

/* ---- models ---- */
mn_status mn_lm_open(const char *dir, int threads, mn_lm **out) {
  MN_DOOR;
  if (!out) return mn_fail(MN_ERR_ARG, "mn_lm_open: out is NULL");
  *out = NULL;
  if (!dir) return mn_fail(MN_ERR_ARG, "mn_lm_open: dir is NULL");
  MN_TRY(mn_threads_check("mn_lm_open", threads));
  mn_lm *lm = mn_calloc(1, sizeof *lm);
  if (!lm) return MN_ERR_MEMORY;
  if (pthread_mutex_init(&lm->mutex, NULL) != 0) {
    free(lm);
    return MN_ERR_MEMORY;
  }
  mn_status status = mn_bundle_open(dir, NULL, threads, &lm->bundle);
  if (status != MN_OK) mn_lm_free(lm);
  else *out = lm;
  return status;
}

void mn_lm_free(mn_lm *lm) {
  if (!lm) return;
  for (int i = 0; i < 4; i++) mn_program_free(lm->programs[i / 2][i % 2]);
  mn_bundle_close(&lm->bundle);
  pthread_mutex_destroy(&lm->mutex);
  free(lm);
}

int64_t mn_lm_vocab_size(const mn_lm *lm) { return !lm ? 0 : lm->bundle.model->config.vocab_size; }
int64_t mn_lm_parameters(const mn_lm *lm) { return !lm ? 0 : mn_params_count(lm->bundle.params); }
int32_t mn_lm_end_token(const mn_lm *lm) { return lm && lm->bundle.tokenizer ? mn_tokenizer_eos(lm->bundle.tokenizer) : -1; }

mn_status mn_lm_encode(const mn_lm *lm, const char *text, size_t bytes, int32_t **tokens, size_t *n) {
  MN_DOOR;
  if (tokens) *tokens = NULL;
  if (n) *n = 0;
  MN_NEED(lm);
  if (!tokens || !n || (!text && bytes)) return mn_fail(MN_ERR_ARG, "mn_lm_encode: text, tokens and n must not be NULL");
  MN_TRY(mn_bundle_need_tokenizer(&lm->bundle, "the model's directory"));
  mn_ids ids = {0};
  mn_status status = mn_tokenizer_encode(lm->bundle.tokenizer, text ? text : "", bytes, 0, &ids);
  if (status == MN_OK && !ids.data && !(ids.data = mn_alloc(1))) status = MN_ERR_MEMORY; /* no tokens are a result, too */
  if (status != MN_OK) {
    mn_ids_free(&ids);
    return status;
  }
  *tokens = ids.data;
  *n = ids.len;
  return MN_OK;
}

mn_status mn_lm_decode(const mn_lm *lm, const int32_t *tokens, size_t n, char **text, size_t *bytes) {
  MN_DOOR;
  if (text) *text = NULL;
  if (bytes) *bytes = 0;
  MN_NEED(lm);
  if (!text || (!tokens && n)) return mn_fail(MN_ERR_ARG, "mn_lm_decode: tokens and text must not be NULL");
  MN_TRY(mn_bundle_need_tokenizer(&lm->bundle, "the model's directory"));
  mn_text t = {0};
  mn_status status = mn_tokenizer_decode(lm->bundle.tokenizer, tokens, n, true, &t);
  mn_text_add(&t, "");
  if (status == MN_OK) status = mn_text_status(&t);
  if (status == MN_OK) {
    if (bytes) *bytes = t.len;
    *text = mn_text_take(&t);
    if (!*text) status = MN_ERR_MEMORY;
  }
  mn_text_free(&t);
  return status;
}

/* ---- streams ---- */
typedef struct stream_settings {
  int64_t batch, segment;
  int precision;
  bool forget;
} stream_settings;
static const mn_field stream_fields[] = {MN_FIELD_INT(stream_settings, batch, 1, 1, 1 << 20, "parallel streams"),
                                         MN_FIELD_INT(stream_settings, segment, 256, 1, 1 << 20, "most tokens computed at once"),
                                         MN_FIELD_ENUM(stream_settings, precision, mn_precisions, MN_PRECISION_F32, "of the computation"),
                                         MN_FIELD_BOOL(stream_settings, forget, false, "past max_context forget the oldest tokens"),
                                         MN_FIELD_END};

/* The program of such streams, made with the first. A handle is const to its callers; what is compiled is no part of what it says. */
static mn_status program_of(const mn_lm *shown, const stream_settings *c, mn_program **out) {
  mn_lm *lm;
  memcpy(&lm, &shown, sizeof lm);
  mn_program **at = &lm->programs[c->precision][c->forget];
  mn_status status = MN_OK;
  pthread_mutex_lock(&lm->mutex);
  if (!*at) status = mn_session_program_new(lm->bundle.model, lm->bundle.params, mn_precision_type(c->precision), c->forget, at);
  *out = *at;
  pthread_mutex_unlock(&lm->mutex);
  return status;
}

const mn_bundle *mn_lm_bundle(const mn_lm *lm) { return &lm->bundle; }
mn_status mn_lm_program(const mn_lm *lm, mn_program **out) {
  return program_of(lm, &(stream_settings){.precision = MN_PRECISION_F32}, out);
}

mn_status mn_stream_new(const mn_lm *lm, const char *const *settings, mn_stream **out) {
  MN_DOOR;
  if (out) *out = NULL;
  if (!out || !lm) return mn_fail(MN_ERR_ARG, "mn_stream_new: lm and out must not be NULL");
  stream_settings c;
  MN_TRY(mn_settings_read(settings, stream_fields, &c));
  mn_stream *s = mn_calloc(1, sizeof *s);
  if (!s) return MN_ERR_MEMORY;
  s->lm = lm;
  s->batch = c.batch;
  mn_session_config config = {.batch = c.batch, .prefill = c.segment};
  mn_status status = program_of(lm, &c, &config.program);
  if (status == MN_OK) status = mn_session_new(lm->bundle.model, lm->bundle.params, &config, &s->session);
  if (status != MN_OK) mn_stream_free(s);
  else *out = s;
  return status;
}

void mn_stream_free(mn_stream *s) {
  if (!s) return;
  mn_session_free(s->session);
  mn_loaded_end(&s->loaded);
  free(s);
}

mn_status mn_stream_fork(const mn_stream *s, mn_stream **out) {
  MN_DOOR;
  if (out) *out = NULL;
  if (!out || !s) return mn_fail(MN_ERR_ARG, "mn_stream_fork: s and out must not be NULL");
  mn_stream *copy = *out = mn_calloc(1, sizeof *copy);
  if (!copy) return MN_ERR_MEMORY;
  *copy = (mn_stream){.lm = s->lm, .batch = s->batch};
  mn_status status = mn_session_fork(s->session, &copy->session);
  if (status != MN_OK) {
    mn_stream_free(copy);
    *out = NULL;
  }
  return status;
}

mn_status mn_stream_reset(mn_stream *s) {
  MN_DOOR;
  MN_NEED(s);
  return mn_session_reset(s->session);
}

mn_status mn_stream_feed(mn_stream *s, const int32_t *tokens, int64_t n, const float **logits) {
  MN_DOOR;
  if (logits) *logits = NULL;
  MN_NEED(s);
  s->told = 0;
  if (!tokens) return mn_fail(MN_ERR_ARG, "mn_stream_feed: tokens is NULL");
  MN_TRY(mn_session_feed(s->session, tokens, n, logits));
  s->told = n;
  return MN_OK;
}

mn_status mn_stream_score(mn_stream *s, const int32_t *tokens, const int32_t *targets, int64_t n, float *nll) {
  MN_DOOR;
  MN_NEED(s);
  s->told = 0;
  if (!tokens || !targets || !nll) return mn_fail(MN_ERR_ARG, "mn_stream_score: tokens, targets and nll must not be NULL");
  MN_TRY(mn_session_score(s->session, tokens, targets, n, nll));
  s->told = n;
  return MN_OK;
}

/* ---- what the model tells about each token ---- */
mn_status mn_stream_report(mn_stream *s, const char *name) {
  MN_DOOR;
  MN_NEED(s);
  s->told = 0;
  return mn_session_report(s->session, name);
}

int mn_stream_report_count(const mn_stream *s) { return !s ? 0 : mn_session_report_count(s->session); }

mn_status mn_stream_report_at(const mn_stream *s, int i, const char **path, const float **values, int64_t *n) {
  MN_DOOR;
  if (path) *path = NULL;
  if (values) *values = NULL;
  if (n) *n = 0;
  MN_NEED(s);
  int count = mn_session_report_count(s->session);
  if (i < 0 || i >= count)
    return mn_fail(MN_ERR_ARG, "mn_stream_report_at: there is no report %d of %d%s", i, count,
                   count ? "" : "; mn_stream_report asks for some");
  if (path) *path = mn_session_report_path(s->session, i);
  if (values && s->told) *values = mn_session_report_values(s->session, i);
  if (n) *n = s->told;
  return MN_OK;
}

int64_t mn_stream_limit(const mn_stream *s) {
  if (!s) return 0;
  int64_t tokens = mn_session_limit(s->session).tokens;
  return tokens == MN_LIMIT_NONE ? 0 : tokens;
}
int64_t mn_stream_position(const mn_stream *s) { return !s ? 0 : mn_session_position(s->session); }
size_t mn_stream_state_bytes(const mn_stream *s) { return !s ? 0 : mn_session_state_bytes(s->session); }

mn_status mn_stream_save(mn_stream *s, const char *path) {
  MN_DOOR;
  MN_NEED(s);
  if (!path) return mn_fail(MN_ERR_ARG, "mn_stream_save: path is NULL");
  return mn_session_save_over(s->session, path, mn_loaded_at(&s->loaded, path));
}
mn_status mn_stream_load(mn_stream *s, const char *path) {
  MN_DOOR;
  mn_loaded from;
  MN_NEED(s);
  if (!path) return mn_fail(MN_ERR_ARG, "mn_stream_load: path is NULL");
  MN_TRY(mn_loaded_begin(&from, path));
  mn_status status = mn_session_load(s->session, path);
  mn_loaded_end(status == MN_OK ? &s->loaded : &from);
  if (status == MN_OK) s->loaded = from;
  return status;
}

int mn_stream_tensor_count(const mn_stream *s) { return !s ? 0 : mn_session_count(s->session); }

mn_status mn_stream_tensor(const mn_stream *s, int i, const char **name, const char **type, int *n_dims, int64_t *dims, double *norm) {
  MN_DOOR;
  mn_session_tensor t;
  if (name) *name = NULL;
  if (type) *type = NULL;
  if (n_dims) *n_dims = 0;
  MN_NEED(s);
  MN_TRY(mn_session_at(s->session, i, &t));
  if (name) *name = t.info.name;
  if (type) *type = mn_dtype_name(t.info.dtype);
  if (n_dims) *n_dims = t.info.shape.ndim;
  for (int k = 0; dims && k < t.info.shape.ndim; k++) dims[k] = t.info.shape.dim[k];
  if (norm) *norm = t.norm;
  return MN_OK;
}

/* ---- generation ---- */
static mn_status generate(mn_stream *s, mn_sampler *sampler, const int32_t *prompt, int64_t n, int64_t max_tokens, mn_text *text,
                          mn_token_fn on_token, void *ctx) {
  const mn_tokenizer *tok = s->lm->bundle.tokenizer;
  mn_decoder decoder = {.tok = tok, .skip_special = true};
  const float *logits;
  int32_t end = mn_lm_end_token(s->lm);
  if (max_tokens < 0) return mn_fail(MN_ERR_ARG, "mn_stream_generate: max_tokens is %lld", (long long)max_tokens);
  MN_TRY(mn_session_fits_at_most(s->session, n <= INT64_MAX - max_tokens ? n + max_tokens : INT64_MAX));
  MN_TRY(mn_stream_feed(s, prompt, n, &logits));
  for (int64_t i = 0; i < n; i++) mn_sampler_note(sampler, prompt[i]);
  for (int64_t i = 0; i < max_tokens; i++) {
    int32_t token;
    size_t bytes;
    MN_TRY(mn_sampler_next(sampler, 0, mn_session_position(s->session), logits, &token));
    MN_TRY(mn_stream_feed(s, &token, 1, &logits));
    bool last = i + 1 == max_tokens || (end >= 0 && token == end);
    text->len = 0;
    mn_text_add(text, "");
    if (tok && mn_tokenizer_token(tok, token, &bytes)) MN_TRY(mn_decoder_push(&decoder, token, text));
    if (tok && last) MN_TRY(mn_decoder_finish(&decoder, text));
    MN_TRY(mn_text_status(text));
    if (text->data) text->data[text->len] = 0;
    if (on_token && !on_token(ctx, token, text->data ? text->data : "", text->len)) return MN_OK;
    if (last) return MN_OK;
  }
  return MN_OK;
}

mn_status mn_stream_generate(mn_stream *s, const int32_t *prompt, int64_t n, int64_t max_tokens, const char *const *settings,
                             mn_token_fn on_token, void *ctx) {
  MN_DOOR;
  MN_NEED(s);
  if (!prompt || n < 1) return mn_fail(MN_ERR_ARG, "mn_stream_generate: the prompt needs at least one token");
  if (s->batch != 1) return mn_fail(MN_ERR_ARG, "mn_stream_generate: the stream has batch %lld; it must be 1", (long long)s->batch);
  mn_sampling c;
  MN_TRY(mn_settings_read(settings, mn_sampling_fields, &c));
  mn_sampler *sampler;
  MN_TRY(mn_sampler_new(&c, mn_lm_vocab_size(s->lm), &sampler));
  mn_text text = {0};
  mn_status status = s->lm->bundle.tokenizer ? mn_sampler_keep_to(sampler, s->lm->bundle.tokenizer) : MN_OK;
  if (status == MN_OK) status = generate(s, sampler, prompt, n, max_tokens, &text, on_token, ctx);
  mn_text_free(&text);
  mn_sampler_free(sampler);
  return status;
}
