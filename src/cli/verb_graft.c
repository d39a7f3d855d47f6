/* verb_graft.c - `mneme graft`: a mixer that stands around others (synaptic) is put around those of a trained model. What comes out is the
 * recipe of a training that begins with that model's weights and, unless told otherwise, moves nothing but what is new. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/shell.h"
#include "cli/cli.h"
#include "format/json.h"
#include "format/yaml.h"
#include "model/params.h"
#include "train/recipe.h"

enum { NEW, ALL };
static const char *const words[] = {"new", "all", NULL};

typedef struct graft {
  mn_arena *arena;
  const char *dir;
  const mn_value *root; /* the recipe, as it becomes */
  const mn_value *keys; /* of the mixer that is put around, without `base` */
  const mn_mixer_def *def;
  int64_t blocks, parameters, tensors; /* how many blocks there are; of the new parameters */
} graft;

/* Can it be put around another in that one's place? */
static bool stands_around(const mn_mixer_def *d) { return d->base && !d->base_key; }

/* The map with one member in place of what it had under that name. */
static const mn_value *with(mn_arena *arena, const mn_value *map, const char *key, const mn_value *value) {
  const size_t n = map ? map->count : 0;
  const char **keys = mn_arena_alloc(arena, (n + 1) * sizeof *keys);
  const mn_value **values = mn_arena_alloc(arena, (n + 1) * sizeof *values);
  size_t k = 0;
  if (!map || !value || !keys || !values) return NULL;
  for (size_t i = 0; i < n; i++) {
    if (!strcmp(map->as.entries[i].key, key)) continue;
    keys[k] = map->as.entries[i].key;
    values[k++] = map->as.entries[i].value;
  }
  keys[k] = key;
  values[k++] = value;
  return mn_value_map(arena, k, keys, values);
}

/* ---- what is asked for ---- */
static mn_status read_mixer(graft *x, const char *text) {
  const mn_value *v;
  MN_TRY(mn_yaml_parse(x->arena, "--mixer", text, strlen(text), &v));
  if (v && v->kind == MN_TEXT && !(v = with(x->arena, mn_value_map(x->arena, 0, NULL, NULL), "type", v))) return MN_ERR_MEMORY;
  const mn_value *type = v ? mn_value_get(v, "type") : NULL;
  if (!type || type->kind != MN_TEXT)
    return mn_fail(MN_ERR_CONFIG, "--mixer needs a mixer: a type (synaptic), or a map with its keys ({type: synaptic, heads: 4})");
  MN_TRY(mn_mixer_find(type, type->as.text, &x->def));
  if (!stands_around(x->def)) {
    mn_text around = {0};
    for (int i = 0; i < mn_mixer_count(); i++)
      if (stands_around(mn_mixer_at(i))) mn_text_addf(&around, "%s%s", around.len ? ", " : "", mn_mixer_at(i)->name);
    const mn_status status = mn_fail(MN_ERR_CONFIG, "--mixer: %s is not made to be put around a trained mixer; %s is", x->def->name,
                                     around.data ? around.data : "none");
    mn_text_free(&around);
    return status;
  }
  if (mn_value_get(v, "base")) return mn_fail(MN_ERR_CONFIG, "--mixer: leave out base: it is the mixer that each block of the model has");
  x->keys = v;
  return MN_OK;
}

static mn_status read_recipe(graft *x) {
  char *path = mn_path_join(x->dir, "recipe.json");
  if (!path) return MN_ERR_MEMORY;
  const mn_status status =
      mn_file_exists(path) ? mn_json_read(x->arena, path, &x->root)
                           : mn_fail(MN_ERR_CONFIG, "%s: there is no recipe.json; --base is the directory that a training made", x->dir);
  free(path);
  return status;
}

/* A training would find out: weights that are missing, damaged or not finite. */
static mn_status look_at_weights(const graft *x, int threads) {
  mn_backend *backend = NULL;
  mn_model *model = NULL;
  mn_params *weights = NULL;
  mn_status status = mn_backend_open(NULL, threads, &backend);
  if (status == MN_OK) status = mn_model_open_dir(x->dir, backend, MN_F32, &model, &weights);
  mn_params_free(weights);
  mn_model_free(model);
  mn_backend_free(backend);
  return status;
}

/* ---- the recipe ---- */
/* The block with the mixer around its own. Keys of --mixer are checked as what the user wrote, not as what a file spells out. */
static mn_status around(const graft *x, int64_t d_model, const mn_value *block, const mn_value **out) {
  const mn_value *mixer = with(x->arena, x->keys, "base", mn_value_get(block, "mixer"));
  mn_mixer m;
  if (!mixer) return MN_ERR_MEMORY;
  MN_TRY(mn_context(mn_mixer_parse(x->arena, mixer, "--mixer", d_model, &m), "--mixer"));
  *out = with(x->arena, block, "mixer", mixer);
  return *out ? MN_OK : MN_ERR_MEMORY;
}

static mn_status put_around(graft *x) {
  const mn_value *model = mn_value_get(x->root, "model"), *list = mn_value_get(model, "blocks");
  const mn_value *width = mn_value_get(model, "d_model");
  if (!list || list->kind != MN_LIST)
    return mn_fail(MN_ERR_CONFIG, "%s: its model has no blocks of its own, so there is nothing to put %s around", x->dir, x->def->name);
  const mn_value **blocks = mn_arena_alloc(x->arena, (list->count + 1) * sizeof *blocks);
  if (!blocks) return MN_ERR_MEMORY;
  for (size_t i = 0; i < list->count; i++) {
    const mn_value *mixer = mn_value_get(list->as.items[i], "mixer"), *type = mn_value_get(mixer, "type");
    const mn_mixer_def *def;
    if (!type || type->kind != MN_TEXT) return mn_fail(MN_ERR_CONFIG, "%s: block %d of its recipe.json has no mixer", x->dir, (int)i);
    MN_TRY(mn_mixer_find(type, type->as.text, &def));
    if (def == x->def)
      return mn_fail(MN_ERR_CONFIG, "%s: its block %d has %s around its mixer already; graft on a model that has not", x->dir, (int)i,
                     def->name);
    MN_TRY(around(x, width && width->kind == MN_INTEGER ? width->as.integer : 0, list->as.items[i], &blocks[i]));
  }
  model = with(x->arena, model, "blocks", mn_value_list(x->arena, list->count, blocks));
  x->root = with(x->arena, x->root, "model", model);
  return x->root ? MN_OK : MN_ERR_MEMORY;
}

static const mn_value *pair(mn_arena *arena, const char *a, const mn_value *x, const char *b, const mn_value *y) {
  const char *const keys[] = {a, b};
  const mn_value *const values[] = {x, y};
  return mn_value_map(arena, 2, keys, values);
}

static mn_status begin_with_it(graft *x, int what) {
  mn_arena *a = x->arena;
  const mn_value *train = mn_value_get(x->root, "train"), *groups[2], *none = mn_value_list(a, 0, NULL);
  const char *own = mn_arena_format(a, "*.mixer.%s.*", x->def->name);
  const mn_value *name = mn_value_get(x->root, "name");
  const char *called = mn_arena_format(a, "%s-%s", name && name->kind == MN_TEXT ? name->as.text : "run", x->def->name);
  if (!own || !called) return MN_ERR_MEMORY;
  groups[0] = pair(a, "match", mn_value_text(a, own), "frozen", mn_value_bool(a, false));
  groups[1] = pair(a, "match", mn_value_text(a, "*"), "frozen", mn_value_bool(a, true));
  train = with(a, train, "groups", what == NEW ? mn_value_list(a, 2, groups) : none);
  const mn_value *nothing = mn_arena_alloc(a, sizeof *nothing);
  if (!nothing) return MN_ERR_MEMORY; /* zeros: MN_NULL */
  *(mn_value *)nothing = (mn_value){.path = ""};
  train = with(a, train, "from", nothing);
  x->root = with(a, x->root, "train", train);
  x->root = with(a, x->root, "stages", nothing);
  x->root = with(a, x->root, "name", mn_value_text(a, called));
  x->root = with(a, x->root, "init", pair(a, "from", mn_value_text(a, x->dir), "missing", mn_value_text(a, "draw")));
  return x->root ? MN_OK : MN_ERR_MEMORY;
}

/* ---- the same mistakes are found here as in a training ---- */
static mn_status count(graft *x, const mn_recipe *r) {
  const mn_value *size = mn_value_get(mn_value_get(x->root, "model"), "vocab_size");
  mn_model *m;
  MN_TRY(mn_recipe_model(r, size && size->kind == MN_INTEGER ? size->as.integer : 0, &m));
  mn_graph *g = mn_graph_new();
  mn_scope *s = g ? mn_scope_new(g, (mn_build){.param = MN_F32, .compute = MN_F32}, 1) : NULL;
  if (s) mn_model_declare(s, m);
  mn_status status = s ? mn_graph_status(g) : MN_ERR_MEMORY;
  const mn_param_info *info;
  const int n = status == MN_OK ? mn_scope_params(s, &info, NULL) : 0;
  const char *own = mn_arena_format(x->arena, ".mixer.%s.", x->def->name);
  for (int i = 0; i < n && own; i++)
    if (strstr(info[i].name, own)) x->tensors++, x->parameters += mn_shape_count(&info[i].shape);
  if (status == MN_OK && !x->tensors)
    status = mn_fail(MN_ERR_CONFIG, "--mixer: with these keys %s has no parameters of its own: nothing would be new", x->def->name);
  if (status == MN_OK) status = mn_recipe_check_groups(x->root, info, n);
  x->blocks = m->stack.n;
  mn_graph_free(g);
  mn_model_free(m);
  return status;
}

static mn_status check(graft *x, const char *path) {
  mn_text json = {0};
  mn_recipe *r = NULL;
  mn_status status = mn_value_to_json(x->root, 2, &json);
  if (status == MN_OK) status = mn_json_parse(x->arena, path, json.data, json.len, &x->root); /* as it will be read */
  if (status == MN_OK) status = mn_recipe_parse(x->root, &r);
  if (status == MN_OK) status = count(x, r);
  mn_recipe_free(r);
  mn_text_free(&json);
  return status;
}

static mn_status make(mn_cli *cli, graft *x) {
  int what;
  const char *path = mn_cli_get(cli, "output");
  x->dir = mn_cli_get(cli, "base");
  if (!x->dir) return mn_fail(MN_ERR_CONFIG, "graft needs --base DIR: a trained model");
  if (!mn_cli_get(cli, "mixer")) return mn_fail(MN_ERR_CONFIG, "graft needs --mixer MAP: what is put around its mixers, such as synaptic");
  if (!path) return mn_fail(MN_ERR_CONFIG, "graft needs --output FILE.json: where the recipe of the training goes");
  const size_t n = strlen(path);
  if (n < 6 || strcmp(path + n - 5, ".json") != 0)
    return mn_fail(MN_ERR_CONFIG, "--output is a recipe with every key spelled out: its name must end in .json, not %s", path);
  MN_TRY(mn_cli_choice(cli, "train-only", words, &what));
  MN_TRY(read_mixer(x, mn_cli_get(cli, "mixer")));
  MN_TRY(read_recipe(x));
  MN_TRY(look_at_weights(x, cli->threads));
  MN_TRY(put_around(x));
  MN_TRY(begin_with_it(x, what));
  MN_TRY(check(x, path));
  MN_TRY(mn_json_write(path, x->root));
  if (cli->json)
    return mn_cli_json(cli, json_pack("{s:o,s:s,s:I,s:I,s:I}", "recipe", mn_cli_text(path), "mixer", x->def->name, "blocks",
                                      (json_int_t)x->blocks, "new_tensors", (json_int_t)x->tensors, "new_parameters",
                                      (json_int_t)x->parameters));
  mn_print("%s around the mixers of %lld blocks: %lld parameters in %lld tensors are new\n", x->def->name, (long long)x->blocks,
           (long long)x->parameters, (long long)x->tensors);
  char *word = mn_shell_path(path);
  if (word) mn_print("recipe: %s\ntrain it with: mneme train %s --out DIR\n", path, word);
  free(word);
  return word ? MN_OK : MN_ERR_MEMORY;
}

static mn_status run(mn_cli *cli) {
  graft x = {.arena = mn_arena_new()};
  const mn_status status = x.arena ? make(cli, &x) : MN_ERR_MEMORY;
  mn_arena_free(x.arena);
  return status;
}

static const mn_option options[] = {
    {"base", "DIR", NULL, "the trained model: the directory that mneme train --out made", 0},
    {"mixer", "MAP", NULL, "what is put around its mixers: a type (synaptic), or a map with its keys; the base is each block's own", 0},
    {"train-only", "WORD", "new", "what the training moves: new, or all", 0},
    {"output", "FILE", NULL, "where the recipe goes, a .json", MN_OPTION_OUTPUT},
    {0}};
static const char *const examples[] = {
    "mneme graft --base runs/quick --mixer synaptic --output grafted.json",
    "mneme graft --base runs/quick --mixer '{type: synaptic, heads: 8}' --train-only all --output all.json",
    "mneme train grafted.json --set train.steps=200 --out runs/grafted", NULL};
const mn_verb mn_verb_graft = {
    .name = "graft",
    .purpose = MN_VERB_TRAIN,
    .summary = "the recipe of a training that puts a memory around the mixers of a trained model",
    .usage = "--base DIR --mixer MAP --output FILE.json [options]",
    .about = "FILE is the base's own recipe with the mixer around that of each block. Its training begins with the base's weights, and "
             "before its first step the model is the base; unless told otherwise nothing moves but what is new. Change its data and steps "
             "with --set, as of any recipe.",
    .options = options,
    .examples = examples,
    .min_args = 0,
    .max_args = 0,
    .run = run};
