/* convert.c - see convert.h. */
#include "checkpoint/convert_internal.h"

#include "base/file.h"
#include "base/output.h"
#include "base/text.h"
#include "format/quant.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WEIGHTS "model.safetensors"

/* ---- one tensor ---- */

static int64_t count_of(const mn_target *t) { return mn_shape_count(&t->shape); }

mn_status mn_target_read(const mn_target *t, int64_t first, int64_t n, float *to) {
  if (t->same) return mn_checkpoint_read(t->same, first, n, MN_F32, to);
  if (!t->values) return mn_pieces_read(t, first, n, to);
  mn_dequantize(t->has, (const uint8_t *)t->values + mn_dtype_bytes(t->has, first), n, to); /* plain numbers: a block is one */
  return MN_OK;
}

/* What is lost, of the values that were made from `from`. */
static mn_status note_error(mn_converting *job, mn_dtype type, const float *from, const void *made, int64_t n) {
  float *back = mn_alloc((size_t)n * sizeof *back);
  if (!back) return MN_ERR_MEMORY;
  double squares = 0, errors = 0;
  mn_dequantize(type, made, n, back);
  for (int64_t i = 0; i < n; i++) {
    const double x = (double)from[i], r = x - (double)back[i];
    squares += x * x;
    errors += r * r;
  }
  job->squares += squares;
  job->errors += errors;
  free(back);
  return MN_OK;
}

static mn_status make(const mn_target *t, int64_t first, int64_t n, void *to) {
  mn_converting *job = t->job;
  float *values = mn_alloc((size_t)n * sizeof *values);
  if (!values) return MN_ERR_MEMORY;
  mn_status status = mn_target_read(t, first, n, values);
  if (status == MN_OK) {
    status = mn_quantize(job->options->pool, t->type, values, n, to);
    if (status != MN_OK && first) status = mn_context(status, "from element %lld", (long long)first);
  }
  if (status == MN_OK) status = note_error(job, t->type, values, to, n);
  free(values);
  return status;
}

mn_status mn_target_source(void *ctx, size_t offset, size_t n, void *to) {
  const mn_target *t = ctx;
  mn_converting *job = t->job;
  const int64_t block = mn_block_values(t->type);
  const size_t bytes = mn_block_bytes(t->type);
  const int64_t first = (int64_t)(offset / bytes) * block, values = (int64_t)(n / bytes) * block;
  if (t->same && t->same->dtype == t->type) memcpy(to, (const uint8_t *)t->same->data + offset, n);
  else if (t->values && t->has == t->type) memcpy(to, (const uint8_t *)t->values + offset, n);
  else MN_TRY(make(t, first, values, to));
  job->done += values;
  if (mn_watch_stops(&job->options->watch) || !mn_watch_tell(&job->options->watch, t->name, job->done, job->total))
    return mn_fail(MN_ERR_CANCELLED, "interrupted while converting");
  return mn_stop_check("converting");
}

/* ---- which tensors, of which types ---- */

static mn_dtype type_of(const mn_target *t, mn_dtype has) {
  const mn_converting *job = t->job;
  const mn_convert_options *o = job->options;
  for (int i = 0; i < o->n_rules; i++)
    if (mn_name_matches(o->rules[i].pattern, t->name)) return o->rules[i].type;
  if (!mn_quant_knows(has)) return has;
  if (job->form == MN_FORM_HF) return o->type != MN_DTYPES ? o->type : has == MN_F16 || has == MN_BF16 ? has : MN_F32;
  const int own = job->from ? -1 : mn_params_find(job->params, t->name);
  if (own >= 0 && !(job->params->info[own].flags & MN_PARAM_STORED)) return has;
  if (o->type != MN_DTYPES) return mn_convert_type(o->type, t->name, &t->shape);
  if (own >= 0) return has;
  return job->arch ? mn_convert_type(has, t->name, &t->shape) : has;
}

mn_status mn_target_choose(mn_target *t, mn_dtype has) {
  char shape[96];
  t->type = type_of(t, has);
  if (!mn_quant_knows(has) && t->type != has)
    return mn_fail(MN_ERR_UNSUPPORTED, "tensor '%s' is of type %s and cannot become %s", t->name, mn_dtype_name(has),
                   mn_dtype_name(t->type));
  if (t->job->form == MN_FORM_HF && t->type != MN_F32 && t->type != MN_F16 && t->type != MN_BF16)
    return mn_fail(MN_ERR_CONFIG, "tensor '%s': a directory of Hugging Face's holds f32, f16 and bf16, no %s; write a GGUF file", t->name,
                   mn_dtype_name(t->type));
  if (mn_shape_holds(&t->shape, t->type)) return MN_OK;
  return mn_fail(MN_ERR_CONFIG, "tensor '%s' %s has no form in %s, whose rows are multiples of %lld", t->name,
                 mn_shape_str(&t->shape, shape), mn_dtype_name(t->type), (long long)mn_block_values(t->type));
}

static mn_status list_same(mn_converting *job) {
  job->targets = mn_arena_alloc(job->arena, (size_t)(mn_checkpoint_count(job->from) + 1) * sizeof *job->targets);
  if (!job->targets) return MN_ERR_MEMORY;
  for (int i = 0; i < mn_checkpoint_count(job->from); i++) {
    const mn_checkpoint_tensor *s = mn_checkpoint_at(job->from, i);
    mn_target *t = &job->targets[job->n++];
    *t = (mn_target){.job = job, .name = s->name, .shape = s->shape, .same = s};
    MN_TRY(mn_target_choose(t, s->dtype));
  }
  return MN_OK;
}

/* Of a model of Mneme's: what may be kept in blocks is known of each parameter. */
static mn_status list_own(mn_converting *job) {
  const mn_params *p = job->params;
  job->targets = mn_arena_alloc(job->arena, (size_t)(p->n_all + 1) * sizeof *job->targets);
  if (!job->targets) return MN_ERR_MEMORY;
  for (int i = 0; i < p->n_all; i++) {
    mn_target *t = &job->targets[job->n++];
    *t = (mn_target){
        .job = job, .name = p->info[i].name, .shape = p->info[i].shape, .values = p->data[i], .has = mn_dtype_plain(p->type[i])};
    MN_TRY(mn_target_choose(t, t->has));
  }
  return MN_OK;
}

/* A pattern that no tensor fits is a misspelt one. */
static mn_status check_rules(const mn_converting *job) {
  for (int k = 0; k < job->options->n_rules; k++) {
    const char *pattern = job->options->rules[k].pattern;
    int i = 0;
    while (i < job->n && !mn_name_matches(pattern, job->targets[i].name)) i++;
    if (i == job->n)
      return mn_fail(MN_ERR_CONFIG, "the pattern '%s' fits no tensor of the new file, which has %d, such as '%s'", pattern, job->n,
                     job->n ? job->targets[job->n / 2].name : "none");
  }
  return MN_OK;
}

static void count(mn_converting *job) {
  mn_convert_report *r = job->report;
  for (int i = 0; job->from && i < mn_checkpoint_count(job->from); i++) r->bytes_before += mn_checkpoint_at(job->from, i)->bytes;
  for (int i = 0; !job->from && i < job->n; i++) r->bytes_before += mn_dtype_bytes(job->targets[i].has, count_of(&job->targets[i]));
  for (int i = 0; i < job->n; i++) {
    const mn_target *t = &job->targets[i];
    const size_t bytes = mn_dtype_bytes(t->type, count_of(t));
    job->total += count_of(t);
    r->bytes += bytes;
    r->tensors_of[t->type]++;
    r->bytes_of[t->type] += bytes;
    r->rewritten += t->same ? t->same->dtype != t->type : t->values ? t->has != t->type : true;
  }
  r->tensors = job->n;
  r->values = job->total;
}

/* ---- GGUF ---- */

/* The number that llama.cpp's programs give to a file of mostly that type. */
static uint32_t file_type(mn_dtype type) {
  static const struct {
    mn_dtype type;
    uint32_t number;
  } known[] = {{MN_F32, 0},   {MN_F16, 1},   {MN_Q4_0, 2},  {MN_Q4_1, 3},  {MN_Q8_0, 7},    {MN_Q5_0, 8},    {MN_Q5_1, 9},  {MN_Q2_K, 10},
               {MN_Q3_K, 11}, {MN_Q4_K, 14}, {MN_Q5_K, 16}, {MN_Q6_K, 18}, {MN_IQ4_NL, 25}, {MN_IQ4_XS, 30}, {MN_BF16, 32}, {MN_MXFP4, 38}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (known[i].type == type) return known[i].number;
  return 0;
}

static mn_dtype most_of(const mn_convert_report *r) { /* by bytes */
  mn_dtype most = MN_F32;
  for (mn_dtype t = 0; t < MN_ALL_TYPES; t++)
    if (r->bytes_of[t] > r->bytes_of[most]) most = t;
  return most;
}

static mn_status put_type(const mn_converting *job, mn_gguf_writer *w) {
  const mn_dtype asked = job->options->type;
  MN_TRY(mn_gguf_writer_u32(w, "general.quantization_version", 2));
  return mn_gguf_writer_u32(w, "general.file_type", file_type(asked != MN_DTYPES ? asked : most_of(job->report)));
}

static mn_status copy_metadata(const mn_converting *job, mn_gguf_writer *w) {
  const mn_gguf *g = job->from->gguf;
  static const char *const anew[] = {"general.file_type", "general.quantization_version", NULL},
                           *const split[] = {"split.no", "split.count", "split.tensors.count", NULL}; /* of several files one is made */
  for (int i = 0; i < mn_gguf_meta_count(g); i++) {
    const mn_gguf_meta *m = mn_gguf_meta_at(g, i);
    bool skip = false;
    for (int k = 0; split[k]; k++) skip = skip || !strcmp(m->key, split[k]);
    for (int k = 0; anew[k]; k++) skip = skip || (job->report->rewritten && !strcmp(m->key, anew[k]));
    if (!skip) MN_TRY(mn_gguf_writer_copy(w, m));
  }
  return job->report->rewritten ? put_type(job, w) : MN_OK;
}

static mn_status put_metadata(const mn_converting *job, mn_gguf_writer *w) {
  if (!job->from) {
    MN_TRY(mn_convert_own_metadata(job, w));
    return put_type(job, w);
  }
  if (!job->arch) return copy_metadata(job, w);
  MN_TRY(mn_convert_metadata(job, w));
  return put_type(job, w);
}

static mn_status write_gguf(mn_converting *job, const char *to) {
  mn_gguf_writer *w = mn_gguf_writer_new();
  mn_status status = w ? put_metadata(job, w) : MN_ERR_MEMORY;
  for (int i = 0; i < job->n && status == MN_OK; i++) {
    mn_target *t = &job->targets[i];
    const mn_gguf_type_info *type = mn_gguf_type_of(t->type);
    if (type) status = mn_gguf_writer_add_source(w, t->name, type->type, &t->shape, mn_target_source, t);
    else status = mn_fail(MN_ERR_UNSUPPORTED, "tensor '%s': GGUF has no type for %s", t->name, mn_dtype_name(t->type));
  }
  if (status == MN_OK) status = mn_gguf_writer_save(w, to);
  mn_gguf_writer_free(w);
  return status;
}

/* ---- Hugging Face ---- */

/* Takes away what was written, of a directory the first `n` files. */
static void take_back(const mn_converting *job, const char *to, size_t n) {
  static const char *const names[] = {WEIGHTS,
                                      "config.json",
                                      "tokenizer.json",
                                      "tokenizer_config.json",
                                      "modules.json",
                                      "generation_config.json",
                                      "1_Pooling/config.json",
                                      "sentence_bert_config.json"};
  const mn_kept_message why = mn_message_keep();
  const size_t all = sizeof names / sizeof *names;
  if (job->form == MN_FORM_GGUF) (void)mn_file_remove(to);
  for (size_t i = 0; job->form == MN_FORM_HF && i < all && i < n; i++) {
    char *path = mn_path_join(to, names[i]);
    if (path) (void)mn_file_remove(path);
    free(path);
  }
  char *folder = job->form == MN_FORM_HF && n >= all ? mn_path_join(to, "1_Pooling") : NULL;
  if (folder) (void)rmdir(folder);
  free(folder);
  mn_message_restore(&why);
}

static mn_status save_safetensors(mn_converting *job, const char *dir) {
  char *path = mn_path_join(dir, WEIGHTS);
  mn_st_writer *w = mn_st_writer_new();
  mn_status status = path && w ? mn_st_writer_meta(w, "format", "pt") : MN_ERR_MEMORY; /* what transformers wants to read there */
  for (int i = 0; i < job->n && status == MN_OK; i++) {
    mn_target *t = &job->targets[i];
    status = mn_st_writer_add_source(w, t->name, t->type, &t->shape, mn_target_source, t);
  }
  mn_file_stamp none = {.exists = false};
  if (status == MN_OK) status = mn_st_writer_save_over(w, path, &none);
  mn_st_writer_free(w);
  free(path);
  return status;
}

/* Files of a directory but `ours` (NULL: none) and what writers of ours have there for a while; the first one's name in an arena. */
static mn_status others_in(mn_converting *job, const char *dir, const char *ours, size_t *n, const char **first) {
  char **names = NULL;
  size_t all = 0;
  *n = 0, *first = NULL;
  MN_TRY(mn_dir_list(dir, &names, &all));
  for (size_t i = 0; i < all; i++) {
    if (mn_claim_is_lock(names[i]) || mn_file_is_temp(names[i]) || (ours && !strcmp(names[i], ours))) continue;
    if (!(*n)++) *first = mn_arena_strdup(job->arena, names[i]);
  }
  mn_dir_list_free(names, all);
  return *n && !*first ? MN_ERR_MEMORY : MN_OK;
}

/* A directory that is not there, and is made, or holds nothing; from now on no other conversion writes there. */
static mn_status need_empty(mn_converting *job, const char *dir) {
  mn_file_info info;
  size_t n;
  const char *first;
  MN_TRY(mn_file_stat(dir, &info));
  if (info.exists && !info.is_dir)
    return mn_fail(MN_ERR_CONFIG, "%s is a file; a GGUF file's name ends in .gguf, and else a directory is made", dir);
  if (!info.exists) MN_TRY(mn_make_dirs(dir));
  job->made = !info.exists;
  mn_output_tidy(dir);
  MN_TRY(others_in(job, dir, NULL, &n, &first));
  if (n) return mn_fail(MN_ERR_CONFIG, "%s holds %zu files; a model is written to a new or an empty directory", dir, n);
  char *weights = mn_path_join(dir, WEIGHTS);
  mn_status status = weights ? mn_claim_take(weights, &job->claim) : MN_ERR_MEMORY;
  free(weights);
  return status;
}

/* What somebody else has put there meanwhile is left as it is. */
static mn_status write_hf(mn_converting *job, const char *dir) {
  size_t n;
  const char *first;
  MN_TRY(save_safetensors(job, dir));
  mn_status status = others_in(job, dir, WEIGHTS, &n, &first);
  if (status == MN_OK && n)
    status = mn_fail(MN_ERR_IO, "%s/%s appeared there meanwhile; a model is written to a directory of its own", dir, first);
  job->alone = status == MN_OK;
  if (status != MN_OK) take_back(job, dir, 1);
  return status == MN_OK ? mn_convert_config(job, dir) : status;
}

/* ---- the whole ---- */

static bool ends_with(const char *s, const char *end) {
  const size_t n = strlen(s), m = strlen(end);
  return n >= m && !strcmp(s + n - m, end);
}

static mn_status refuse_itself(const char *from, const char *to) {
  char *a = realpath(from, NULL), *b = realpath(to, NULL);
  const bool same = a && b && !strcmp(a, b);
  free(a);
  free(b);
  return same ? mn_fail(MN_ERR_ARG, "%s is what is read; write to another name", to) : MN_OK;
}

static mn_status write_checked(mn_converting *job, const char *to) {
  mn_status status = job->form == MN_FORM_GGUF ? write_gguf(job, to) : write_hf(job, to);
  const bool written = status == MN_OK;
  if (status == MN_OK) status = job->from ? mn_checkpoint_intact(job->from) : mn_params_check_files(job->params);
  if (status == MN_OK && (job->arch || !job->from)) status = mn_convert_verify(job, to);
  if (status != MN_OK && (job->form == MN_FORM_HF ? job->alone : written)) take_back(job, to, SIZE_MAX);
  return status;
}

static mn_status open_own(mn_converting *job) {
  MN_TRY(mn_backend_open(NULL, 1, &job->backend));
  MN_TRY(mn_model_open_dir(job->path, job->backend, MN_F32, &job->model, &job->params));
  const mn_value *config = mn_model_to_config(job->arena, job->model);
  return config && (job->recipe = mn_value_get(config, "model")) ? MN_OK : MN_ERR_MEMORY;
}

static mn_status list(mn_converting *job, const char *to) {
  if (!job->from && job->form == MN_FORM_HF)
    return mn_fail(MN_ERR_UNSUPPORTED, "%s is a model of Mneme's, which no other program knows; --out FILE.gguf makes a GGUF file of it",
                   job->path);
  if (job->form == MN_FORM_HF) MN_TRY(need_empty(job, to));
  if (!job->from) {
    MN_TRY(open_own(job));
    return list_own(job);
  }
  if (mn_checkpoint_form_of(job->from) != job->form) {
    MN_TRY(mn_convert_open_model(job));
    return mn_convert_list_pieces(job);
  }
  if (job->form == MN_FORM_GGUF) return list_same(job);
  return mn_fail(MN_ERR_UNSUPPORTED, "%s is a directory of Hugging Face's already; --out FILE.gguf makes a GGUF file of it", job->path);
}

static mn_status convert(mn_converting *job, const char *to) {
  MN_TRY(list(job, to));
  MN_TRY(check_rules(job));
  count(job);
  MN_TRY(write_checked(job, to));
  if (job->squares > 0) job->report->error = sqrt(job->errors / job->squares);
  return MN_OK;
}

mn_status mn_convert(const char *from, const char *to, const mn_convert_options *options, mn_convert_report *report) {
  mn_converting job = {.options = options, .report = report, .path = from, .form = ends_with(to, ".gguf") ? MN_FORM_GGUF : MN_FORM_HF};
  mn_checkpoint_form form;
  *report = (mn_convert_report){0};
  MN_TRY(refuse_itself(from, to));
  MN_TRY(mn_checkpoint_form_at(from, &form));
  if (form != MN_FORM_MNEME) MN_TRY(mn_checkpoint_open(from, &job.from));
  job.arena = mn_arena_new();
  mn_status status = job.arena ? convert(&job, to) : MN_ERR_MEMORY;
  mn_claim_leave(job.claim);
  if (status != MN_OK && job.made) (void)rmdir(to); /* where it is empty again */
  mn_arch_pieces_free(job.n_from, job.pieces);
  mn_params_free(job.params);
  mn_model_free(job.model);
  mn_backend_free(job.backend);
  free(job.turned);
  mn_checkpoint_close(job.from);
  if (job.arena) mn_arena_free(job.arena);
  return status;
}
