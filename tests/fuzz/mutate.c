/* mutate.c - every file that Mneme reads or writes, damaged in one place, is refused with a message or changes nothing.
 *
 * Two small models are trained (bytes with attention; BPE with a recurrent memory whose state is carried) and all that goes
 * with them is made: checkpoints, sessions, states, token shards, a run database. Mutation number i takes one of the files,
 * damages it as i says (mutate_bytes.h), runs a verb that reads it in a child, and compares with what the verb gives on the
 * good file. Allowed: an error with a message, or exit code 0 and the same result to the bit (the damage was in white space;
 * a bad checkpoint was passed over and trained again; a cache was made anew). Never: exit code 0 with another result, a
 * crash, a report of a sanitizer, a program that has to be killed, memory without bound. Files that people write (recipes,
 * texts, tensors of other programs) may mean something else after an edit: for them all results are allowed, the rest holds.
 *
 *   mutate --from A --count N    mutations A ... A + N - 1, on one core
 *   mutate --replay FILE         the mutations that stand in FILE, a line "KIND NUMBER what it was" each
 *   mutate --one I --keep DIR    one of them, with what it did; the damaged files stay in DIR */
#define _GNU_SOURCE
#include "mutate_media.h"
#include "mutate_run.h"

#include <sys/utsname.h>

/* ---- what is run -------------------------------------------------------------------------------------------------- */

typedef struct operation {
  const char *name;
  const char *argv[26];
  const char *outputs[6]; /* files that belong to the result */
  bool json;              /* the output is JSON; times and memory are left out of the comparison */
} operation;

#define ONE "--threads", "1"
#define EVAL(m)                                                                                                                            \
  { "eval", {"eval", "--model", m, "--batches", "2", "--json", ONE}, {0}, true }
#define EVAL_DATA(m)                                                                                                                       \
  { "eval-data", {"eval", "--model", m, "--data", "text.txt", "--batches", "1", "--json", ONE}, {0}, true }
#define EVAL_TASK(m)                                                                                                                       \
  {                                                                                                                                        \
    "eval-task", {"eval", "--model", m, "--task", "passkey", "--set", "garbage=0", "--examples", "1", "--new-tokens", "2", "--json", ONE}, \
        {0}, true                                                                                                                          \
  }
#define GENERATE(m)                                                                                                                        \
  { "generate", {"generate", "--model", m, "--prompt", "the whale", "--tokens", "6", "--seed", "1", ONE}, {0}, false }
#define STREAM(m)                                                                                                                          \
  {                                                                                                                                        \
    "stream", {"stream", "--model", m, "--score", "--json", "--tokens", "40", "text.txt", "--session-out", "out.safetensors", ONE},        \
        {"out.safetensors"}, true                                                                                                          \
  }
#define INSPECT(m)                                                                                                                         \
  { "inspect", {"inspect", m, "--params", "--seq-len", "64", "--json"}, {0}, true }
#define INSPECT_FILE(m)                                                                                                                    \
  { "inspect", {"inspect", m, "--params", "--json"}, {0}, true }
#define CONVERT(m)                                                                                                                         \
  { "convert", {"convert", m, "--out", "made.gguf", "--type", "f16", "--json", ONE}, {"made.gguf"}, true }
#define RESUME(m)                                                                                                                          \
  {                                                                                                                                        \
    "resume", {"train", "--resume", "--out", m, "--json", "--db", "runs.db", ONE},                                                         \
        {m "/model.safetensors", m "/checkpoints/step-6/optimizer.safetensors", m "/config.json", m "/tokenizer.json"}, true               \
  }
#define TRAIN(r)                                                                                                                           \
  {                                                                                                                                        \
    "train", {"train", r, "--out", "new", "--json", "--db", "runs.db", ONE},                                                               \
        {"new/model.safetensors", "new/checkpoints/step-6/optimizer.safetensors", "new/config.json", "new/tokenizer.json"}, true           \
  }
#define SESSION(m, s)                                                                                                                      \
  {                                                                                                                                        \
    "session", {"generate", "--model", m, "--session-in", s, "--tokens", "6", "--seed", "1", "--session-out", "out.safetensors", ONE},     \
        {"out.safetensors"}, false                                                                                                         \
  }
#define SESSION_STREAM(m, s)                                                                                                               \
  {                                                                                                                                        \
    "session-stream", {"stream",        "--model",         m,  "--session-in", s, "--tokens", "30", "--score", "--json", "text.txt",       \
                       "--session-out", "out.safetensors", ONE},                                                                           \
        {"out.safetensors"}, true                                                                                                          \
  }
#define APPLY                                                                                                                              \
  {                                                                                                                                        \
    "apply", {"apply",                                                                                                                     \
              "apply.yaml",                                                                                                                \
              "--params",                                                                                                                  \
              "params.safetensors",                                                                                                        \
              "--input",                                                                                                                   \
              "x.safetensors",                                                                                                             \
              "--state-in",                                                                                                                \
              "state.safetensors",                                                                                                         \
              "--grad",                                                                                                                    \
              "--output",                                                                                                                  \
              "y.safetensors",                                                                                                             \
              "--state-out",                                                                                                               \
              "state2.safetensors",                                                                                                        \
              ONE},                                                                                                                        \
        {"y.safetensors", "state2.safetensors"}, false                                                                                     \
  }
#define CHAT(m, s)                                                                                                                         \
  {                                                                                                                                        \
    "chat", {"chat",   m, "--template", "said.jinja", "--sessions",    "chats", "--session", "new",                                        \
             "--fork", s, "--tokens",   "4",          "--temperature", "0",     "--json",    ONE},                                         \
        {"chats/new.safetensors"}, true                                                                                                    \
  }
#define CLASSIFY                                                                                                                           \
  { "classify", {"classify", HEARD, "wav/low_2.wav", "wav/high_1.wav", "--json", ONE}, {0}, true }
#define RUNS(verb, ...)                                                                                                                    \
  { "runs-" verb, {"runs", verb, __VA_ARGS__ "--db", "runs.db", "--json"}, {0}, true }
#define RUNS_OF(db)                                                                                                                        \
  { "runs-list", {"runs", "list", "--db", db, "--json"}, {0}, true }
#define COMPARE                                                                                                                            \
  { "compare", {"compare", "bytes.yaml", "--tracks", "tracks.yaml", "--out", "compared", "--resume", "--json", ONE}, {0}, true }
#define INSPECT_RECIPE(r)                                                                                                                  \
  { "inspect-recipe", {"inspect", r, "--seq-len", "64", "--json"}, {0}, true }

/* ---- what is damaged ---------------------------------------------------------------------------------------------- */

enum {
  PEOPLE = 1, /* written by people: another result is no fault                                    */
  ALONE = 2   /* belongs to nothing but what the operation names: a whole other file is as good   */
};

typedef struct kind {
  const char *name, *path;
  const char *donors[3]; /* other files of the kind */
  unsigned flags;
  int weight;
  operation ops[5];
} kind;

#define A                "bytes" /* the two models; other/NAME is the same recipe from another seed */
#define B                "bpe"
#define HEARD            "heard" /* a classifier of sounds */
#define STEP(m, n, file) m "/checkpoints/step-" #n "/" file ".safetensors"
#define TRAINER(m, n)    m "/checkpoints/step-" #n "/trainer.json"

static const kind kinds[] = {
    {"model",
     A "/model.safetensors",
     {"other/" A "/model.safetensors", STEP(A, 2, "model")},
     ALONE,
     12,
     {EVAL(A), GENERATE(A), STREAM(A), INSPECT(A), EVAL_DATA(A)}},
    {"model-bpe",
     B "/model.safetensors",
     {"other/" B "/model.safetensors", STEP(B, 2, "model")},
     ALONE,
     8,
     {EVAL(B), GENERATE(B), STREAM(B), INSPECT(B)}},
    {"gguf", "a.gguf", {"b.gguf"}, ALONE, 8, {GENERATE("a.gguf"), INSPECT_FILE("a.gguf"), CONVERT("a.gguf")}},
    {"gguf-bpe", "b.gguf", {"a.gguf"}, ALONE, 8, {GENERATE("b.gguf"), INSPECT_FILE("b.gguf"), CONVERT("b.gguf")}},
    {"config", A "/config.json", {"other/" B "/config.json"}, 0, 8, {EVAL(A), GENERATE(A), STREAM(A), INSPECT(A)}},
    {"config-bpe", B "/config.json", {"other/" A "/config.json"}, 0, 8, {EVAL(B), GENERATE(B), STREAM(B), INSPECT(B)}},
    {"tokenizer", A "/tokenizer.json", {B "/tokenizer.json"}, 0, 5, {EVAL(A), GENERATE(A), STREAM(A)}},
    {"tokenizer-bpe",
     B "/tokenizer.json",
     {"other/" B "/tokenizer.json", A "/tokenizer.json"},
     0,
     8,
     {EVAL(B), GENERATE(B), STREAM(B), EVAL_DATA(B)}},
    {"recipe-json", A "/recipe.json", {"other/" A "/recipe.json", B "/recipe.json"}, 0, 6, {RESUME(A), EVAL(A)}},
    {"recipe-json-bpe", B "/recipe.json", {"other/" B "/recipe.json"}, 0, 4, {RESUME(B), EVAL(B)}},
    {"checkpoint-model", STEP(A, 4, "model"), {STEP(A, 2, "model"), STEP("other/" A, 4, "model")}, 0, 6, {RESUME(A)}},
    {"checkpoint-optimizer", STEP(A, 4, "optimizer"), {STEP(A, 2, "optimizer"), STEP("other/" A, 4, "optimizer")}, 0, 6, {RESUME(A)}},
    {"checkpoint-trainer", TRAINER(A, 4), {TRAINER(A, 2), TRAINER("other/" A, 4)}, 0, 6, {RESUME(A)}},
    {"checkpoint-model-carried", STEP(B, 4, "model"), {STEP(B, 2, "model"), STEP("other/" B, 4, "model")}, 0, 4, {RESUME(B)}},
    {"checkpoint-optimizer-carried",
     STEP(B, 4, "optimizer"),
     {STEP(B, 2, "optimizer"), STEP("other/" B, 4, "optimizer")},
     0,
     6,
     {RESUME(B)}},
    {"checkpoint-trainer-carried", TRAINER(B, 4), {TRAINER(B, 2), TRAINER("other/" B, 4)}, 0, 4, {RESUME(B)}},
    {"checkpoint-older", STEP(A, 2, "model"), {STEP(A, 4, "model")}, 0, 1, {RESUME(A)}},
    {"resumed-tokenizer", B "/tokenizer.json", {"other/" B "/tokenizer.json"}, 0, 3, {RESUME(B)}},
    {"resumed-config", A "/config.json", {B "/config.json"}, 0, 1, {RESUME(A)}},
    {"session",
     "session.safetensors",
     {"session2.safetensors"},
     ALONE,
     8,
     {SESSION(A, "session.safetensors"), SESSION_STREAM(A, "session.safetensors")}},
    {"session-memory",
     "memory.safetensors",
     {"memory2.safetensors"},
     ALONE,
     8,
     {SESSION(B, "memory.safetensors"), SESSION_STREAM(B, "memory.safetensors")}},
    {"conversation", "chats/one.safetensors", {"chats/two.safetensors"}, ALONE, 8, {CHAT(A, "one")}},
    {"conversation-memory", "chats/three.safetensors", {"chats/four.safetensors"}, ALONE, 8, {CHAT(B, "three")}},
    {"apply-params", "params.safetensors", {"params2.safetensors"}, ALONE, 5, {APPLY}},
    {"apply-state", "state.safetensors", {"state2.in.safetensors"}, ALONE, 5, {APPLY}},
    {"apply-input", "x.safetensors", {"params.safetensors"}, PEOPLE | ALONE, 3, {APPLY}},
    {"shard", "cache/shard-bytes", {"cache/shard-bpe"}, 0, 6, {RESUME(A), EVAL(A), TRAIN("bytes.yaml")}},
    {"shard-bpe", "cache/shard-bpe", {"cache/shard-bytes"}, 0, 6, {RESUME(B), EVAL(B)}},
    {"tokenizer-cache", "cache/tokenizer", {B "/tokenizer.json", "other/" B "/tokenizer.json"}, 0, 4, {TRAIN("bpe.yaml")}},
    {"text-of-resume", "text.txt", {"text2.txt"}, 0, 5, {RESUME(A), RESUME(B)}},
    {"text", "text.txt", {"text2.txt"}, PEOPLE | ALONE, 3, {EVAL_DATA(A), STREAM(B), EVAL_DATA(B)}},
    {"metrics", A "/metrics.jsonl", {B "/metrics.jsonl"}, ALONE, 3, {RESUME(A), EVAL_TASK(A)}},
    {"runs-db", "runs.db", {"runs2.db"}, ALONE, 6, {RUNS("show", A, ), RUNS("list", ), RESUME(A)}},
    {"compare-db", "compared/compare.db", {"runs2.db"}, ALONE, 5, {COMPARE, RUNS_OF("compared/compare.db")}},
    {"compare-model", "compared/text/bytes/model.safetensors", {A "/model.safetensors"}, ALONE, 2, {EVAL("compared/text/bytes")}},
    {"tracks", "tracks.yaml", {"bytes.yaml"}, PEOPLE | ALONE, 3, {COMPARE}},
    {"lock", A "/.lock", {"text.txt"}, ALONE, 1, {RESUME(A)}},
    {"recipe", "bytes.yaml", {"bpe.yaml", "apply.yaml"}, PEOPLE | ALONE, 5, {INSPECT_RECIPE("bytes.yaml")}},
    {"recipe-bpe", "bpe.yaml", {"bytes.yaml"}, PEOPLE | ALONE, 4, {INSPECT_RECIPE("bpe.yaml")}},
    {"series", "series.csv", {"pairs.tsv"}, PEOPLE | ALONE, 3, {TRAIN("series.yaml")}},
    {"idx-pictures", "pictures.idx", {"labels.idx"}, PEOPLE | ALONE, 3, {TRAIN("idx.yaml")}},
    {"idx-labels", "labels.idx", {"pictures.idx"}, PEOPLE | ALONE, 2, {TRAIN("idx.yaml")}},
    {"png", "png/dark/2.png", {"png/light/1.png"}, PEOPLE | ALONE, 3, {TRAIN("png.yaml")}},
    {"wav", "wav/low_2.wav", {"wav/high_1.wav"}, PEOPLE | ALONE, 3, {TRAIN("wav.yaml"), CLASSIFY}},
    {"config-heard", HEARD "/config.json", {"other/" HEARD "/config.json", A "/config.json"}, 0, 4, {CLASSIFY, INSPECT(HEARD)}},
    {"model-heard", HEARD "/model.safetensors", {"other/" HEARD "/model.safetensors"}, ALONE, 3, {CLASSIFY}},
    {"pairs", "pairs.tsv", {"series.csv"}, PEOPLE | ALONE, 2, {TRAIN("pairs.yaml")}},
    {"dialogues", "dialogues.jsonl", {"pairs.tsv"}, PEOPLE | ALONE, 2, {TRAIN("dialogues.yaml")}},
    {"apply-recipe", "apply.yaml", {"bytes.yaml"}, PEOPLE | ALONE, 3, {APPLY, INSPECT_RECIPE("apply.yaml")}},
};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

static int n_ops(const kind *k) {
  int n = 0;
  while (n < 5 && k->ops[n].name) n++;
  return n;
}

/* ---- making the files --------------------------------------------------------------------------------------------- */

static void make(const char *const *argv, const char *why) {
  outcome o = run_program(argv, 4ull << 30);
  if (o.exit_code || o.signal) {
    fprintf(stderr, "mutate: %s failed: %s%s\n", why, o.err, o.out);
    exit(1);
  }
  outcome_free(&o);
}
#define MAKE(why, ...) make((const char *const[]){__VA_ARGS__, NULL}, why)

static void put_text(const char *path, uint64_t seed, int words) {
  static const char *const word[] = {"the ", "whale ", "sea ", "ship ", "and ", "of ", "old ", "sailed ", "white ", "far.\n"};
  char *text = malloc((size_t)words * 10 + 1), *p = text;
  for (int i = 0; i < words; i++) {
    const char *w = word[(seed = mn_splitmix64(seed)) % 10];
    memcpy(p, w, strlen(w));
    p += strlen(w);
  }
  if (!write_file(path, text, (size_t)(p - text))) exit(1);
  free(text);
}

static void put(const char *path, const char *text) {
  if (!write_file(path, text, strlen(text))) exit(1);
}

#define DATA "data: {files: [text.txt], cache: cache-dir"
#define STEPS                                                                                                                              \
  "train: {steps: 6, batch: 2, seq_len: 16, checkpoint_every: 2, keep_last: 9, validation_batches: 1, log_every: 1, optimizer: {lr: 3e-3}"

#define TRACK_STEPS "train: {batch: 2, seq_len: 16, validation_batches: 1, log_every: 1}"

/* A safetensors file as another program writes it: no metadata. */
static void put_input(const char *path, int t, int d) {
  char header[200];
  int n = snprintf(header, sizeof header, "{\"x\":{\"dtype\":\"F32\",\"shape\":[1,%d,%d],\"data_offsets\":[0,%d]}}", t, d, t * d * 4);
  bytes b = {malloc(8 + (size_t)n + (size_t)(t * d) * 4), 8 + (size_t)n + (size_t)(t * d) * 4};
  memcpy(b.data, (uint64_t[]){(uint64_t)n}, 8);
  memcpy(b.data + 8, header, (size_t)n);
  for (int i = 0; i < t * d; i++) {
    float x = (float)((double)(mn_splitmix64((uint64_t)i) >> 11) * 0x1p-53 * 2 - 1);
    memcpy(b.data + 8 + n + (size_t)i * 4, &x, 4);
  }
  if (!write_file(path, b.data, b.n)) exit(1);
  free(b.data);
}

/* What the cache holds is named by what it was made from, so the names are looked up: the shard of each model, in the order
 * in which they are made, and the tokenizer. */
static char cached[3][200];
static const char *const cached_as[3] = {"cache/shard-bytes", "cache/shard-bpe", "cache/tokenizer"};

static void find_cached(const char *part, int which) {
  DIR *d = opendir("cache-dir");
  for (struct dirent *e; d && (e = readdir(d));) {
    char path[200];
    snprintf(path, sizeof path, "cache-dir/%.150s", e->d_name);
    if (strstr(e->d_name, part) && strcmp(path, cached[0]) != 0) memcpy(cached[which], path, sizeof path);
  }
  if (d) closedir(d);
  if (!cached[which][0]) {
    fprintf(stderr, "mutate: no file ...%s... was made in the cache\n", part);
    exit(1);
  }
}

static const char *real_path(const char *path) {
  for (int i = 0; i < 3; i++)
    if (!strcmp(path, cached_as[i])) return cached[i];
  return path;
}

/* As killed after its fourth step: the end of the training is taken away, but not its model, which eval reads. */
static void cut_short(const char *dir) {
  char path[200];
  static const char *const files[] = {"model.safetensors", "optimizer.safetensors", "trainer.json", ""};
  for (int i = 0; i < 4; i++) {
    snprintf(path, sizeof path, "%s/checkpoints/step-6/%s", dir, files[i]);
    if (remove(path)) fprintf(stderr, "mutate: %s: cannot be removed\n", path);
  }
}

/* Two dialogues with each model, of different words. */
static void make_chats(void) {
  static const char *const names[] = {"one", "two", "three", "four"};
  for (int i = 0; i < 4; i++) {
    put("said.txt", i % 2 ? "the whale\nand the sea\n" : "a boat\nwell\nso it is\n");
    MAKE("a dialogue", "chat", i < 2 ? A : B, "--template", "said.jinja", "--sessions", "chats", "--session", names[i], "--tokens", "4",
         "--temperature", "0", "--json", ONE);
  }
}

static void make_all(void) {
  put_text("text.txt", 1, 700);
  put_text("text2.txt", 2, 700);
  put("bytes.yaml", "name: bytes\nseed: 3\n" DATA "}\nmodel:\n  d_model: 8\n  layers: 1\n"
                    "  block: {mixer: {type: attention, heads: 2, max_context: 256}, hidden: 8}\n" STEPS "}\n");
  put("bpe.yaml",
      "name: bpe\nseed: 3\ntokenizer: {type: bpe, vocab_size: 270}\n" DATA ", order: sequential}\nmodel:\n  d_model: 8\n  layers: 1\n"
      "  block: {mixer: {type: gated_deltanet, heads: 1}, hidden: 8}\n" STEPS ", carry_state: true, accumulate: 2}\n");
  put("apply.yaml", "d_model: 8\nmixer: {type: titans_lmm, chunk: 4}\n");
  put_input("x.safetensors", 8, 8);
  put("tracks.yaml", "tracks:\n- name: text\n  parameters: 2800\n  tokens: 64\n  recipe: {" DATA "}, " TRACK_STEPS "}\n  measure:\n"
                     "  - {title: loss, kind: figure, figure: loss}\n"
                     "  - {title: passkey, kind: task, task: {name: passkey, garbage: 0}, examples: 1}\n");
  media_make();
  MAKE("training", "train", "bytes.yaml", "--out", A, "--quiet", "--db", "runs.db", ONE);
  find_cached(".shard", 0);
  MAKE("training", "train", "bpe.yaml", "--out", B, "--quiet", "--db", "runs.db", ONE);
  find_cached(".shard", 1);
  find_cached("tokenizer-", 2);
  mkdir("other", 0755);
  MAKE("training", "train", "bytes.yaml", "--out", "other/" A, "--quiet", "--db", "runs2.db", "--seed", "4", ONE);
  MAKE("training", "train", "bpe.yaml", "--out", "other/" B, "--quiet", "--db", "runs2.db", "--seed", "4", ONE);
  MAKE("training", "train", "wav.yaml", "--out", HEARD, "--quiet", "--db", "runs2.db", ONE);
  MAKE("training", "train", "wav.yaml", "--out", "other/" HEARD, "--quiet", "--db", "runs2.db", "--set", "data.low_hz=50", ONE);
  MAKE("converting", "convert", A, "--out", "a.gguf", "--quiet", ONE);
  MAKE("converting", "convert", B, "--out", "b.gguf", "--type", "bf16", "--quiet", ONE);
  MAKE("a session", "stream", "--model", A, "--quiet", "--tokens", "40", "--session-out", "session.safetensors", "text.txt", ONE);
  MAKE("a session", "stream", "--model", A, "--quiet", "--tokens", "50", "--session-out", "session2.safetensors", "text2.txt", ONE);
  MAKE("a session", "stream", "--model", B, "--quiet", "--tokens", "40", "--session-out", "memory.safetensors", "text.txt", ONE);
  MAKE("a session", "stream", "--model", B, "--quiet", "--tokens", "50", "--session-out", "memory2.safetensors", "text2.txt", ONE);
  put("said.jinja", "{% for m in messages %}{{ m.content }} {% endfor %}");
  make_chats();
  MAKE("apply", "apply", "apply.yaml", "--input", "x.safetensors", "--output", "y.safetensors", "--params-out", "params.safetensors",
       "--state-out", "state.safetensors", ONE);
  MAKE("apply", "apply", "apply.yaml", "--input", "x.safetensors", "--output", "y.safetensors", "--params-out", "params2.safetensors",
       "--state-out", "state2.in.safetensors", "--state-in", "state.safetensors", "--seed", "9", ONE);
  remove("y.safetensors");
  MAKE("comparing", "compare", "bytes.yaml", "--tracks", "tracks.yaml", "--out", "compared", "--quiet", ONE);
  cut_short(A);
  cut_short(B);
  put(A "/.lock", "");
}

/* ---- results ------------------------------------------------------------------------------------------------------ */

static void drop_measured(json_t *value) {
  const char *key;
  json_t *item;
  size_t i;
  void *next;
  if (json_is_object(value)) json_object_foreach_safe(value, next, key, item) {
      if (strstr(key, "second") || strstr(key, "resident") || !strcmp(key, "created") || !strcmp(key, "updated") ||
          !strcmp(key, "peak_bytes") || !strcmp(key, "run"))
        json_object_del(value, key);
      else drop_measured(item);
    }
  if (json_is_array(value)) json_array_foreach(value, i, item) drop_measured(item);
}

/* What counts of the output and of the files written, as one piece of bytes. */
static bytes result_of(const operation *op, const outcome *o) {
  bytes r = bytes_copy("", 0);
  const char *rest = o->out;
  while (op->json && *rest) { /* one document, or lines of them */
    json_error_t error;
    json_t *value = json_loads(rest, JSON_DISABLE_EOF_CHECK, &error);
    if (!value) break;
    rest += error.position;
    while (*rest && isspace((unsigned char)*rest)) rest++;
    drop_measured(value);
    char *text = json_dumps(value, JSON_SORT_KEYS | JSON_COMPACT | JSON_ENCODE_ANY);
    if (text) replace(&r, r.n, 0, text, strlen(text));
    free(text);
    json_decref(value);
  }
  replace(&r, r.n, 0, rest, strlen(rest));
  for (int i = 0; i < 6 && op->outputs[i]; i++) {
    bytes file;
    char head[300];
    bool there = read_file(op->outputs[i], &file);
    int n = snprintf(head, sizeof head, "\n%s: %zu\n", op->outputs[i], there ? file.n : (size_t)0);
    replace(&r, r.n, 0, head, (size_t)n);
    if (there) replace(&r, r.n, 0, file.data, file.n);
    free(file.data);
  }
  return r;
}

typedef enum verdict { REFUSED, SAME, FREE, OTHER, SILENT, CRASHED, HUNG, GREEDY, VERDICTS } verdict;
static const char *const verdict_names[] = {"refused", "same", "by people", "ANOTHER RESULT", "NO MESSAGE", "CRASHED", "HUNG", "MEMORY"};

typedef struct good { /* what an operation gives on good files */
  bytes result;
  long peak_kib;
} good;
static good goods[N_KINDS][5];
static tree files;

static const bytes *content_of(const char *path) {
  kept_file *f = tree_find(&files, path);
  if (f) return &f->content;
  fprintf(stderr, "mutate: there is no %s\n", path);
  exit(1);
}

static verdict judge(const kind *k, int op, const outcome *o, const bytes *result) {
  const good *g = &goods[k - kinds][op];
  if (o->hung) return HUNG;
  if (o->signal || strstr(o->err, "Sanitizer") || strstr(o->err, "runtime error:") || o->exit_code > 4) return CRASHED;
  if (!MUTATE_SANITIZED && !(k->flags & PEOPLE) && o->peak_kib > g->peak_kib + (256 << 10)) return GREEDY;
  if (o->exit_code) return o->err[0] || o->out[0] ? REFUSED : SILENT;
  if (result->n == g->result.n && !memcmp(result->data, g->result.data, result->n)) return SAME;
  return k->flags & PEOPLE ? FREE : OTHER;
}

static outcome run_op(const operation *op) { return run_program(op->argv, 4ull << 30); }

/* Each operation twice on good files: it must work, and its result must be a function of them. */
static void learn_good_results(void) {
  for (int k = 0; k < N_KINDS; k++)
    for (int i = 0; i < n_ops(&kinds[k]); i++)
      for (int again = 0; again < 2; again++) {
        const operation *op = &kinds[k].ops[i];
        outcome o = run_op(op);
        bytes r = result_of(op, &o);
        good *g = &goods[k][i];
        if (o.exit_code || o.signal || (again && (r.n != g->result.n || memcmp(r.data, g->result.data, r.n)))) {
          fprintf(stderr, "mutate: %s %s on good files: exit code %d, signal %d%s\n%s%s\n", kinds[k].name, op->name, o.exit_code, o.signal,
                  again ? ", the second time" : "", o.err, o.out);
          exit(1);
        }
        if (!again) *g = (good){r, o.peak_kib};
        else free(r.data);
        outcome_free(&o);
        tree_restore(&files);
      }
}

/* ---- mutations ---------------------------------------------------------------------------------------------------- */

static const kind *kind_of(uint64_t i, const char *only) {
  int total = 0;
  for (int k = 0; k < N_KINDS; k++) {
    if (only && !strcmp(kinds[k].name, only)) return &kinds[k];
    total += kinds[k].weight;
  }
  int at = (int)(mn_splitmix64(i) % (uint64_t)total);
  for (int k = 0; k < N_KINDS; k++)
    if ((at -= kinds[k].weight) < 0) return &kinds[k];
  return &kinds[0];
}

static void check_kind(const char *name) {
  for (int k = 0; k < N_KINDS; k++)
    if (!strcmp(kinds[k].name, name)) return;
  fprintf(stderr, "mutate: there is no kind %s\n", name);
  exit(2);
}

typedef struct tally {
  long count[N_KINDS][VERDICTS], total[VERDICTS];
} tally;

static bool is_fault(verdict v) { return v > FREE; }

static void print_text(const char *label, const char *text) {
  if (*text) printf("  %s: %.600s%s", label, text, text[strlen(text) - 1] == '\n' ? "" : "\n");
}

static verdict try_one(uint64_t i, const char *only, bool verbose, bool stay, tally *t) {
  const kind *k = kind_of(i, only);
  int op = (int)(mn_splitmix64(i + 0x6f70) % (uint64_t)n_ops(k)), n_donors = 0;
  bytes donors[3];
  for (; n_donors < 3 && k->donors[n_donors]; n_donors++) donors[n_donors] = *content_of(real_path(k->donors[n_donors]));
  char what[400];
  const char *path = real_path(k->path);
  bytes bad = mutate(content_of(path), i, donors, n_donors, k->flags & ALONE, what);
  write_file(path, bad.data, bad.n);
  outcome o = run_op(&k->ops[op]);
  bytes r = result_of(&k->ops[op], &o);
  verdict v = judge(k, op, &o, &r);
  t->count[k - kinds][v]++;
  t->total[v]++;
  if (verbose || is_fault(v)) {
    printf("%s: mutation %llu: %s (%s), %s: %s; exit code %d, signal %d, %ld MiB\n", is_fault(v) ? "FAILED" : "ok", (unsigned long long)i,
           k->name, path, k->ops[op].name, what, o.exit_code, o.signal, o.peak_kib >> 10);
    printf("  verdict: %s\n", verdict_names[v]);
    print_text("said", o.err);
    if (verbose) print_text("wrote", o.out);
    fflush(stdout);
  }
  if (stay) {
    printf("  in this directory: mneme");
    for (int a = 0; k->ops[op].argv[a]; a++) printf(" %s", k->ops[op].argv[a]);
    printf("\n");
    write_file(path, bad.data, bad.n);
  } else tree_restore(&files);
  free(bad.data);
  free(r.data);
  outcome_free(&o);
  return v;
}

static void print_tally(const tally *t) {
  printf("\n%-30s", "kind of file");
  for (int v = 0; v < VERDICTS; v++) printf(" %14s", verdict_names[v]);
  printf("\n");
  for (int k = 0; k < N_KINDS; k++) {
    printf("%-30s", kinds[k].name);
    for (int v = 0; v < VERDICTS; v++) printf(" %14ld", t->count[k][v]);
    printf("\n");
  }
}

/* ---- the program of the fuzzer ------------------------------------------------------------------------------------ */

static char scratch[300];

static void remove_scratch(void) {
  char command[400];
  snprintf(command, sizeof command, "rm -rf '%s'", scratch);
  if (chdir("/") || system(command)) fprintf(stderr, "mutate: %s was left behind\n", scratch);
}

/* In memory where that is possible: the files are written some hundred thousand times. */
static void enter_scratch(const char *keep_dir) {
  const char *tmp = getenv("TMPDIR") ? getenv("TMPDIR") : access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm";
  if (keep_dir) snprintf(scratch, sizeof scratch, "%s", keep_dir);
  else snprintf(scratch, sizeof scratch, "%s/mneme-mutate-%d", tmp, (int)getpid());
  if (mkdir(scratch, 0755) || chdir(scratch)) {
    fprintf(stderr, "mutate: %s cannot be made: it must be new\n", scratch);
    exit(2);
  }
  setenv("MNEME_HOME", "home", 1);
  unsetenv("MNEME_LOG");
}

static volatile sig_atomic_t stopped;
static void on_stop(int sig) {
  (void)sig;
  stopped = 1;
}

static long long number_of(const char *text, const char *option) {
  char *end;
  long long n = text ? strtoll(text, &end, 10) : -1;
  if (n >= 0 && end != text && !*end) return n;
  fprintf(stderr, "mutate: %s needs a whole number\n", option);
  exit(2);
}

/* Replays the lines "KIND NUMBER what it was"; remarks (#) and empty lines are passed over. */
static void replay_seeds(const bytes *seeds, bool verbose, tally *t) {
  for (char *line = strtok((char *)seeds->data, "\n"); line && !stopped; line = strtok(NULL, "\n")) {
    char name[64];
    unsigned long long number;
    if (*line == '#' || sscanf(line, "%63s %llu", name, &number) != 2) continue;
    check_kind(name);
    try_one(number, name, verbose, false, t);
  }
}

int main(int argc, char **argv) {
  long long from = 0, count = 0, one = -1;
  const char *only = NULL, *keep_dir = NULL, *replay = NULL;
  bool verbose = false;
  for (int i = 1; i < argc; i++) {
    const char *value = i + 1 < argc ? argv[i + 1] : NULL;
    if (!strcmp(argv[i], "--from")) from = number_of(value, argv[i]), i++;
    else if (!strcmp(argv[i], "--count")) count = number_of(value, argv[i]), i++;
    else if (!strcmp(argv[i], "--one")) one = number_of(value, argv[i]), i++;
    else if (!strcmp(argv[i], "--replay")) replay = value, i++;
    else if (!strcmp(argv[i], "--kind")) only = value, i++;
    else if (!strcmp(argv[i], "--keep")) keep_dir = value, i++;
    else if (!strcmp(argv[i], "--verbose")) verbose = true;
    else {
      fprintf(stderr, "usage: mutate [--from A] [--count N] [--replay FILE] [--one I [--keep NEWDIR]] [--kind NAME] [--verbose]\n");
      return 2;
    }
  }
  if (only) check_kind(only);
  bytes seeds = {0};
  if (replay && !read_file(replay, &seeds)) { /* before the directory changes */
    fprintf(stderr, "mutate: %s cannot be read\n", replay);
    return 2;
  }
  enter_scratch(keep_dir);
  make_all();
  tree_keep(&files);
  learn_good_results();
  signal(SIGINT, on_stop);
  signal(SIGTERM, on_stop);
  static tally t;
  if (one >= 0) try_one((uint64_t)one, only, true, keep_dir != NULL, &t);
  if (replay) replay_seeds(&seeds, verbose, &t);
  double begin = now(), said = begin;
  long long done = 0;
  for (; done < count && !stopped; done++) {
    try_one((uint64_t)(from + done), only, verbose, false, &t);
    if (now() - said < (isatty(STDERR_FILENO) ? 1 : 30)) continue;
    said = now();
    long faults = 0;
    for (int v = FREE + 1; v < VERDICTS; v++) faults += t.total[v];
    double rate = (double)(done + 1) / (said - begin);
    fprintf(stderr, "%lld of %lld mutations, %.0f/s, %.0f s left, %ld failed\n", done + 1, count, rate, (double)(count - done - 1) / rate,
            faults);
  }
  if (count) print_tally(&t);
  if (stopped) printf("interrupted: go on with --from %lld --count %lld\n", from + done, count - done);
  long passed = 0, failed = 0;
  for (int v = 0; v < VERDICTS; v++) *(is_fault((verdict)v) ? &failed : &passed) += t.total[v];
  printf("%ld passed, %ld failed\n", passed, failed);
  if (!keep_dir) remove_scratch();
  for (int i = 0; i < files.n; i++) free(files.file[i].content.data);
  for (int k = 0; k < N_KINDS; k++)
    for (int i = 0; i < 5; i++) free(goods[k][i].result.data);
  free(seeds.data);
  return failed || stopped ? 1 : 0;
}
