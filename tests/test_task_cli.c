/* What must be true of `mneme task`: it lists every task, and what it draws is what a training or `mneme eval` draws, shown, as lines of
 * JSON and as tensors; every mistake is named with its remedy. */
#include <jansson.h>

#include "base/file.h"
#include "format/safetensors.h"
#include "format/tokenizer.h"
#include "program.h"
#include "scratch.h"
#include "task/task.h"

#define DIR  "task-cli"
#define TASK MNEME "task "

static int64_t integer(const json_t *doc, const char *key) { return json_integer_value(json_object_get(doc, key)); }
static const char *word(const json_t *doc, const char *key) { return json_string_value(json_object_get(doc, key)); }

static void all_are_listed(void) {
  CHECK(sh(TASK "2>&1") == 0, "%s", out);
  for (int i = 0; mn_task_at(i); i++) CHECK(strstr(out, mn_task_at(i)->help), "%s is not listed: %s", mn_task_at(i)->name, out);
  CHECK(sh(TASK "--json") == 0, "%s", out);
  json_t *doc = json_loads(out, 0, NULL);
  CHECK((int)json_array_size(json_object_get(doc, "tasks")) == mn_task_count(), "%s", out);
  json_decref(doc);
}

static bool same_numbers(const json_t *list, const int32_t *x, int64_t n) {
  bool same = (int64_t)json_array_size(list) == n;
  for (int64_t i = 0; i < n && same; i++) same = json_integer_value(json_array_get(list, (size_t)i)) == x[i];
  return same;
}

/* Ids and targets, shown, in lines and in tensors, from another number on too. */
static void ids_are_those_that_are_trained_on(void) {
  mn_task *task;
  int32_t input[64], target[64];
  const char *const set[] = {"len=64", "kv=4", "vocab_size=64", "seed=7"};
  CHECK_OK(mn_task_open_set("mqar", set, 4, &task));
  CHECK(sh(TASK "mqar --set len=64 --set kv=4 --set vocab_size=64 --seed 7 --split test --first 3 --count 2 --output " DIR
                "/a.jsonl 2>&1") == 0,
        "%s", out);
  CHECK(strstr(out, "2 samples of mqar, split test"), "%s", out);
  CHECK(sh("cat " DIR "/a.jsonl") == 0, "%s", out);
  char *second = strchr(out, '\n');
  CHECK(second, "one line: %s", out);
  for (int64_t i = 3; i < 5; i++) {
    json_t *line = json_loads(i == 3 ? out : second + 1, JSON_DISABLE_EOF_CHECK, NULL);
    CHECK_OK(mn_task_sample(task, MN_SPLIT_TEST, (uint64_t)i, input, target));
    CHECK(integer(line, "index") == i && same_numbers(json_object_get(line, "input"), input, 64), "sample %d: %s", (int)i, out);
    CHECK(same_numbers(json_object_get(line, "target"), target, 64), "sample %d: %s", (int)i, out);
    json_decref(line);
  }
  CHECK(sh(TASK "mqar --set len=64 --set kv=4 --set vocab_size=64 --seed 7 --split test --count 5 --output " DIR "/a.safetensors --json") ==
            0,
        "%s", out);
  json_t *doc = json_loads(out, 0, NULL);
  CHECK(integer(doc, "samples") == 5 && integer(json_object_get(doc, "settings"), "kv") == 4, "%s", out);
  json_decref(doc);
  mn_st *st;
  CHECK_OK(mn_st_open(DIR "/a.safetensors", &st));
  const mn_st_tensor *in = mn_st_find(st, "input"), *to = mn_st_find(st, "target");
  CHECK(in && to && in->dtype == MN_I32 && in->shape.dim[0] == 5 && in->shape.dim[1] == 64, "not [5, 64]");
  for (int i = 0; in && to && i < 5; i++) {
    CHECK_OK(mn_task_sample(task, MN_SPLIT_TEST, (uint64_t)i, input, target));
    CHECK(!memcmp((const int32_t *)in->data + 64 * i, input, sizeof input) &&
              !memcmp((const int32_t *)to->data + 64 * i, target, sizeof target),
          "row %d", i);
  }
  CHECK(mn_st_meta(st, "seed") && !strcmp(mn_st_meta(st, "seed"), "7") && !strcmp(mn_st_meta(st, "split"), "test"), "its origin");
  mn_st_close(st);
  CHECK(sh(TASK "mqar --set len=64 --set kv=4 --set vocab_size=64 --seed 7 --split test --first 4 2>&1") == 0, "%s", out);
  CHECK(strstr(out, "sample 4 of split test: 64 tokens, 4 asked for") && strstr(out, "--set KEY=VALUE"), "%s", out);
  char pair[32];
  for (int t = 0; t < 64; t++)
    if (target[t] != MN_IGNORE) {
      snprintf(pair, sizeof pair, " %d>%d", input[t], target[t]);
      CHECK(strstr(out, pair), "no%s: %s", pair, out);
    }
  mn_task_close(task);
}

static void classes_and_spans(void) {
  mn_task *task;
  CHECK_OK(mn_task_open("listops_mini", NULL, &task));
  int32_t *input = calloc((size_t)task->seq_len, sizeof *input), length, label, span[2];
  CHECK(sh(TASK "listops_mini --count 4 --output " DIR "/l.safetensors 2>&1") == 0, "%s", out);
  mn_st *st;
  CHECK_OK(mn_st_open(DIR "/l.safetensors", &st));
  const int32_t *lengths = mn_st_find(st, "length")->data, *labels = mn_st_find(st, "label")->data;
  for (int i = 0; i < 4; i++) {
    CHECK_OK(mn_task_sample_label(task, MN_SPLIT_TRAIN, (uint64_t)i, input, &length, &label));
    CHECK(lengths[i] == length && labels[i] == label, "sample %d", i);
  }
  mn_st_close(st);
  mn_task_close(task);
  free(input);
  CHECK_OK(mn_task_open("needle_span", NULL, &task));
  input = calloc((size_t)task->seq_len, sizeof *input);
  CHECK_OK(mn_task_sample_span(task, MN_SPLIT_TRAIN, 0, input, &length, span));
  CHECK(sh(TASK "needle_span --json") == 0, "%s", out);
  json_t *line = json_loads(out, 0, NULL);
  CHECK(same_numbers(json_object_get(line, "span"), span, 2) && same_numbers(json_object_get(line, "input"), input, length), "%s", out);
  json_decref(line);
  CHECK(sh(TASK "needle_span --count 3 --output " DIR "/s.safetensors 2>&1") == 0, "%s", out);
  CHECK_OK(mn_st_open(DIR "/s.safetensors", &st));
  CHECK(!memcmp(mn_st_find(st, "span")->data, span, sizeof span), "the first span");
  mn_st_close(st);
  mn_task_close(task);
  free(input);
}

/* Texts; their lengths in bytes, or in a model's tokens. */
static void texts(void) {
  mn_task *task;
  mn_task_text sample;
  const char *const set[] = {"garbage=300"};
  CHECK_OK(mn_task_open_set("passkey", set, 1, &task));
  CHECK_OK(mn_task_sample_text(task, MN_SPLIT_VALIDATION, 2, &sample));
  CHECK(sh(TASK "passkey --set garbage=300 --split validation --first 2 --json") == 0, "%s", out);
  json_t *line = json_loads(out, 0, NULL);
  CHECK(!strcmp(word(line, "prompt"), sample.prompt) && !strcmp(word(line, "answer"), sample.answer), "%s", out);
  CHECK(!strcmp(json_string_value(json_array_get(json_object_get(line, "answers"), 0)), sample.answers[0]), "%s", out);
  json_decref(line);
  CHECK(sh(TASK "passkey --set garbage=300 --split validation --first 2 2>&1") == 0, "%s", out);
  CHECK(strstr(out, sample.prompt) && strstr(out, "looked for: '"), "%s", out);
  mn_task_text_free(&sample);
  mn_task_close(task);

  mn_tokenizer *tok;
  CHECK_OK(mn_tokenizer_bytes(NULL, 0, &tok));
  CHECK_OK(mn_tokenizer_save(tok, DIR "/tokenizer.json"));
  mn_tokenizer_free(tok);
  CHECK(sh(TASK "niah_single_1 --set len=1024 --tokenizer " DIR "/tokenizer.json 2>&1") == 0, "%s", out);
  CHECK(strstr(out, " tokens\n"), "%s", out);
}

/* What a model was trained on, at another length: what else the recipe says of the task stays. */
static void a_recipes_task_is_asked_at_another_length(void) {
  CHECK(
      sh("printf 'data: {task: {name: word_problem, group: cyclic, n: 2, len: 16}}\\nmodel: {vocab_size: 2, d_model: 8, layers: 1, block: "
         "{mixer: {type: lstm, hidden: 8}}}\\ntrain: {steps: 2, batch: 2}\\n' >" DIR "/parity.yaml") == 0,
      "%s", out);
  CHECK(sh(MNEME "train " DIR "/parity.yaml --quiet --threads 1 --out " DIR "/parity 2>&1") == 0, "%s", out);
  CHECK(sh(MNEME "eval --model " DIR "/parity --set len=48 --examples 4 --threads 1 2>&1") == 0, "%s", out);
  CHECK(strstr(out, "the recipe's task: 192 targets in segments of 48"), "%s", out);
  CHECK(sh(MNEME "eval --model " DIR "/parity --set lenn=48 2>&1") == 2 && strstr(out, "did you mean 'len'"), "%s", out);
  CHECK(sh(MNEME "eval --model " DIR "/parity --set n=3 --threads 1 2>&1") == 2, "ids that the model does not have: %s", out);
}

static void mistakes(void) {
  static const struct {
    const char *line, *says;
  } wrong[] = {{"mqa", "mqar"},
               {"mqar --set kw=3", "kv"},
               {"mqar --set len=7", "len"},
               {"mqar --output " DIR "/a.csv", ".jsonl"},
               {"passkey --output " DIR "/a.safetensors", "are text"},
               {"mqar --output -", "standard output"},
               {"mqar --split all", "validation"},
               {"mqar --count 0", "--count"},
               {"mqar --tokenizer " DIR "/tokenizer.json", "are token ids"},
               {"passkey --tokenizer " DIR "/none.json", "none.json"},
               {"--count 3", "--count has no effect"},
               {"mqar passkey", "passkey"}};
  for (int i = 0; i < (int)(sizeof wrong / sizeof *wrong); i++) {
    const int rc = sh(TASK "%s 2>&1", wrong[i].line);
    CHECK(rc == 2 || (rc == 1 && strstr(wrong[i].line, "none.json")), "%s: exit code %d: %s", wrong[i].line, rc, out);
    CHECK(strstr(out, wrong[i].says), "%s: no '%s': %s", wrong[i].line, wrong[i].says, out);
  }
  CHECK(sh("ls " DIR "/a.csv 2>/dev/null") != 0, "a file was left: %s", out);
}

int main(void) {
  setbuf(stdout, NULL);
  CHECK(sh("rm -rf %s", DIR) == 0, "%s", out);
  CHECK_OK(mn_make_dirs(DIR));
  RUN(all_are_listed);
  RUN(ids_are_those_that_are_trained_on);
  RUN(classes_and_spans);
  RUN(texts);
  RUN(a_recipes_task_is_asked_at_another_length);
  RUN(mistakes);
  sh("rm -rf %s", DIR);
  return test_end();
}
