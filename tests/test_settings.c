/* test_settings.c - nothing that a user says is passed over: every option of every verb, every key of every table, tensors
 * and words are checked, by every verb that takes them, and the answer names the nearest one. */
#define _GNU_SOURCE
#include "cli/cli.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "format/safetensors.h"
#include "nn/mixer.h"
#include "eval/needle_eval.h"
#include "run/sampler.h"
#include "test.h"
#include "train/recipe.h"

static char dir[64] = P_tmpdir "/mneme-test-settings-XXXXXX";

typedef struct result {
  int code;
  char out[4096], err[4096];
} result;

static void slurp(FILE *f, char *buffer, size_t size) {
  fflush(f);
  rewind(f);
  buffer[fread(buffer, 1, size - 1, f)] = 0;
  fclose(f);
}

/* Runs a command line in this process. Words are separated by single spaces; a word in '...' may hold spaces. */
static result call(const char *fmt, ...) MN_PRINTF(1, 2);
static result call(const char *fmt, ...) {
  char line[2048], *argv[64] = {"mneme"}, *at = line;
  int argc = 1;
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(line, sizeof line, fmt, ap);
  va_end(ap);
  while (at && *at && argc < 63) {
    bool quoted = *at == '\'';
    argv[argc++] = at += quoted;
    at = strchr(at, quoted ? '\'' : ' ');
    if (at) *at++ = 0;
    if (at && quoted && *at == ' ') at++;
  }
  argv[argc] = NULL;
  result r = {0};
  FILE *out = tmpfile(), *err = tmpfile();
  fflush(stdout);
  int old_out = dup(1), old_err = dup(2);
  dup2(fileno(out), 1);
  dup2(fileno(err), 2);
  r.code = mn_cli_main(argc, argv, mn_verbs, mn_n_verbs);
  fflush(stdout);
  dup2(old_out, 1);
  dup2(old_err, 2);
  close(old_out);
  close(old_err);
  slurp(out, r.out, sizeof r.out);
  slurp(err, r.err, sizeof r.err);
  return r;
}

static void refused(const result *r, const char *line, const char *expect) {
  CHECK(r->code == MN_EXIT_USAGE && strstr(r->err, expect), "%s: code %d, no \"%s\" in: %s", line, r->code, expect, r->err);
}

/* One letter too many, in the middle: "batch" becomes "battch". */
static const char *misspelt(const char *name, char buf[96]) {
  size_t n = strlen(name), middle = n / 2;
  while (middle + 1 < n && (name[middle] == '_' || name[middle] == '-')) middle++;
  snprintf(buf, 96, "%.*s%c%s", (int)middle + 1, name, name[middle], name + middle + 1);
  return buf;
}

/* ---- options ---- */

static void a_misspelt_option(const mn_verb *v, const mn_option *o) {
  char word[96], expect[96], line[256];
  snprintf(line, sizeof line, "%s --%s%s", v->name, misspelt(o->name, word), o->metavar ? "=1" : "");
  snprintf(expect, sizeof expect, "did you mean --%s?", o->name);
  result r = call("%s", line);
  refused(&r, line, expect);
}

static void an_empty_option(const mn_verb *v, const mn_option *o) {
  char line[256];
  if (!o->metavar) return;
  snprintf(line, sizeof line, "%s --%s=", v->name, o->name);
  result r = call("%s", line);
  refused(&r, line, strcmp(o->name, "set") ? "is empty" : "empty");
}

static void every_option_of_every_verb(void) {
  for (int i = 0; i < mn_n_verbs; i++) {
    const mn_verb *v = mn_verbs[i];
    for (const mn_option *o = v->options; o && o->name; o++) {
      a_misspelt_option(v, o);
      an_empty_option(v, o);
    }
    for (const mn_option *o = mn_cli_common_options; o->name; o++) {
      if (!mn_cli_accepts(v, o)) continue;
      a_misspelt_option(v, o);
      an_empty_option(v, o);
    }
    char word[96], expect[96];
    result r = call("%s", misspelt(v->name, word));
    snprintf(expect, sizeof expect, "did you mean `mneme %s`?", v->name);
    refused(&r, word, expect);
    if (v->max_args < 0) continue;
    r = call("%s a b c", v->name);
    CHECK(r.code == MN_EXIT_USAGE && strstr(r.err, "does not know what to do with"), "%s a b c: %s", v->name, r.err);
    if (!v->max_args) continue;
    r = call("%s ''", v->name);
    CHECK(r.code == MN_EXIT_USAGE && strstr(r.err, "an argument is empty"), "%s '': %s", v->name, r.err);
  }
}

/* Whole numbers are digits; what only looks like one is not rounded, cut or read as something else. `base`: a command in
 * which the option applies. */
static void whole_numbers(void) {
  static const char *const bases[] = {"train none.yaml --out x",
                                      "inspect none.yaml",
                                      "bench train",
                                      "bench lmm",
                                      "runs list --db none.db",
                                      "runs plot a --db none.db",
                                      "generate --model none",
                                      "stream --model none x",
                                      "stream --model none",
                                      "eval --model none --task passkey",
                                      "eval --model none --task stream",
                                      "eval --model none",
                                      NULL};
  static const char *const wrong[] = {" 5", "5.0", "1e3", "0x10", "nan", "inf", "99999999999999999999", "5 ", "five", "-", NULL};
  static const char *const counts[] = {"N", "B", "T", "C", NULL};
  for (int i = 0; bases[i]; i++) {
    const mn_verb *v = NULL;
    for (int k = 0; k < mn_n_verbs; k++)
      if (!strncmp(mn_verbs[k]->name, bases[i], strlen(mn_verbs[k]->name))) v = mn_verbs[k];
    for (const mn_option *o = v ? v->options : NULL; o && o->name; o++) {
      bool count = false;
      for (int k = 0; counts[k]; k++) count = count || (o->metavar && !strcmp(counts[k], o->metavar));
      for (int k = 0; count && wrong[k]; k++) {
        result r = call("%s '--%s=%s'", bases[i], o->name, wrong[k]);
        CHECK(r.code != 0 && r.code != 3, "%s --%s='%s' is refused", bases[i], o->name, wrong[k]);
        if (r.code != MN_EXIT_USAGE || strstr(r.err, "has no effect") || strstr(r.err, "whole number")) continue;
        CHECK(strstr(r.err, o->name) || strstr(r.err, "needs") || strstr(r.err, "which"), "%s --%s='%s': %s", bases[i], o->name, wrong[k],
              r.err);
      }
    }
  }
  static const char *const floats[] = {"nan", "inf", "0x1p3", " 1", "1,5", "-1", "1e999"};
  for (size_t k = 0; k < sizeof floats / sizeof *floats; k++) {
    result r = call("generate --model none '--temperature=%s'", floats[k]);
    refused(&r, floats[k], "expected a number from 0 to 100");
  }
}

/* What has no effect in the mode that was chosen. */
static void options_out_of_place(void) {
  static const struct {
    const char *line, *expect;
  } cases[] = {
      {"train --keys text --out x", "--out has no effect here"},
      {"train r.yaml --keys text", "leave out r.yaml"},
      {"train r.yaml --out x --seed 3 --set seed=4", "are both given"},
      {"compare a.yaml --out x --seeds 1,2 --seed 3", "--seed has no effect here"},
      {"generate --model m --temperature 0 --top-k 5", "--top-k has no effect here"},
      {"generate --model m --temperature 0 --top-p 0.5", "--top-p has no effect here"},
      {"generate --model m --temperature 0 --min-p 0.5", "--min-p has no effect here"},
      {"stream --model m text.txt --seed 3", "--seed has no effect here: it is for --random"},
      {"stream --model m --random 5 text.txt", "leave out text.txt"},
      {"inspect r.yaml --mode step --seq-len 5", "--seq-len has no effect here"},
      {"inspect r.yaml --mode forward --activations keep", "--activations has no effect here"},
      {"inspect r.yaml --off fusee", "did you mean fuse?"},
      {"apply r.yaml --params p --seed 3 --input x --output y", "--seed has no effect here"},
      {"runs show 1 --limit 3", "--limit has no effect here: it is for `mneme runs list`"},
      {"runs list --metric loss", "--metric has no effect here: it is for `mneme runs plot`"},
      {"runs list --recipe", "--recipe has no effect here"},
      {"runs lst", "did you mean list?"},
      {"bench machine --steps 3", "--steps has no effect here"},
      {"bench train --chunk 3", "--chunk has no effect here: it is for `mneme bench lmm`"},
      {"bench lmm --size 30m", "--size has no effect here"},
      {"bench lmm --chunk 8 --mixer '{type: aaren}'", "--chunk has no effect here"},
      {"bench train --steps-on-stdin --steps 5", "--steps has no effect here"},
      {"bench lm", "did you mean lmm?"},
      {"--version extra", "does not know what to do with 'extra'"},
      {"--help extra", "does not know what to do with 'extra'"},
      {"help train extra", "does not know what to do with 'extra'"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    result r = call("%s", cases[i].line);
    refused(&r, cases[i].line, cases[i].expect);
  }
  setenv("MNEME_LOG", "debgu", 1);
  result r = call("--version");
  refused(&r, "MNEME_LOG=debgu", "MNEME_LOG is 'debgu'");
  unsetenv("MNEME_LOG");
}

/* ---- keys ---- */

typedef struct section { /* of a recipe: where its keys stand and what precedes them */
  const char *path;
  const mn_field *fields;
  const char *mixer, *task; /* its `type` or `name` */
} section;

/* The recipe with one more line in a section; *line says which. */
static void write_recipe(const char *path, const section *s, const char *extra, int *line) {
  static const char *const sections[] = {
      "", "tokenizer", "data", "data.task", "model", "model.block", "model.block.mixer", "train", "train.optimizer", "train.schedule"};
  char text[2048] = "";
  int lines = 0;
  *line = 0;
  for (size_t i = 0; i < sizeof sections / sizeof *sections; i++) {
    const char *name = sections[i], *last = strrchr(name, '.');
    int depth = 0;
    for (const char *c = name; *c; c++) depth += *c == '.';
    if (!strcmp(name, "data.task") && !s->task) continue;
    size_t n = strlen(text);
    if (*name) n += (size_t)sprintf(text + n, "%*s%s:\n", 2 * depth, "", last ? last + 1 : name), lines++;
    int indent = *name ? 2 * depth + 2 : 0;
#define KEY(...) n += (size_t)sprintf(text + n, "%*s", indent, ""), n += (size_t)sprintf(text + n, __VA_ARGS__), lines++
    if (!*name) KEY("name: base\n");
    if (!strcmp(name, "tokenizer")) KEY("type: bytes\n");
    if (!strcmp(name, "data") && !s->task) KEY("files: [%s/text.txt]\n", dir);
    if (!strcmp(name, "data.task")) KEY("name: %s\n", s->task);
    if (!strcmp(name, "model")) KEY("d_model: 32\n");
    if (!strcmp(name, "model.block")) KEY("hidden: 32\n");
    if (!strcmp(name, "model.block.mixer")) KEY("type: %s\n", s->mixer ? s->mixer : "attention");
    if (!strcmp(name, "train")) KEY("steps: 1\n");
    if (!strcmp(name, "train.optimizer")) KEY("lr: 1e-3\n");
    if (!strcmp(name, "train.schedule")) KEY("type: constant\n");
    if (!strcmp(name, s->path)) {
      KEY("%s\n", extra);
      *line = lines;
    }
#undef KEY
  }
  CHECK_OK(mn_file_write(path, text, strlen(text)));
}

/* Every verb that takes a recipe; %s: the recipe. */
static const char *const readers[] = {"train %s --out none/out", "compare %s --out none/out", "inspect %s",
                                      "apply %s --input none --output none"};
enum { READERS = sizeof readers / sizeof *readers };

static void every_key_of(const section *s) {
  char path[128], word[96], extra[128], expect[256], line[512];
  snprintf(path, sizeof path, "%s/recipe.yaml", dir);
  for (const mn_field *f = s->fields; f->type != MN_TYPE_END; f++) {
    int at;
    snprintf(extra, sizeof extra, "%s: 1", misspelt(f->name, word));
    write_recipe(path, s, extra, &at);
    for (int v = 0; v < READERS; v++) {
      snprintf(line, sizeof line, readers[v], path);
      result r = call("%s", line);
      snprintf(expect, sizeof expect, "%s:%d: unknown key '%s' in ", path, at, word);
      refused(&r, line, expect);
      snprintf(expect, sizeof expect, "did you mean '%s'?", f->name);
      refused(&r, line, expect);
    }
  }
  /* the same by --set, once per table */
  int at;
  misspelt(s->fields[0].name, word);
  write_recipe(path, s, "# nothing more", &at);
  for (int v = 0; v < READERS; v++) {
    snprintf(line, sizeof line, readers[v], path);
    result r = call("%s --set %s%s%s=1", line, s->path, *s->path ? "." : "", word);
    snprintf(expect, sizeof expect, "--set %s%s%s=1: unknown key '%s'", s->path, *s->path ? "." : "", word, word);
    refused(&r, line, expect);
  }
}

static void every_key_of_every_table(void) {
  const section sections[] = {{"", mn_recipe_fields, NULL, NULL},
                              {"tokenizer", mn_tokenizer_fields, NULL, NULL},
                              {"data", mn_data_fields, NULL, NULL},
                              {"train", mn_train_fields, NULL, NULL},
                              {"train.optimizer", mn_optimizer_fields, NULL, NULL},
                              {"train.schedule", mn_schedule_fields, NULL, NULL},
                              {"model", mn_model_fields, NULL, NULL},
                              {"model.block", mn_block_fields, NULL, NULL}};
  for (size_t i = 0; i < sizeof sections / sizeof *sections; i++) every_key_of(&sections[i]);
  for (int i = 0; i < mn_mixer_count(); i++)
    every_key_of(&(section){"model.block.mixer", mn_mixer_at(i)->fields, mn_mixer_at(i)->name, NULL});
  for (int i = 0; mn_task_at(i); i++) every_key_of(&(section){"data.task", mn_task_at(i)->fields, NULL, mn_task_at(i)->name});
}

/* Keys that are spelt right and would still do nothing. */
static void keys_out_of_place(void) {
  static const struct {
    const char *set, *expect;
  } cases[] = {
      {"model.block.repeat=3", "has no effect: `block` stands `layers` times"},
      {"model.block={mixer: {type: aaren}, channel: none, hidden: 64}", "hidden has no effect with channel none"},
      {"model={d_model: 32, layers: 5, blocks: [{mixer: {type: aaren}}]}", "layers is 5, but `blocks` makes 1"},
      {"model.block.mixer={type: titans_lmm, segment: 128}", "segment has no effect with type titans_lmm"},
      {"model.block.mixer={type: titans_mac, window: 128}", "window has no effect with type titans_mac"},
      {"model.block.mixer={type: titans_mac, tokens: 3}",
       "(known: type, heads, head_dim, memory_net, memory_depth, memory_expand, memory_residual, chunk, granularity, read, lr_max, "
       "momentum, decay, grad_clamp, conv, output_gate, persistent, segment, rope_theta, trunc_bptt)"},
      {"model.block.mixer={type: attention, rope: false, rope_theta: 1e5}", "rope_theta has no effect with rope: false"},
      {"model.block.mixer={type: attention, rope_factor: 4}", "rope_factor has no effect without a rope_scaling"},
      {"tokenizer={vocab_size: 4096}", "vocab_size has no effect with type bytes"},
      {"tokenizer={type: file, file: x, pattern: gpt2}", "pattern has no effect with type file"},
      {"tokenizer={type: bpe, file: x}", "file is given, but type is bpe"},
      {"train.optimizer.momentum=0.9", "momentum has no effect with type adamw"},
      {"train.schedule={type: linear, decay_steps: 5}", "decay_steps has no effect with type linear"},
      {"train.schedule={type: constant, min_ratio: 0.5}", "min_ratio has no effect with type constant"},
      {"data={task: {name: mqar}, separator: x}", "separator has no effect on a task"},
      {"data={task: {name: mqar}, files: [x]}", "and files are both given"},
      {"data={task: {nmae: mqar}}", "did you mean 'name'?"},
      {"model.block.mixer={typ: aaren}", "did you mean 'type'?"},
      {"data={task: {name: mqarr}}", "did you mean 'mqar'?"},
      {"data={files: [x], validation_files: [y], validation: 0.1}", "validation has no effect beside validation_files"},
      {"seed=-4", "seed must be an integer, at least 0, but is -4"},
      {"seed=nan", "seed must be an integer"},
      {"train.batch=2.5", "train.batch must be an integer"},
      {"train.clip_norm=.nan", "train.clip_norm must be a number"},
      {"train.steps=99999999999999999999", "does not fit in 64 bits"},
      {"train.batch=", "there is no value"},
      {"model={d_model: 32}", "model.block (one block, which stands `layers` times) or `blocks` (a list) must be given"},
      {"model={d_model: 32, blocks: [{mixer: {type: aaren}}, -7]}",
       "model.blocks[1] must be a map such as {mixer: {type: attention}}, but is -7"},
      {"model.block.mixer={type: parallel, mixers: [{type: aaren}, aaren]}", "model.block.mixer.mixers[1] must be a map such as {type"},
      {"model.linear=[lora]", "model.linear[0] must be a map such as {match"},
      {"train.groups=[{match: x}, 3]", "train.groups[1] must be a map such as {match"},
      {"objective=[{type: next_token}, x]", "objective[1] must be a map such as {type: next_token}, but is the text"},
      {"objective=x", "objective must be a map such as {type: next_token}, or a list of such"},
      {"model={type: matching, base: {d_model: 8, block: {mixer: {type: attention}}}, students: [{}, 2]}", "model.students[0].mixer must"},
      {"model={type: matching, base: {d_model: 8, block: {mixer: {type: attention}}}, students: [2]}",
       "model.students[0] must be a map such as {layers: [0], mixer: {type: lizard}}, but is 2"},
  };
  char path[128], line[512];
  int at;
  snprintf(path, sizeof path, "%s/recipe.yaml", dir);
  write_recipe(path, &(section){"train", mn_train_fields, NULL, NULL}, "# nothing more", &at);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    for (int v = 0; v < READERS; v++) {
      snprintf(line, sizeof line, readers[v], path);
      result r = call("%s '--set=%s'", line, cases[i].set);
      refused(&r, cases[i].set, cases[i].expect);
    }
  const char *twice = "name: a\nname: b\n";
  CHECK_OK(mn_file_write(path, twice, strlen(twice)));
  for (int v = 0; v < READERS; v++) {
    snprintf(line, sizeof line, readers[v], path);
    result r = call("%s", line);
    refused(&r, line, "recipe.yaml:2: the key 'name' is already given on line 1");
  }
  const char *modle = "modle: {d_model: 8}\n";
  CHECK_OK(mn_file_write(path, modle, strlen(modle)));
  for (int v = 0; v < READERS; v++) {
    snprintf(line, sizeof line, readers[v], path);
    result r = call("%s", line);
    refused(&r, line, "did you mean 'model'?");
  }
}

/* What the program spells out itself, used or not, is no mistake: a run's own recipe begins another run. */
static void the_kept_recipe_is_good(void) {
  char path[128];
  int at;
  snprintf(path, sizeof path, "%s/recipe.yaml", dir);
  write_recipe(path, &(section){"train", mn_train_fields, NULL, NULL}, "seq_len: 16", &at);
  result r = call("train %s --out %s/model --quiet", path, dir);
  CHECK(r.code == 0, "%s", r.err);
  r = call("train %s/model/recipe.json --out %s/again --quiet", dir, dir);
  CHECK(r.code == 0, "%s", r.err);
  r = call("inspect %s/model --quiet", dir);
  CHECK(r.code == 0, "%s", r.err);
}

/* The length that nobody said is found with the batch that was said. */
static void inspect_takes_a_batch(void) {
  static const char *const mixer = "{d_model: 16, mixer: {type: titans_lmm, heads: 2}}";
  char path[128];
  snprintf(path, sizeof path, "%s/mixer.yaml", dir);
  CHECK_OK(mn_file_write(path, mixer, strlen(mixer)));
  for (int i = 0; i < 3; i++) {
    result r = call("inspect %s --batch 3 --mode %s", path, (const char *const[]){"train", "forward", "step"}[i]);
    CHECK(r.code == 0 && strstr(r.out, "for 3 streams"), "%s%s", r.err, r.out);
  }
}

/* ---- a model's verbs ---- */

static void settings_of_tasks(void) {
  char word[96], expect[256];
  for (int i = 0; mn_task_at(i); i++)
    for (const mn_field *f = mn_task_at(i)->fields; f->type != MN_TYPE_END; f++) {
      result r = call("eval --model %s/model --task %s --set %s=1", dir, mn_task_at(i)->name, misspelt(f->name, word));
      snprintf(expect, sizeof expect, "did you mean '%s'?", f->name);
      refused(&r, word, expect);
    }
  for (const mn_field *f = mn_needle_eval_fields; f->type != MN_TYPE_END; f++) {
    result r = call("eval --model %s/model --task stream --set %s=1", dir, misspelt(f->name, word));
    snprintf(expect, sizeof expect, "did you mean '%s'?", f->name);
    refused(&r, word, expect);
  }
  static const struct {
    const char *words, *expect;
  } cases[] = {{"--task mqarr", "did you mean 'mqar'?"},
               {"--task mqar --carry", "--carry has no effect here"},
               {"--task mqar --batches 3", "--batches has no effect here"},
               {"--task mqar --lengths 64", "--lengths has no effect here"},
               {"--task mqar --depths 3", "--depths has no effect here"},
               {"--task mqar --tokens 3", "--tokens has no effect here"},
               {"--task mqar --plot x.svg", "--plot has no effect here"},
               {"--task mqar --seq-len 3", "its settings (--set) change that"},
               {"--task mqar --stream --batch 3", "--batch has no effect here"},
               {"--task passkey --stream", "--stream has no effect here"},
               {"--task passkey --batch 3", "--batch has no effect here"},
               {"--task stream --examples 3", "--examples has no effect here"},
               {"--task stream --lengths 3", "--lengths has no effect here"},
               {"--task passkey --vary garbagee=0,1", "did you mean 'garbage'?"},
               {"--task passkey --vary garbage=0,1x", "garbage must be an integer"},
               {"--examples 3", "--examples has no effect here"},
               {"--seed 3", "--seed has no effect here"},
               {"--set len=3", "give --task NAME"},
               {"--task mqar --data x", "give one of them"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    result r = call("eval --model %s/model %s", dir, cases[i].words);
    refused(&r, cases[i].words, cases[i].expect);
  }
}

static void a_models_own_files(void) {
  char path[128], command[512];
  snprintf(path, sizeof path, "%s/model/config.json", dir);
  char *text = NULL;
  size_t n;
  CHECK_OK(mn_file_read(path, 1 << 20, &text, &n));
  snprintf(command, sizeof command, "sed -i 's/\"d_model\"/\"d_modell\"/; /\"checksum\"/d' %s", path);
  CHECK(system(command) == 0, "sed");
  static const char *const lines[] = {"eval --model %s/model", "generate --model %s/model", "stream --model %s/model --random 5",
                                      "inspect %s/model"};
  for (int i = 0; i < 4; i++) {
    snprintf(command, sizeof command, lines[i], dir);
    result r = call("%s", command);
    refused(&r, command, "did you mean 'd_model'?");
  }
  if (text) CHECK_OK(mn_file_write(path, text, n));
  free(text);
}

/* ---- tensors ---- */

static void write_tensors(const char *path, const char *const *names, const mn_shape *shapes, int n) {
  static const float zeros[1024];
  mn_st_writer *w = mn_st_writer_new();
  for (int i = 0; i < n; i++) CHECK_OK(mn_st_writer_add(w, names[i], MN_F32, &shapes[i], zeros));
  CHECK_OK(mn_st_writer_save(w, path));
  mn_st_writer_free(w);
}

static void tensors_of_apply(void) {
  char recipe[128], x[128], y[128], s[128], p[128], line[600];
  snprintf(recipe, sizeof recipe, "%s/mixer.yaml", dir);
  snprintf(x, sizeof x, "%s/x.safetensors", dir);
  snprintf(y, sizeof y, "%s/y.safetensors", dir);
  snprintf(s, sizeof s, "%s/s.safetensors", dir);
  snprintf(p, sizeof p, "%s/p.safetensors", dir);
  const char *text = "{d_model: 8, mixer: {type: aaren, heads: 2}}\n";
  CHECK_OK(mn_file_write(recipe, text, strlen(text)));
  const mn_shape shape = MN_SHAPE(1, 4, 8), shapes[] = {shape, shape};
  snprintf(line, sizeof line, "apply %s --input %s --output %s", recipe, x, y);
  write_tensors(x, (const char *const[]){"x"}, shapes, 1);
  result r = call("%s --state-out %s --params-out %s", line, s, p);
  CHECK(r.code == 0, "%s", r.err);
  r = call("%s --state-in %s --params %s", line, s, p);
  CHECK(r.code == 0, "what it wrote it reads: %s", r.err);
#define REFUSED(expect, ...)                                                                                                               \
  r = call(__VA_ARGS__);                                                                                                                   \
  CHECK(r.code != 0 && strstr(r.err, expect), "no \"%s\" in: %s", expect, r.err)
  write_tensors(x, (const char *const[]){"x", "dyy"}, shapes, 2);
  REFUSED("tensor 'dyy' is not an input", "%s --grad", line);
  REFUSED("did you mean 'dy'?", "%s --grad", line);
  write_tensors(x, (const char *const[]){"x", "dy"}, shapes, 2);
  REFUSED("and cotangents with --grad", "%s", line);
  r = call("%s --grad", line);
  CHECK(r.code == 0, "%s", r.err);
  REFUSED("is not a state of this recipe", "%s --grad --state-in %s", line, p);
  REFUSED("is not a parameter of this model", "%s --grad --params %s", line, s);
#undef REFUSED
}

/* What a recipe or a table has and nothing reads is said. */
static void what_is_left_out_is_said(void) {
  char csv[128], path[128];
  snprintf(csv, sizeof csv, "%s/rows.csv", dir);
  snprintf(path, sizeof path, "%s/rows.yaml", dir);
  mn_text rows = {0};
  mn_text_addf(&rows, "when,a,by\n");
  for (int i = 0; i < 60; i++) mn_text_addf(&rows, "2020-01-01,%d,x\n", i % 7);
  CHECK_OK(mn_file_write(csv, rows.data, rows.len));
  mn_text_free(&rows);
  char recipe[2000];
  snprintf(recipe, sizeof recipe,
           "data: {type: series, file: %s, input: 4, horizon: 2}\nmodel: {type: forecaster, context: 4, horizon: 2, channels: 1, patch: 2, "
           "d_model: 8, layers: 1, block: {mixer: {type: attention, heads: 2, causal: false}}}\nobjective: {type: regression}\n"
           "train: {steps: 1, batch: 2}\n",
           csv);
  CHECK_OK(mn_file_write(path, recipe, strlen(recipe)));
  result r = call("train %s --out %s/rows-1 --quiet --threads 1", path, dir);
  CHECK(r.code == 0 && strstr(r.err, "rows.csv: columns that hold no numbers are left out: when, by"), "%d: %s", r.code, r.err);
  r = call("train %s --out %s/rows-2 --quiet --threads 1 --set data.columns=[a]", path, dir);
  CHECK(r.code == 0 && !strstr(r.err, "left out"), "%d: %s", r.code, r.err);
}

int main(void) {
  if (!mkdtemp(dir)) return 1;
  char path[128], command[128];
  setenv("MNEME_HOME", dir, 1);
  unsetenv("MNEME_LOG");
  mn_text text = {0};
  for (int i = 0; i < 400; i++) mn_text_addf(&text, "line %d of a small text\n", i);
  snprintf(path, sizeof path, "%s/text.txt", dir);
  CHECK_OK(mn_file_write(path, text.data, text.len));
  mn_text_free(&text);
  RUN(every_option_of_every_verb);
  RUN(whole_numbers);
  RUN(options_out_of_place);
  RUN(every_key_of_every_table);
  RUN(keys_out_of_place);
  RUN(the_kept_recipe_is_good);
  RUN(inspect_takes_a_batch);
  RUN(settings_of_tasks);
  RUN(a_models_own_files);
  RUN(tensors_of_apply);
  RUN(what_is_left_out_is_said);
  snprintf(command, sizeof command, "rm -rf '%s'", dir);
  if (system(command) != 0) printf("%s was left behind\n", dir);
  return test_end();
}
