/* recipe.c - see recipe.h. Tables of fields say what a recipe may hold; here is only what fields cannot say about each
 * other. */
#include "train/recipe.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/dir.h"
#include "base/file.h"
#include "format/yaml.h"
#include "train/groups.h"
#include "train/recipe_stages.h"

static const char *const tokenizers[] = {"bytes", "bpe", "file", NULL};
static const char *const patterns[] = {"gpt2", "cl100k", "llama3", NULL};                /* in the order of mn_pattern */
static const char *const activations[] = {"keep", "recompute", "recompute_norms", NULL}; /* of mn_activation_policy */

typedef struct sections { /* the recipe's top level */
  const char *name;
  int64_t seed;
  const mn_value *tokenizer, *data, *model, *objective, *init, *train, *stages;
} sections;
#define S sections
const mn_field mn_recipe_fields[] = {
    MN_FIELD_STRING(S, name, NULL, "what the run is called; none: the file's name"),
    MN_FIELD_INT(S, seed, 1, 0, INT64_MAX, "of the parameters' start, and of the data's order unless data.seed is given"),
    MN_FIELD_VALUE(S, tokenizer, "how text becomes tokens: {type: bytes}"),
    MN_FIELD_VALUE(S, data, "what is learned: {files: [...]}, {task: {name: ...}}, or {type: series, ...}"),
    MN_FIELD_VALUE(S, model, "what learns"),
    MN_FIELD_VALUE(S, objective, "what for: {type: next_token}, or a list of objectives with weights; none: next_token", MN_SPARSE),
    MN_FIELD_VALUE(S, init, "the values to begin with: {from: DIR, rename: {...}, missing: draw}; none: drawn", MN_SPARSE),
    MN_FIELD_VALUE(S, train, "how"),
    MN_FIELD_VALUE(S, stages, "one training after the other on the same weights: a list of {steps, train, data, objective}", MN_SPARSE),
    MN_FIELD_END};
#undef S
#define S mn_tokenizer_config
const mn_field mn_tokenizer_fields[] = {
    MN_FIELD_ENUM(S, type, tokenizers, 0, "bytes; bpe, trained on the training text; or a tokenizer.json"),
    MN_FIELD_INT(S, vocab_size, 4096, 257, 1 << 24, "bpe: tokens to make"),
    MN_FIELD_ENUM(S, pattern, patterns, 0, "bpe: how text is split before merging"),
    MN_FIELD_STRING(S, file, NULL, "file: path of a tokenizer.json"), MN_FIELD_END};
#undef S
#define S mn_train_config
#define MAP_FIELD(key, member, text)                                                                                                       \
  { .name = key, .type = MN_TYPE_VALUE, .offset = offsetof(S, member), .size = sizeof(const mn_value *), .help = (text) }
const mn_field mn_train_fields[] = {
    MN_FIELD_INT(S, steps, 1000, 1, 1000000000000, "updates of the parameters"),
    MN_FIELD_INT(S, batch, 8, 1, 1 << 16, "sequences B of a batch"),
    MN_FIELD_INT(S, seq_len, 0, 0, 1 << 24, "tokens T of a sequence; 0: the task's, or 256"),
    MN_FIELD_INT(S, accumulate, 1, 1, 1 << 16, "batches whose gradients make one update"),
    MN_FIELD_ENUM(S, precision, mn_precisions, MN_PRECISION_F32, "type of activations in products; parameters and sums are f32"),
    MAP_FIELD("optimizer", optimizer_map, "{type: adamw, lr: 1e-3, ...}"),
    {.name = "groups",
     .type = MN_TYPE_VALUE,
     .offset = offsetof(S, groups_list),
     .size = sizeof(const mn_value *),
     .help = "a list of {match: names, lr, weight_decay, optimizer, frozen}: what holds for some parameters; the first that fits counts",
     MN_SPARSE},
    MAP_FIELD("schedule", schedule_map, "{type: cosine, warmup_steps: 0, ...}"),
    MN_FIELD_FLOAT(S, clip_norm, 1.0, 0, INFINITY, "largest norm of all gradients together; 0: no clipping"),
    MN_FIELD_INT(S, validate_every, 0, 0, INT64_MAX, "steps between looks at held-out data; 0: at the end only"),
    MN_FIELD_INT(S, validation_batches, 16, 1, 1 << 30, "batches of such a look, at most"),
    MN_FIELD_INT(S, checkpoint_every, 0, 0, INT64_MAX, "steps between checkpoints; 0: by the clock only"),
    MN_FIELD_FLOAT(S, checkpoint_minutes, 10, 0, 1e6, "minutes between checkpoints; 0: by steps only"),
    MN_FIELD_INT(S, keep_last, 2, 1, 1 << 20, "checkpoints that are kept"),
    MN_FIELD_INT(S, log_every, 10, 1, INT64_MAX, "steps between records of the metrics"),
    MN_FIELD_BOOL(S, carry_state, false,
                  "streams go on from step to step: truncated back-propagation through time; a learned start of a state (Titans' "
                  "M_0) has a gradient only in steps where a stream begins"),
    MN_FIELD_ENUM(S, activations, activations, 2, "how the forward pass's results reach the backward pass"),
    MN_FIELD_INT(S, threads, 0, 0, 4096, "0: all usable processors"),
    MN_FIELD_STRING(S, from, NULL, "a trained model's directory: its weights and tokenizer are what a new run begins with"),
    MN_FIELD_END};
#undef S

/* ---- reading ---- */

static const mn_key_use tokenizer_uses[] = {{"vocab_size", "bpe"}, {"pattern", "bpe"}, {0}};
static const mn_key_use optimizer_uses[] = {{"momentum", "muon"}, {0}};
static const mn_key_use schedule_uses[] = {{"decay_steps", "wsd"}, {"min_ratio", "cosine linear wsd"}, {0}};

static mn_status check_tokenizer(const mn_recipe *r, const mn_value *map) {
  MN_TRY(mn_config_uses(map, "tokenizer", tokenizer_uses, tokenizers[r->tokenizer.type]));
  if (r->tokenizer.type == MN_TOKENIZER_FILE && !r->tokenizer.file)
    return mn_config_fail(map, "tokenizer", "file", "is missing: type file needs the path of a tokenizer.json");
  if (r->tokenizer.type != MN_TOKENIZER_FILE && r->tokenizer.file)
    return mn_config_fail(map, "tokenizer", "file", "is given, but type is %s; set type: file", tokenizers[r->tokenizer.type]);
  return MN_OK;
}

static bool streams(const mn_recipe *r) { return r->source.def == &mn_source_text && r->data.order == MN_ORDER_SEQUENTIAL; }

static mn_status check_train(const mn_recipe *r, const mn_value *map) {
  const mn_train_config *t = &r->train;
  if (t->schedule.warmup_steps > t->steps)
    return mn_config_fail(map, "train", "schedule", "warms up for %lld steps, but train.steps is %lld", (long long)t->schedule.warmup_steps,
                          (long long)t->steps);
  if (t->carry_state && r->has_data && !streams(r))
    return mn_config_fail(map, "train", "carry_state", "needs text that goes on from step to step: set data.order: sequential%s",
                          r->source.def != &mn_source_text ? " and train on files" : "");
  if (t->checkpoint_every == 0 && t->checkpoint_minutes <= 0)
    return mn_config_fail(map, "train", "checkpoint_every", "and checkpoint_minutes cannot both be 0: a killed run would be lost");
  if (t->batch * (t->seq_len ? t->seq_len : 1) > INT32_MAX)
    return mn_config_fail(map, "train", "batch", "times seq_len is %lld tokens a step, more than %d; lower one of them and accumulate",
                          (long long)(t->batch * t->seq_len), INT32_MAX);
  return MN_OK;
}

static mn_status check_lengths(const mn_recipe *r, const mn_model *m);

/* The model is built when the vocabulary is known; its keys are looked at now, before text is tokenised. */
static mn_status check_model(const mn_recipe *r, const mn_value *root) {
  if (!r->model || r->model->kind != MN_MAP)
    return mn_config_fail(root, NULL, "model", "must be a map: {d_model: 128, layers: 4, block: {...}}");
  mn_model *m;
  MN_TRY(mn_model_parse(r->model, "model", 1, &m));
  mn_status status = check_lengths(r, m);
  mn_model_free(m);
  return status;
}

static mn_status read_source(mn_recipe *r, const mn_value *map) {
  MN_TRY(mn_source_parse(r->arena, map, "data", r->seed, &r->source));
  mn_config_defaults(mn_data_fields, &r->data);
  r->data.seed = r->source.seed;
  if (r->source.def->fields != mn_data_fields) {
    r->has_data = true;
    return MN_OK;
  }
  r->data = *(const mn_data_config *)r->source.config;
  r->source.config = &r->data;
  r->has_data = r->data.files.count || r->data.task;
  return MN_OK;
}

static mn_status read_sections(mn_recipe *r, const mn_value *root, sections *s) {
  mn_train_config *t = &r->train;
  MN_TRY(mn_config_read(r->arena, root, NULL, mn_recipe_fields, s));
  r->name = s->name ? s->name : "run";
  const char *fault = mn_name_fault(r->name); /* it names a directory in `compare` */
  if (fault) return mn_config_fail(root, NULL, "name", "%s; give the run a plain name", fault);
  r->seed = s->seed;
  r->model = s->model;
  MN_TRY(mn_config_read(r->arena, s->tokenizer, "tokenizer", mn_tokenizer_fields, &r->tokenizer));
  MN_TRY(read_source(r, s->data));
  r->objective = s->objective;
  MN_TRY(mn_objectives_parse(r->arena, s->objective, "objective", &r->objectives));
  if (s->init && s->init->kind != MN_NULL) {
    MN_TRY(mn_config_read(r->arena, s->init, "init", mn_init_fields, &r->init));
    MN_TRY(mn_init_check(s->init, "init", &r->init));
  }
  MN_TRY(mn_config_read(r->arena, s->train, "train", mn_train_fields, t));
  MN_TRY(mn_config_read(r->arena, t->optimizer_map, "train.optimizer", mn_optimizer_fields, &t->optimizer));
  MN_TRY(mn_config_uses(t->optimizer_map, "train.optimizer", optimizer_uses, mn_optimizer_fields[0].names[t->optimizer.type]));
  MN_TRY(mn_optimizer_check(t->optimizer_map, "train.optimizer", &t->optimizer));
  MN_TRY(mn_groups_parse(r->arena, t->groups_list, "train.groups", &t->optimizer, &t->groups));
  MN_TRY(mn_config_read(r->arena, t->schedule_map, "train.schedule", mn_schedule_fields, &t->schedule));
  return mn_config_uses(t->schedule_map, "train.schedule", schedule_uses, mn_schedule_fields[0].names[t->schedule.type]);
}

/* `whole`: a training, which needs data and a model. Otherwise only what is there is checked. */
static mn_status parse(mn_recipe *r, const mn_value *root, bool whole) {
  sections s;
  mn_train_config *t = &r->train;
  MN_TRY(read_sections(r, root, &s));
  MN_TRY(check_tokenizer(r, s.tokenizer));
  if ((whole || s.data) && !r->has_data)
    return mn_config_fail(root, NULL, "data", "needs files: [...] to train on, or a task: {name: ...}");
  if (whole && !t->seq_len && r->source.def->seq_len) MN_TRY(r->source.def->seq_len(r->source.config, &t->seq_len));
  if (!t->seq_len) t->seq_len = 256;
  if (r->init.from && t->from) return mn_config_fail(s.init, "init", "from", "and train.from are both given; remove one");
  MN_TRY(mn_stages_parse(r, root, s.stages));
  MN_TRY(check_train(r, s.train));
  return whole || s.model ? check_model(r, root) : MN_OK;
}

mn_status mn_recipe_check(const mn_value *root) {
  mn_arena *arena = mn_arena_new();
  mn_recipe r = {.arena = arena};
  mn_status status = arena ? parse(&r, root, false) : MN_ERR_MEMORY;
  mn_recipe_free(&r);
  return status;
}

static mn_status check_groups(mn_recipe *r, const mn_value *root, const mn_param_info *info, int n) {
  MN_TRY(parse(r, root, false));
  for (int i = 0; i < (r->n_stages ? r->n_stages : 1); i++) { /* a stage has the recipe's groups, or its own */
    const mn_recipe *of = r->n_stages ? r->stages[i].recipe : r;
    const mn_param_group **group = mn_arena_alloc(r->arena, ((size_t)n + 1) * sizeof *group);
    mn_status status = group ? mn_groups_assign(&of->train.groups, info, n, group) : MN_ERR_MEMORY;
    if (status != MN_OK) return i ? mn_context(status, "stages[%d]", i) : status;
  }
  return MN_OK;
}

mn_status mn_recipe_check_groups(const mn_value *root, const mn_param_info *info, int n) {
  mn_recipe r = {.arena = mn_arena_new()};
  mn_status status = r.arena ? check_groups(&r, root, info, n) : MN_ERR_MEMORY;
  mn_recipe_free(&r);
  return status;
}

static mn_status vocabulary(mn_recipe *r, const mn_value *root, int64_t *out) {
  MN_TRY(parse(r, root, false));
  if (!r->has_data && !mn_value_get(root, "tokenizer")) return MN_OK;
  const bool text = !r->has_data || (r->source.def->reads_text && r->source.def->reads_text(r->source.config));
  if (text && r->tokenizer.type == MN_TOKENIZER_BPE) {
    *out = r->tokenizer.vocab_size;
    return MN_OK;
  }
  mn_tokenizer *tok = NULL;
  if (text) {
    MN_TRY(mn_recipe_tokenizer(r, NULL, NULL, &tok));
    *out = tok ? mn_tokenizer_vocab_size(tok) : 0;
    mn_tokenizer_free(tok);
    return MN_OK;
  }
  if (!r->data.task) return MN_OK;
  mn_source *source;
  MN_TRY(mn_source_open(&r->source, NULL, NULL, &source));
  *out = source->vocab_size;
  mn_source_close(source);
  return MN_OK;
}

mn_status mn_recipe_vocabulary(const mn_value *root, int64_t *out) {
  mn_recipe r = {.arena = mn_arena_new()};
  *out = 0;
  mn_status status = r.arena ? vocabulary(&r, root, out) : MN_ERR_MEMORY;
  mn_recipe_free(&r);
  return status;
}

/* A file's name without directory and ending names a run that has no name. */
static const char *stem(mn_arena *arena, const char *file) {
  const char *base = file ? strrchr(file, '/') : NULL;
  char *name = mn_arena_strdup(arena, base ? base + 1 : file ? file : "run");
  char *dot = name ? strrchr(name, '.') : NULL;
  if (dot && dot != name) *dot = 0;
  return name && mn_name_fault(name) ? "run" : name;
}

mn_status mn_recipe_parse(const mn_value *root, mn_recipe **out) {
  *out = NULL;
  mn_arena *arena = mn_arena_new();
  mn_recipe *r = arena ? mn_arena_alloc(arena, sizeof *r) : NULL;
  mn_status status = r ? MN_OK : MN_ERR_MEMORY;
  if (r) {
    r->arena = arena;
    status = parse(r, root, true);
  }
  if (status != MN_OK) mn_recipe_free(r);
  else *out = r;
  if (!r) mn_arena_free(arena);
  return status;
}

static bool reads_text(const mn_recipe *r) { return r->source.def->reads_text && r->source.def->reads_text(r->source.config); }

/* A tokenizer that nothing reads with. Bytes are what every recipe has that says nothing; and a task takes the place of a recipe's text for
 * one comparison, which is said. */
static mn_status check_text(const mn_recipe *r, const mn_value *root) {
  bool text = r->n_stages == 0 && reads_text(r);
  for (int i = 0; i < r->n_stages; i++) text = text || reads_text(r->stages[i].recipe);
  if (text || r->tokenizer.type == MN_TOKENIZER_BYTES) return MN_OK;
  if (!strcmp(r->source.def->name, "task")) {
    mn_log_write(MN_LOG_WARN, "tokenizer has no effect: this task makes its tokens itself");
    return MN_OK;
  }
  return mn_config_fail(root, NULL, "tokenizer", "has no effect: this data of type %s has no text; leave it out%s", r->source.def->name,
                        strcmp(r->source.def->name, "tensors") ? "" : ", or set data.text: true where the ids are a tokenizer's");
}

mn_status mn_recipe_read(const char *path, const char *const *set, int n, mn_recipe **out) {
  *out = NULL;
  mn_arena *arena = mn_arena_new();
  mn_recipe *r = arena ? mn_arena_alloc(arena, sizeof *r) : NULL;
  const mn_value *root = NULL;
  if (r) r->arena = arena;
  mn_status status = r ? mn_yaml_read(arena, path, &root) : MN_ERR_MEMORY;
  for (int i = 0; i < n && status == MN_OK; i++) status = mn_value_set(arena, root, set[i], &root);
  if (status == MN_OK) status = parse(r, root, true);
  if (status == MN_OK) status = check_text(r, root);
  if (status == MN_OK && !mn_value_get(root, "name") && !(r->name = stem(arena, path))) status = MN_ERR_MEMORY;
  for (int i = 0; status == MN_OK && i < r->n_stages; i++) r->stages[i].recipe->name = r->name;
  if (!r) mn_arena_free(arena);
  else if (status != MN_OK) mn_recipe_free(r);
  else *out = r;
  return status;
}

void mn_recipe_free(mn_recipe *r) {
  if (!r) return;
  for (int i = 0; i < r->n_stages; i++) mn_recipe_free(r->stages[i].recipe);
  mn_arena_free(r->arena);
}

/* ---- the model ---- */

static mn_status check_lengths(const mn_recipe *r, const mn_model *m) {
  return r->train.carry_state ? MN_OK : mn_model_check_lengths(m, r->model, r->train.seq_len);
}

mn_status mn_recipe_model(const mn_recipe *r, int64_t vocab_size, mn_model **out) {
  MN_TRY(mn_model_parse(r->model, "model", vocab_size, out));
  mn_status status = check_lengths(r, *out);
  if (status == MN_OK) return MN_OK;
  mn_model_free(*out);
  *out = NULL;
  return status;
}

/* ---- back to a tree ---- */

const mn_value *mn_recipe_to_value(mn_arena *arena, const mn_recipe *r, const mn_model *m) {
  mn_train_config t = r->train;
  t.optimizer_map = mn_config_to_value(arena, &(mn_config_part){mn_optimizer_fields, &t.optimizer}, 1);
  t.schedule_map = mn_config_to_value(arena, &(mn_config_part){mn_schedule_fields, &t.schedule}, 1);
  t.groups_list = t.groups.n ? mn_groups_to_value(arena, &t.groups) : NULL;
  if (t.groups.n && !t.groups_list) return NULL;
  mn_tokenizer_config tok = r->tokenizer;
  sections s = {.name = r->name, .seed = r->seed};
  s.tokenizer = mn_config_to_value(arena, &(mn_config_part){mn_tokenizer_fields, &tok}, 1);
  s.data = mn_source_to_value(arena, &r->source);
  if (!mn_objectives_usual(&r->objectives) && !(s.objective = mn_objectives_to_value(arena, &r->objectives))) return NULL;
  s.train = mn_config_to_value(arena, &(mn_config_part){mn_train_fields, &t}, 1);
  s.model = m ? mn_model_to_value(arena, m) : r->model;
  s.stages = r->stages_list;
  mn_init_from init = r->init;
  if (init.from && !(s.init = mn_config_to_value(arena, &(mn_config_part){mn_init_fields, &init}, 1))) return NULL;
  if (!t.optimizer_map || !t.schedule_map || !s.tokenizer || !s.data || !s.train || !s.model) return NULL;
  return mn_config_to_value(arena, &(mn_config_part){mn_recipe_fields, &s}, 1);
}

static bool harmless(const char *path) {
  static const char *const keys[] = {"name",
                                     "data.cache",
                                     "train.threads",
                                     "train.checkpoint_every",
                                     "train.checkpoint_minutes",
                                     "train.keep_last",
                                     "train.log_every",
                                     "train.validate_every",
                                     "train.validation_batches",
                                     "train.steps",
                                     "the last stage.steps"};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
    if (!strcmp(path, keys[i])) return true;
  return false;
}

static const char *difference(mn_arena *arena, const char *path, const mn_value *x, const mn_value *y, const mn_value **a,
                              const mn_value **b) {
  if (harmless(path)) return NULL;
  if (x && y && x->kind == MN_MAP && y->kind == MN_MAP) {
    for (int side = 0; side < 2; side++) {
      const mn_value *from = side ? y : x;
      for (size_t i = 0; i < from->count; i++) {
        const char *key = from->as.entries[i].key;
        const char *sub = *path ? mn_arena_format(arena, "%s.%s", path, key) : key;
        if (!sub) return path;
        const char *found = difference(arena, sub, mn_value_get(x, key), mn_value_get(y, key), a, b);
        if (found) return found;
      }
    }
    return NULL;
  }
  if (x && y && x->kind == MN_LIST && y->kind == MN_LIST && x->count == y->count) {
    for (size_t i = 0; i < x->count; i++) {
      bool last = !strcmp(path, "stages") && i + 1 == x->count; /* whose steps can be raised, as train.steps can */
      const char *sub = last ? "the last stage" : mn_arena_format(arena, "%s[%zu]", path, i);
      const char *found = sub ? difference(arena, sub, x->as.items[i], y->as.items[i], a, b) : path;
      if (found) return found;
    }
    return NULL;
  }
  bool none_x = !x || x->kind == MN_NULL, none_y = !y || y->kind == MN_NULL;
  if ((none_x && none_y) || (!none_x && !none_y && mn_value_equal(x, y))) return NULL;
  *a = x;
  *b = y;
  return path;
}

const char *mn_recipe_difference(mn_arena *arena, const mn_value *x, const mn_value *y, const mn_value **a, const mn_value **b) {
  *a = *b = NULL;
  return difference(arena, "", x, y, a, b);
}

/* Every leaf that counts, as "path=value\n". */
static mn_status add_leaves(mn_arena *arena, const char *path, const mn_value *x, mn_text *out) {
  if (harmless(path) || !x || x->kind == MN_NULL) return MN_OK;
  for (size_t i = 0; i < x->count && (x->kind == MN_MAP || x->kind == MN_LIST); i++) {
    bool map = x->kind == MN_MAP;
    const char *sub = map ? mn_arena_format(arena, *path ? "%s.%s" : "%s%s", path, x->as.entries[i].key)
                      : !strcmp(path, "stages") && i + 1 == x->count ? "the last stage"
                                                                     : mn_arena_format(arena, "%s[%zu]", path, i);
    if (!sub) return MN_ERR_MEMORY;
    MN_TRY(add_leaves(arena, sub, map ? x->as.entries[i].value : x->as.items[i], out));
  }
  if (x->kind == MN_MAP || x->kind == MN_LIST) return MN_OK;
  mn_text_addf(out, "%s=", path);
  MN_TRY(mn_value_to_json(x, 0, out));
  mn_text_add(out, "\n");
  return MN_OK;
}

mn_status mn_recipe_hash(const mn_value *x, char hex[33]) {
  mn_arena *arena = mn_arena_new();
  mn_text text = {0};
  mn_status status = arena ? add_leaves(arena, "", x, &text) : MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_text_status(&text);
  if (status == MN_OK) mn_content_hash(text.data, text.len, hex);
  mn_text_free(&text);
  mn_arena_free(arena);
  return status;
}
