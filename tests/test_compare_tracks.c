/* test_compare_tracks.c - `mneme compare --tracks`: every model does the same work at the same size; what was done is not done again;
 * what fails is said and loses nothing else. */
#include <jansson.h>
#include <sqlite3.h>

#include "cli/compare_tracks.h"
#include "base/dir.h"
#include "train_helpers.h"

#define MNEME MN_TEST_BINARY_DIR "/mneme"

static void put(const char *file, const char *text) { CHECK_OK(mn_file_write(test_path(file), text, strlen(text))); }

static const char recall[] = "- name: recall\n"
                             "  parameters: 8000\n"
                             "  tokens: 2000\n"
                             "  recipe:\n"
                             "    data: {task: {name: mqar, vocab_size: 20, len: 16, kv: 2}}\n"
                             "    train: {batch: 4, validate_every: 10, validation_batches: 2, optimizer: {lr: 1e-2}}\n"
                             "  measure:\n"
                             "  - {title: loss, kind: figure, figure: loss}\n"
                             "  - {title: two pairs, kind: task, task: {name: mqar, vocab_size: 20, len: 16, kv: 2}, examples: 8}\n"
                             "  - {title: us, kind: speed, positions: [8, 32], repeats: 3}\n";

static void write_tracks(const char *file, const char *more) {
  char text[4000];
  snprintf(text, sizeof text, "tracks:\n%s%s", recall, more);
  put(file, text);
}

static void write_models(void) {
  CHECK_OK(mn_make_dirs(test_path("models")));
  put("models/window.yaml", "model: {d_model: 8, layers: 1, block: {mixer: {type: attention, heads: 2, window: 8}}}\n");
  put("models/delta.yaml", "model: {d_model: 8, layers: 1, block: {mixer: {type: deltanet, heads: 2}}}\n");
  put("models/whole.yaml",
      "name: 'whole|8'\nmodel: {d_model: 8, layers: 1, block: {mixer: {type: attention, heads: 2, max_context: 20}}}\n");
}

static char *said;
static int compare(const char *what, const char *more) {
  char command[3000];
  snprintf(command, sizeof command, "cd '%s' || exit 99; " MNEME " compare %s --threads 1 > said 2>&1 %s", test_dir, what, more);
  int code = system(command);
  size_t n;
  free(said);
  CHECK_OK(mn_file_read(test_path("said"), 1 << 20, &said, &n));
  return WEXITSTATUS(code);
}

static json_t *table_of(const char *out) {
  char path[200];
  json_error_t e;
  snprintf(path, sizeof path, "%s/table.json", out);
  json_t *doc = json_load_file(test_path(path), 0, &e);
  CHECK(doc, "%s: %s", path, e.text);
  return doc;
}
static double at(json_t *doc, const char *recipe, const char *track, const char *title) {
  size_t i;
  json_t *row;
  json_array_foreach(json_object_get(doc, "table"), i, row) {
    if (strcmp(json_string_value(json_object_get(row, "recipe")), recipe)) continue;
    json_t *x = json_object_get(json_object_get(row, track), title);
    return json_is_number(x) ? json_number_value(x) : (double)NAN;
  }
  return (double)NAN;
}
static bool there(const char *file) { return mn_file_exists(test_path(file)); }

static void every_model_does_the_same_work_at_the_same_size(void) {
  write_models();
  write_tracks("tracks.yaml", "");
  CHECK(compare("models --tracks tracks.yaml --out all", "") == 0, "%s", said);
  json_t *doc = table_of("all");
  static const char *const names[] = {"window", "delta", "whole|8"};
  for (int i = 0; i < 3; i++) {
    CHECK(fabs(at(doc, names[i], "recall", "parameters") - 8000) <= 400, "%s: %g parameters", names[i],
          at(doc, names[i], "recall", "parameters"));
    CHECK(at(doc, names[i], "recall", "loss") > 0 && at(doc, names[i], "recall", "two pairs") >= 0, "%s", names[i]);
    CHECK(at(doc, names[i], "recall", "us@8") > 0 && at(doc, names[i], "recall", "bytes of state") > 0, "%s", names[i]);
  }
  CHECK(isnan(at(doc, "whole|8", "recall", "us@32")) && at(doc, "whole|8", "recall", "longest stream") == 20, "a cache ends");
  CHECK(at(doc, "delta", "recall", "us@32") > 0 && isnan(at(doc, "delta", "recall", "longest stream")), "a state does not");
  static const char *const files[] = {"all/table.md",
                                      "all/recall-loss-by-tokens.svg",
                                      "all/recall-loss-by-time.svg",
                                      "all/recall-by-state.svg",
                                      "all/recall-time-per-token.svg",
                                      "all/recall/delta/model.safetensors"};
  for (int i = 0; i < 6; i++) CHECK(there(files[i]), "%s", files[i]);
  char *table = NULL;
  size_t n;
  CHECK_OK(mn_file_read(test_path("all/table.md"), 1 << 20, &table, &n));
  CHECK(table && strstr(table, "\n| whole\\|8 | "), "%s", table); /* a cell, not two */
  free(table);
  json_decref(doc);
}

/* The same tokens for all, the last step whole; parameters as near as the width alone comes, or nearer by the hidden width. */
static void tokens_and_parameters_are_solved(void) {
  mn_arena *arena = mn_arena_new();
  mn_track *tracks;
  int n;
  CHECK_OK(mn_tracks_read(arena, test_path("tracks.yaml"), &tracks, &n));
  CHECK(n == 1 && tracks[0].n_measures == 3, "%d", n);
  static const int64_t sizes[] = {3000, 8000, 50000, 300000};
  for (int i = 0; i < 4; i++) {
    mn_track_recipe r;
    tracks[0].parameters = sizes[i];
    CHECK_OK(mn_track_recipe_read(arena, &tracks[0], test_path("models/window.yaml"), NULL, 0, &r));
    CHECK(llabs(r.parameters - sizes[i]) * 20 <= sizes[i] && r.d_model % 4 == 0, "%lld of %lld", (long long)r.parameters,
          (long long)sizes[i]);
    CHECK(r.recipe->train.steps == 32 && !strcmp(r.recipe->name, "window"), "2000 tokens in steps of 64");
    mn_recipe_free(r.recipe);
  }
  mn_track_recipe r;
  static const atomic_int told = 1; /* thousands of widths are not tried once somebody asks for the end */
  mn_stop_watch(&told);
  CHECK(mn_track_recipe_read(arena, &tracks[0], test_path("models/window.yaml"), NULL, 0, &r) == MN_ERR_CANCELLED, "%s", mn_message());
  mn_stop_watch(NULL);
  tracks[0].parameters = 60;
  CHECK(mn_track_recipe_read(arena, &tracks[0], test_path("models/window.yaml"), NULL, 0, &r) == MN_ERR_CONFIG &&
            strstr(mn_message(), "no width"),
        "%s", mn_message());
  mn_arena_free(arena);
}

static void what_was_done_is_not_done_again(void) {
  json_t *before = table_of("all");
  CHECK(compare("models --tracks tracks.yaml --out all", "") == 2 && strstr(said, "--resume"), "%s", said);
  write_tracks("tracks.yaml", "  - {title: one pair, kind: task, task: {name: mqar, vocab_size: 20, len: 16, kv: 1}, examples: 8}\n");
  CHECK(compare("models --tracks tracks.yaml --out all --resume", "") == 0, "%s", said);
  json_t *after = table_of("all");
  static const char *const same[] = {"compare.seconds", "us@8", "two pairs"};
  for (int i = 1; i < 3; i++) CHECK(at(before, "delta", "recall", same[i]) == at(after, "delta", "recall", same[i]), "%s", same[i]);
  CHECK(at(before, "delta", "recall", "recall: seconds of training") == at(after, "delta", "recall", "recall: seconds of training"),
        "no second training");
  CHECK(at(after, "delta", "recall", "one pair") >= 0 && isnan(at(before, "delta", "recall", "one pair")), "the new measure alone");
  json_decref(before);
  json_decref(after);
}

static void one_that_fails_loses_nothing_else(void) {
  put("models/bad.yaml", "model: {d_model: 8, layers: 1, block: {mixer: {type: attention, heads: 2, head_dim: 7}}}\n");
  CHECK(compare("models --tracks tracks.yaml --out some", "") != 0, "%s", said);
  CHECK(strstr(said, "bad.yaml") && strstr(said, "the others stand"), "%s", said);
  json_t *doc = table_of("some");
  CHECK(at(doc, "delta", "recall", "two pairs") >= 0 && isnan(at(doc, "bad.yaml", "recall", "two pairs")), "%s", said);
  json_decref(doc);
  CHECK_OK(mn_file_remove(test_path("models/bad.yaml")));
  write_tracks("taken.yaml", "  - {title: loss, kind: task, task: {name: mqar, vocab_size: 20, len: 16, kv: 1}, examples: 8}\n");
  CHECK(compare("models/delta.yaml --tracks taken.yaml --out taken", "") == 2 && strstr(said, "twice"), "%s", said);
  write_tracks("taken.yaml", "  - {title: grad_norm, kind: task, task: {name: mqar, vocab_size: 20, len: 16, kv: 1}, examples: 8}\n");
  CHECK(compare("models/delta.yaml --tracks taken.yaml --out taken", "") == 2 && strstr(said, "the training itself has a metric"), "%s",
        said);
}

/* A recipe's name, and its file's where it cannot be read, stands in one cell, is no markup and steers no terminal. */
static void a_name_is_one_cell(void) {
  static const char unreadable[] = "model: {d_model: 8, heads: 1}\n";
  size_t n;
  char *table;
  CHECK_OK(mn_make_dirs(test_path("odd")));
  put("odd/pipe.yaml", "name: 'a|b `c` *d* _e_ f_g <i>'\nmodel: {d_model: 8, layers: 1, block: {mixer: {type: deltanet, heads: 2}}}\n");
  CHECK_OK(mn_file_write(test_path("odd/odd\n\xc2\x9b\xff.yaml"), unreadable, sizeof unreadable - 1));
  CHECK(compare("odd --tracks tracks.yaml --out odd-out", "") != 0 && strstr(said, "the others stand"), "%s", said);
  CHECK_OK(mn_file_read(test_path("odd-out/table.md"), 1 << 20, &table, &n));
  CHECK(strstr(table, "| a\\|b \\`c\\` \\*d\\* \\_e_ f_g \\<i> |"), "%s", table);
  CHECK(strstr(table, "| odd\\\\n\\\\x9b\\\\xff.yaml |") && mn_utf8_valid(table, n) == n, "%s", table);
  int bars[8] = {0}, rows = 0;
  for (char *line = table, *end; (end = strchr(line, '\n')) && end > line && rows < 8; line = end + 1, rows++)
    for (char *p = line; p < end; p++) bars[rows] += *p == '|' && (p == line || p[-1] != '\\');
  CHECK(rows == 4, "a head, a rule and two recipes: %s", table);
  for (int r = 1; r < rows; r++) CHECK(bars[r] == bars[0], "row %d has as many cells as the head: %s", r, table);
  free(table);
}

static void a_locked_database_is_said(void) {
  sqlite3 *db;
  CHECK(sqlite3_open(test_path("all/compare.db"), &db) == SQLITE_OK, "open");
  CHECK(sqlite3_exec(db, "PRAGMA journal_mode=DELETE; BEGIN EXCLUSIVE", NULL, NULL, NULL) == SQLITE_OK, "%s", sqlite3_errmsg(db));
  CHECK(compare("models --tracks tracks.yaml --out all --resume", "") != 0 && strstr(said, "locked"), "%s", said);
  sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
  sqlite3_close(db);
}

/* Interrupted inside a training: its metrics are there, its end is not. (A shell lets what runs behind it ignore SIGINT: SIGTERM.) */
static void an_interrupted_comparison_goes_on(void) {
  CHECK_OK(mn_make_dirs(test_path("two")));
  put("two/delta.yaml", "model: {d_model: 8, layers: 1, block: {mixer: {type: deltanet, heads: 2}}}\n");
  put("two/window.yaml", "model: {d_model: 8, layers: 1, block: {mixer: {type: attention, heads: 2, window: 8}}}\n");
  put("long.yaml", "tracks:\n- name: recall\n  parameters: 8000\n  tokens: 128000\n  recipe:\n"
                   "    data: {task: {name: mqar, vocab_size: 20, len: 16, kv: 2}}\n"
                   "    train: {batch: 4, log_every: 1, validate_every: 0, validation_batches: 2, optimizer: {lr: 1e-3}}\n"
                   "  measure: [{title: pairs, kind: task, task: {name: mqar, vocab_size: 20, len: 16, kv: 2}, examples: 8}]\n");
  const int code = compare("two --tracks long.yaml --out cut --json",
                           "& p=$!; until [ -s cut/recall/delta/metrics.jsonl ] || ! kill -0 $p 2>/dev/null; do sleep 0.01; done; "
                           "kill -TERM $p; wait $p");
  CHECK(code == 3 && strstr(said, "--resume goes on"), "%d: %s", code, said);
  char **names;
  size_t n;
  CHECK_OK(mn_dir_list(test_path("cut/recall/delta/checkpoints"), &names, &n));
  const long long at_step = n == 1 && !strncmp(names[0], "step-", 5) ? atoll(names[0] + 5) : 0;
  CHECK(at_step > 0 && at_step < 2000 && !there("cut/recall/window/metrics.jsonl"), "step %lld of 2000", at_step);
  mn_dir_list_free(names, n);
  CHECK(compare("two --tracks long.yaml --out cut --resume", "") == 0, "%s", said);
  json_t *doc = table_of("cut");
  CHECK(at(doc, "window", "recall", "pairs") >= 0 && at(doc, "delta", "recall", "pairs") >= 0, "%s", said);
  json_decref(doc);
}

/* Killed while it trains the first model, then between two, then while it trains the second: the models have the bits of the one that was
 * left alone, and nothing is left behind. (The process that trains may live a moment longer than its parent, and hold its directory.) */
static void a_killed_comparison_goes_on(void) {
  static const char *const when[] = {"killed/recall/delta/metrics.jsonl", "killed/recall/delta/model.safetensors",
                                     "killed/recall/window/metrics.jsonl"};
  char more[400];
  for (int k = 0; k < 3; k++) {
    snprintf(more, sizeof more,
             "& p=$!; until [ -s %s ] || ! kill -0 $p 2>/dev/null; do sleep 0.01; done; kill -KILL $p 2>/dev/null; wait $p; "
             "for d in killed/recall/*; do until [ ! -e $d/.lock ] || flock -n $d/.lock true; do sleep 0.01; done; done",
             when[k]);
    compare("two --tracks long.yaml --out killed --resume", more);
    CHECK(there(when[k]), "%s: %s", when[k], said);
  }
  CHECK(compare("two --tracks long.yaml --out killed --resume", "") == 0, "%s", said);
  static const char *const models[] = {"delta", "window"};
  for (int i = 0; i < 2; i++) {
    char line[600];
    snprintf(line, sizeof line, "cd '%s' && cmp cut/recall/%s/model.safetensors killed/recall/%s/model.safetensors", test_dir, models[i],
             models[i]);
    CHECK(system(line) == 0, "%s: another model", models[i]);
  }
  char line[600];
  snprintf(
      line, sizeof line,
      "cd '%s' && for d in cut killed; do (cd $d && find . ! -path '*/checkpoints/*' | sort) >$d.names; done; diff cut.names killed.names",
      test_dir);
  CHECK(system(line) == 0, "other files");
}

/* Lists that come again, in the language of the task `recurring` and in bytes: a column is one cell. */
static void lists_that_come_again_are_a_column(void) {
  put("lists.yaml", "tracks:\n"
                    "- name: copies\n"
                    "  tokens: 256\n"
                    "  recipe:\n"
                    "    data: {task: {name: recurring, len: 64}}\n"
                    "    train: {batch: 2, validate_every: 10, validation_batches: 2}\n"
                    "  measure:\n"
                    "  - {title: repeat, kind: verbatim, verbatim: {delays: [5], seconds: [repeat]}, examples: 8}\n"
                    "  - {title: novel, kind: verbatim, verbatim: {delays: [5], seconds: [novel], seed: 2}, examples: 8}\n"
                    "- name: text\n"
                    "  tokens: 256\n"
                    "  recipe:\n"
                    "    tokenizer: {type: bytes}\n"
                    "    data: {files: [text.txt]}\n"
                    "    train: {batch: 2, seq_len: 32, validate_every: 10, validation_batches: 2}\n"
                    "  measure:\n"
                    "  - {title: words, kind: verbatim, verbatim: {delays: [30], seconds: [repeat]}, examples: 4}\n");
  CHECK(compare("models/delta.yaml --tracks lists.yaml --out lists", "") == 0, "%s", said);
  json_t *doc = table_of("lists");
  CHECK(at(doc, "delta", "copies", "repeat") > 50 && at(doc, "delta", "copies", "novel") > 50 && at(doc, "delta", "text", "words") > 50,
        "%s", said);
  json_decref(doc);
}

/* A disk that is full, or a limit on files: said by the one that does not fit; what fits stands, and once there is room the rest is done. */
static void a_full_disk_loses_nothing_else(void) {
  char command[3000], text[4000];
  put("two/wide.yaml", "model: {d_model: 64, layers: 2, block: {mixer: {type: attention, heads: 2}, hidden: 512}}\n");
  snprintf(text, sizeof text, "tracks:\n%s", recall);
  memset(strstr(text, "  parameters: 8000"), ' ', strlen("  parameters: 8000"));
  put("sizes.yaml", text);
  /* blocks of 512 bytes; the wide model has 900 KB, all else together less than half of the limit */
  snprintf(command, sizeof command,
           "cd '%s' && ulimit -f 800 && " MNEME " compare two --tracks sizes.yaml --out full --threads 1 >said 2>&1", test_dir);
  CHECK(WEXITSTATUS(system(command)) == 1, "a limit");
  free(said);
  size_t n;
  CHECK_OK(mn_file_read(test_path("said"), 1 << 20, &said, &n));
  CHECK(strstr(said, "recall/wide: ") && strstr(said, "File too large") && strstr(said, "1 trainings or measurements failed"), "%s", said);
  json_t *doc = table_of("full");
  CHECK(at(doc, "delta", "recall", "two pairs") >= 0 && at(doc, "window", "recall", "loss") > 0, "%s", said);
  json_t *failed = json_object_get(doc, "failed");
  CHECK(json_array_size(failed) == 1 && strstr(json_string_value(json_array_get(failed, 0)), "recall/wide: "), "and which and why: %s",
        said);
  CHECK(isnan(at(doc, "wide", "recall", "loss")) && !there("full/recall/wide/model.safetensors"), "what failed has no figure: %s", said);
  json_decref(doc);
  CHECK(compare("two --tracks sizes.yaml --out full --resume", "") == 0, "there is room: %s", said);
  doc = table_of("full");
  CHECK(at(doc, "wide", "recall", "loss") > 0 && at(doc, "wide", "recall", "two pairs") >= 0, "%s", said);
  json_decref(doc);
  snprintf(command, sizeof command, "cd '%s' && ulimit -f 20 && " MNEME " compare two --tracks sizes.yaml --out none >said 2>&1", test_dir);
  CHECK(WEXITSTATUS(system(command)) == 1 && !there("none"), "no room for anything: nothing is left behind");
}

static void mistakes_are_named(void) {
  static const struct {
    const char *text, *says;
  } bad[] = {
      {"tracks: []\n", "needs tracks"},
      {"tracks: [{name: a/b, recipe: {data: 1}}]\n", "plain name"},
      {"tracks: [{name: a}]\n", "map of sections"},
      {"tracks: [{name: a, recipe: {}, measure: [{title: x, kind: speed}]}]\n", "positions"},
      {"tracks: [{name: a, recipe: {}, measure: [{title: x, kind: task, task: {name: mqra}}]}]\n", "did you mean 'mqar'"},
      {"tracks: [{name: a, recipe: {}, measure: [{title: x, kind: speed, positions: [4, 2]}]}]\n", "must rise"},
      {"tracks: [{name: a, recipe: {}, measure: [{title: x, kind: verbatim}]}]\n", "name a cell"},
      {"tracks: [{name: a, recipe: {}, measure: [{title: x, kind: verbatim, verbatim: {delays: [5]}}]}]\n", "names 3 cells"},
      {"tracks: [{name: a, recipe: {}, measure: [{title: x, kind: verbatim, verbatim: {delay: [5]}}]}]\n", "did you mean 'delays'"},
      {"tracks: [{name: a, recipe: {}, measure: [{title: x}, {title: x}]}]\n", "twice"},
      {"tracks: [{name: a, parameters: 8000, recipe: {data: {task: {name: mqar, vocab_size: 20, len: 16, kv: 2}}}, measure: [{title: "
       "x, figure: lss}]}]\n",
       "did you mean 'loss'"},
      {"tracks: [{name: a, recipe: {data: {task: {name: mqar}}}}]\nmore: 3\n", "unknown key 'more'"},
      {"tracks: [{name: a, recipe: {}, measure: [{title: \"x\\e[31m\"}]}]\n", "can be shown"},
      {"tracks: [{name: a, recipe: {}, measure: [{title: \"x|y\"}]}]\n", "can be shown"},
      {"tracks: [{name: a, recipe: {}, measure: [{title: x}, {title: x.low}]}]\n", "a part of 'x'"},
      {"tracks: [{name: a, recipe: {}, measure: [{title: us@4}, {title: us}]}]\n", "a part of 'us'"},
      {"tracks: [{name: a, tokens: 100, recipe: {train: {steps: 3}}}]\n", "keep one"},
      {"tracks: [{name: a, parameters: 100, recipe: {model: {d_model: 8}}}]\n", "keep one"},
      {"tracks: [{name: Table.md, recipe: {data: {task: {name: mqar}}, train: {seq_len: 64}}}]\n", "another `name`"},
      {"tracks: [{name: compare.db, recipe: {data: {task: {name: mqar}}, train: {seq_len: 64}}}]\n", "another `name`"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    put("bad.yaml", bad[i].text);
    CHECK(compare("models --tracks bad.yaml --out none", "") == 2 && strstr(said, bad[i].says), "%s: %s", bad[i].text, said);
  }
  CHECK(!there("none"), "nothing is left behind");
  static const char *const sets[] = {"train.steps=3", "train={steps: 3, seq_len: 16}", "model.d_model=8"};
  write_tracks("tracks.yaml", "");
  for (int i = 0; i < 3; i++) {
    char more[100];
    snprintf(more, sizeof more, "models --tracks tracks.yaml --out none --set '%s'", sets[i]);
    CHECK(compare(more, "") == 2 && strstr(said, sets[i]) && strstr(said, "the track has"), "%s: %s", sets[i], said);
  }
  CHECK(!there("none"), "nothing is left behind");
}

int main(void) {
  test_setup("compare_tracks");
  RUN(every_model_does_the_same_work_at_the_same_size);
  RUN(tokens_and_parameters_are_solved);
  RUN(what_was_done_is_not_done_again);
  RUN(one_that_fails_loses_nothing_else);
  RUN(a_name_is_one_cell);
  RUN(a_locked_database_is_said);
  RUN(an_interrupted_comparison_goes_on);
  RUN(a_killed_comparison_goes_on);
  RUN(a_full_disk_loses_nothing_else);
  RUN(lists_that_come_again_are_a_column);
  RUN(mistakes_are_named);
  free(said);
  test_cleanup();
  return test_end();
}
