/* What must be true of `mneme generate` and `mneme stream`: the same seed gives the same text; a session saved by one process
 * goes on in another as if there had been one; a stream's perplexity does not depend on how it is cut; its memory does not
 * grow; an interrupted stream saves its session; wrong use is named. */
#include <jansson.h>
#include <signal.h>
#include <unistd.h>

#include "base/file.h"
#include "format/tokenizer.h"
#include "format/yaml.h"
#include "model/params.h"
#include "run/meter.h"
#include "run/text_tokens.h"
#include "program.h"
#include "scratch.h"
#include "test.h"

#define DIR   "stream-verbs"
#define MODEL " --model " DIR "/model "
#define TEXT  DIR "/text.txt"

static const char model_text[] = "{vocab_size: 256, d_model: 16, layers: 2, blocks: [{mixer: {type: attention, heads: 2, window: 8}},"
                                 " {mixer: {type: titans_lmm, heads: 2, chunk: 8}}]}";

/* A small model with random weights beside a byte tokenizer, and a text with words and lines. */
static void make_model(void) {
  mn_arena *arena = mn_arena_new();
  const mn_value *v = NULL;
  mn_backend *backend = NULL;
  mn_model *model = NULL;
  mn_params *params = NULL;
  mn_tokenizer *tok = NULL;
  CHECK(sh("rm -rf %s && mkdir -p %s", DIR, DIR) == 0, "%s", out);
  CHECK_OK(mn_yaml_parse(arena, "test", model_text, strlen(model_text), &v));
  CHECK_OK(mn_backend_cpu_new(1, &backend));
  CHECK_OK(mn_model_parse(v, "test", 0, &model));
  CHECK_OK(mn_params_new(model, backend, MN_F32, 7, &params));
  CHECK_OK(mn_model_save_dir(model, params, DIR "/model"));
  CHECK_OK(mn_tokenizer_bytes(NULL, 0, &tok));
  CHECK_OK(mn_tokenizer_save(tok, DIR "/model/tokenizer.json"));
  mn_text text = {0};
  for (int i = 0; i < 3000; i++) {
    int n = 1 + (int)(mn_random_uniform(5, 0, (uint64_t)i) * 9);
    for (int k = 0; k < n; k++) mn_text_addf(&text, "%c", (char)('a' + (int)(mn_random_uniform(6, (uint64_t)i, (uint64_t)k) * 26)));
    mn_text_add(&text, i % 12 == 11 ? ".\n" : " ");
  }
  CHECK_OK(mn_file_write(TEXT, text.data, text.len));
  mn_text_free(&text);
  mn_tokenizer_free(tok);
  mn_params_free(params);
  mn_model_free(model);
  mn_backend_free(backend);
  mn_arena_free(arena);
}

static double number(const json_t *doc, const char *key) { return json_number_value(json_object_get(doc, key)); }

/* The last line of `out`, or what stands under `key` in it. */
static json_t *last_line(const char *key) {
  size_t n = strlen(out);
  while (n && out[n - 1] == '\n') out[--n] = 0;
  char *line = strrchr(out, '\n');
  json_t *doc = json_loads(line ? line + 1 : out, JSON_ALLOW_NUL, NULL),
         *part = key ? json_incref(json_object_get(doc, key)) : json_incref(doc);
  json_decref(doc);
  return part;
}

static void the_same_seed_gives_the_same_text(void) {
  static char first[sizeof out];
  CHECK(sh(MNEME "generate" MODEL "--prompt 'ab c' --tokens 40 --seed 3 2>/dev/null") == 0, "%s", out);
  strcpy(first, out);
  CHECK(!strncmp(first, "ab c", 4) && strlen(first) > 30, "%s", first);
  sh(MNEME "generate" MODEL "--prompt 'ab c' --tokens 40 --seed 3 --threads 1 2>/dev/null");
  CHECK(!strcmp(first, out), "another text");
  sh(MNEME "generate" MODEL "--prompt 'ab c' --tokens 40 --seed 4 2>/dev/null");
  CHECK(strcmp(first, out), "another seed, the same text");
  CHECK(sh(MNEME "generate" MODEL "--prompt 'ab c' --tokens 9 --json") == 0, "%s", out);
  json_t *doc = json_loads(out, JSON_ALLOW_NUL, NULL);
  CHECK(json_array_size(json_object_get(doc, "tokens")) == 9 && number(doc, "position") == 13 && json_object_get(doc, "text"), "%s", out);
  json_decref(doc);
}

static void a_session_goes_on_in_another_process(void) {
  static char whole[sizeof out];
  sh(MNEME "generate" MODEL "--prompt 'hello there' --tokens 30 --temperature 0 --json");
  json_t *one = json_loads(out, JSON_ALLOW_NUL, NULL);
  snprintf(whole, sizeof whole, "%s", json_string_value(json_object_get(one, "text")));
  CHECK(sh(MNEME "generate" MODEL "--prompt 'hello' --tokens 1 --json --session-out " DIR "/a.safetensors") == 0, "%s", out);
  /* the same text in two processes: what stream saved, generate goes on from */
  CHECK(sh("printf 'hello ther' | " MNEME "stream" MODEL "--quiet --session-out " DIR "/s.safetensors -") == 0, "%s", out);
  CHECK(sh(MNEME "generate" MODEL "--session-in " DIR "/s.safetensors --prompt e --tokens 30 --temperature 0 --json") == 0, "%s", out);
  json_t *two = json_loads(out, JSON_ALLOW_NUL, NULL);
  CHECK(json_equal(json_object_get(one, "tokens"), json_object_get(two, "tokens")), "%s", out);
  CHECK(number(one, "position") == number(two, "position"), "%s", out);
  json_decref(one);
  json_decref(two);
  CHECK(sh(MNEME "generate" MODEL "--session-in " TEXT " --prompt e 2>&1") == 1 && strstr(out, "text.txt"), "%s", out);
}

static void perplexity_does_not_depend_on_the_cut(void) {
  double perplexity[3], tokens[3];
  static const char *const how[] = {"--segment 256", "--segment 37", "--segment 256 --tokens 5000 --session-out " DIR "/cut.safetensors"};
  for (int i = 0; i < 3; i++) {
    CHECK(sh(MNEME "stream" MODEL "--score --json %s " TEXT, how[i]) == 0, "%s", out);
    json_t *doc = last_line("summary");
    perplexity[i] = number(doc, "perplexity"), tokens[i] = number(doc, "tokens");
    CHECK(number(doc, "position") == tokens[i], "%s", out);
    CHECK(json_array_size(json_object_get(doc, "tenths")) == 10, "%s", out);
    json_decref(doc);
  }
  mn_file_info info;
  CHECK_OK(mn_file_stat(TEXT, &info));
  CHECK(tokens[0] == (double)info.size && tokens[1] == tokens[0] && tokens[2] == 5000, "%g %g %g", tokens[0], tokens[1], tokens[2]);
  CHECK(fabs(perplexity[0] - perplexity[1]) < 1e-3 * perplexity[0], "%g %g", perplexity[0], perplexity[1]);
  CHECK(perplexity[0] > 100 && perplexity[0] < 400, "an untrained model: %g", perplexity[0]);
  CHECK(sh(MNEME "stream" MODEL "--score --json --session-in " DIR "/cut.safetensors " TEXT) == 0, "%s", out);
  json_t *doc = last_line("summary");
  CHECK(number(doc, "position") == 5000 + tokens[0], "%s", out);
  json_decref(doc);
}

static void reports_and_pictures(void) {
  CHECK(sh(MNEME "stream" MODEL "--score --every 4000 --csv %s/s.csv --plot %s/s.svg --plot %s/s.png " TEXT " 2>&1", DIR, DIR, DIR) == 0,
        "%s", out);
  CHECK(strstr(out, "tenth") && strstr(out, "perplexity") && strstr(out, "resident memory") && strstr(out, "8."), "%s", out);
  CHECK(strstr(out, "\n\ntime per token") && !strstr(out, "\\n"), "an empty line is one: %s", out);
  char *csv = NULL;
  size_t n;
  CHECK_OK(mn_file_read(DIR "/s.csv", 1 << 20, &csv, &n));
  int lines = 0;
  for (size_t i = 0; csv && i < n; i++) lines += csv[i] == '\n';
  CHECK(csv && lines > 10 && !strncmp(csv, "begin,end,perplexity,token_seconds\n0,", 37), "%s", csv);
  free(csv);
  CHECK(mn_file_exists(DIR "/s.svg") && mn_file_exists(DIR "/s.png"), "pictures");
}

/* By less than a byte a token: pages of the program itself come when they are first run, 16 at a time. */
static void memory_does_not_grow(void) {
  enum { TOKENS = 100000 };
  CHECK(sh(MNEME "stream" MODEL "--random 100000 --json --seed 1 --threads 1") == 0, "%s", out);
  json_t *doc = last_line("summary");
  CHECK(number(doc, "tokens") == TOKENS, "%s", out);
  const double start = number(doc, "resident_start_bytes"), end = number(doc, "resident_end_bytes"),
               most = number(doc, "resident_max_bytes");
  CHECK(start > 0 && most >= start && most >= end && most - start < TOKENS, "%s", out);
  CHECK(number(doc, "first_token_seconds") > 0 && number(doc, "last_token_seconds") > 0, "%s", out);
  json_decref(doc);
}

/* Wherever the signal meets it, between two segments or within one. */
static void an_interrupted_stream_saves_its_session(void) {
  const char *session = DIR "/interrupted.safetensors";
  for (int k = 0; k < 12; k++) {
    unlink(session);
    unlink(DIR "/log");
    pid_t pid = fork();
    if (pid == 0) {
      if (!freopen(DIR "/log", "w", stdout) || !freopen(DIR "/err", "w", stderr)) _exit(9);
      execl(MN_TEST_BINARY_DIR "/mneme", "mneme", "stream", "--model", DIR "/model", "--random", "2000000000", "--every", "1000", "--json",
            "--segment", k % 2 ? "8192" : "256", "--session-out", session, (char *)NULL);
      _exit(9);
    }
    mn_file_info info = {0};
    for (int i = 0; i < 3000 && info.size == 0; i++) { /* until it streams */
      usleep(10000);
      mn_file_stat(DIR "/log", &info);
    }
    usleep((useconds_t)(1300 * k));
    kill(pid, SIGINT);
    int status = 0;
    waitpid(pid, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 3, "status %d", status);
    CHECK(sh(MNEME "generate" MODEL "--session-in %s --prompt a --tokens 2 --json", session) == 0, "%s", out);
  }
}

static void wrong_use_is_named(void) {
  static const struct {
    const char *args;
    int code;
    const char *expect;
  } cases[] = {
      {"stream x.txt", 2, "--model"},
      {"stream" MODEL, 2, "which text"},
      {"stream" MODEL DIR "/none.txt", 1, "none.txt"},
      {"stream" MODEL DIR, 1, "is a directory"},
      {"stream" MODEL "/dev/null", 2, "empty"},
      {"stream" MODEL "--random 9 x.txt", 2, "leave out"},
      {"stream" MODEL "--precision f23 x.txt", 2, "f32"},
      {"stream --model " DIR "/nothing x.txt", 1, "nothing"},
      {"generate" MODEL, 2, "--prompt"},
      {"generate" MODEL "--prompt a --prompt-file b", 2, "one of them"},
      {"generate" MODEL "--prompt a --temperature -1", 2, "--temperature"},
      {"generate" MODEL "--prompt a --sesion-in x", 2, "did you mean --session-in"},
      {"generate --model " TEXT " --prompt a", 1, "is not a model"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    int code = sh(MNEME "%s 2>&1", cases[i].args);
    CHECK(code == cases[i].code && strstr(out, cases[i].expect), "mneme %s: exit %d, %s", cases[i].args, code, out);
  }
}

/* Blocks end between words: the tokens are those of the whole text, also for BPE. */
static void a_text_in_blocks_gives_the_tokens_of_the_whole(void) {
  mn_text text = {0};
  for (int i = 0; i < 40000; i++)
    mn_text_addf(&text, "%s%s", i % 7 == 3 ? "the" : i % 5 == 1 ? "don't" : "caf\xc3\xa9", i % 31 == 0 ? "\n\n" : i % 11 == 0 ? "  " : " ");
  CHECK_OK(mn_file_write(DIR "/words.txt", text.data, text.len));
  mn_tokenizer *tok = NULL;
  mn_tokenizer_train_config config = {.vocab_size = 300, .pattern = MN_PATTERN_GPT2};
  CHECK_OK(mn_tokenizer_train(&config, &(mn_span){text.data, text.len}, 1, &tok));
  mn_ids whole = {0};
  CHECK_OK(mn_tokenizer_encode(tok, text.data, text.len, 0, &whole));
  mn_text_tokens *t = NULL;
  CHECK_OK(mn_text_tokens_open(DIR "/words.txt", tok, &t)); /* which takes its memory at once (mn_encoder_reserve) */
  size_t at = 0;
  bool same = true;
  for (;;) {
    int32_t ids[1000];
    int64_t got = 0;
    CHECK_OK(mn_text_tokens_next(t, 1000, ids, &got));
    if (got == 0) break;
    same = same && at + (size_t)got <= whole.len && !memcmp(ids, whole.data + at, (size_t)got * sizeof *ids);
    at += (size_t)got;
  }
  CHECK(same && at == whole.len, "%zu tokens instead of %zu", at, whole.len);
  CHECK(mn_text_tokens_bytes(t) == (int64_t)text.len && mn_text_tokens_file_bytes(t) == (int64_t)text.len, "bytes");
  mn_text_tokens_close(t);
  mn_ids_free(&whole);
  mn_tokenizer_free(tok);
  mn_text_free(&text);
}

static void a_meter_keeps_its_size_and_its_sums(void) {
  mn_meter *m = NULL;
  CHECK_OK(mn_meter_new(&m));
  enum { SEGMENTS = 100000 };
  for (int i = 0; i < SEGMENTS; i++) mn_meter_add(m, 10, 10, 10 * log(2.0 + (i >= SEGMENTS / 2)), i < SEGMENTS / 2 ? 1e-5 : 2e-5);
  mn_meter_summary s;
  mn_meter_summarise(m, &s);
  CHECK(s.tokens == 10 * SEGMENTS && s.scored == s.tokens && mn_meter_parts(m) <= 1024, "%d parts", mn_meter_parts(m));
  CHECK(fabs(s.perplexity - sqrt(6.0)) < 1e-6, "%g", s.perplexity);
  CHECK(fabs(s.first_seconds - 1e-6) < 1e-12 && fabs(s.last_seconds - 2e-6) < 1e-12, "%g %g", s.first_seconds, s.last_seconds);
  CHECK(s.tenth[0].begin == 0 && s.tenth[9].end == s.tokens, "%lld", (long long)s.tenth[9].end);
  for (int k = 0; k < 10; k++) {
    CHECK(fabs(s.tenth[k].perplexity - (k < 5 ? 2 : 3)) < 0.05, "tenth %d: %g", k, s.tenth[k].perplexity);
    CHECK(llabs(s.tenth[k].end - (k + 1) * s.tokens / 10) < s.tokens / 500, "tenth %d ends at %lld", k, (long long)s.tenth[k].end);
  }
  mn_meter_free(m);
}

/* A short stream: one cold segment and a last one that the text's end cut short say nothing of the others. */
static void a_meter_looks_at_whole_segments(void) {
  for (int cut = 0; cut < 2; cut++) {
    mn_meter *m = NULL;
    CHECK_OK(mn_meter_new(&m));
    for (int i = 0; i < 140; i++) mn_meter_add(m, 256, 0, 0, 256e-6 * (i == 0 ? 4 : i < 70 ? 1 : 2));
    if (cut) mn_meter_add(m, 100, 0, 0, 100e-6 * 9);
    mn_meter_summary s;
    mn_meter_summarise(m, &s);
    CHECK(fabs(s.first_seconds - 1e-6) < 1e-12 && fabs(s.last_seconds - 2e-6) < 1e-12, "%g %g", s.first_seconds, s.last_seconds);
    mn_meter_free(m);
  }
  mn_meter *m = NULL;
  CHECK_OK(mn_meter_new(&m));
  mn_meter_add(m, 256, 0, 0, 256e-6);
  mn_meter_add(m, 100, 0, 0, 100e-6 * 9);
  mn_meter_summary s;
  mn_meter_summarise(m, &s);
  CHECK(fabs(s.first_seconds - 1e-6) < 1e-12 && fabs(s.last_seconds - 1e-6) < 1e-12, "%g %g", s.first_seconds, s.last_seconds);
  mn_meter_free(m);
}

static void outputs_are_tried_before_the_work(void) {
  static const char *const bad[] = {"/nonexistent/x", DIR, "/dev/null", ""};
  for (int i = 0; i < 4; i++) {
    int code = *bad[i] ? 1 : 2; /* an empty name is wrong usage */
    CHECK(sh(MNEME "stream" MODEL "--random 1000000000 --session-out '%s' 2>&1", bad[i]) == code && strstr(out, "--session-out"), "%s",
          out);
    CHECK(sh(MNEME "stream" MODEL "--random 1000000000 --csv '%s' 2>&1", bad[i]) == code && strstr(out, "--csv"), "%s", out);
    CHECK(sh(MNEME "generate" MODEL "--prompt a --tokens 1000000000 --session-out '%s' 2>&1", bad[i]) == code &&
              strstr(out, "--session-out"),
          "%s", out);
  }
  CHECK(sh(MNEME "stream" MODEL "--random 1000000000 --plot " DIR "/a.jpg 2>&1") == 2 && strstr(out, ".png"), "%s", out);
  CHECK(sh(MNEME "stream" MODEL "--random 1000000000 --csv " DIR "/a --session-out " DIR "/a 2>&1") == 2 && strstr(out, "both"), "%s", out);
  CHECK_OK(mn_file_write(DIR "/old.csv", "old", 3));
  CHECK(sh(MNEME "stream --model /nonexistent --csv " DIR "/old.csv --session-out " DIR "/new.st " TEXT " 2>&1") == 1, "%s", out);
  char *data;
  size_t n;
  CHECK_OK(mn_file_read(DIR "/old.csv", 100, &data, &n));
  CHECK(n == 3 && !strcmp(data, "old") && !mn_file_exists(DIR "/new.st"), "a verb that fails leaves files as they were, and makes none");
  free(data);
}

/* What a memory is surprised by is told for every token, the same however the text is cut; what nobody tells is refused. */
static void test_surprise_is_told(void) {
  char *whole = NULL, *pieces = NULL;
  size_t n = 0, m = 0;
  CHECK(sh(MNEME "stream" MODEL "--report surprise --report-out " DIR "/whole.csv --tokens 70 " TEXT " 2>&1") == 0, "%s", out);
  CHECK(strstr(out, "surprise") && strstr(out, "on average"), "%s", out);
  CHECK(sh(MNEME "stream" MODEL "--report surprise --report-out " DIR "/pieces.csv --segment 7 --score --tokens 70 " TEXT " 2>&1") == 0,
        "%s", out);
  CHECK_OK(mn_file_read(DIR "/whole.csv", SIZE_MAX, &whole, &n));
  CHECK_OK(mn_file_read(DIR "/pieces.csv", SIZE_MAX, &pieces, &m));
  CHECK(whole && strstr(whole, "position,token,layers.1.mixer.memory.surprise\n0,") == whole, "%.80s", whole ? whole : "");
  int lines = 0;
  for (char *a = whole, *b = pieces; a && b && *a && *b; lines++) {
    double x = 0, y = 0;
    if (lines) sscanf(a, "%*d,%*d,%lf", &x), sscanf(b, "%*d,%*d,%lf", &y);
    CHECK(!lines || (x > 0 && fabs(x - y) < 1e-4 * x), "token %d: %g and %g", lines - 1, x, y);
    a = strchr(a, '\n') + 1;
    b = strchr(b, '\n') + 1;
  }
  CHECK(lines == 71, "%d lines", lines);
  free(whole);
  free(pieces);
  CHECK(sh(MNEME "stream" MODEL "--report astonishment --tokens 5 " TEXT " 2>&1") == 2 && strstr(out, "astonishment") &&
            strstr(out, "surprise"),
        "%s", out);
}

int main(void) {
  RUN(make_model);
  RUN(outputs_are_tried_before_the_work);
  RUN(the_same_seed_gives_the_same_text);
  RUN(a_session_goes_on_in_another_process);
  RUN(perplexity_does_not_depend_on_the_cut);
  RUN(reports_and_pictures);
  RUN(memory_does_not_grow);
  RUN(an_interrupted_stream_saves_its_session);
  RUN(wrong_use_is_named);
  RUN(a_text_in_blocks_gives_the_tokens_of_the_whole);
  RUN(a_meter_keeps_its_size_and_its_sums);
  RUN(a_meter_looks_at_whole_segments);
  RUN(test_surprise_is_told);
  return test_end();
}
