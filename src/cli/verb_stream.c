/* verb_stream.c - `mneme stream`: a text of any length through a trained model, at constant memory. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/output.h"
#include "base/shell.h"
#include "cli/cli.h"
#include "cli/progress.h"
#include "cli/remarks.h"
#include "cli/session_file.h"
#include "format/plot.h"
#include "checkpoint/bundle.h"
#include "run/meter.h"
#include "run/session.h"
#include "run/text_tokens.h"

typedef struct source { /* a text, or random token ids */
  mn_text_tokens *text;
  int64_t random, drawn, vocab_size;
  uint64_t key;
  const mn_tokenizer *tok; /* ids that it has no token for are not drawn; NULL: all are */
} source;

typedef struct stream {
  mn_cli *cli;
  mn_bundle bundle;
  mn_session *session;
  mn_meter *meter;
  mn_progress *progress;
  source source;
  int64_t segment, limit, every, next_report;
  bool score, forgets;
  int32_t *tokens; /* [segment + 1]: the last one waits for its turn */
  int32_t last;    /* the target of a text's last token: none */
  float *nll;      /* [segment] */
  double began;
  mn_session_file kept; /* of --session-in and --session-out, where they are one */
  mn_file_writer *told; /* --report-out: a line for each token */
  struct {              /* --report, over all of its tensors   */
    double sum, top;
    int64_t n, top_at;
  } report;
} stream;

static mn_status next_tokens(source *s, int64_t n, int32_t *ids, int64_t *got) {
  if (s->text) return mn_text_tokens_next(s->text, n, ids, got);
  if (n > s->random - s->drawn) n = s->random - s->drawn;
  for (int64_t i = 0; i < n; i++) {
    int64_t id = (int64_t)(mn_random_uniform(s->key, 0, (uint64_t)s->drawn++) * (double)s->vocab_size), tried = 0;
    size_t bytes;
    while (s->tok && !mn_tokenizer_token(s->tok, (int32_t)id, &bytes) && tried++ < s->vocab_size) id = (id + 1) % s->vocab_size;
    ids[i] = (int32_t)id;
  }
  *got = n;
  return MN_OK;
}

/* What the model told about the n tokens that were just fed. */
static mn_status take_reports(stream *s, int64_t n) {
  int count = mn_session_report_count(s->session);
  int64_t first = mn_session_position(s->session) - n;
  mn_text lines = {0};
  for (int64_t t = 0; t < n && count; t++) {
    mn_text_addf(&lines, "%" PRId64 ",%d", first + t, (int)s->tokens[t]);
    for (int i = 0; i < count; i++) {
      double x = (double)mn_session_report_values(s->session, i)[t];
      mn_text_addf(&lines, ",%.9g", x);
      if (!s->report.n++ || x > s->report.top) s->report.top = x, s->report.top_at = first + t;
      s->report.sum += x;
    }
    mn_text_add(&lines, "\n");
  }
  mn_status status = mn_text_status(&lines);
  if (status == MN_OK && s->told && lines.len) status = mn_file_writer_append(s->told, lines.data, lines.len);
  mn_text_free(&lines);
  return status;
}

static mn_status feed(stream *s, int64_t n, bool has_next) {
  double begin = mn_now(), sum = 0;
  int64_t scored = 0;
  if (s->score) {
    s->tokens[n] = has_next ? s->tokens[n] : s->last;
    MN_TRY(mn_session_score(s->session, s->tokens, s->tokens + 1, n, s->nll));
    scored = has_next ? n : n - 1;
    for (int64_t i = 0; i < scored; i++) sum += (double)s->nll[i];
  } else {
    MN_TRY(mn_session_feed(s->session, s->tokens, n, NULL));
  }
  mn_meter_add(s->meter, n, scored, sum, mn_now() - begin);
  return take_reports(s, n);
}

/* ---- reports ---- */
static void report(stream *s, int64_t tokens) {
  char rate[16], count[16];
  int parts = mn_meter_parts(s->meter);
  double seconds = mn_now() - s->began, perplexity = parts ? mn_meter_at(s->meter, parts - 1).perplexity : (double)NAN;
  if (s->cli->json) {
    mn_cli_json_line(s->cli, json_pack("{s:I,s:f,s:f,s:o,s:I}", "tokens", (json_int_t)tokens, "seconds", seconds, "tokens_per_second",
                                       (double)tokens / seconds, "perplexity", mn_cli_number(perplexity), "resident_bytes",
                                       (json_int_t)mn_resident_bytes()));
    return;
  }
  mn_progress_clear(s->progress);
  mn_print("%s tokens  %s/s", mn_human_count((double)tokens, count), mn_human_count((double)tokens / seconds, rate));
  if (isfinite(perplexity)) mn_print("  perplexity %.2f", perplexity);
  mn_print("  resident %.1f MiB\n", (double)mn_resident_bytes() / 1048576);
  mn_print_flush();
}

static void show_progress(stream *s, int64_t tokens) {
  char rate[16];
  double seconds = mn_now() - s->began;
  mn_meter_part last = mn_meter_at(s->meter, mn_meter_parts(s->meter) - 1);
  bool by_bytes = s->source.text && mn_text_tokens_file_bytes(s->source.text) > 0 && s->limit == INT64_MAX;
  if (isfinite(last.perplexity))
    mn_progress_fields(s->progress, "%s tokens/s  perplexity %.2f", mn_human_count((double)tokens / seconds, rate), last.perplexity);
  else mn_progress_fields(s->progress, "%s tokens/s", mn_human_count((double)tokens / seconds, rate));
  mn_progress_update(s->progress, by_bytes ? mn_text_tokens_bytes(s->source.text) : tokens);
}

static mn_status pump(stream *s) {
  int64_t done = 0, got = 0;
  MN_TRY(next_tokens(&s->source, 1, s->tokens, &got));
  if (got == 0) MN_TRY(mn_stop_check("waiting for text"));
  if (got == 0) return mn_fail(MN_ERR_CONFIG, "there is no text to stream: the input is empty");
  s->began = mn_now();
  for (bool more = true; more && done < s->limit && !mn_cli_interrupted();) {
    int64_t n = s->limit - done < s->segment ? s->limit - done : s->segment;
    MN_TRY(next_tokens(&s->source, n, s->tokens + 1, &got));
    more = got == n;
    n = more ? n : got + 1; /* at the end of the text the waiting token goes, too */
    mn_status fed = feed(s, n, more);
    if (fed == MN_ERR_CANCELLED && mn_cli_interrupted()) break; /* the session stands where its last whole segment ended */
    MN_TRY(fed);
    s->tokens[0] = s->tokens[n];
    done += n;
    show_progress(s, done);
    if (!s->forgets && mn_session_forgets(s->session)) {
      s->forgets = true;
      mn_progress_clear(s->progress);
      mn_remark_forgetting(s->cli, s->session);
    }
    if (s->every && done >= s->next_report) {
      report(s, done);
      s->next_report = (done / s->every + 1) * s->every;
    }
  }
  return MN_OK;
}

/* ---- results ---- */
static json_t *summary_json(stream *s, const mn_meter_summary *m) {
  json_t *tenths = json_array();
  for (int i = 0; i < 10; i++)
    json_array_append_new(tenths, json_pack("{s:I,s:I,s:o,s:o}", "begin", (json_int_t)m->tenth[i].begin, "end", (json_int_t)m->tenth[i].end,
                                            "perplexity", mn_cli_number(m->tenth[i].perplexity), "token_seconds",
                                            mn_cli_number(m->tenth[i].token_seconds)));
  json_t *j = json_pack("{s:I,s:I,s:I,s:f,s:f,s:o}", "tokens", (json_int_t)m->tokens, "scored", (json_int_t)m->scored, "position",
                        (json_int_t)mn_session_position(s->session), "seconds", m->seconds, "tokens_per_second",
                        (double)m->tokens / m->seconds, "perplexity", mn_cli_number(m->perplexity));
  json_object_set_new(j, "first_token_seconds", mn_cli_number(m->first_seconds));
  json_object_set_new(j, "last_token_seconds", mn_cli_number(m->last_seconds));
  json_object_set_new(j, "resident_start_bytes", json_integer(m->resident_start));
  json_object_set_new(j, "resident_end_bytes", json_integer(m->resident_end));
  json_object_set_new(j, "resident_max_bytes", json_integer(m->resident_max));
  json_object_set_new(j, "state_bytes", json_integer((json_int_t)mn_session_state_bytes(s->session)));
  json_object_set_new(j, "forgot", json_boolean(mn_session_forgets(s->session)));
  if (s->report.n)
    json_object_set_new(j, "report",
                        json_pack("{s:s,s:o,s:o,s:I}", "name", mn_cli_get(s->cli, "report"), "mean",
                                  mn_cli_number(s->report.sum / (double)s->report.n), "largest", mn_cli_number(s->report.top), "largest_at",
                                  (json_int_t)s->report.top_at));
  json_object_set_new(j, "interrupted", json_boolean(mn_cli_interrupted()));
  json_object_set_new(j, "tenths", tenths);
  return j;
}

static void print_summary(stream *s, const mn_meter_summary *m) {
  char a[16], b[16], c[16];
  mn_print("%" PRId64 " tokens in %s, %s tokens/s; state %s bytes\n", m->tokens, mn_human_time(m->seconds, a),
           mn_human_count((double)m->tokens / m->seconds, b), mn_human_count((double)mn_session_state_bytes(s->session), c));
  if (m->scored) mn_print("perplexity %.3f over %" PRId64 " tokens\n", m->perplexity, m->scored);
  if (m->scored) mn_print("\n  tenth   up to token   perplexity   us/token\n");
  for (int i = 0; i < 10 && m->scored; i++)
    if (m->tenth[i].end > m->tenth[i].begin)
      mn_print("  %5d  %12" PRId64 "   %10.3f   %8.2f\n", i + 1, m->tenth[i].end, m->tenth[i].perplexity, m->tenth[i].token_seconds * 1e6);
  if (m->scored) mn_print("\n");
  if (s->report.n)
    mn_print("%s %.4g on average, largest %.4g at token %" PRId64 " (%d a token)\n", mn_cli_get(s->cli, "report"),
             s->report.sum / (double)s->report.n, s->report.top, s->report.top_at, mn_session_report_count(s->session));
  mn_print("time per token  %.2f us in the first 1 %%, %.2f us in the last 1 %% (medians)\n", m->first_seconds * 1e6,
           m->last_seconds * 1e6);
  mn_print("resident memory %.2f MiB after warm-up, %.2f MiB at the end (%+" PRId64 " KiB), at most %.2f MiB\n",
           (double)m->resident_start / 1048576, (double)m->resident_end / 1048576, (m->resident_end - m->resident_start) / 1024,
           (double)m->resident_max / 1048576);
}

static mn_status write_csv(const stream *s, const char *path) {
  mn_text t = {0};
  mn_text_add(&t, "begin,end,perplexity,token_seconds\n");
  for (int i = 0; i < mn_meter_parts(s->meter); i++) {
    mn_meter_part p = mn_meter_at(s->meter, i);
    mn_text_addf(&t, "%" PRId64 ",%" PRId64 ",", p.begin, p.end);
    if (isfinite(p.perplexity)) mn_text_addf(&t, "%.9g", p.perplexity);
    mn_text_addf(&t, ",%.9g\n", p.token_seconds);
  }
  mn_status status = mn_text_status(&t);
  if (status == MN_OK) status = mn_file_write(path, t.data, t.len);
  mn_text_free(&t);
  return status;
}

static mn_status write_plots(const stream *s) {
  int n = mn_meter_parts(s->meter);
  double *x = mn_calloc((size_t)n + 1, sizeof *x), *y = mn_calloc((size_t)n + 1, sizeof *y);
  mn_status status = x && y ? MN_OK : MN_ERR_MEMORY;
  for (int i = 0; i < n && status == MN_OK; i++) {
    mn_meter_part p = mn_meter_at(s->meter, i);
    x[i] = ((double)p.begin + (double)p.end) / 2;
    y[i] = s->score ? p.perplexity : p.token_seconds * 1e6;
  }
  mn_plot_series series = {.label = "", .x = x, .y = y, .n = (size_t)n, .smooth = n > 64 ? (size_t)n / 16 : 0};
  mn_plot plot = {.title = s->score ? "Perplexity along the stream" : "Time per token along the stream",
                  .x_label = "tokens",
                  .y_label = s->score ? "perplexity" : "microseconds per token",
                  .y_zero = !s->score,
                  .series = &series,
                  .n_series = 1};
  if (status == MN_OK) status = mn_cli_draw(s->cli, &plot);
  free(x);
  free(y);
  return status;
}

/* ---- the verb ---- */
static mn_status open_report(stream *s) {
  const char *name = mn_cli_get(s->cli, "report"), *path = mn_cli_get(s->cli, "report-out");
  MN_TRY(mn_cli_only(s->cli, name != NULL, "--report NAME, which says what is written", "report-out"));
  if (!name) return MN_OK;
  MN_TRY(mn_session_report(s->session, name));
  if (!path) return MN_OK;
  MN_TRY(mn_file_writer_open(path, &s->told));
  mn_text head = {0};
  mn_text_add(&head, "position,token");
  for (int i = 0; i < mn_session_report_count(s->session); i++) mn_text_addf(&head, ",%s", mn_session_report_path(s->session, i));
  mn_text_add(&head, "\n");
  mn_status status = mn_text_status(&head);
  if (status == MN_OK) status = mn_file_writer_append(s->told, head.data, head.len);
  mn_text_free(&head);
  return status;
}

static mn_status set_up(stream *s) {
  mn_cli *cli = s->cli;
  const char *dir = mn_cli_get(cli, "model");
  mn_dtype compute;
  int64_t random = 0;
  if (!dir) return mn_fail(MN_ERR_CONFIG, "which model? --model MODEL names " MN_CLI_MODEL);
  s->segment = 256;
  s->limit = INT64_MAX;
  MN_TRY(mn_cli_int(cli, "segment", 1, 1 << 20, &s->segment));
  MN_TRY(mn_cli_int(cli, "tokens", 1, INT64_MAX, &s->limit));
  MN_TRY(mn_cli_int(cli, "every", 0, INT64_MAX, &s->every));
  MN_TRY(mn_cli_int(cli, "random", 1, INT32_MAX, &random));
  MN_TRY(mn_cli_precision(cli, "precision", false, &compute));
  s->score = mn_cli_given(cli, "score");
  s->next_report = s->every;
  MN_TRY(mn_cli_only(cli, random > 0, "--random, which draws the tokens", "seed"));
  if (random && cli->n_args) return mn_fail(MN_ERR_CONFIG, "--random makes the tokens: leave out %s", cli->args[0]);
  if (!random && !cli->n_args) return mn_fail(MN_ERR_CONFIG, "which text? Name a file, - for standard input, or --random N");
  MN_TRY(mn_bundle_open(dir, cli->backend, cli->threads, &s->bundle));
  const char *to = mn_cli_get(cli, "session-out");
  mn_session_config config = {.prefill = s->segment, .compute = compute, .forget = mn_cli_given(cli, "forget"), .passing = !to};
  MN_TRY(mn_session_new(s->bundle.model, s->bundle.params, &config, &s->session));
  if (to) /* again, now that its size is known */
    MN_TRY(mn_context(mn_output_try(to, mn_session_state_bytes(s->session)), "--session-out"));
  if (s->segment > mn_session_room(s->session)) s->segment = mn_session_room(s->session);
  MN_TRY(open_report(s));
  s->source = (source){.random = random, .vocab_size = s->bundle.model->config.vocab_size, .key = mn_random_key(cli->seed, "stream")};
  s->source.tok = s->bundle.tokenizer;
  if (s->source.tok) s->source.vocab_size = mn_tokenizer_vocab_size(s->source.tok);
  if (!random) {
    MN_TRY(mn_bundle_need_tokenizer(&s->bundle, dir));
    MN_TRY(mn_text_tokens_open(cli->args[0], s->bundle.tokenizer, &s->source.text));
  }
  s->tokens = mn_alloc((size_t)(s->segment + 1) * sizeof *s->tokens);
  s->nll = mn_alloc((size_t)s->segment * sizeof *s->nll);
  if (!s->tokens || !s->nll) return MN_ERR_MEMORY;
  MN_TRY(mn_meter_new(&s->meter));
  int64_t most = random && random < s->limit ? random : s->limit;
  const int64_t bytes_of_text = s->source.text ? mn_text_tokens_file_bytes(s->source.text) : 0; /* a token is at least a byte */
  if (bytes_of_text && bytes_of_text < most) most = bytes_of_text;
  MN_TRY(mn_session_warm_up(s->session, s->score, most)); /* before the stream is measured */
  const char *from = mn_cli_get(cli, "session-in");
  MN_TRY(mn_session_file_of_both(from, to, &s->kept));
  if (from) MN_TRY(mn_session_load(s->session, from));
  int64_t known = random && random < s->limit ? random : random ? s->limit : 1; /* a text may end anywhere */
  MN_TRY(mn_session_fits(s->session, known));
  int64_t bytes = s->limit == INT64_MAX ? bytes_of_text : 0;
  int64_t tokens = s->limit < INT64_MAX ? (random && random < s->limit ? random : s->limit) : random;
  s->progress = mn_progress_new(cli, "stream", bytes ? "bytes" : "tokens", bytes ? bytes : tokens);
  return MN_OK;
}

static mn_status write_session(void *ctx, const char *path, mn_file_stamp *stamp) { return mn_session_save_over(ctx, path, stamp); }

static mn_status finish(stream *s) {
  mn_cli *cli = s->cli;
  const char *to = mn_cli_get(cli, "session-out"), *csv = mn_cli_get(cli, "csv");
  mn_meter_summary m;
  mn_meter_summarise(s->meter, &m);
  mn_spelled spelled = s->source.text ? mn_text_tokens_spelled(s->source.text) : (mn_spelled){0};
  if (spelled.count >= MN_SPELLED_MANY)
    mn_cli_note(cli, "the text spells out %s %" PRId64 " times: that is read as the text it is, not as a special token", spelled.name,
                spelled.count);
  if (to) {
    MN_TRY(mn_session_file_save_to(&s->kept, to, write_session, s->session));
    if (s->kept.path) to = s->kept.path;
    mn_cli_note(cli, "wrote %s: the session after %" PRId64 " tokens", to, mn_session_position(s->session));
  }
  if (cli->json) mn_cli_json_line(cli, json_pack("{s:o}", "summary", summary_json(s, &m)));
  else if (m.tokens) print_summary(s, &m);
  if (csv) MN_TRY(write_csv(s, csv));
  if (s->told) {
    mn_file_writer *told = s->told;
    s->told = NULL;
    MN_TRY(mn_file_writer_commit(told));
  }
  if (m.tokens) MN_TRY(write_plots(s));
  if (!mn_cli_interrupted()) return MN_OK;
  char *word = to ? mn_shell_path(to) : NULL;
  mn_status status =
      mn_fail(MN_ERR_CANCELLED, "interrupted after %" PRId64 " tokens; %s%s", m.tokens,
              to ? "go on from here with --session-in " : "the session was not kept (--session-out FILE keeps it)", word ? word : "");
  free(word);
  return status;
}

/* The text failed on the way: what was read of it counts, and the fault stays the message. */
static mn_status finish_early(stream *s, mn_status fault) {
  char *why = mn_strdup(mn_message());
  mn_status kept = finish(s);
  const char *to = s->kept.path ? s->kept.path : mn_cli_get(s->cli, "session-out");
  mn_fail(fault, "%s; %" PRId64 " tokens were read%s%s", why ? why : mn_status_name(fault), mn_session_position(s->session),
          to && kept == MN_OK ? ", and their session is in " : "", to && kept == MN_OK ? to : "");
  free(why);
  return fault;
}

static mn_status run(mn_cli *cli) {
  stream s = {.cli = cli, .last = -1};
  mn_status status = set_up(&s);
  bool ready = status == MN_OK;
  if (ready) status = pump(&s);
  mn_progress_free(s.progress);
  if (status == MN_OK) status = finish(&s);
  else if (ready && status == MN_ERR_IO && mn_session_position(s.session) > 0) status = finish_early(&s, status);
  mn_text_tokens_close(s.source.text);
  mn_file_writer_abort(s.told);
  mn_meter_free(s.meter);
  mn_session_free(s.session);
  mn_session_file_close(&s.kept);
  mn_bundle_close(&s.bundle);
  free(s.tokens);
  free(s.nll);
  return status;
}

static const mn_option options[] = {{"model", "MODEL", NULL, MN_CLI_MODEL, 0},
                                    {"score", NULL, NULL, "report the perplexity of the text as it streams", 0},
                                    {"session-in", "FILE", NULL, "go on from a saved session", 0},
                                    {"session-out", "FILE", NULL, "save the session at the end, and when interrupted", MN_OPTION_OUTPUT},
                                    {"tokens", "N", NULL, "stop after so many tokens", 0},
                                    {"random", "N", NULL, "instead of a text: so many random tokens (see --seed)", 0},
                                    {"every", "N", "0", "a line of report every so many tokens; 0: none", 0},
                                    {"segment", "N", "256", "tokens fed at once; changes no more than rounding", 0},
                                    {"precision", "WORD", "f32", "f32 or bf16", 0},
                                    {"forget", NULL, NULL, "past the end of a cache (max_context) forget the oldest tokens", 0},
                                    {"report", "NAME", NULL, "what the mixers tell about each token, e.g. surprise (Titans)", 0},
                                    {"report-out", "FILE", NULL, "with --report: a line of CSV for each token", MN_OPTION_OUTPUT},
                                    {"csv", "FILE", NULL, "perplexity and time per token along the stream", MN_OPTION_OUTPUT},
                                    {"plot", "FILE", NULL, "the same as a picture: .svg or .png", MN_OPTION_REPEATS | MN_OPTION_PICTURE},
                                    {0}};
static const char *const examples[] = {"mneme stream --model runs/quick --score data/books/moby-dick.txt",
                                       "cat *.log | mneme stream --model runs/quick --session-out logs.safetensors -",
                                       "mneme stream --model runs/quick --random 1000000 --every 100000", NULL};
const mn_verb mn_verb_stream = {
    .name = "stream",
    .purpose = MN_VERB_USE,
    .summary = "feed a text of any length through a model, at constant memory",
    .usage = "--model MODEL FILE|- [options]",
    .about = "Reads the text block by block and moves the model's session on; neither the time per token nor the memory depends on how "
             "much came before. Closes with both, measured at the start and at the end, and with --score with the perplexity of "
             "each tenth of the text.\nWith --json the output is JSON lines: one per report, and the last one has the key `summary`.",
    .options = options,
    .examples = examples,
    .common = MN_CLI_BACKEND | MN_CLI_THREADS | MN_CLI_SEED,
    .min_args = 0,
    .max_args = 1,
    .run = run,
};
