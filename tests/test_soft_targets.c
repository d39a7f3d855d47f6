/* test_soft_targets.c - examples from a file of tensors, and what a teacher leaves in one: fields by name, every example once, what
 * does not fit refused by tensor; the likeliest tokens are the model's, and a student learns from them without its teacher. */
#include "format/json.h"
#include "format/safetensors.h"
#include "train/trainer_internal.h"
#include "train_helpers.h"
/* last: what it calls `out` is in nobody's way then */
#include "program.h"

enum { N = 40, T = 6 };

typedef struct tensor {
  const char *name;
  mn_dtype dtype;
  mn_shape shape;
} tensor;

/* Integers count up from `first` in every tensor of integers; the first of each example tells which it is. */
static void write_tensors(const char *file, int n, const tensor *list, const char *tokenizer) {
  mn_st_writer *w = mn_st_writer_new();
  void *held[16] = {0};
  for (int i = 0; i < n; i++) {
    const int64_t count = mn_shape_count(&list[i].shape), each = list[i].shape.ndim ? count / list[i].shape.dim[0] : 1;
    held[i] = malloc((size_t)count * 8 + 8);
    for (int64_t k = 0; k < count; k++) {
      const int64_t value = each == 1 ? k % 3 : !strcmp(list[i].name, "span") ? k / 2 % 3 + k % 2 : k % each == 0 ? k / each : k % 7;
      if (list[i].dtype == MN_I32) ((int32_t *)held[i])[k] = (int32_t)value;
      else if (list[i].dtype == MN_I64) ((int64_t *)held[i])[k] = value;
      else ((float *)held[i])[k] = (float)value + 0.5f;
    }
    CHECK_OK(mn_st_writer_add(w, list[i].name, list[i].dtype, &list[i].shape, held[i]));
  }
  if (tokenizer) CHECK_OK(mn_st_writer_meta(w, "tokenizer", tokenizer));
  CHECK_OK(mn_st_writer_save(w, test_path(file)));
  mn_st_writer_free(w);
  for (int i = 0; i < n; i++) free(held[i]);
}

static const tensor usual[] = {{"tokens", MN_I32, {.ndim = 2, .dim = {N, T}}},
                               {"target", MN_I64, {.ndim = 2, .dim = {N, T}}},
                               {"label", MN_I32, {.ndim = 1, .dim = {N}}},
                               {"span", MN_I32, {.ndim = 2, .dim = {N, 2}}},
                               {"images", MN_F32, {.ndim = 4, .dim = {N, 2, 3, 1}}}};

static mn_status open_source(const char *keys, mn_arena *arena, mn_source **to) {
  char text[2048];
  const mn_value *v = NULL;
  mn_source_config config;
  snprintf(text, sizeof text, "{\"type\": \"tensors\", %s}", keys);
  CHECK_OK(mn_json_parse(arena, "data", text, strlen(text), &v));
  *to = NULL;
  MN_TRY(mn_source_parse(arena, v, "data", 5, &config));
  mn_source_config *kept = mn_arena_alloc(arena, sizeof *kept);
  *kept = config;
  return mn_source_open(kept, NULL, NULL, to);
}

static const char *file_key(const char *file) {
  static char keys[900];
  snprintf(keys, sizeof keys, "\"file\": \"%s\"", test_path(file));
  return keys;
}

static void every_example_comes_once(void) {
  mn_arena *arena = mn_arena_new();
  mn_source *s = NULL;
  mn_batch b, again;
  char keys[2000];
  write_tensors("all.safetensors", 5, usual, NULL);
  write_tensors("test.safetensors", 5, usual, NULL);
  snprintf(keys, sizeof keys, "%s, \"validation\": 0.25", file_key("all.safetensors"));
  snprintf(keys + strlen(keys), sizeof keys - strlen(keys), ", \"test_file\": \"%s\"", test_path("test.safetensors"));
  CHECK_OK(open_source(keys, arena, &s));
  if (s) {
    CHECK(s->seq_len == T && s->classes == 3 && s->vocab_size == N, "T %lld, %lld classes, vocabulary %lld", (long long)s->seq_len,
          (long long)s->classes, (long long)s->vocab_size);
    CHECK_OK(mn_batch_new(s, 5, T, &b));
    CHECK_OK(mn_batch_new(s, 5, T, &again));
    CHECK(b.n == 5 && mn_batch_find(&b, "span") >= 0 && b.field[mn_batch_find(&b, "images")].dtype == MN_F32, "%d fields", b.n);
    int seen[3][N] = {{0}};
    static const int64_t has[] = {30, 10, N};
    for (int split = 0; split < 3; split++) {
      CHECK(mn_source_steps(s, split, 5, T) == has[split] / 5, "%lld steps", (long long)mn_source_steps(s, split, 5, T));
      for (int64_t step = 0; step < has[split] / 5; step++) {
        CHECK_OK(mn_source_fill(s, split, step, &b));
        CHECK_OK(mn_source_fill(s, split, step, &again));
        for (int r = 0; r < 5; r++) {
          const int32_t *tokens = mn_batch_row(&b, mn_batch_find(&b, "tokens"), r),
                        *label = mn_batch_row(&b, mn_batch_find(&b, "label"), r);
          const float *pixel = mn_batch_row(&b, mn_batch_find(&b, "images"), r);
          seen[split][tokens[0]]++;
          CHECK(*label == tokens[0] % 3 && (int)pixel[0] == tokens[0] && tokens[1] == (tokens[0] * T + 1) % 7, "example %d", tokens[0]);
        }
        for (int i = 0; i < b.n; i++)
          CHECK(!memcmp(b.data[i], again.data[i], (size_t)mn_shape_count(&b.field[i].shape) * 4), "the batch of a step is one batch");
      }
    }
    for (int i = 0; i < N; i++) CHECK(seen[0][i] + seen[1][i] == 1 && seen[2][i] == 1, "example %d", i);
    mn_batch_free(&b);
    mn_batch_free(&again);
  }
  mn_source_close(s);
  mn_arena_free(arena);
}

static void refused(const char *keys, const char *a, const char *b, const char *c) {
  mn_arena *arena = mn_arena_new();
  mn_source *s = NULL;
  mn_status status = open_source(keys, arena, &s);
  CHECK(status != MN_OK && strstr(mn_message(), a) && strstr(mn_message(), b) && strstr(mn_message(), c), "%s: %s", mn_status_name(status),
        mn_message());
  mn_source_close(s);
  mn_arena_free(arena);
}

static mn_status open_and_close(const char *keys) {
  mn_arena *arena = mn_arena_new();
  mn_source *s = NULL;
  mn_status status = open_source(keys, arena, &s);
  mn_source_close(s);
  mn_arena_free(arena);
  return status;
}

static void what_does_not_fit_is_refused_by_tensor(void) {
  tensor list[13] = {usual[0], usual[1]};
  char keys[2000], names[13][8];
  refused(file_key("none.safetensors"), "data.file", "none.safetensors", "No such file");
  list[1].shape.dim[0] = N - 1;
  write_tensors("bad.safetensors", 2, list, NULL);
  refused(file_key("bad.safetensors"), "bad.safetensors", "tokens has 40 examples", "target has 39");
  list[1] = (tensor){"label", MN_I32, {.ndim = 0}};
  write_tensors("bad.safetensors", 2, list, NULL);
  refused(file_key("bad.safetensors"), "label is []", "first axis", "bad.safetensors");
  for (int i = 0; i < 13; i++) snprintf(names[i], sizeof names[i], "f%d", i), list[i] = (tensor){names[i], MN_F32, MN_SHAPE(N)};
  write_tensors("bad.safetensors", 13, list, NULL);
  refused(file_key("bad.safetensors"), "13 tensors", "at most 12", "");
  list[0] = usual[0], list[1] = (tensor){"lenght", MN_I32, MN_SHAPE(N)};
  write_tensors("bad.safetensors", 2, list, NULL);
  refused(file_key("bad.safetensors"), "bad.safetensors", "a field 'lenght'", "did you mean 'length'?");
  list[1] = usual[1], list[1].shape.dim[1] = T - 1;
  write_tensors("bad.safetensors", 2, list, NULL);
  refused(file_key("bad.safetensors"), "bad.safetensors", "rows of target have 5 places", "those of tokens have 6");
  list[0] = usual[0], list[1] = (tensor){"span", MN_I32, MN_SHAPE(N)};
  write_tensors("bad.safetensors", 2, list, NULL);
  CHECK_OK(open_and_close(file_key("bad.safetensors")));
  list[0].shape.dim[1] = 2;
  write_tensors("bad.safetensors", 2, list, NULL);
  refused(file_key("bad.safetensors"), "span holds 2", "a row has 2 places", "");
  list[0].shape.dim[1] = 1, list[1].name = "length";
  write_tensors("bad.safetensors", 2, list, NULL);
  refused(file_key("bad.safetensors"), "length holds 0", "a row has 1 places", "");
  write_tensors("bad.safetensors", 4, usual, NULL);
  write_tensors("all.safetensors", 5, usual, NULL);
  snprintf(keys, sizeof keys, "%s", file_key("all.safetensors"));
  snprintf(keys + strlen(keys), sizeof keys - strlen(keys), ", \"test_file\": \"%s\"", test_path("bad.safetensors"));
  refused(keys, "data.test_file", "has 4 fields", "has 5");
  float x[N] = {0};
  x[3] = INFINITY;
  mn_st_writer *w = mn_st_writer_new();
  const mn_shape flat = MN_SHAPE(N);
  CHECK_OK(mn_st_writer_add(w, "series", MN_F32, &flat, x));
  CHECK_OK(mn_st_writer_save(w, test_path("bad.safetensors")));
  mn_st_writer_free(w);
  refused(file_key("bad.safetensors"), "series", "not finite", "element 3");
  CHECK(truncate(test_path("bad.safetensors"), 100) == 0, "cut");
  refused(file_key("bad.safetensors"), "bad.safetensors", "data.file", "");
}

/* tokens and length of three rows, one value of them at row 1 (and place 2) another. */
static void write_one(const char *field, int32_t value) {
  int32_t tokens[18], target[18], length[3] = {6, 6, 6};
  const mn_shape rows = MN_SHAPE(3, 6), one = MN_SHAPE(3);
  for (int i = 0; i < 18; i++) tokens[i] = i % 5, target[i] = (i + 1) % 5;
  if (!strcmp(field, "tokens")) tokens[8] = value;
  else if (!strcmp(field, "target")) target[8] = value;
  else length[1] = value;
  mn_st_writer *w = mn_st_writer_new();
  CHECK_OK(mn_st_writer_add(w, "tokens", MN_I32, &rows, tokens));
  CHECK_OK(mn_st_writer_add(w, "target", MN_I32, &rows, target));
  CHECK_OK(mn_st_writer_add(w, "length", MN_I32, &one, length));
  CHECK_OK(mn_st_writer_save(w, test_path("one.safetensors")));
  mn_st_writer_free(w);
}

static void a_value_that_is_none_is_refused_by_its_place(void) {
  static const struct {
    const char *field;
    int32_t value;
    const char *said, *allowed;
  } bad[] = {{"tokens", -1, "tokens holds -1 in row 1, place 2 ", "not below 0"},
             {"tokens", INT32_MIN, "tokens holds -2147483648 in row 1, place 2 ", "not below 0"},
             {"length", -3, "length holds -3 in row 1 ", "has 6 places"},
             {"length", 0, "length holds 0 in row 1 ", "one at least"},
             {"length", 7, "length holds 7 in row 1 ", "has 6 places"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    write_one(bad[i].field, bad[i].value);
    refused(file_key("one.safetensors"), "one.safetensors", bad[i].said, bad[i].allowed);
  }
  write_one("target", INT32_MIN); /* it is not asked for */
  CHECK_OK(open_and_close(file_key("one.safetensors")));
  write_one("length", 1);
  CHECK_OK(open_and_close(file_key("one.safetensors")));
}

/* ---- nothing to learn ---- */
#define TINY "{d_model: 8, layers: 1, block: {mixer: {type: attention, heads: 2}, hidden: 8}%s}"

static mn_status train_tensors(const char *file, const char *model, const char *rest, int64_t *asked, int64_t *steps) {
  mn_recipe *r = NULL;
  mn_trainer *t = NULL;
  char text[2000];
  snprintf(text, sizeof text, "data: {type: tensors, file: '%s', validation: 0}\nmodel: " TINY "\n%s\n", test_path(file), model, rest);
  const char *path = test_path("nothing.yaml");
  CHECK_OK(mn_file_write(path, text, strlen(text)));
  *asked = *steps = 0;
  mn_status status = mn_recipe_read(path, NULL, 0, &r);
  if (status == MN_OK) status = mn_trainer_new(r, 1, NULL, NULL, &t);
  for (int64_t i = 0; status == MN_OK && i < r->train.steps; i++) {
    mn_step_result s;
    status = mn_trainer_step(t, &s);
    ++*steps;
    *asked += isfinite(s.loss);
    CHECK(s.unasked == isnan(s.loss) && (!isfinite(s.loss) || s.loss > 0), "a step over nothing has no loss: %g", s.loss);
  }
  mn_trainer_free(t);
  mn_recipe_free(r);
  return status;
}

static void write_targets(const char *name, int32_t first, int32_t others) {
  static int32_t tokens[N * T], target[N * T];
  const mn_shape rows = MN_SHAPE(N, T);
  for (int i = 0; i < N * T; i++) tokens[i] = i % 5, target[i] = i / T % 4 ? others : first;
  mn_st_writer *w = mn_st_writer_new();
  CHECK_OK(mn_st_writer_add(w, "tokens", MN_I32, &rows, tokens));
  CHECK_OK(mn_st_writer_add(w, "target", MN_I32, &rows, target));
  CHECK_OK(mn_st_writer_save(w, test_path(name)));
  mn_st_writer_free(w);
}

static void a_mean_over_nothing_is_no_result(void) {
  int64_t asked, steps;
  char dir[600];
  snprintf(dir, sizeof dir, "%s", test_path(""));
  write_targets("none.safetensors", -1, MN_IGNORE);
  write_targets("some.safetensors", 3, MN_IGNORE);
  /* a whole pass, which here is the 20 steps in which every row is seen, or all there are to take */
  for (int k = 0; k < 2; k++) {
    CHECK(train_tensors("none.safetensors", "", k ? "train: {steps: 3, batch: 2}" : "train: {steps: 500, batch: 2}", &asked, &steps) ==
                  MN_ERR_CONFIG &&
              strstr(mn_message(), "nothing was asked") && strstr(mn_message(), "field target") && strstr(mn_message(), "next_token"),
          "%s", mn_message());
    CHECK(asked == 0 && steps == (k ? 3 : 20), "refused after %lld steps", (long long)steps);
  }
  CHECK(train_tensors("some.safetensors", ", vocab_size: 6", "objective: {type: masked_token, fraction: 1e-9}\ntrain: {steps: 3, batch: 2}",
                      &asked, &steps) == MN_ERR_CONFIG &&
            strstr(mn_message(), "nothing was asked") && strstr(mn_message(), "objective.fraction"),
        "%s", mn_message());
  /* a quarter of the rows asks: steps of one row without a target go by, and are no loss of 0 */
  CHECK_OK(train_tensors("some.safetensors", "", "train: {steps: 80, batch: 1}", &asked, &steps));
  CHECK(asked == 20 && steps == 80, "%lld of %lld steps", (long long)asked, (long long)steps);
#define IN_DIR "cd %s && MNEME_HOME=. " MNEME
  CHECK(
      sh("cd %s && printf 'data: {type: tensors, file: some.safetensors, test_file: none.safetensors, validation: 0.2}\n"
         "model: {d_model: 8, layers: 1, block: {mixer: {type: attention, heads: 2}, hidden: 8}}\ntrain: {steps: 24, batch: 1}\n' > s.yaml",
         dir) == 0,
      "written");
  CHECK(sh(IN_DIR "train s.yaml --out some --threads 1 2>&1", dir) == 0 && strstr(out, "asked for nothing"), "%s", out);
  CHECK(sh(IN_DIR "eval --model some --threads 1 2>&1", dir) == 2 && strstr(out, "nothing was asked") && strstr(out, "of the test data"),
        "%s", out);
  CHECK(sh(IN_DIR "train s.yaml --set data.file=none.safetensors --out n --threads 1 2>&1", dir) == 2 && strstr(out, "nothing was asked"),
        "%s", out);
}

static void what_is_outside_of_the_vocabulary_is_named(void) {
  int64_t asked, steps;
  CHECK(train_tensors("some.safetensors", "", "tokenizer: {type: bpe, vocab_size: 300}\ntrain: {steps: 3, batch: 2}", &asked, &steps) ==
                MN_ERR_CONFIG &&
            strstr(mn_message(), "tokenizer has no effect") && strstr(mn_message(), "data of type tensors has no text"),
        "%s", mn_message());
  write_targets("some.safetensors", 6, MN_IGNORE);
  CHECK(train_tensors("some.safetensors", ", vocab_size: 6", "train: {steps: 3, batch: 2}", &asked, &steps) == MN_ERR_CONFIG &&
            strstr(mn_message(), "data.target holds 6") && strstr(mn_message(), "model.vocab_size is 6"),
        "%s", mn_message());
}

/* ---- a teacher's file ---- */
#define MODEL "model: {d_model: %d, layers: 1, block: {mixer: {type: attention, heads: 2}, hidden: 32}}\n"

static void write_recipe(const char *name, const char *text) { CHECK_OK(mn_file_write(test_path(name), text, strlen(text))); }

static double figure(const char *json, const char *key) {
  char want[80];
  snprintf(want, sizeof want, "\"%s\": ", key);
  const char *at = strstr(json, want);
  return at ? atof(at + strlen(want)) : (double)NAN;
}

static void a_student_learns_from_the_file_alone(void) {
  char text[3000], dir[600];
  snprintf(dir, sizeof dir, "%s", test_path(""));
  snprintf(text, sizeof text, "data: {files: ['%stext.txt']}\n" MODEL "train: {steps: 150, batch: 8, seq_len: 32, optimizer: {lr: 1e-2}}\n",
           dir, 32);
  write_recipe("teacher.yaml", text);
#define IN "cd %s && MNEME_HOME=. " MNEME
  CHECK(sh(IN "train teacher.yaml --out teacher --threads 1 --quiet 2>&1", dir) == 0, "%s", out);
  CHECK(sh(IN "eval --model teacher --soft-targets soft.safetensors --top 6 --batches 30 --threads 1 --json 2>&1", dir) == 0, "%s", out);
  CHECK(figure(out, "rows") == 240 && figure(out, "top") == 6 && figure(out, "seq_len") == 32, "%s", out);
  /* what it holds is what the model says of those tokens */
  CHECK(sh("cd %s && " MNEME
           "apply teacher --params teacher/model.safetensors --input soft.safetensors --output y.safetensors --threads 1 2>&1",
           dir) != 0 &&
            strstr(out, "is not an input"),
        "%s", out);
  snprintf(text, sizeof text,
           "tokenizer: {type: file, file: %steacher/tokenizer.json}\ndata: {type: tensors, file: %ssoft.safetensors, text: true}\n" MODEL
           "objective: {type: distillation, from: sparse}\ntrain: {steps: 150, batch: 8, optimizer: {lr: 1e-2}}\n",
           dir, dir, 16);
  write_recipe("student.yaml", text);
  CHECK(sh(IN "train student.yaml --out student --threads 1 --quiet --json 2>&1", dir) == 0, "%s", out);
  /* judged by what it was never shown: the text's next tokens */
  CHECK(sh(IN "eval --model student --data text.txt --threads 1 --json 2>/dev/null", dir) == 0, "%s", out);
  const double learned = figure(out, "loss");
  CHECK(learned < 0.6 * log(257), "a student that saw no target says the next token with a loss of %g; chance is %g", learned, log(257));
  CHECK(sh(IN "eval --model student --data text.txt --threads 1 2>&1", dir) == 0 && strstr(out, "judged by the next token") &&
            strstr(out, "soft_ids"),
        "%s", out);
  /* another tokenizer */
  snprintf(text, sizeof text,
           "tokenizer: {type: bpe, vocab_size: 300}\ndata: {files: ['%stext.txt']}\n" MODEL "train: {steps: 1, batch: 8, seq_len: 32}\n",
           dir, 16);
  write_recipe("other.yaml", text);
  CHECK(sh(IN "train other.yaml --out other --threads 1 --quiet 2>&1", dir) == 0, "%s", out);
  CHECK(sh(IN "train student.yaml --out refused --set 'tokenizer={type: file, file: other/tokenizer.json}' --threads 1 --quiet 2>&1",
           dir) == 2 &&
            strstr(out, "soft.safetensors was made with another tokenizer") && strstr(out, "tokenizer: {type: file"),
        "%s", out);
  CHECK(sh(IN "train student.yaml --out refused --set model.vocab_size=20 --threads 1 --quiet 2>&1", dir) != 0 && strstr(out, "vocab_size"),
        "%s", out);
  CHECK(sh(IN "eval --model teacher --soft-targets soft.safetensors --carry 2>&1", dir) == 2 && strstr(out, "carry"), "%s", out);
  CHECK(sh(IN "eval --model teacher --top 3 2>&1", dir) == 2 && strstr(out, "--soft-targets"), "%s", out);
  CHECK(sh(IN "eval --model teacher --soft-targets soft.safetensors --top 300 --batches 1 2>&1", dir) == 2 && strstr(out, "257 tokens"),
        "%s", out);
}

/* Every token kept: ids in falling order of what the model gives each, by another way. */
static void the_likeliest_tokens_are_the_models(void) {
  char dir[600];
  enum { V = 257 };
  const mn_shape places = MN_SHAPE(2, 32), all = MN_SHAPE(2, 32, V);
  mn_st *soft = NULL, *said = NULL;
  const mn_st_tensor *ids, *weights, *tokens, *y;
  snprintf(dir, sizeof dir, "%s", test_path(""));
  CHECK(sh(IN "eval --model teacher --soft-targets whole.safetensors --top 257 --batches 1 --batch 2 --threads 1 2>&1", dir) == 0, "%s",
        out);
  CHECK_OK(mn_st_open(test_path("whole.safetensors"), &soft));
  if (!soft) return;
  CHECK_OK(mn_st_need(soft, "tokens", &places, &tokens));
  mn_st_writer *w = mn_st_writer_new();
  CHECK_OK(mn_st_writer_add(w, "tokens", MN_I32, &tokens->shape, tokens->data));
  CHECK_OK(mn_st_writer_save(w, test_path("x.safetensors")));
  mn_st_writer_free(w);
  CHECK(sh(IN "apply teacher --params teacher/model.safetensors --input x.safetensors --output y.safetensors --threads 1 2>&1", dir) == 0,
        "%s", out);
  CHECK_OK(mn_st_open(test_path("y.safetensors"), &said));
  if (said) {
    static int32_t id[64 * V];
    static float p[64 * V], logits[64 * V];
    CHECK_OK(mn_st_need(soft, "soft_ids", &all, &ids));
    CHECK_OK(mn_st_need(soft, "soft_weights", &all, &weights));
    CHECK_OK(mn_st_need(said, "y", &all, &y));
    CHECK_OK(mn_st_read(soft, ids, MN_I32, id));
    CHECK_OK(mn_st_read(soft, weights, MN_F32, p));
    CHECK_OK(mn_st_read(said, y, MN_F32, logits));
    double worst = 0, least = 1;
    for (int u = 0; u < 64; u++) {
      double sum = 0, total = 0;
      bool there[V] = {false};
      for (int k = 0; k < V; k++) sum += exp((double)logits[u * V + k]);
      for (int k = 0; k < V; k++) {
        const int32_t v = id[u * V + k];
        CHECK(v >= 0 && v < V && !there[v] && (!k || p[u * V + k] <= p[u * V + k - 1]), "place %d, token %d", u, k);
        if (v < 0 || v >= V) break;
        there[v] = true;
        total += (double)p[u * V + k];
        worst = fmax(worst, fabs(exp((double)logits[u * V + v]) / sum - (double)p[u * V + k]));
      }
      least = fmin(least, total);
    }
    CHECK(worst < 1e-4 && least > 0.999, "probabilities differ by %g; the least sum is %g", worst, least);
  }
  mn_st_close(soft);
  mn_st_close(said);
}

int main(void) {
  test_setup("soft-targets");
  RUN(every_example_comes_once);
  RUN(what_does_not_fit_is_refused_by_tensor);
  RUN(a_value_that_is_none_is_refused_by_its_place);
  RUN(a_mean_over_nothing_is_no_result);
  RUN(what_is_outside_of_the_vocabulary_is_named);
  RUN(a_student_learns_from_the_file_alone);
  RUN(the_likeliest_tokens_are_the_models);
  test_cleanup();
  return test_end();
}
