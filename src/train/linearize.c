/* linearize.c - the two recipes of a linearization (linearize.h), written out from a teacher. */
#include "train/linearize.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/shell.h"
#include "format/json.h"
#include "memory/attention.h"
#include "checkpoint/bundle.h"

typedef struct plan {
  const mn_linearize_config *c;
  mn_arena *arena;
  mn_bundle teacher;
  mn_recipe *recipe;       /* what it was trained by; NULL: it does not say */
  const mn_recipe *last;   /* of its stages the last */
  int n;                   /* its layers */
  bool *chosen;            /* [n] */
  const mn_value **mixers; /* [n] of the student; NULL: the block stays */
  const mn_value *base;    /* the teacher's model, spelled out */
  mn_text trained;         /* groups of what the students have and the teacher has not */
} plan;

/* ---- which layers ---- */
static mn_status wrong_layers(const plan *p) {
  return mn_fail(MN_ERR_CONFIG, "--layers %s: give all, or blocks from 0 to %d such as 0,2-3", p->c->layers, p->n - 1);
}

static mn_status choose_layers(plan *p) {
  const char *s = p->c->layers;
  p->n = p->teacher.model->stack.n;
  p->chosen = mn_arena_alloc(p->arena, (size_t)p->n * sizeof *p->chosen);
  p->mixers = mn_arena_alloc(p->arena, (size_t)p->n * sizeof *p->mixers);
  if (!p->chosen || !p->mixers) return MN_ERR_MEMORY;
  const bool all = !strcmp(s, "all");
  for (int i = 0; i < p->n; i++) p->chosen[i] = all, p->mixers[i] = NULL;
  while (!all) {
    char *end;
    long from = strtol(s, &end, 10), to = from;
    if (end == s || *s == '-' || *s == '+') return wrong_layers(p);
    if (*end == '-') {
      s = end + 1;
      to = strtol(s, &end, 10);
      if (end == s || *s == '-' || *s == '+') return wrong_layers(p);
    }
    if (from < 0 || to < from || to >= p->n) return wrong_layers(p);
    for (long i = from; i <= to; i++) p->chosen[i] = true;
    if (!*end) break;
    if (*end != ',') return wrong_layers(p);
    s = end + 1;
  }
  return MN_OK;
}

/* ---- what the teacher is ---- */
static mn_status cannot(const plan *p, int layer, const char *what) {
  return mn_fail(MN_ERR_CONFIG, "%s: layer %d %s; --layers says which are converted", p->c->teacher, layer, what);
}

static mn_status check_layer(const plan *p, int i) {
  const mn_mixer *m = &p->teacher.model->stack.blocks[i].mixer;
  if (strcmp(m->def->name, "attention") != 0)
    return cannot(p, i, mn_arena_format(p->arena, "is of type %s, and only attention is linearized", m->def->name));
  const mn_attention_config *a = m->config;
  const struct {
    const char *key;
    bool there;
  } own[] = {{"causal: false", !a->causal},           {"conv", a->conv > 0},       {"persistent", a->persistent > 0},
             {"relative_bias", a->relative_bias > 0}, {"sinks", a->sinks > 0},     {"qk_norm", a->qk_norm != MN_QK_PLAIN},
             {"score_scale", a->score_scale > 0},     {"qkv_bias", a->qkv_bias},   {"rope_divisors", a->rope_divisors.count > 0},
             {"rope_gain", a->rope_gain > 0},         {"softcap", a->softcap > 0}, {"output_gate", a->output_gate}};
  for (size_t k = 0; k < sizeof own / sizeof *own; k++)
    if (own[k].there) return cannot(p, i, mn_arena_format(p->arena, "is an attention with %s, which Lizard has no place for", own[k].key));
  return MN_OK;
}

/* The fault, and the command that mends it. */
static mn_status merge_first(const plan *p, const char *fmt, ...) MN_PRINTF(2, 3);
static mn_status merge_first(const plan *p, const char *fmt, ...) {
  char fault[512], *word = mn_shell_path(p->c->teacher);
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(fault, sizeof fault, fmt, ap);
  va_end(ap);
  const mn_status status = word ? mn_fail(MN_ERR_CONFIG, "%s: `mneme adapt merge %s --out DIR`", fault, word) : MN_ERR_MEMORY;
  free(word);
  return status;
}

static mn_status check_policies(const plan *p) {
  const mn_linear_rules *rules = &p->teacher.model->linear;
  static const char *const names[] = {"q_proj", "k_proj", "v_proj", "o_proj"};
  for (int i = 0; i < p->n; i++)
    for (int k = 0; k < 4 && p->chosen[i]; k++) {
      const char *name = mn_arena_format(p->arena, "layers.%d.mixer.%s", i, names[k]);
      for (int r = 0; r < rules->n; r++)
        if (name && rules->list[r].def->apply && mn_name_matches(rules->list[r].match, name))
          return merge_first(p, "%s: %s is made by the linear policy %s; merge it first", p->c->teacher, name, rules->list[r].def->name);
    }
  if (rules->n) /* a matching has none */
    return merge_first(p, "%s has linear policies (model.linear); merge them first", p->c->teacher);
  return MN_OK;
}

static mn_status open_teacher(plan *p) {
  char *path = mn_path_join(p->c->teacher, "recipe.json");
  mn_status status = path ? mn_bundle_open(p->c->teacher, NULL, 1, &p->teacher) : MN_ERR_MEMORY;
  if (status == MN_OK && strcmp(p->teacher.model->def->name, "decoder") != 0)
    status = mn_fail(MN_ERR_CONFIG, "%s is a model of type %s; only a decoder is linearized", p->c->teacher, p->teacher.model->def->name);
  if (status == MN_OK && mn_file_exists(path)) status = mn_recipe_read(path, NULL, 0, &p->recipe);
  free(path);
  MN_TRY(status);
  p->last = p->recipe && p->recipe->n_stages ? p->recipe->stages[p->recipe->n_stages - 1].recipe : p->recipe;
  if (!p->c->n_data && (!p->last || !p->last->has_data))
    return mn_fail(MN_ERR_CONFIG, "%s has no recipe.json that says what it was trained on; give --data FILE", p->c->teacher);
  if (p->c->n_data && !p->teacher.tokenizer)
    return mn_fail(MN_ERR_CONFIG, "%s has no tokenizer.json, and --data is text; leave it out to train on what the teacher was",
                   p->c->teacher);
  MN_TRY(choose_layers(p));
  for (int i = 0; i < p->n; i++)
    if (p->chosen[i]) MN_TRY(check_layer(p, i));
  MN_TRY(check_policies(p));
  p->base = mn_model_to_value(p->arena, p->teacher.model);
  return p->base ? MN_OK : MN_ERR_MEMORY;
}

/* ---- trees ---- written as text and read again: shorter than building them, and what is wrong is named as in a recipe */
static const mn_value *parsed(const plan *p, const char *file, mn_text *t) {
  const mn_value *v = NULL;
  mn_status status = mn_text_status(t);
  if (status == MN_OK) status = mn_json_parse(p->arena, file, t->data, t->len, &v);
  mn_text_free(t);
  return status == MN_OK ? v : NULL;
}

static void add_json(mn_text *t, const mn_value *v) { (void)mn_value_to_json(v, 0, t); /* t remembers */ }

static mn_status changed(const plan *p, const char *const *set, int n, const mn_value **v) {
  for (int i = 0; i < n; i++) MN_TRY(mn_value_set(p->arena, *v, set[i], v));
  return MN_OK;
}

/* The keys of an attention that the mixer has, too; with `rope` those of its rotary positions. */
static const mn_value *keys_of(const plan *p, int i, bool rope) {
  static const char *const keys[] = {
      "heads", "kv_heads", "head_dim", "bias", "rope_theta", "rope_dim", "rope_scaling", "rope_factor", "rope_original_context"};
  const mn_mixer *m = &p->teacher.model->stack.blocks[i].mixer;
  const mn_value *v = mn_mixer_to_value(p->arena, m);
  const bool scaled = ((const mn_attention_config *)m->config)->rope_scaling != 0;
  mn_text t = {0};
  mn_text_add(&t, "{\"type\": \"lizard\"");
  for (int k = 0; v && k < (!rope ? 4 : scaled ? 9 : 6); k++) {
    const mn_value *own = mn_value_get(v, keys[k]);
    if (!own) continue;
    mn_text_addf(&t, ", \"%s\": ", keys[k]);
    add_json(&t, own);
  }
  mn_text_add(&t, "}");
  return parsed(p, "mixer.json", &t);
}

/* The mixer that stands for a block's attention. */
static mn_status student_of(plan *p, int i) {
  static const char *const same[] = {"type", "heads", "kv_heads", "head_dim", "bias"};
  const mn_linearize_config *c = p->c;
  const mn_attention_config *a = p->teacher.model->stack.blocks[i].mixer.config;
  for (size_t k = 0; k < sizeof same / sizeof *same; k++)
    for (int j = 0; j < c->n_mixer; j++)
      if (!strncmp(c->mixer[j], same[k], strlen(same[k])) && c->mixer[j][strlen(same[k])] == '=')
        return mn_fail(MN_ERR_CONFIG, "--mixer %s: %s is the teacher's; leave it out", c->mixer[j], same[k]);
  mn_mixer m;
  const mn_value *v = NULL, *rope = NULL;
  for (int with = 0; with < 2; with++) {
    if (with && !(rope && rope->kind == MN_BOOLEAN && rope->as.boolean)) break;
    if (with && !a->rope) return cannot(p, i, "has no rotary positions, and --mixer window_rope=true asks for them");
    if (!(v = keys_of(p, i, with))) return MN_ERR_MEMORY;
    MN_TRY(mn_context(changed(p, c->mixer, c->n_mixer, &v), "--mixer"));
    rope = mn_value_get(v, "window_rope");
  }
  MN_TRY(mn_context(mn_mixer_parse(p->arena, v, NULL, p->teacher.model->config.d_model, &m), "--mixer"));
  p->mixers[i] = mn_mixer_to_value(p->arena, &m);
  return p->mixers[i] ? MN_OK : MN_ERR_MEMORY;
}

/* students: one for each chosen layer, those that are equal together. */
static void add_students(const plan *p, mn_text *t) {
  int n = 0;
  mn_text_add(t, "[");
  for (int i = 0; i < p->n; i++) {
    bool said = !p->mixers[i];
    for (int j = 0; j < i && !said; j++) said = p->mixers[j] && mn_value_equal(p->mixers[j], p->mixers[i]);
    if (said) continue;
    mn_text_addf(t, "%s{\"layers\": [%d", n++ ? ", " : "", i);
    for (int j = i + 1; j < p->n; j++)
      if (p->mixers[j] && mn_value_equal(p->mixers[j], p->mixers[i])) mn_text_addf(t, ", %d", j);
    mn_text_add(t, "], \"mixer\": ");
    add_json(t, p->mixers[i]);
    mn_text_add(t, "}");
  }
  mn_text_add(t, "]");
}

/* The teacher's model with other mixers, and matrices of low rank beside q, k and v of those. */
static void add_student_model(const plan *p, mn_text *t) {
  const mn_value *blocks = mn_value_get(p->base, "blocks");
  mn_text_add(t, "{");
  for (size_t i = 0; i < p->base->count; i++) {
    const mn_entry *e = &p->base->as.entries[i];
    if (!strcmp(e->key, "blocks")) continue;
    mn_json_quote(t, e->key);
    mn_text_add(t, ": ");
    add_json(t, e->value);
    mn_text_add(t, ", ");
  }
  mn_text_add(t, "\"linear\": [");
  bool all = true;
  for (int i = 0; i < p->n; i++) all = all && p->mixers[i];
  for (int i = 0, said = 0; i < (all ? 1 : p->n); i++)
    for (int k = 0; k < 3 && p->mixers[i]; k++) {
      mn_text_add(t, said++ ? ", {" : "{");
      if (all) mn_text_addf(t, "\"match\": \"layers.*.mixer.%c_proj\"", "qkv"[k]);
      else mn_text_addf(t, "\"match\": \"layers.%d.mixer.%c_proj\"", i, "qkv"[k]);
      mn_text_addf(t, ", \"type\": \"lora\", \"rank\": %lld, \"alpha\": 16}", (long long)p->c->rank);
    }
  mn_text_add(t, "], \"blocks\": [");
  for (size_t b = 0, layer = 0; b < blocks->count; b++) {
    const mn_value *repeat = mn_value_get(blocks->as.items[b], "repeat");
    for (int64_t r = 0, n = repeat ? repeat->as.integer : 1; r < n; r++, layer++) {
      const mn_value *map = blocks->as.items[b];
      int keys = 0;
      mn_text_add(t, layer ? ", {" : "{");
      for (size_t i = 0; i < map->count; i++) {
        const mn_entry *e = &map->as.entries[i];
        if (!strcmp(e->key, "repeat")) continue;
        mn_text_addf(t, "%s\"%s\": ", keys++ ? ", " : "", e->key);
        add_json(t, !strcmp(e->key, "mixer") && p->mixers[layer] ? p->mixers[layer] : e->value);
      }
      mn_text_add(t, "}");
    }
  }
  mn_text_add(t, "]}");
}

/* ---- what trains ---- */
static bool in_teacher(const plan *p, const char *pattern) {
  for (int i = 0; i < p->teacher.params->n_all; i++)
    if (mn_name_matches(pattern, p->teacher.params->info[i].name)) return true;
  return false;
}

/* Parameters of the matching that the teacher has not: by their last names, "*.mixer.feature_q", or layer by layer where the teacher has
 * such names elsewhere. */
static mn_status find_trained(plan *p) {
  mn_text t = {0};
  mn_model *m = NULL;
  mn_params *params = NULL;
  mn_text_add(&t, "{\"type\": \"matching\", \"base\": ");
  add_json(&t, p->base);
  mn_text_add(&t, ", \"students\": ");
  add_students(p, &t);
  mn_text_add(&t, "}");
  const mn_value *v = parsed(p, "match.json", &t);
  mn_status status = v ? mn_model_parse(v, "model", 0, &m) : MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_params_declare(m, p->teacher.backend, MN_F32, &params);
  for (int i = 0; status == MN_OK && i < params->n; i++) {
    const char *name = params->info[i].name + strlen("base."), *last = strstr(name, ".mixer.");
    if (!last || mn_params_find(p->teacher.params, name) >= 0) continue;
    const char *pattern = mn_arena_format(p->arena, "*%s", last);
    if (pattern && in_teacher(p, pattern)) pattern = mn_arena_format(p->arena, "*%s", name);
    const char *item = pattern ? mn_arena_format(p->arena, "{\"match\": \"%s\"}, ", pattern) : NULL;
    if (!item) status = MN_ERR_MEMORY;
    else if (!p->trained.data || !strstr(p->trained.data, item)) mn_text_add(&p->trained, item);
  }
  if (status == MN_OK && !p->trained.data) status = mn_fail(MN_ERR_CONFIG, "--mixer: nothing of the mixer could be trained");
  mn_params_free(params);
  mn_model_free(m);
  return status == MN_OK ? mn_text_status(&p->trained) : status;
}

/* ---- a recipe ---- */
static void add_data(const plan *p, mn_text *t) {
  if (!p->c->n_data) {
    add_json(t, mn_source_to_value(p->arena, &p->last->source));
    return;
  }
  mn_text_add(t, "{\"files\": [");
  for (int i = 0; i < p->c->n_data; i++) {
    if (i) mn_text_add(t, ", ");
    mn_json_quote(t, p->c->data[i]);
  }
  mn_text_add(t, "]}");
}

static void add_train(const plan *p, bool match, mn_text *t) {
  const mn_train_config *of = p->last ? &p->last->train : NULL;
  const int64_t steps = match ? p->c->match_steps : p->c->tune_steps;
  const bool fits = of && !p->c->n_data;
  mn_text_addf(t, "{\"steps\": %lld, \"batch\": %lld, \"seq_len\": %lld, \"optimizer\": {\"type\": \"adamw\", \"lr\": %s, ",
               (long long)steps, (long long)(fits ? of->batch : 8), (long long)(of ? of->seq_len : 256), match ? "1e-3" : "5e-4");
  mn_text_addf(t,
               "\"betas\": [0.9, 0.99], \"weight_decay\": 0}, \"schedule\": {\"type\": \"cosine\", \"warmup_steps\": %lld}, \"groups\": [",
               (long long)(steps / 10));
  if (!match) mn_text_add(t, "{\"match\": \"*.lora_?.weight\"}, ");
  mn_text_add(t, p->trained.data);
  mn_text_add(t, "{\"match\": \"*\", \"frozen\": true}]}");
}

/* One of the two recipes, checked as a training would. */
static mn_status recipe_of(const plan *p, bool match, const mn_value **out) {
  const mn_linearize_config *c = p->c;
  const char *word = match ? "match" : "tune";
  mn_text t = {0};
  const char *dir = mn_arena_format(p->arena, "%s/match", c->out_dir);
  const char *tokenizer = mn_arena_format(p->arena, "%s/tokenizer.json", match ? c->teacher : dir);
  if (!dir || !tokenizer) return MN_ERR_MEMORY;
  mn_text_add(&t, "{\"name\": ");
  mn_json_quote(&t, word);
  mn_text_addf(&t, ", \"seed\": %llu, \"data\": ", (unsigned long long)c->seed);
  add_data(p, &t);
  if (p->teacher.tokenizer) {
    mn_text_add(&t, ", \"tokenizer\": {\"type\": \"file\", \"file\": ");
    mn_json_quote(&t, tokenizer);
    mn_text_add(&t, "}");
  }
  mn_text_add(&t, ", \"init\": {\"from\": ");
  mn_json_quote(&t, match ? c->teacher : dir);
  mn_text_addf(&t, ", \"rename\": {%s}, \"missing\": \"draw\"}, ", match ? "\"*\": \"base.*\"" : "\"base.*\": \"*\"");
  mn_text_addf(&t, "\"objective\": {\"type\": \"%s\"}, \"model\": ", match ? "match" : "next_token");
  if (match) {
    mn_text_add(&t, "{\"type\": \"matching\", \"base\": ");
    add_json(&t, p->base);
    mn_text_add(&t, ", \"students\": ");
    add_students(p, &t);
    mn_text_add(&t, "}");
  } else add_student_model(p, &t);
  mn_text_add(&t, ", \"train\": ");
  add_train(p, match, &t);
  mn_text_add(&t, "}");
  const mn_value *v = parsed(p, match ? "match.json" : "tune.json", &t);
  mn_status status = v ? changed(p, c->set, c->n_set, &v) : MN_ERR_MEMORY;
  if (status == MN_OK) status = match ? changed(p, c->match, c->n_match, &v) : changed(p, c->tune, c->n_tune, &v);
  mn_recipe *checked = NULL;
  mn_model *model = NULL;
  if (status == MN_OK) status = mn_recipe_parse(v, &checked);
  if (status == MN_OK) status = mn_recipe_model(checked, 0, &model);
  mn_model_free(model);
  mn_recipe_free(checked);
  *out = v;
  return mn_context(status, "the recipe %s.json", word);
}

static mn_status write_recipes(const plan *p) {
  const mn_value *match, *tune; /* both are right before one is written, and the second says that both are there */
  const char *first = mn_arena_format(p->arena, "%s/match.json", p->c->out_dir);
  const char *second = mn_arena_format(p->arena, "%s/tune.json", p->c->out_dir);
  if (!first || !second) return MN_ERR_MEMORY;
  MN_TRY(recipe_of(p, true, &match));
  MN_TRY(recipe_of(p, false, &tune));
  MN_TRY(mn_json_write(first, match));
  return mn_json_write(second, tune);
}

static mn_status begin(plan *p) {
  static const char *const theirs[] = {"model", "tokenizer", "init", "objective", "name", "seed"};
  const mn_linearize_config *c = p->c;
  const struct {
    const char *option;
    const char *const *list;
    int n;
  } sets[] = {{"set", c->set, c->n_set}, {"match", c->match, c->n_match}, {"tune", c->tune, c->n_tune}};
  for (int k = 0; k < 3; k++)
    for (int i = 0; i < sets[k].n; i++)
      for (size_t j = 0; j < sizeof theirs / sizeof *theirs; j++) {
        const size_t n = strlen(theirs[j]);
        if (!strncmp(sets[k].list[i], theirs[j], n) && strchr(".=", sets[k].list[i][n]))
          return mn_fail(MN_ERR_CONFIG, "--%s %s: the %s comes from the teacher; data and train may be changed", sets[k].option,
                         sets[k].list[i], theirs[j]);
      }
  MN_TRY(open_teacher(p));
  for (int i = 0; i < p->n; i++)
    if (p->chosen[i]) MN_TRY(student_of(p, i));
  MN_TRY(find_trained(p));
  return write_recipes(p);
}

mn_status mn_linearize_begin(const mn_linearize_config *c) {
  plan p = {.c = c, .arena = mn_arena_new()};
  mn_status status = p.arena ? begin(&p) : MN_ERR_MEMORY;
  mn_bundle_close(&p.teacher);
  mn_recipe_free(p.recipe);
  mn_text_free(&p.trained);
  mn_arena_free(p.arena);
  return status;
}
