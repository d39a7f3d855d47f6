/* test_documents.c - every command that we print works: what README, CONTRIBUTING and docs/ show, the examples on the program's
 * pages, what the demo closes with, and the commands that messages name.
 *
 * In a document a command is a line of an indented or fenced block. A block that is not run here says why, in a comment above
 * it: <!-- not run: REASON -->. A document's commands run in order, in a directory of its own that looks like the tree; the
 * `mneme` they find is small.sh below, which makes long work short. `mneme VERB ...` within a sentence must name a verb and
 * options that exist.
 *
 * `test_documents WORD ...` runs what is prepared and then only the verbs, documents and parts whose names hold one of the words. */
#define _GNU_SOURCE
#include <ctype.h>
#include <glob.h>
#include <unistd.h>

#include "base/file.h"
#include "base/text.h"
#include "cli/cli.h"
#include "program.h"
#include "small_llama.h"
#include "wav_file.h"

#define SOURCE MN_TEST_SOURCE_DIR
static char dir[] = MN_TEST_BINARY_DIR "/documents-XXXXXX";

static char **only; /* words of the command line; NULL: everything */
static int n_wanted;
static bool wanted(const char *name) {
  bool yes = !only;
  for (int i = 0; only && only[i]; i++) yes = yes || strstr(name, only[i]);
  n_wanted += yes;
  return yes;
}

/* Two steps of a narrow layer where a document trains for minutes, a hundredth of every long number, one example, few depths. */
static const char small[] =
    "#!/bin/bash\n"
    "args=()\n"
    "for a in \"$@\"; do\n"
    "  [[ $a =~ ^[0-9]{5,}$ ]] && a=$((a / 100))\n"
    "  [[ $a == 11 ]] && a=2\n"
    "  [[ $a == 8192 ]] && a=1024\n"
    "  [[ $a == 8080 ]] && a=0\n" /* a port that may be taken */
    "  [[ $a == *,* && $a =~ ^[0-9,]+$ ]] && a=$(sed -E 's/([0-9]{3,})[0-9]{2}\\b/\\1/g' <<<\"$a\")\n"
    "  args+=(\"$a\")\n"
    "done\n"
    "has() { [[ \" ${args[*]} \" == *\" $1 \"* ]]; }\n"
    "case $1 in\n"
    "  train | compare) has --keys || args+=(--set train.steps=2 --set train.schedule.warmup_steps=0\n"
    "    --set train.validation_batches=1 --set train.batch=1 --set model.d_model=32 --set model.layers=1) ;;\n"
    "  adapt) has linearize && ! has --resume && { args+=(--set train.validation_batches=1)\n"
    "    has --match-steps || args+=(--match-steps 2 --tune-steps 2); } ;;\n"
    "  eval) has --task && ! has stream && ! has --examples && args+=(--examples 1)\n"
    "    has --data && has --lengths && ! has --examples && args+=(--examples 1)\n"
    "    has --task || has --data || has --set || has runs/mag || args+=(--batches 1) ;;\n"
    "  serve) [[ \" ${args[*]} \" == *\" --port 812\"* ]] || { args+=(--check); has --port || args+=(--port 0); } ;;\n" /* an example; docs/server.md asks its own */
    "  bench) has machine || { has --steps || args+=(--steps 1); has --seq-len || args+=(--seq-len 64); has --batch || args+=(--batch 1); } ;;\n"
    "esac\n"
    "exec " MN_TEST_BINARY_DIR "/mneme \"${args[@]}\"\n";

/* ---- a directory that looks like the tree ---- */

static void make_tree(const char *name) {
  CHECK(sh("cd %s && mkdir -p %s/bin %s/build %s/data/books && cd %s && ln -s " SOURCE "/recipes recipes && "
           "head -c 30000 " SOURCE "/data/books/moby-dick.txt >data/books/moby-dick.txt && "
           "head -c 30000 " SOURCE "/data/books/pride-and-prejudice.txt >data/books/pride-and-prejudice.txt && ln -s " SOURCE
           "/data/dialogues data/dialogues && "
           "cp ../small.sh build/mneme && cp ../small.sh bin/mneme && printf '#!/bin/sh\\n' >bin/cmake && cp bin/cmake bin/ninja && "
           "chmod +x bin/* build/mneme",
           dir, name, name, name, name) == 0,
        "%s", out);
  CHECK(sh("mkdir -p %s/%s/data/fsdd", dir, name) == 0, "%s", out);
  for (int i = 0; i < 30; i++) { /* ten digits; of each one to be tested and two to learn from */
    char path[400];
    snprintf(path, sizeof path, "%s/%s/data/fsdd/%d_jackson_%d.wav", dir, name, i / 3, i % 3 ? 4 + i % 3 : 0);
    wav_write(path, 8000, 300 + 200 * (i / 3) + 5 * (i % 3), 1200);
  }
}

static int run_in(const char *tree, const char *command) {
  char path[256], script[4096];
  snprintf(path, sizeof path, "%s/command.sh", dir);
  int n = snprintf(script, sizeof script,
                   "cd '%s/%s' || exit 99\nexport PATH=\"$PWD/bin:$PATH\"\nunset MNEME_HOME MNEME_LOG\nexec 2>&1 </dev/null\n%s\n", dir,
                   tree, command);
  CHECK_OK(mn_file_write(path, script, (size_t)n));
  return sh("timeout 300 bash %s", path);
}

static void works(const char *where, const char *tree, const char *command) {
  double began = mn_now();
  int code = run_in(tree, command);
  if (getenv("MNEME_TEST_TIMES")) printf("%6.1f s  %s\n", mn_now() - began, command);
  CHECK(code == 0, "%s: `%s` ended with %d: %.600s", where, command, code, out);
}

/* Models of other programs: a Llama with the tokenizer of a run, and a BERT that knows some words. */
static void put_models_of_others(const char *tree) {
  static const char words[] =
      "{\"version\": \"1.0\", \"added_tokens\": [], \"normalizer\": {\"type\": \"BertNormalizer\", \"clean_text\": true,\n"
      "\"handle_chinese_chars\": true, \"strip_accents\": null, \"lowercase\": true},\n"
      "\"pre_tokenizer\": {\"type\": \"BertPreTokenizer\"},\n"
      "\"post_processor\": null, \"decoder\": {\"type\": \"WordPiece\", \"prefix\": \"##\", \"cleanup\": true},\n"
      "\"model\": {\"type\": \"WordPiece\", \"unk_token\": \"[UNK]\", \"continuing_subword_prefix\": \"##\",\n"
      "\"max_input_chars_per_word\": 100, \"vocab\": {\"[UNK]\": 0, \"a\": 1, \"man\": 2, \"is\": 3, \"eat\": 4, \"##s\": 5,\n"
      "\"##ing\": 6, \"food\": 7, \"some\": 8, \"##one\": 9, \"has\": 10, \"lunch\": 11, \".\": 12}}}\n";
  char path[400];
  snprintf(path, sizeof path, "%s/%s/downloads/llama", dir, tree);
  put_llama(path, 1024, 1024); /* as many tokens as recipes/quick.yaml's tokenizer has */
  snprintf(path, sizeof path, "%s/%s/models/all-MiniLM-L6-v2", dir, tree);
  CHECK_OK(mn_make_dirs(path));
  snprintf(path, sizeof path, "%s/%s/models/all-MiniLM-L6-v2/tokenizer.json", dir, tree);
  CHECK_OK(mn_file_write(path, words, sizeof words - 1));
}

/* What documents and examples take as given: trained models, models of other programs, recipes, tensors, runs. */
static void set_up(const char *tree) {
  make_tree(tree);
  put_models_of_others(tree);
  static const char *const commands[] = {
      "mneme train recipes/quick.yaml --out runs/quick",
      "mneme train recipes/quick.yaml --out runs/demo",
      "mneme train recipes/mqar-mag.yaml --out runs/mqar",
      "mneme train recipes/mqar-swa.yaml --set 'data={task: {name: niah_mini}}' --set model.vocab_size=512 --set train.seq_len=256 --out "
      "runs/needles",
      "mneme train recipes/quick.yaml --set name=titans --out runs/titans",
      "mneme train recipes/synaptic.yaml --out runs/synaptic",
      "mneme train recipes/quick.yaml --set name=attention --set 'model.block.mixer={type: attention}' --out runs/attention",
      "mneme train recipes/digits-lmuformer.yaml --out runs/digits",
      MN_TEST_BINARY_DIR "/mneme train recipes/quick.yaml --set name=teacher --set 'model={d_model: 32, layers: 4, block: {mixer: {type: "
                         "attention, heads: 2}}}' --set 'train={steps: 2, batch: 2, validation_batches: 1}' --out runs/teacher",
      "mneme train recipes/quick.yaml --set name=lora --set 'model.linear=[{match: \"*.q_proj\", type: lora}]' --out runs/lora",
      "mneme train recipes/rxt.yaml --set stages=null --set model.encoder.layers=1 --out runs/rxt && echo anna has red | mneme chat runs/rxt --session anna",
      "mneme stream --model runs/quick data/books/moby-dick.txt --session-out book.safetensors",
      "cp recipes/quick.yaml a.yaml && sed 's/^name:.*/name: b/' recipes/quick.yaml >b.yaml && cp data/books/*.txt . && mv moby-dick.txt a.log",
      "echo the-only-key-there-is >keys.txt",
      "echo '{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}' >chat.jinja",
      "cp runs/quick/tokenizer.json downloads/llama && cp chat.jinja downloads/llama/chat_template.jinja && "
      "mneme convert downloads/llama --out model.gguf && "
      "mneme convert model.gguf --out models/SmolLM2-135M-Instruct.Q4_1.gguf --type q4_1",
      "echo so it begins | mneme chat model.gguf --system 'Be brief.' --session anna --tokens 4",
      "cp " SOURCE "/tests/golden/checkpoints/bert/{config.json,model.safetensors} models/all-MiniLM-L6-v2 && "
      "printf 'A man is eating food.\\nSomeone has lunch.\\n' >lines.txt",
      "echo '{d_model: 32, mixer: {type: titans_lmm, heads: 2}}' >titans.yaml",
      "echo '{d_model: 32, mixer: {type: attention, heads: 2}}' >attention.yaml",
      "echo '{d_model: 32, mixer: {type: aaren, heads: 2}}' >aaren.yaml",
      "echo '{d_model: 32, mixer: {type: gated_deltanet, heads: 2}}' >gated_deltanet.yaml",
      "{ printf '\\100\\0\\0\\0\\0\\0\\0\\0%-64s' '{\"x\":{\"dtype\":\"F32\",\"shape\":[1,4,32],\"data_offsets\":[0,512]}}'; head -c 512 /dev/zero; } "
      ">x.safetensors",
      "mneme apply titans.yaml --input x.safetensors --output y.safetensors --params-out p.safetensors"};
  for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) works("set-up", tree, commands[i]);
}

/* ---- documents ---- */

static bool begins(const char *s, const char *with) { return !strncmp(s, with, strlen(with)); }

/* Does a line of a block begin a command? */
static bool is_command(const char *s) {
  static const char *const words[] = {"mneme ",   "build/", "scripts/", "bench/", "cmake ", "ninja ",  "cat ",
                                      "python3 ", "cd ",    "curl ",    "kill ",  "echo ",  "(mneme ", NULL};
  for (int i = 0; words[i]; i++)
    if (begins(s, words[i])) return true;
  size_t name = strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_"); /* VARIABLE=value mneme ... */
  return name > 0 && s[name] == '=' && strstr(s, "mneme");
}

/* `mneme VERB --option ...`: the verb and its options exist. */
static void names_exist(const char *where, const char *text) {
  char word[64];
  const mn_verb *verb = NULL;
  const char *s = text + strspn(text, " ");
  size_t n = strcspn(s, " ");
  snprintf(word, sizeof word, "%.*s", (int)n, s);
  if (!islower((unsigned char)word[0])) return;                                       /* VERB, --help, %s */
  if (s[n] == ' ' && s[n + 1] && !s[n + 1 + strspn(s + n + 1, "0123456789")]) return; /* `mneme session 1`: a file's format */
  for (int i = 0; i < mn_n_verbs; i++)
    if (!strcmp(mn_verbs[i]->name, word)) verb = mn_verbs[i];
  CHECK(verb, "%s: `mneme %s`: there is no such verb", where, text);
  while (verb && (s = strstr(s, " --"))) {
    s += 3;
    n = strspn(s, "abcdefghijklmnopqrstuvwxyz-");
    snprintf(word, sizeof word, "%.*s", (int)n, s);
    bool known = n == 0 || !strcmp(word, "help");
    for (const mn_option *o = verb->options; o && o->name; o++) known = known || !strcmp(o->name, word);
    for (const mn_option *o = mn_cli_common_options; o->name; o++) known = known || (mn_cli_accepts(verb, o) && !strcmp(o->name, word));
    CHECK(known, "%s: `mneme %s`: %s has no option --%s", where, text, verb->name, word);
  }
}

/* Commands within sentences: `mneme ...` in backticks; a line break may stand in it. */
static void check_spans(const char *where, const char *text) {
  for (const char *at = text; (at = strstr(at, "`mneme ")); at++) {
    char span[400];
    size_t n = strcspn(at + 7, "`"), k = 0;
    for (size_t i = 0; i < n && k + 1 < sizeof span; i++) {
      char c = at[7 + i] == '\n' || at[7 + i] == '"' || at[7 + i] == '\\' ? ' ' : at[7 + i];
      if (c != ' ' || (k && span[k - 1] != ' ')) span[k++] = c;
    }
    span[k] = 0;
    names_exist(where, span);
  }
}

/* Runs the commands of one document in its tree. Returns how many. */
static int run_document(const char *path, const char *tree) {
  char *text = NULL, *rest, command[2048] = "";
  size_t n;
  CHECK_OK(mn_file_read(path, 1 << 22, &text, &n));
  if (!text) return 0;
  check_spans(path, text);
  const char *where = path + sizeof SOURCE;
  bool fenced = false, marked = false, in_block = false, goes_on = false;
  int count = 0;
  for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
    char *s = line + strspn(line, " ");
    if (begins(s, "<!-- not run:")) marked = true, in_block = false;
    if (begins(s, "```")) {
      fenced = !fenced;
      if (!fenced) marked = false;
      continue;
    }
    bool block = fenced || s - line >= 4;
    if (!block && in_block && !fenced) marked = false; /* the block has ended */
    in_block = block;
    if (!block) continue;
    if (begins(s, "$ ")) s += 2;
    bool command_line = goes_on || is_command(s);
    CHECK(marked || command_line || !strstr(s, "mneme "), "%s: is neither run nor marked: %s", where, s);
    if (marked || !command_line) continue;
    size_t used = strlen(command), len = strlen(s);
    goes_on = len && s[len - 1] == '\\';
    snprintf(command + used, sizeof command - used, "%.*s", (int)(goes_on ? len - 1 : len), s);
    if (goes_on) continue;
    works(where, tree, command);
    command[0] = 0;
    count++;
  }
  free(text);
  return count;
}

static void the_readme_in_order(void) { /* by a newcomer: nothing is there */
  make_tree("readme");
  CHECK(run_document(SOURCE "/README.md", "readme") >= 10, "README shows commands");
}

static void every_other_document(void) {
  static const char *const patterns[] = {SOURCE "/docs/*.md",        SOURCE "/docs/systems/*.md",      SOURCE "/docs/models/*.md",
                                         SOURCE "/CONTRIBUTING.md",  SOURCE "/tests/golden/README.md", SOURCE "/tests/golden/*/README.md",
                                         SOURCE "/bench/*/README.md"};
  glob_t found = {0};
  for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) glob(patterns[i], i ? GLOB_APPEND : 0, NULL, &found);
  int count = 0;
  for (size_t i = 0; i < found.gl_pathc; i++)
    if (wanted(found.gl_pathv[i] + sizeof SOURCE)) count += run_document(found.gl_pathv[i], "documents");
  CHECK(found.gl_pathc >= 8 && (count >= 8 || only), "%zu documents with %d commands", found.gl_pathc, count);
  globfree(&found);
}

/* ---- the program ---- */

static void every_example_of_every_verb(void) {
  for (int i = 0; i < mn_n_verbs; i++) {
    if (!wanted(mn_verbs[i]->name)) continue;
    if (!strcmp(mn_verbs[i]->name, "train")) run_in("documents", "rm -r runs/quick"); /* its first example makes it */
    for (int k = 0; mn_verbs[i]->examples && mn_verbs[i]->examples[k]; k++) works(mn_verbs[i]->name, "documents", mn_verbs[i]->examples[k]);
    CHECK(mn_verbs[i]->examples && mn_verbs[i]->examples[0], "%s has examples", mn_verbs[i]->name);
    check_spans(mn_verbs[i]->name, mn_verbs[i]->about ? mn_verbs[i]->about : "");
    for (const mn_option *o = mn_verbs[i]->options; o && o->name; o++) check_spans(o->name, o->help);
  }
}

/* Commands that messages and comments name, anywhere in the sources, recipes and scripts. */
static void what_the_sources_name(void) {
  static const char *const patterns[] = {SOURCE "/src/*/*.c",   SOURCE "/src/*/*/*.c",    SOURCE "/src/*/*.h",
                                         SOURCE "/include/*.h", SOURCE "/recipes/*.yaml", SOURCE "/examples/*.c"};
  glob_t found = {0};
  for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) glob(patterns[i], i ? GLOB_APPEND : 0, NULL, &found);
  CHECK(found.gl_pathc > 100, "%zu sources", found.gl_pathc);
  for (size_t i = 0; i < found.gl_pathc; i++) {
    char *text = NULL;
    size_t n;
    CHECK_OK(mn_file_read(found.gl_pathv[i], 1 << 22, &text, &n));
    if (text) check_spans(found.gl_pathv[i] + sizeof SOURCE, text);
    free(text);
  }
  globfree(&found);
}

/* A mistake, the command that its message names, and that command run. Words in capitals stand for names. */
static void what_a_message_names_works(void) {
  static const struct {
    const char *mistake, *names;
  } cases[] = {{"mneme trian recipes/quick.yaml", "mneme train"},
               {"mneme zzzzz", "mneme --help"},
               {"mneme train recipes/quick.yaml --zzzzz", "mneme train --help"},
               {"mneme train --out none", "mneme train recipes/quick.yaml --out DIR"},
               {"MNEME_HOME=empty mneme runs list", "mneme train RECIPE.yaml --out DIR"},
               {"mneme runs show nobody", "mneme runs list"},
               {"mneme runs show", "mneme runs list"},
               {"mneme bench machine --chunk 3", "mneme bench lmm"},
               {"mneme bench machine --size 10m", "mneme bench train"},
               {"mneme runs show 1 --limit 3", "mneme runs list"},
               {"mneme runs", "mneme runs list"},
               {"mneme --help extra", "mneme --help"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    run_in("documents", cases[i].mistake);
    char quoted[128], command[256];
    snprintf(quoted, sizeof quoted, "`%s", cases[i].names);
    CHECK(strstr(out, quoted), "%s: does not name `%s`: %s", cases[i].mistake, cases[i].names, out);
    if (!strcmp(cases[i].names, "mneme train")) continue; /* the verb; the line is the user's */
    snprintf(command, sizeof command, "r=%s; mneme %s", "RECIPE.yaml", cases[i].names + 6);
    char *place = strstr(command, "RECIPE.yaml --"), *d = strstr(command, "DIR");
    if (place) memcpy(place, "a.yaml     ", 11);
    if (d) memcpy(d, "d", 1), d[1] = (char)('0' + i % 10), d[2] = (char)('a' + i / 10);
    works(cases[i].mistake, "documents", command);
  }
}

/* The demo is too long for a test, its last line is not. */
static void what_the_demo_closes_with(void) {
  char *text = NULL;
  size_t n;
  CHECK_OK(mn_file_read(SOURCE "/scripts/demo", 1 << 20, &text, &n));
  char *line = text ? strstr(text, "echo \"go on:") : NULL;
  CHECK(line, "the demo says how to go on");
  if (line) {
    line[strcspn(line, "\n")] = 0;
    CHECK(run_in("documents", "mkdir -p out && cp -r runs/titans out/titans && cp runs/mneme.db out/runs.db") == 0, "%s", out);
    char command[1024];
    snprintf(command, sizeof command, "out=out; mneme=build/mneme; %s", line);
    CHECK(run_in("documents", command) == 0, "%s", out);
    char *copy = strdup(strstr(out, "go on:") ? strstr(out, "go on:") + 6 : ""), *at = copy, *next;
    int count = 0;
    for (; at && *at; at = next) { /* several spaces, or a line, between commands */
      at += strspn(at, " \n");
      char *gap = strstr(at, "   "), *end = strchr(at, '\n');
      next = gap && (!end || gap < end) ? gap : end;
      if (next) *next++ = 0;
      if (!*at) continue;
      works("scripts/demo", "documents", at);
      count++;
    }
    CHECK(count >= 2, "%d commands in: %s", count, line);
    free(copy);
  }
  free(text);
}

/* A recipe is looked at as it stands, whatever length its model holds and wherever its vocabulary comes from; what is said is what a
 * training makes of it, and what it left is looked at, too. */
static void every_recipe_can_be_looked_at(void) {
  glob_t found;
  CHECK(glob(SOURCE "/recipes/*.yaml", 0, NULL, &found) == 0 && found.gl_pathc >= 20, "recipes");
  for (size_t i = 0; i < found.gl_pathc; i++)
    CHECK(sh(MNEME "inspect %s --quiet 2>&1", found.gl_pathv[i]) == 0, "%s: %s", found.gl_pathv[i], out);
  globfree(&found);
  static const char *const ways[] = {"data={task: {name: mqar, vocab_size: 64}}", "tokenizer={type: bpe, vocab_size: 300}",
                                     "data={task: {name: listops_mini}}"};
  for (size_t i = 0; i < 3; i++) {
    char parameters[2][64] = {"", "?"};
    const char *model = i == 2
                            ? "{type: classifier, num_classes: 10, d_model: 16, layers: 1, positions: learned, max_positions: 128, block: "
                              "{mixer: {type: attention, heads: 2, causal: false, rope: false}}}"
                            : "{d_model: 16, layers: 1, block: {mixer: {type: gla, heads: 2}}}";
    const char *objective = i == 2 ? "classification" : "next_token";
    CHECK(sh("rm -rf %s/looked && " MNEME "train " SOURCE "/recipes/quick.yaml --set data.files='[" SOURCE
             "/data/books/pride-and-prejudice.txt]' --set '%s' --set 'model=%s' --set objective.type=%s "
             "--set 'train={steps: 1, batch: 2, validation_batches: 1}' "
             "--out %s/looked --db %s/looked.db --quiet 2>&1",
             dir, ways[i], model, objective, dir, dir) == 0,
          "%s", out);
    CHECK(sh(MNEME "inspect %s/looked 2>&1 | grep ^parameters", dir) == 0, "%s: %s", ways[i], out);
    snprintf(parameters[0], 64, "%.60s", out);
    CHECK(sh(MNEME "inspect " SOURCE "/recipes/quick.yaml --set '%s' --set 'model=%s' --set objective.type=%s 2>&1 | grep ^parameters",
             ways[i], model, objective) == 0,
          "%s: %s", ways[i], out);
    snprintf(parameters[1], 64, "%.60s", out);
    CHECK(!strcmp(parameters[0], parameters[1]), "%s: %s, trained %s", ways[i], parameters[1], parameters[0]);
  }
  CHECK(sh(MNEME "inspect " SOURCE "/recipes/quick.yaml --set 'train={batch: 2}' --set 'stages=[{steps: 3, train: {batchh: 3}}]' 2>&1") ==
                2 &&
            strstr(out, "batchh"),
        "a key of a stage: %s", out);
  CHECK(sh(MNEME "inspect " SOURCE "/recipes/quick.yaml --set 'train.groups=[{match: \"layers.*\", lr: 0.001}]' --quiet 2>&1") == 0, "%s",
        out);
  CHECK(sh(MNEME "inspect " SOURCE "/recipes/quick.yaml --set 'train.groups=[{match: \"layer.*\", frozen: true}]' 2>&1") == 2 &&
            strstr(out, "'layer.*' fits no parameter"),
        "a group of nothing: %s", out);
  CHECK(
      sh(MNEME
         "inspect " SOURCE
         "/recipes/quick.yaml --set 'train={batch: 2}' --set 'stages=[{steps: 2}, {steps: 3, train: {groups: [{match: hed, lr: 0.001}]}}]' "
         "2>&1") == 2 &&
          strstr(out, "stages[1]") && strstr(out, "'hed' fits no parameter"),
      "a group of nothing in a stage: %s", out);
}

int main(int argc, char **argv) {
  if (argc > 1) only = argv + 1;
  if (!mkdtemp(dir)) return 1;
  char path[128];
  snprintf(path, sizeof path, "%s/small.sh", dir);
  CHECK_OK(mn_file_write(path, small, sizeof small - 1));
  if (wanted("README.md the_readme_in_order")) RUN(the_readme_in_order);
  set_up("documents");
  RUN(every_example_of_every_verb);
  RUN(every_other_document);
  if (wanted("what_the_sources_name")) RUN(what_the_sources_name);
  if (wanted("what_a_message_names_works")) RUN(what_a_message_names_works);
  if (wanted("what_the_demo_closes_with")) RUN(what_the_demo_closes_with);
  if (wanted("every_recipe_can_be_looked_at")) RUN(every_recipe_can_be_looked_at);
  CHECK(n_wanted, "no verb, document or part has such a name");
  if (sh("rm -rf '%s'", dir) != 0) printf("%s was left behind\n", dir);
  return test_end();
}
