/* What must be true of every verb, whatever stands where it writes: nothing outside its folder changes. Each verb runs once in a
 * clean folder, which shows the names that it makes; then again and again with a trap in the place of each name - a link to a
 * file, to a directory, to nothing, a second name of a file, a pipe, a directory, a read-only file - and everything around is
 * compared before and after: names, contents, modes, times, where links point. No trap may make a verb hang or crash. The list of
 * verbs and of their output files is the program's own: a new one fails here until a command covers it. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/text.h"
#include "cli/cli.h"
#include "wav_file.h"

#define WORK    "work"
#define OUTSIDE "outside"
/* Nowhere else: where the folder is gone, nothing may run in whatever directory the test was started from. */
#define SH_BEGIN "cd " WORK " || exit 125; exec 2>&1 </dev/null; "
#define MNEME    "timeout -k 2 60 " MN_TEST_BINARY_DIR "/mneme "
#include "program.h"

/* ---- the commands ------------------------------------------------------------------------------------------------- */

typedef struct scenario {
  const char *verb;
  const char *home;    /* $MNEME_HOME in the folder; NULL: unset, so that ./runs is used        */
  const char *prepare; /* a shell line before the traps are set                                  */
  const char *command; /* what follows `mneme`                                                   */
  const char *named;   /* a directory that the command names: a link there is the user's choice  */
  const char *below;   /* traps only here, where the rest is as in another command; with $ at its end that name alone; NULL: everywhere */
  const char *more[8]; /* names that are made and gone again, or that a killed process leaves    */
} scenario;

#define RESUME                                                                                                                             \
  MNEME "train recipe.yaml --quiet --out out >/dev/null && rm -r out/checkpoints/step-8 out/model.safetensors && "                         \
        "mkdir out/checkpoints/writing-x && touch out/checkpoints/writing-x/model.safetensors"
#define LINEARIZE "adapt linearize model --out out --match-steps 2 --tune-steps 2 --mixer window=4 --quiet --threads 1"
static const scenario scenarios[] = {
    {.verb = "train",
     .home = "home",
     .command = "train recipe.yaml --quiet --out out",
     .named = "out",
     .more = {"out/.lock", "out/.mneme-1-1.tmp", "home/cache/.mneme-1-1.tmp", "out/checkpoints/writing-step-4", "home/runs.db-wal"}},
    {.verb = "train", .command = "train small.yaml --quiet --out out", .named = "out", .below = "runs", .more = {"runs/mneme.db-shm"}},
    {.verb = "train",
     .home = "home",
     .prepare = RESUME,
     .command = "train recipe.yaml --quiet --out out --resume",
     .named = "out",
     .below = "out",
     .more = {"out/.lock", "out/checkpoints/writing-x", "out/checkpoints/writing-step-8", "out/checkpoints/step-4",
              "out/checkpoints/step-2", "out/checkpoints/writing-x/model.safetensors"}},
    {.verb = "compare",
     .home = "home",
     .command = "compare small.yaml --quiet --out out",
     .named = "out",
     .below = "out",
     .more = {"out/.lock", "out/small/.lock"}},
    {.verb = "compare",
     .home = "home",
     .command = "compare small.yaml --tracks tracks.yaml --quiet --out out",
     .named = "out",
     .below = "out",
     .more = {"out/track/small/.lock", "out/compare.db-wal"}},
    {.verb = "adapt", .home = "home", .command = LINEARIZE, .named = "out", .below = "out/match$"},
    {.verb = "adapt", .home = "home", .command = LINEARIZE, .named = "out", .below = "out/match.json$"},
    {.verb = "adapt", .home = "home", .command = LINEARIZE, .named = "out", .below = "out/tune$"},
    {.verb = "adapt", .home = "home", .command = LINEARIZE, .named = "out", .below = "out/linearize.json$"},
    {.verb = "adapt",
     .home = "home",
     .prepare = MNEME "train small.yaml --quiet --out lora --set 'model.linear=[{match: \"*.q_proj\", type: lora}]' >/dev/null",
     .command = "adapt merge lora --out out",
     .named = "out",
     .below = "out"},
    {.verb = "eval", .home = "home", .command = "eval --model model --data text.txt --batches 1"},
    {.verb = "eval", .home = "home", .command = "eval --model model --data text.txt --batches 1 --soft-targets soft.safetensors --top 2"},
    {.verb = "eval",
     .home = "home",
     .command = "eval --model model --task passkey --examples 1 --set garbage=20 --plot e.svg --plot e.png"},
    {.verb = "generate", .home = "home", .command = "generate --model model --prompt the --tokens 4 --session-out g.safetensors"},
    {.verb = "chat",
     .home = "home",
     .command = "chat model --session a --tokens 4 <small.yaml",
     .more = {"model/sessions/.mneme-a.safetensors.lock", "model/sessions/.mneme-killed.safetensors.lock"}},
    {.verb = "chat",
     .home = "home",
     .prepare = "echo '{{ messages[-1].content }}' >t.jinja",
     .command = "chat model --template t.jinja --session b --tokens 4 <small.yaml"},
    {.verb = "stream",
     .home = "home",
     .command = "stream --model model --score --tokens 300 --session-out s.safetensors --csv s.csv --plot s.svg text.txt",
     .more = {".mneme-1-1.tmp"}},
    {.verb = "stream",
     .home = "home",
     .prepare = MNEME "train small.yaml --quiet --out wise --set 'model.block.mixer={type: titans_lmm, heads: 1, chunk: 4}' >/dev/null",
     .command = "stream --model wise --tokens 50 --report surprise --report-out r.csv text.txt"},
    {.verb = "tokenize", .home = "home", .command = "tokenize model text"},
    {.verb = "embed",
     .home = "home",
     .prepare = MNEME "train small.yaml --quiet --out reads --set model.type=encoder --set model.block.mixer.causal=false "
                      "--set 'objective={type: masked_token}' --set 'tokenizer={type: bpe, vocab_size: 260}' >/dev/null",
     .command = "embed reads text"},
    {.verb = "convert",
     .home = "home",
     .prepare = "cp " MN_TEST_SOURCE_DIR "/tests/fuzz/gguf/blocks blocks.gguf",
     .command = "convert blocks.gguf --out q8.gguf --type q8_0"},
    {.verb = "graft", .home = "home", .command = "graft --base model --mixer '{type: synaptic, heads: 1}' --output g.json"},
    {.verb = "task", .home = "home", .command = "task mqar --set len=16 --set kv=2 --count 3 --output samples.safetensors"},
    {.verb = "task", .home = "home", .command = "task passkey --set garbage=100 --count 3 --output samples.jsonl"},
    {.verb = "apply",
     .home = "home",
     .command = "apply unit.yaml --input x.safetensors --output y.safetensors --state-out t.safetensors --params-out p.safetensors"},
    {.verb = "inspect", .home = "home", .command = "inspect recipe.yaml --seq-len 16"},
    {.verb = "inspect", .home = "home", .command = "inspect model --mode step"},
    {.verb = "runs", .home = "done", .command = "runs plot 1 --out r.svg --out r.png"},
    {.verb = "runs", .home = "done", .command = "runs delete 1"},
    {.verb = "classify",
     .home = "home",
     .prepare = MNEME "train heard.yaml --quiet --out heard >/dev/null",
     .command = "classify heard low_0.wav high_1.wav"},
    {.verb = "serve", .home = "home", .command = "serve model --port 0 --check --access-log access.log", .below = "access.log$"},
    {.verb = "bench", .home = "home", .command = "bench lmm --seq-len 64 --chunk 16 --steps 1"},
};
enum { N_SCENARIOS = sizeof scenarios / sizeof *scenarios };

static const char recipe_text[] = "name: trapped\n"
                                  "tokenizer: {type: bpe, vocab_size: 260}\n"
                                  "data: {files: [text.txt]}\n"
                                  "model: {d_model: 8, layers: 1, block: {mixer: {type: attention, heads: 1}, hidden: 8}}\n"
                                  "train: {steps: 8, batch: 2, seq_len: 16, checkpoint_every: 4, keep_last: 1, validation_batches: 1}\n";
static const char small_text[] = "name: small\n"
                                 "data: {files: [text.txt]}\n"
                                 "model: {d_model: 8, layers: 1, block: {mixer: {type: attention, heads: 1}, hidden: 8}}\n"
                                 "train: {steps: 4, batch: 2, seq_len: 16, validation_batches: 1, log_every: 1, validate_every: 2}\n";
static const char heard_text[] = "name: heard\n"
                                 "data: {type: audio, files: ['*.wav'], frames: 9, bands: 4, validation: 0}\n"
                                 "model: {type: lmuformer, channels: 4, num_classes: 2, d_model: 4, window: 9}\n"
                                 "objective: {type: classification}\n"
                                 "train: {steps: 2, batch: 2, validate_every: 0}\n";
static const char tracks_text[] = "tracks:\n"
                                  "- name: track\n"
                                  "  parameters: 2600\n"
                                  "  tokens: 128\n"
                                  "  recipe: {data: {files: [text.txt]}, train: {batch: 2, seq_len: 16, validation_batches: 1}}\n"
                                  "  measure:\n"
                                  "  - {title: loss, kind: figure, figure: loss}\n"
                                  "  - {title: us, kind: speed, positions: [4, 8], repeats: 1}\n";
static const char unit_text[] = "{d_model: 8, mixer: {type: titans_lmm, heads: 1, chunk: 4}}\n";

/* ---- the folder and what is around it ----------------------------------------------------------------------------- */

enum { LINK_TO_FILE, LINK_TO_NOTHING, LINK_TO_DIR, SECOND_NAME, PIPE, DIRECTORY, READ_ONLY, TRAPS };
static const char *const trap_names[TRAPS] = {"a link to a file", "a link to nothing", "a link to a directory", "a second name of a file",
                                              "a pipe",           "a directory",       "a read-only file"};

/* Where a link leads: by its whole path, for it may stand at any depth. */
static const char *outside(const char *name) {
  static char path[PATH_MAX + 64];
  snprintf(path, sizeof path, "%s/" OUTSIDE "/%s", scratch_dir, name);
  return path;
}

static void make_outside(void) {
  static const char *const files[] = {"file",
                                      "dir/model.safetensors",
                                      "dir/optimizer.safetensors",
                                      "dir/trainer.json",
                                      "dir/metrics.jsonl",
                                      "dir/.mneme-1-1.tmp",
                                      "dir/checkpoints/step-4/trainer.json"};
  struct timespec old[2] = {{1000000000, 5}, {1000000000, 7}};
  char path[600];
  CHECK(system("mkdir -p " OUTSIDE "/dir/checkpoints/step-4 " OUTSIDE "/dir/empty") == 0, "a folder");
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    snprintf(path, sizeof path, OUTSIDE "/%s", files[i]);
    CHECK_OK(mn_file_write(path, "mine\n", 5));
    CHECK(chmod(path, i % 2 ? 0640 : 0755) == 0 && utimensat(AT_FDCWD, path, old, 0) == 0, "%s", strerror(errno));
  }
  CHECK(symlink("file", OUTSIDE "/link") == 0 && utimensat(AT_FDCWD, OUTSIDE "/dir", old, 0) == 0, "%s", strerror(errno));
}

/* A line for everything below a directory. */
static void look(const char *dir, mn_text *t) {
  char **names, path[1200], hex[MN_HASH_HEX], target[600];
  size_t n;
  CHECK_OK(mn_dir_list(dir, &names, &n));
  for (size_t i = 0; i < n; i++) {
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", dir, names[i]);
    if (lstat(path, &st) != 0) continue;
    mn_text_addf(t, "%s %o %lld.%ld", path, (unsigned)st.st_mode, (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    ssize_t to = S_ISLNK(st.st_mode) ? readlink(path, target, sizeof target - 1) : -1;
    if (to >= 0) mn_text_addf(t, " -> %.*s", (int)to, target);
    if (S_ISREG(st.st_mode) && mn_file_hash(path, hex) == MN_OK) mn_text_addf(t, " %lld %s", (long long)st.st_size, hex);
    mn_text_add(t, "\n");
    if (S_ISDIR(st.st_mode)) look(path, t);
  }
  mn_dir_list_free(names, n);
}

static char *outside_now(void) {
  mn_text t = {0};
  look(OUTSIDE, &t);
  mn_text_add(&t, "");
  return mn_text_take(&t);
}

/* The folder as every command finds it: recipes, a text, a trained model, a database with its run. */
static void make_template(void) {
  mn_text text = {0};
  CHECK(system("mkdir -p " WORK "/home " WORK "/done") == 0, "a folder");
  for (int i = 0; i < 900; i++) mn_text_addf(&text, "%s%s", i % 3 ? "the whale " : "an old ship ", i % 11 ? "sailed " : "far.\n");
  CHECK_OK(mn_file_write(WORK "/text.txt", text.data, text.len));
  mn_text_free(&text);
  CHECK_OK(mn_file_write(WORK "/recipe.yaml", recipe_text, sizeof recipe_text - 1));
  CHECK_OK(mn_file_write(WORK "/small.yaml", small_text, sizeof small_text - 1));
  CHECK_OK(mn_file_write(WORK "/tracks.yaml", tracks_text, sizeof tracks_text - 1));
  CHECK_OK(mn_file_write(WORK "/unit.yaml", unit_text, sizeof unit_text - 1));
  CHECK_OK(mn_file_write(WORK "/heard.yaml", heard_text, sizeof heard_text - 1));
  for (int i = 0; i < 4; i++) {
    char path[600];
    snprintf(path, sizeof path, WORK "/%s_%d.wav", i % 2 ? "high" : "low", i);
    wav_write(path, 8000, i % 2 ? 2000 : 400, 700);
  }
  CHECK(sh("MNEME_HOME=done " MNEME "train small.yaml --quiet --out model >/dev/null && rm -rf done/cache model/checkpoints") == 0, "%s",
        out);
  /* x [1, 4, 8] as safetensors, by hand */
  char header[128], x[8 + 128 + 128] = {0};
  int n = snprintf(header, sizeof header, "{\"x\":{\"dtype\":\"F32\",\"shape\":[1,4,8],\"data_offsets\":[0,128]}}");
  while (n % 8) header[n++] = ' ';
  x[0] = (char)n;
  memcpy(x + 8, header, (size_t)n);
  CHECK_OK(mn_file_write(WORK "/x.safetensors", x, (size_t)(8 + n + 128)));
  make_outside();
  CHECK(system("cp -a " WORK " template && cp -a " OUTSIDE " around") == 0, "templates");
}

static void fresh(const scenario *s) {
  CHECK(system("rm -rf " WORK " " OUTSIDE " && cp -a template " WORK " && cp -a around " OUTSIDE) == 0, "a fresh folder");
  if (s && s->prepare) CHECK(sh("export MNEME_HOME=%s; %s", s->home, s->prepare) == 0, "%s: %s", s->prepare, out);
}

static int run(const scenario *s) {
  return sh("%s%s; MNEME_LOG=error " MNEME "%s", s->home ? "export MNEME_HOME=" : "unset MNEME_HOME", s->home ? s->home : "", s->command);
}

/* ---- traps -------------------------------------------------------------------------------------------------------- */

typedef struct made { /* what a command makes in a clean folder */
  char *paths[200];
  bool is_dir[200];
  int n;
} made;

static void find_made(made *m, const char *dir) {
  char **names, path[1200], before[2400];
  size_t n;
  struct stat st, old;
  CHECK_OK(mn_dir_list(dir, &names, &n));
  for (size_t i = 0; i < n; i++) {
    snprintf(path, sizeof path, "%s/%s", dir, names[i]);
    const char *inside = path + strlen(WORK) + 1;
    snprintf(before, sizeof before, "%s/%s", "template", inside);
    if (lstat(path, &st) != 0) continue;
    if (lstat(before, &old) != 0 && m->n < 200) {
      m->is_dir[m->n] = S_ISDIR(st.st_mode);
      m->paths[m->n++] = mn_strdup(inside);
    }
    if (S_ISDIR(st.st_mode)) find_made(m, path);
  }
  mn_dir_list_free(names, n);
}

static void plant(const char *inside, int kind) {
  char path[1200];
  snprintf(path, sizeof path, WORK "/%s", inside);
  CHECK(sh("rm -rf '%s' && mkdir -p \"$(dirname '%s')\"", inside, inside) == 0, "%s", out);
  int rc = 0;
  switch (kind) {
  case LINK_TO_FILE:
    rc = symlink(outside("file"), path);
    break;
  case LINK_TO_NOTHING:
    rc = symlink(outside("new"), path);
    break;
  case LINK_TO_DIR:
    rc = symlink(outside("dir"), path);
    break;
  case SECOND_NAME:
    rc = link(OUTSIDE "/file", path);
    break;
  case PIPE:
    rc = mkfifo(path, 0666);
    break;
  case DIRECTORY:
    rc = mkdir(path, 0777);
    break;
  case READ_ONLY:
    rc = mknod(path, S_IFREG | 0444, 0);
    break;
  }
  CHECK(rc == 0, "%s: %s", path, strerror(errno));
}

static void try_trap(const scenario *s, const char *path, int kind) {
  fresh(s);
  plant(path, kind);
  char *before = outside_now();
  int rc = run(s);
  char *after = outside_now();
  CHECK(rc < 124, "%s, %s is %s: it hung or crashed (%d)\n%s", s->command, path, trap_names[kind], rc, out);
  CHECK(before && after && !strcmp(before, after), "%s, %s is %s: something outside changed\n%s-- before\n%s-- after\n%s", s->command, path,
        trap_names[kind], out, before ? before : "", after ? after : "");
  CHECK(rc == 0 || strstr(out, "mneme: "), "%s, %s is %s: rc %d without a word", s->command, path, trap_names[kind], rc);
  free(before);
  free(after);
}

static bool is_below(const char *path, const char *below) {
  const size_t n = strlen(below);
  return below[n - 1] == '$' ? strlen(path) == n - 1 && !strncmp(path, below, n - 1) : !strncmp(path, below, n);
}

static void try_scenario(const scenario *s) {
  made m = {0};
  fresh(s);
  CHECK(run(s) == 0, "%s in a clean folder: %s", s->command, out);
  find_made(&m, WORK);
  for (int i = 0; i < 8 && s->more[i]; i++) m.paths[m.n++] = mn_strdup(s->more[i]);
  for (int i = 0; i < m.n; i++)
    for (int kind = 0; kind < TRAPS; kind++) {
      bool users_choice = kind == LINK_TO_DIR && s->named && !strcmp(s->named, m.paths[i]);
      if (!users_choice && (!s->below || is_below(m.paths[i], s->below))) try_trap(s, m.paths[i], kind);
    }
  for (int i = 0; i < m.n; i++) free(m.paths[i]);
}

static void every_verb_and_every_output_is_covered(void) {
  for (int v = 0; v < mn_n_verbs; v++) {
    const mn_verb *verb = mn_verbs[v];
    bool covered = false;
    for (int i = 0; i < N_SCENARIOS; i++) covered = covered || !strcmp(scenarios[i].verb, verb->name);
    CHECK(covered, "no command of this test runs `mneme %s`: add one", verb->name);
    for (const mn_option *o = verb->options; o && o->name; o++) {
      char word[80];
      snprintf(word, sizeof word, "--%s ", o->name);
      bool file = o->flags & MN_OPTION_OUTPUT, used = !file;
      for (int i = 0; i < N_SCENARIOS; i++) used = used || (!strcmp(scenarios[i].verb, verb->name) && strstr(scenarios[i].command, word));
      CHECK(used, "no command of this test gives `mneme %s` its output --%s: add it", verb->name, o->name);
      CHECK(file || !strstr(o->name, "-out"), "--%s of %s sounds like an output: mark it MN_OPTION_OUTPUT", o->name, verb->name);
    }
  }
}

static void train_leaves_everything_around_it_alone(void) {
  for (int i = 0; i < N_SCENARIOS; i++)
    if (!strcmp(scenarios[i].verb, "train")) try_scenario(&scenarios[i]);
}
static void compare_leaves_everything_around_it_alone(void) {
  for (int i = 0; i < N_SCENARIOS; i++)
    if (!strcmp(scenarios[i].verb, "compare")) try_scenario(&scenarios[i]);
}
static void all_other_verbs_leave_everything_around_them_alone(void) {
  for (int i = 0; i < N_SCENARIOS; i++)
    if (strcmp(scenarios[i].verb, "train") && strcmp(scenarios[i].verb, "compare")) try_scenario(&scenarios[i]);
}

/* ---- other ways out ----------------------------------------------------------------------------------------------- */

static void names_lead_nowhere(void) {
  static const char *const names[] = {"../escape", "../../outside/dir", P_tmpdir "/mneme-escape", "..", ".", "a/../../outside/file"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    fresh(NULL);
    char *before = outside_now();
    CHECK(sh("MNEME_HOME=home " MNEME "compare small.yaml --set 'name=%s' --out out", names[i]) == 2 && strstr(out, "name"), "%s: %s",
          names[i], out);
    CHECK(sh("MNEME_HOME=home " MNEME "train small.yaml --set 'name=%s' --out out", names[i]) == 2, "%s: %s", names[i], out);
    char *after = outside_now();
    CHECK(!strcmp(before, after) && !mn_file_exists(WORK "/escape") && !mn_file_exists(WORK "/out"), "%s led outside", names[i]);
    free(before);
    free(after);
  }
  fresh(NULL);
  CHECK(sh("cp small.yaml twin.yaml; MNEME_HOME=home " MNEME "compare small.yaml twin.yaml --set name=Small --out out") == 2, "%s", out);
  CHECK(sh("sed 's/name: small/name: SMALL/' small.yaml >twin.yaml; MNEME_HOME=home " MNEME "compare small.yaml twin.yaml --out out") ==
                2 &&
            strstr(out, "same name"),
        "%s", out);
  CHECK(sh("MNEME_HOME=home " MNEME "compare small.yaml --seeds 1,1 --out out") == 2 && strstr(out, "twice"), "%s", out);
  CHECK(sh("MNEME_HOME=home " MNEME "compare small.yaml --seeds 1,,2 --out out") == 2 && strstr(out, "got ''"), "%s", out);
  CHECK(sh("MNEME_HOME=home " MNEME "compare small.yaml --seeds 1,%050d --out out", 2) == 2 && strstr(out, "50 signs"), "%s", out);
  CHECK(sh("MNEME_HOME=home " MNEME "compare small.yaml --set name=Loss.svg --out out") == 2 && strstr(out, "picture"), "%s", out);
  CHECK(!mn_file_exists(WORK "/out"), "nothing was trained");
}

static void a_pipe_in_a_models_directory_hangs_no_verb(void) {
  static const char *const files[] = {"model.safetensors", "config.json", "tokenizer.json", "recipe.json", "metrics.jsonl"};
  static const char *const commands[] = {"eval --model model --batches 1",
                                         "generate --model model --prompt the --tokens 1",
                                         "stream --model model --tokens 10 text.txt",
                                         "inspect model",
                                         "train --resume --quiet --out model",
                                         "eval --model model --task passkey --examples 1 --set garbage=20"};
  for (int i = 0; i < 5; i++)
    for (int k = 0; k < 6; k++) {
      char path[64];
      fresh(NULL);
      snprintf(path, sizeof path, "model/%s", files[i]);
      plant(path, PIPE);
      int rc = sh("MNEME_HOME=home timeout -k 2 20 " MN_TEST_BINARY_DIR "/mneme %s", commands[k]);
      CHECK(rc < 124 && !strstr(out, "unknown"), "%s with a pipe as %s: %d\n%s", commands[k], files[i], rc, out);
    }
}

/* The demo empties its directory: that must be one that it has made. */
static void the_demo_empties_only_its_own_directory(void) {
  fresh(NULL);
  CHECK(sh("mkdir mine marked linked && touch mine/x marked/.mneme-demo marked/x && ln -s ../outside/file linked/.mneme-demo && "
           "ln -s mine link && ln -s ../outside/dir away && ln -s nowhere nothing && touch file && mkfifo pipe") == 0,
        "%s", out);
  CHECK(sh("touch ../outside/dir/.mneme-demo") == 0, "%s", out);
  static const char *const bad[] = {"mine",    "marked", "linked", "link", "link/", "away",   "away/",
                                    "nothing", "file",   "pipe",   ".",    "..",    "mine/.."};
  char *before = outside_now();
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    int rc = sh("timeout -k 2 30 bash " MN_TEST_SOURCE_DIR "/scripts/demo --no-install --out %s/" WORK "/%s", scratch_dir, bad[i]);
    CHECK(rc == 2 && strstr(out, "--out"), "%s: %d %s", bad[i], rc, out);
  }
  CHECK(sh("timeout -k 2 30 bash " MN_TEST_SOURCE_DIR "/scripts/demo --no-install --out /") == 2, "%s", out);
  CHECK(sh("timeout -k 2 30 bash " MN_TEST_SOURCE_DIR "/scripts/demo --no-install --out -x") == 2, "%s", out);
  CHECK(sh("ls mine/x marked/x file recipe.yaml linked/.mneme-demo") == 0, "what was there is there: %s", out);
  char *after = outside_now();
  CHECK(!strcmp(before, after), "-- before\n%s-- after\n%s", before, after);
  free(before);
  free(after);
}

int main(void) {
  make_template();
  RUN(every_verb_and_every_output_is_covered);
  RUN(names_lead_nowhere);
  RUN(a_pipe_in_a_models_directory_hangs_no_verb);
  RUN(the_demo_empties_only_its_own_directory);
  RUN(all_other_verbs_leave_everything_around_them_alone);
  RUN(compare_leaves_everything_around_it_alone);
  RUN(train_leaves_everything_around_it_alone);
  return test_end();
}
