/* bundle.c - see bundle.h. */
#include "checkpoint/bundle.h"

#include "base/file.h"
#include "checkpoint/arch.h"
#include "checkpoint/sentences.h"
#include "checkpoint/speech.h"
#include "format/config.h"
#include "format/tokenizer_gguf.h"

#include <stdlib.h>
#include <string.h>

static mn_status check_tokenizer(const char *path, const char *weights, const mn_bundle *b) {
  char hash[33];
  mn_tokenizer_hash(b->tokenizer, hash);
  MN_TRY(mn_origin_check_tokenizer(&b->params->origin, weights, path, hash));
  const long long have = mn_tokenizer_vocab_size(b->tokenizer), room = b->model->config.vocab_size;
  if (have <= room) return MN_OK;
  return mn_fail(MN_ERR_CONFIG, "%s has %lld tokens, but the model beside it has room for %lld: it belongs to another model", path, have,
                 room);
}

/* A checkpoint whose tokenizer cannot be read is still a model of token ids: why is said to who needs text. */
static mn_status open_tokenizer(const char *dir, mn_bundle *b) {
  char *path = mn_path_join(dir, "tokenizer.json"), *weights = mn_path_join(dir, "model.safetensors");
  mn_status status = path && weights ? MN_OK : MN_ERR_MEMORY;
  if (status == MN_OK && mn_file_exists(path)) {
    status = mn_tokenizer_load(path, &b->tokenizer);
    if (status == MN_OK && b->form == MN_FORM_MNEME) status = check_tokenizer(path, weights, b);
    if (status != MN_OK && status != MN_ERR_MEMORY && b->form == MN_FORM_HF) {
      b->no_tokenizer = mn_strdup(mn_message());
      status = b->no_tokenizer ? MN_OK : MN_ERR_MEMORY;
    }
  }
  free(path);
  free(weights);
  return status;
}

/* The tokenizer.json that a GGUF file may hold whole, or the vocabulary of its metadata; NULL where there is neither. */
static mn_status tokenizer_of(const mn_gguf *g, mn_tokenizer **out) {
  const mn_gguf_meta *json = mn_gguf_meta_find(g, MN_GGUF_TOKENIZER_JSON);
  *out = NULL;
  if (json && json->kind == MN_GGUF_STRING) return mn_tokenizer_parse(mn_gguf_path(g), (const char *)json->data, json->bytes, out);
  return mn_tokenizer_in_gguf(g) ? mn_tokenizer_from_gguf(g, out) : MN_OK;
}

static mn_status tokenizer_of_gguf(const char *path, mn_tokenizer **out) {
  mn_gguf *g = NULL;
  MN_TRY(mn_gguf_open(path, &g));
  mn_status status = tokenizer_of(g, out);
  if (status == MN_OK && !*out) status = mn_fail(MN_ERR_CONFIG, "%s has no tokenizer: its model reads token ids, not text", path);
  mn_gguf_close(g);
  return status;
}

mn_status mn_bundle_tokenizer_of(const char *path, mn_tokenizer **out) {
  mn_file_info info;
  *out = NULL;
  MN_TRY(mn_file_stat(path, &info));
  if (!info.is_dir) {
    mn_map map;
    MN_TRY(mn_map_open(path, &map));
    const bool gguf = mn_gguf_is(map.data, map.size);
    mn_map_close(&map);
    return gguf ? tokenizer_of_gguf(path, out) : mn_tokenizer_load(path, out);
  }
  char *file = mn_path_join(path, "tokenizer.json");
  mn_status status = file ? MN_OK : MN_ERR_MEMORY;
  if (status == MN_OK && !mn_file_exists(file))
    status = mn_fail(MN_ERR_IO, "%s has no tokenizer.json: its model reads token ids, not text", path);
  if (status == MN_OK) status = mn_tokenizer_load(file, out);
  free(file);
  return status;
}

/* Of a GGUF file: its tokenizer, and what it says of texts. */
static mn_status open_gguf_texts(const char *path, mn_bundle *b) {
  mn_gguf *g = NULL;
  MN_TRY(mn_gguf_open(path, &g));
  mn_status status = mn_speech_read_gguf(g, &b->speech);
  if (status == MN_OK) status = mn_sentences_read_gguf(g, &b->sentences);
  if (status == MN_OK) status = tokenizer_of(g, &b->tokenizer);
  if (status == MN_OK && mn_tokenizer_in_gguf(g) && !mn_gguf_meta_find(g, MN_GGUF_TOKENIZER_JSON)) {
    const int32_t *ends;
    for (size_t i = 0, n = mn_tokenizer_ends(b->tokenizer, &ends); i < n; i++) mn_speech_add_eos(&b->speech, ends[i]);
    b->speech.bos = mn_tokenizer_bos(b->tokenizer); /* what the file leaves out is as usual for its kind */
    b->speech.add_bos = mn_tokenizer_adds_bos(b->tokenizer);
  }
  if (status != MN_OK && status != MN_ERR_MEMORY && !b->tokenizer)
    status = (b->no_tokenizer = mn_strdup(mn_message())) ? MN_OK : MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_gguf_intact(g);
  mn_gguf_close(g);
  return status;
}

/* A checkpoint's tokens beyond what its model has are said, and lead nowhere: texts with them are refused, no answer ends with them. */
static void say_strangers(const char *path, mn_bundle *b) {
  const int64_t room = b->model->config.vocab_size, have = b->tokenizer ? mn_tokenizer_vocab_size(b->tokenizer) : 0;
  mn_speech *s = &b->speech;
  int n = 0;
  if (!room) return;
  if (have > room)
    mn_log_write(MN_LOG_WARN, "%s: its tokenizer has %lld tokens and its model %lld; texts with the others are refused", path,
                 (long long)have, (long long)room);
  for (int i = 0; i < s->n_eos; i++)
    if (s->eos[i] < room) s->eos[n++] = s->eos[i];
    else mn_log_write(MN_LOG_WARN, "%s: token %d should end answers, and its model has %lld", path, (int)s->eos[i], (long long)room);
  s->n_eos = n;
  if (s->bos >= room) {
    mn_log_write(MN_LOG_WARN, "%s: token %d should begin texts, and its model has %lld", path, (int)s->bos, (long long)room);
    s->bos = -1;
    s->add_bos = false;
  }
}

mn_status mn_bundle_open(const char *path, const char *backend, int threads, mn_bundle *out) {
  *out = (mn_bundle){.speech.bos = -1};
  MN_TRY(mn_checkpoint_form_at(path, &out->form));
  mn_status status = mn_backend_open(backend, threads, &out->backend);
  if (status == MN_OK && out->form == MN_FORM_MNEME) status = mn_model_open_dir(path, out->backend, MN_F32, &out->model, &out->params);
  else if (status == MN_OK) status = mn_checkpoint_model(path, out->backend, MN_F32, &out->model, &out->params);
  if (status == MN_OK && out->form != MN_FORM_GGUF) status = open_tokenizer(path, out);
  if (status == MN_OK && out->form == MN_FORM_GGUF) status = open_gguf_texts(path, out);
  if (status == MN_OK && out->form == MN_FORM_HF) status = mn_speech_read_hf(path, out->tokenizer, &out->speech);
  if (status == MN_OK && out->form != MN_FORM_MNEME) say_strangers(path, out);
  if (status == MN_OK && out->tokenizer && !out->speech.n_eos) mn_speech_add_eos(&out->speech, mn_tokenizer_eos(out->tokenizer));
  if (status == MN_OK && out->tokenizer) mn_tokenizer_silence(out->tokenizer, out->speech.silent, out->speech.n_silent);
  if (status == MN_OK && out->form == MN_FORM_HF) status = mn_sentences_read_hf(path, &out->sentences);
  if (status == MN_OK) status = mn_sentences_check_case(out->tokenizer, &out->sentences);
  if (status == MN_OK && out->tokenizer && mn_model_check_stream(out->model) == MN_OK) mn_tokenizer_warn_of_cuts(out->tokenizer);
  if (status != MN_OK) mn_bundle_close(out);
  return status;
}

void mn_bundle_close(mn_bundle *b) {
  mn_tokenizer_free(b->tokenizer);
  mn_params_free(b->params);
  mn_model_free(b->model);
  mn_backend_free(b->backend);
  free(b->no_tokenizer);
  mn_speech_free(&b->speech);
  mn_sentences_free(&b->sentences);
  *b = (mn_bundle){0};
}

mn_status mn_bundle_need_tokenizer(const mn_bundle *b, const char *path) {
  if (b->tokenizer) return MN_OK;
  if (b->no_tokenizer) return mn_fail(MN_ERR_UNSUPPORTED, "%s", b->no_tokenizer);
  if (b->model && !b->model->config.vocab_size)
    return mn_fail(MN_ERR_CONFIG, "%s reads no text: its model, of type %s, has no vocabulary", path, b->model->config.type);
  return mn_fail(MN_ERR_CONFIG, "%s has no tokenizer.json, so this model knows token ids only; put the tokenizer it was trained with there",
                 path);
}

mn_status mn_bundle_encode(const mn_bundle *b, const char *text, size_t n, bool begins, mn_ids *out) {
  const size_t before = out->len;
  const bool placed = begins && b->form != MN_FORM_MNEME;
  MN_TRY(mn_tokenizer_encode(b->tokenizer, text, n, placed ? MN_ENCODE_TEMPLATE : 0, out));
  if (placed && out->len > before + 1 && mn_bundle_ends(b, out->data[out->len - 1])) out->len--; /* it goes on */
  if (!placed || !b->speech.add_bos || b->speech.bos < 0 || (out->len > before && out->data[before] == b->speech.bos)) return MN_OK;
  MN_TRY(mn_ids_add(out, 0));
  memmove(out->data + before + 1, out->data + before, (out->len - before - 1) * sizeof *out->data);
  out->data[before] = b->speech.bos;
  return MN_OK;
}

bool mn_bundle_ends(const mn_bundle *b, int32_t token) {
  for (int i = 0; i < b->speech.n_eos; i++)
    if (b->speech.eos[i] == token) return true;
  return false;
}

static void set_int(const mn_field *f, char *config, int64_t n) {
  if (f->size == sizeof(int)) *(int *)(void *)(config + f->offset) = (int)n;
  else *(int64_t *)(void *)(config + f->offset) = n;
}

typedef struct limiting {
  int64_t n;
  bool any;    /* something holds less than before */
  bool bounds; /* a cache without a window ends streams at n, or before it */
} limiting;

/* Caches without a window; what else a mixer holds, in all of its parts. */
static void limit_mixer(const mn_mixer *m, limiting *l, void (*part)(const mn_mixer *m, limiting *l)) {
  if (!m->def) return;
  char *config = m->config;
  part(m, l);
  if (m->def->base) limit_mixer((const mn_mixer *)(const void *)(config + m->def->base), l, part);
  const mn_mixer_list *list = m->def->list ? (const mn_mixer_list *)(const void *)(config + m->def->list) : NULL;
  for (int i = 0; list && i < list->n; i++) limit_mixer(&list->items[i], l, part);
}
static void limit_context(const mn_mixer *m, limiting *l) {
  const mn_field *f = mn_field_find(m->def->fields, "max_context"), *window = mn_field_find(m->def->fields, "window");
  if (!f) return;
  if (mn_field_int(f, m->config) > l->n) set_int(f, m->config, l->n), l->any = true;
  l->bounds |= !window || mn_field_int(window, m->config) == 0;
}
/* A window that is as wide as any stream is long sees the same, and holds no more: one that may be left out (0) to see all. */
static void limit_window(const mn_mixer *m, limiting *l) {
  const mn_field *f = mn_field_find(m->def->fields, "max_context") ? mn_field_find(m->def->fields, "window") : NULL;
  if (f && f->int_min == 0 && mn_field_int(f, m->config) > l->n) set_int(f, m->config, l->n);
}
static void limit_all(const mn_bundle *b, limiting *l, void (*part)(const mn_mixer *m, limiting *l)) {
  for (mn_model *m = b->model; m; m = m->base)
    for (int i = 0; i < m->stack.n; i++) limit_mixer(&m->stack.blocks[i].mixer, l, part);
}

mn_status mn_bundle_limit(const mn_bundle *b, int64_t n) {
  limiting l = {.n = n};
  limit_all(b, &l, limit_context);
  if (l.bounds) limit_all(b, &l, limit_window);
  return l.any ? MN_OK : mn_fail(MN_ERR_CONFIG, "%lld tokens have no effect: no cache of this model holds more", (long long)n);
}
