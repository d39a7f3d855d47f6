/* params_file.c - the files that a model is kept in: weights, read and written whole or not at all, and its configuration. */
#include "model/params.h"

#include "base/file.h"
#include "format/json.h"
#include "format/safetensors.h"
#include "format/seal.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a training step alone has is no part of the model. */
static bool of_model(const mn_params *p, int i) { return i < p->n_model || i >= p->n; }

typedef struct piece {
  const mn_params *p;
  int i;
} piece;

static mn_status source(void *ctx, size_t offset, size_t n, void *dst) {
  const piece *x = ctx;
  mn_backend *b = x->p->backend;
  MN_TRY(b->download(b, dst, (const char *)x->p->data[x->i] + offset, n));
  return mn_params_check_files(x->p);
}

mn_status mn_params_save_as(const mn_params *p, const mn_origin *origin, const char *path, mn_file_stamp *stamp) {
  mn_st_writer *w = mn_st_writer_new();
  piece *pieces = mn_alloc((size_t)(p->n_all + 1) * sizeof *pieces);
  mn_status status = w && pieces ? mn_st_writer_meta(w, "format", "mneme") : MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_origin_write(origin, w);
  for (int i = 0; i < p->n_all && status == MN_OK; i++) {
    if (!of_model(p, i)) continue;
    if (!p->data[i]) status = mn_fail(MN_ERR_ARG, "parameter %s has no value to save: draw or load it first", p->info[i].name);
    pieces[i] = (piece){p, i};
    if (status == MN_OK) status = mn_st_writer_add_source(w, p->info[i].name, p->type[i], &p->info[i].shape, source, &pieces[i]);
  }
  if (status == MN_OK) status = mn_st_writer_save_over(w, path, stamp);
  mn_st_writer_free(w);
  free(pieces);
  return status;
}

mn_status mn_params_save(const mn_params *p, const char *path) { return mn_params_save_as(p, &p->origin, path, NULL); }

/* Every tensor of a file goes from its pages to its place, checked on the way, in as many threads as there are. */
typedef struct reading {
  mn_params *p;
  const mn_st *st;
  const mn_st_tensor **from;
  atomic_bool stopped;
  struct outcome {
    mn_status status;
    char *why; /* a message belongs to its thread */
  } * outcome; /* [n] */
} reading;

typedef struct place {
  mn_backend *backend;
  char *data;
} place;

static mn_status put(void *ctx, size_t offset, size_t n, const void *bytes) {
  const place *x = ctx;
  return x->backend->upload(x->backend, x->data + offset, bytes, n);
}

/* What is mapped is looked at, and stays where it lies. */
static mn_status stay(void *ctx, size_t offset, size_t n, const void *bytes) {
  (void)ctx, (void)offset, (void)n, (void)bytes;
  return MN_OK;
}

static void read_one(void *ctx, int64_t i, int thread) {
  reading *r = ctx;
  mn_params *p = r->p;
  (void)thread;
  if (mn_stopped()) atomic_store(&r->stopped, true);
  if (atomic_load(&r->stopped)) return;
  if (!of_model(p, (int)i)) return;
  place x = {p->backend, p->data[i]};
  mn_status status = mn_st_read_to(r->st, r->from[i], p->type[i], true, p->owner[i] == MN_PARAM_MAPPED ? stay : put, &x);
  if (status != MN_OK) r->outcome[i] = (struct outcome){status, mn_strdup(mn_message())};
}

static mn_status read_all(mn_params *p, const mn_st *st, const mn_st_tensor **from) {
  reading r = {.p = p, .st = st, .from = from};
  r.outcome = mn_calloc((size_t)p->n_all + 1, sizeof *r.outcome);
  if (!r.outcome) return MN_ERR_MEMORY;
  mn_pool_run(p->backend->pool, p->n_all, read_one, &r);
  mn_status status = mn_stop_check("reading the weights");
  for (int i = 0; i < p->n_all; i++) {
    if (status == MN_OK && r.outcome[i].status != MN_OK)
      status = mn_fail(r.outcome[i].status, "%s", r.outcome[i].why ? r.outcome[i].why : mn_status_name(r.outcome[i].status));
    free(r.outcome[i].why);
  }
  free(r.outcome);
  return status;
}

/* A tensor that is stored twice, as a tied head is by some programs, must be the same twice. */
static mn_status check_copy(const mn_params *p, int i, const mn_st *st, const mn_st_tensor *first) {
  const mn_st_tensor *copy = p->info[i].copy ? mn_st_find(st, p->info[i].copy) : NULL;
  if (!copy) return MN_OK;
  MN_TRY(mn_st_need(st, copy->name, &p->info[i].shape, &copy));
  size_t bytes = mn_params_bytes(p, i);
  void *a = mn_alloc(bytes), *b = mn_alloc(bytes);
  mn_status status = a && b ? mn_st_read(st, first, p->type[i], a) : MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_st_read(st, copy, p->type[i], b);
  if (status == MN_OK && memcmp(a, b, bytes) != 0) {
    size_t size = mn_dtype_size(p->type[i]), k = 0;
    while (memcmp((char *)a + k * size, (char *)b + k * size, size) == 0) k++;
    status = mn_fail(MN_ERR_FORMAT,
                     "%s: tensor '%s' should repeat '%s', which this model uses in its place, but differs from it (element %zu); if the "
                     "model has a head of its own, its configuration must say so (tie_embeddings: false)",
                     mn_st_path(st), copy->name, first->name, k);
  }
  free(a);
  free(b);
  return status;
}

/* Where the tensor's values will lie. */
static mn_status take_place(mn_params *p, int i, const mn_st_tensor *from, bool map) {
  const size_t size = mn_dtype_size(p->type[i]);
  const bool fits = from->dtype == p->type[i] && from->bytes && (uintptr_t)from->data % size == 0;
  if (!map || !fits || !p->backend->on_host) return mn_params_writable(p, i);
  p->data[i] = (void *)(uintptr_t)from->data; /* no plan that writes is bound to it (mn_params_writable) */
  p->owner[i] = MN_PARAM_MAPPED;
  return MN_OK;
}

/* A set that could not be mapped is as it was: empty, with the memory it took. */
static void let_go(mn_params *p) {
  for (int i = 0; i < p->n_all; i++) {
    if (p->owner[i] != MN_PARAM_MAPPED) continue;
    p->data[i] = NULL;
    p->owner[i] = MN_PARAM_EMPTY;
  }
}

static mn_status load(mn_params *p, const mn_st *st, bool map) {
  const mn_st_tensor **from = mn_calloc((size_t)p->n_all + 1, sizeof *from);
  const char **names = mn_calloc((size_t)(2 * p->n_all) + 1, sizeof *names);
  mn_status status = from && names ? MN_OK : MN_ERR_MEMORY;
  int n = 0;
  for (int i = 0; i < p->n_all && status == MN_OK; i++) {
    if (!of_model(p, i)) continue;
    names[n++] = p->info[i].name;
    if (p->info[i].copy) names[n++] = p->info[i].copy;
  }
  if (status == MN_OK) status = mn_st_only(st, names, n, "a parameter of this model");
  for (int i = 0; i < p->n_all && status == MN_OK; i++)
    if (of_model(p, i)) status = mn_st_need(st, p->info[i].name, &p->info[i].shape, &from[i]);
  for (int i = 0; i < p->n_all && status == MN_OK; i++)
    if (from[i]) status = check_copy(p, i, st, from[i]);
  for (int i = 0; i < p->n_all && status == MN_OK; i++)
    if (from[i]) status = take_place(p, i, from[i], map);
  if (status == MN_OK) status = read_all(p, st, from);                /* nothing is overwritten before all is known to fit */
  for (int i = 0; i < p->n_all && p->digests && status == MN_OK; i++) /* what was read has just been held against its checksum */
    if (from[i]) snprintf(p->digests[i], sizeof p->digests[i], "%s", from[i]->dtype == p->type[i] ? from[i]->checksum : "");
  free(from);
  free(names);
  return status;
}

mn_status mn_params_load(mn_params *p, const char *path) {
  mn_st *st;
  MN_TRY(mn_st_open(path, &st));
  mn_status status = load(p, st, false);
  mn_st_close(st);
  return status;
}

static mn_status st_intact(const void *st) { return mn_st_intact(st); }
static void st_close(void *st) { mn_st_close(st); }

/* Takes the file over. */
static mn_status map(mn_params *p, mn_st *st) {
  mn_status status = MN_OK;
  bool any = false;
  for (int i = 0; i < p->n_all && status == MN_OK; i++)
    if (p->owner[i] != MN_PARAM_EMPTY && of_model(p, i))
      status = mn_fail(MN_ERR_ARG, "parameter %s has a value already: a file is mapped for an empty set", p->info[i].name);
  if (status == MN_OK) {
    status = load(p, st, true);
    if (status != MN_OK) let_go(p);
  }
  for (int i = 0; i < p->n_all && status == MN_OK; i++) any = any || p->owner[i] == MN_PARAM_MAPPED;
  if (any) p->file = (mn_param_file){st, mn_st_path(st), st_intact, st_close};
  else mn_st_close(st);
  return status;
}

mn_status mn_params_map(mn_params *p, const char *path) {
  mn_st *st;
  MN_TRY(mn_st_open(path, &st));
  return map(p, st);
}

const mn_value *mn_model_to_config(mn_arena *arena, const mn_model *m) {
  const mn_value *parts[] = {mn_model_to_value(arena, m), m->reads};
  return parts[0] ? mn_value_map(arena, m->reads ? 2 : 1, (const char *const[]){"model", "reads"}, parts) : NULL;
}

mn_status mn_model_read_config(mn_arena *arena, const char *path, const mn_value **root, bool *sealed) {
  MN_TRY(mn_json_read_sealed(arena, path, root, sealed));
  if (!mn_value_get(*root, "model")) return mn_fail(MN_ERR_FORMAT, "%s: has no 'model'; is it a directory made by mneme train?", path);
  for (size_t i = 0; i < (*root)->count; i++) {
    const mn_entry *e = &(*root)->as.entries[i];
    char shown[MN_PRINTABLE];
    if (strcmp(e->key, "model") != 0 && strcmp(e->key, "reads") != 0)
      return mn_fail(MN_ERR_FORMAT, "%s:%d: unknown key '%s'; it has a model, reads and a checksum", path, e->line,
                     mn_printable(e->key, shown));
  }
  return MN_OK;
}

mn_status mn_params_keep_digests(mn_params *p) {
  p->digests = mn_arena_alloc(p->arena, (size_t)(p->n_all + 1) * sizeof *p->digests);
  return p->digests ? MN_OK : MN_ERR_MEMORY;
}

static mn_status digest_of(const mn_params *p, int i, char hex[MN_HASH_HEX]) {
  char *kept = p->digests && p->digests[i][0] != MN_DIGEST_CHANGES ? p->digests[i] : NULL;
  if (!kept || !*kept) {
    void *host;
    mn_status status = mn_params_on_host(p, i, &host);
    if (status == MN_OK) mn_content_hash(host, mn_params_bytes(p, i), hex);
    free(host);
    MN_TRY(status);
    if (kept) memcpy(kept, hex, MN_HASH_HEX);
  } else {
    memcpy(hex, kept, MN_HASH_HEX);
  }
  return MN_OK;
}

static mn_status keep_origin(mn_params *p, const mn_st *st) {
  mn_origin_read(st, &p->origin);
  if (p->origin.run && !(p->origin.run = mn_arena_strdup(p->arena, p->origin.run))) return MN_ERR_MEMORY;
  return MN_OK;
}

static mn_status from_dir(const char *dir, mn_backend *b, mn_dtype dtype, bool mapped, mn_model **model, mn_params **params) {
  *model = NULL;
  *params = NULL;
  char *config = mn_path_join(dir, "config.json"), *weights = mn_path_join(dir, "model.safetensors");
  mn_arena *arena = mn_arena_new();
  const mn_value *root = NULL;
  bool sealed;
  mn_origin origin;
  mn_st *st = NULL;
  mn_status status = config && weights && arena ? mn_model_read_config(arena, config, &root, &sealed) : MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_st_open(weights, &st);
  if (status == MN_OK) mn_origin_read(st, &origin);
  if (status == MN_OK) status = mn_origin_check_config(&origin, weights, config, root, sealed);
  if (status == MN_OK) status = mn_model_parse(mn_value_get(root, "model"), NULL, 0, model);
  const mn_value *reads = status == MN_OK ? mn_value_get(root, "reads") : NULL;
  if (reads && !((*model)->reads = mn_value_copy((*model)->arena, reads))) status = MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_params_declare(*model, b, dtype, params);
  if (status == MN_OK) status = mn_params_keep_digests(*params);
  if (status == MN_OK) status = keep_origin(*params, st);
  if (status == MN_OK && mapped) {
    status = map(*params, st);
    st = NULL;
  } else if (status == MN_OK) {
    status = load(*params, st, false);
  }
  if (status != MN_OK) {
    mn_params_free(*params);
    mn_model_free(*model);
    *params = NULL;
    *model = NULL;
  }
  mn_st_close(st);
  mn_arena_free(arena);
  free(config);
  free(weights);
  return status;
}

mn_status mn_model_load_dir(const char *dir, mn_backend *b, mn_dtype dtype, mn_model **model, mn_params **params) {
  return from_dir(dir, b, dtype, false, model, params);
}

mn_status mn_model_open_dir(const char *dir, mn_backend *b, mn_dtype dtype, mn_model **model, mn_params **params) {
  return from_dir(dir, b, dtype, true, model, params);
}

mn_status mn_model_fingerprint(const mn_model *m, const mn_params *p, char hex[33]) {
  mn_arena *arena = mn_arena_new();
  mn_text text = {0};
  const mn_value *v = arena ? mn_model_to_value(arena, m) : NULL;
  mn_status status = v ? mn_value_to_json(v, 0, &text) : MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_params_check_files(p); /* digests that are kept are of what was opened */
  for (int i = 0; i < p->n_all && status == MN_OK; i++) {
    char digest[MN_HASH_HEX], shape[96];
    if (!of_model(p, i)) continue;
    status = digest_of(p, i, digest);
    if (status != MN_OK) break;
    mn_text_addf(&text, "\n%s %s %s %s", p->info[i].name, mn_dtype_name(p->type[i]), mn_shape_str(&p->info[i].shape, shape), digest);
  }
  if (status == MN_OK) status = mn_text_status(&text);
  if (status == MN_OK) mn_content_hash(text.data, text.len, hex);
  mn_text_free(&text);
  mn_arena_free(arena);
  return status;
}
