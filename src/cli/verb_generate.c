/* verb_generate.c - `mneme generate`: text from a trained model, token by token, on from a prompt or a saved session. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/output.h"
#include "cli/cli.h"
#include "cli/model_options.h"
#include "cli/remarks.h"
#include "cli/sampling_options.h"
#include "cli/session_file.h"
#include "format/safetensors.h"
#include "checkpoint/bundle.h"
#include "run/beam.h"
#include "run/session.h"

enum { PROMPT_LIMIT = 64 << 20 }; /* bytes: the tokens of a prompt are kept */

typedef struct generation {
  mn_cli *cli;
  mn_bundle bundle;
  mn_session *session, *spare; /* spare: for beams */
  int64_t beams;               /* 0: tokens are drawn */
  mn_session_file kept;        /* of --session-in and --session-out, where they are one */
  mn_sampler *sampler;
  mn_ids prompt, source, made;
  float *frames; /* a source of numbers, [n_frames, channels]; NULL: none */
  int64_t n_frames, channels;
  mn_text text;
  double prefill_seconds, seconds;
  bool ended; /* by the token that ends a document */
} generation;

/* The prompt's tokens; without a prompt, the token that begins a text or, of models without one, the token that ends a document: what
 * follows is a new one. */
static mn_status read_prompt(generation *g) {
  const char *text = mn_cli_get(g->cli, "prompt"), *path = mn_cli_get(g->cli, "prompt-file");
  const mn_tokenizer *tok = g->bundle.tokenizer;
  const bool begins = !mn_cli_get(g->cli, "session-in");
  if (text && path) return mn_fail(MN_ERR_CONFIG, "--prompt and --prompt-file: give one of them");
  if (path) {
    char *data;
    size_t n;
    MN_TRY(mn_context(mn_file_read(path, PROMPT_LIMIT, &data, &n),
                      "--prompt-file (a longer text: `mneme stream --session-out`, then --session-in)"));
    mn_status status = mn_bundle_encode(&g->bundle, data, n, begins, &g->prompt);
    free(data);
    MN_TRY(status);
  } else if (text) {
    MN_TRY(mn_bundle_encode(&g->bundle, text, strlen(text), begins, &g->prompt));
  } else if (begins && g->bundle.speech.bos >= 0) {
    MN_TRY(mn_ids_add(&g->prompt, g->bundle.speech.bos));
  } else if (mn_tokenizer_eos(tok) >= 0) {
    MN_TRY(mn_ids_add(&g->prompt, mn_tokenizer_eos(tok)));
  }
  if (g->prompt.len == 0)
    return mn_fail(MN_ERR_CONFIG, "the model needs something to go on from: give --prompt TEXT (at least one character)");
  return MN_OK;
}

/* A source of numbers: the tensor `source` of a file, [S, C] or [1, S, C]. */
static mn_status read_frames(generation *g, const char *path, const mn_port *port) {
  const int64_t C = mn_model_shape(g->bundle.model, port, (mn_sizes){1, 1, 1}).dim[2];
  const mn_st_tensor *t;
  mn_st *st;
  char shape[96];
  MN_TRY(mn_context(mn_st_open(path, &st), "--source: this model reads numbers from a safetensors file"));
  mn_status status = mn_st_need(st, "source", NULL, &t);
  const int at = status == MN_OK && t->shape.ndim == 3 && t->shape.dim[0] == 1;
  if (status == MN_OK && (t->shape.ndim != 2 + at || t->shape.dim[1 + at] != C || t->shape.dim[at] < 1))
    status = mn_fail(MN_ERR_SHAPE, "%s: source is %s; this model reads [S, %lld] (%s)", path, mn_shape_str(&t->shape, shape), (long long)C,
                     port->help);
  if (status == MN_OK && !(g->frames = mn_alloc((size_t)mn_shape_count(&t->shape) * sizeof *g->frames))) status = MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_st_read_finite(st, t, MN_F32, g->frames);
  if (status == MN_OK) g->n_frames = t->shape.dim[at], g->channels = C;
  mn_st_close(st);
  return status;
}

/* What a model that reads a source reads. */
static mn_status read_source(generation *g) {
  const char *text = mn_cli_get(g->cli, "source");
  const mn_port *port = mn_model_input(g->bundle.model, "source");
  if (!port && !text) return MN_OK;
  if (!port)
    return mn_fail(MN_ERR_CONFIG, "--source: a model of type %s reads no source beside its prompt; give --prompt",
                   g->bundle.model->def->name);
  if (!text && mn_cli_get(g->cli, "session-in")) return MN_OK; /* the session has read it */
  if (!text || !*text)
    return mn_fail(MN_ERR_CONFIG, "a model of type %s says something about a source: give --source %s", g->bundle.model->def->name,
                   port->dtype == MN_I32 ? "TEXT" : "FILE.safetensors, whose tensor source holds its frames");
  if (port->dtype != MN_I32) return read_frames(g, text, port);
  return mn_tokenizer_encode(g->bundle.tokenizer, text, strlen(text), 0, &g->source);
}

static void show(generation *g, size_t from) {
  if (g->cli->json || g->text.len == from) return;
  mn_print_model_text(g->text.data + from, g->text.len - from);
  mn_print_flush();
}

static mn_status generate(generation *g, int64_t n) {
  mn_decoder decoder = {.tok = g->bundle.tokenizer, .skip_special = true};
  const float *logits;
  double begin = mn_now();
  for (size_t i = 0; i < g->prompt.len; i++) mn_sampler_note(g->sampler, g->prompt.data[i]);
  MN_TRY(mn_session_feed(g->session, g->prompt.data, (int64_t)g->prompt.len, &logits));
  g->prefill_seconds = mn_now() - begin;
  const char *prompt = mn_cli_get(g->cli, "prompt");
  if (!g->cli->json && prompt) mn_print_model_text(prompt, strlen(prompt));
  const bool ends = !mn_cli_given(g->cli, "ignore-eos");
  begin = mn_now();
  for (int64_t i = 0; i < n && !g->ended && !mn_cli_interrupted(); i++) {
    int32_t token;
    MN_TRY(mn_sampler_next(g->sampler, 0, mn_session_position(g->session), logits, &token));
    mn_status fed = mn_session_feed(g->session, &token, 1, &logits); /* the last one, too: a session holds all that was said */
    if (fed == MN_ERR_CANCELLED && mn_cli_interrupted()) break;
    MN_TRY(fed);
    MN_TRY(mn_ids_add(&g->made, token));
    size_t shown = g->text.len, bytes;
    if (mn_tokenizer_token(g->bundle.tokenizer, token, &bytes)) MN_TRY(mn_decoder_push(&decoder, token, &g->text));
    show(g, shown);
    g->ended = ends && mn_bundle_ends(&g->bundle, token);
  }
  g->seconds = mn_now() - begin;
  size_t shown = g->text.len;
  MN_TRY(mn_decoder_finish(&decoder, &g->text));
  show(g, shown);
  if (!g->cli->json) mn_print("\n");
  return mn_text_status(&g->text);
}

/* The likeliest whole answer. */
static mn_status search(generation *g, int64_t n) {
  const mn_tokenizer *tok = g->bundle.tokenizer;
  const int64_t K = g->beams, length = (int64_t)g->prompt.len;
  const mn_speech *speech = &g->bundle.speech;
  const mn_beam_config how = {
      .beams = K, .max_tokens = n, .length_penalty = 0.6, .ends = speech->eos, .n_ends = speech->n_eos, .tokens = tok};
  mn_beam_answer answer = {0};
  const float *logits;
  int32_t *rows = mn_alloc((size_t)(K * length) * sizeof *rows);
  double begin = mn_now();
  mn_status status = rows ? MN_OK : MN_ERR_MEMORY;
  for (int64_t i = 0; status == MN_OK && i < K * length; i++) rows[i] = g->prompt.data[i % length];
  if (status == MN_OK) status = mn_session_feed(g->session, rows, length, &logits);
  g->prefill_seconds = mn_now() - begin;
  begin = mn_now();
  if (status == MN_OK) status = mn_beam_search(g->session, g->spare, &how, 1, logits, &answer);
  g->seconds = mn_now() - begin;
  free(rows);
  g->made = answer.tokens;
  g->ended = answer.ended;
  mn_decoder decoder = {.tok = tok, .skip_special = true};
  for (size_t i = 0; i < g->made.len && status == MN_OK; i++) status = mn_decoder_push(&decoder, g->made.data[i], &g->text);
  if (status == MN_OK) status = mn_decoder_finish(&decoder, &g->text);
  show(g, 0);
  if (!g->cli->json) mn_print("\n");
  return status == MN_OK ? mn_text_status(&g->text) : status;
}

static mn_status report(generation *g) {
  mn_cli *cli = g->cli;
  double rate = g->made.len && g->seconds > 0 ? (double)g->made.len / g->seconds : (double)NAN;
  if (!cli->json) {
    mn_cli_note(cli, "%zu tokens at %.1f tokens/s; prompt of %zu tokens in %.2f s; %zu bytes of state", g->made.len, rate, g->prompt.len,
                g->prefill_seconds, mn_session_state_bytes(g->session));
    return MN_OK;
  }
  json_t *ids = json_array();
  for (size_t i = 0; i < g->made.len; i++) json_array_append_new(ids, json_integer(g->made.data[i]));
  const char *why = g->ended ? "end of document" : mn_cli_interrupted() ? "interrupted" : "length";
  return mn_cli_json(
      cli, json_pack("{s:o,s:o,s:I,s:I,s:f,s:f,s:o,s:I,s:s,s:b}", "text", mn_cli_bytes(g->text.data ? g->text.data : "", g->text.len),
                     "tokens", ids, "prompt_tokens", (json_int_t)g->prompt.len, "position", (json_int_t)mn_session_position(g->session),
                     "prompt_seconds", g->prefill_seconds, "seconds", g->seconds, "tokens_per_second", mn_cli_number(rate), "state_bytes",
                     (json_int_t)mn_session_state_bytes(g->session), "stopped_by", why, "forgot", mn_session_forgets(g->session)));
}

static mn_status put_source(generation *g) {
  const int64_t n = g->frames ? g->n_frames : (int64_t)g->source.len, B = g->beams ? g->beams : 1;
  const size_t bytes = g->frames ? (size_t)(n * g->channels) * sizeof *g->frames : (size_t)n * sizeof *g->source.data;
  char *rows = mn_alloc((size_t)B * bytes);
  if (!rows) return MN_ERR_MEMORY;
  for (int64_t b = 0; b < B; b++) memcpy(rows + (size_t)b * bytes, g->frames ? (const void *)g->frames : g->source.data, bytes);
  mn_status status = g->frames ? mn_session_source_frames(g->session, (const float *)(const void *)rows, n, NULL)
                               : mn_session_source(g->session, (const int32_t *)(const void *)rows, n, NULL);
  free(rows);
  return status;
}

static mn_status set_up(generation *g, int64_t n) {
  mn_cli *cli = g->cli;
  const char *dir = cli->n_args ? cli->args[0] : mn_cli_get(cli, "model"), *from = mn_cli_get(cli, "session-in");
  mn_dtype compute;
  mn_sampling sampling;
  if (cli->n_args && mn_cli_given(cli, "model"))
    return mn_fail(MN_ERR_CONFIG, "the model is given twice, as '%s' and by --model; give it once", dir);
  if (!dir) return mn_fail(MN_ERR_CONFIG, "which model? --model MODEL names " MN_CLI_MODEL);
  MN_TRY(mn_cli_sampling(cli, &sampling));
  MN_TRY(mn_cli_precision(cli, "precision", false, &compute));
  MN_TRY(mn_cli_open(cli, dir, &g->bundle));
  MN_TRY(mn_bundle_need_tokenizer(&g->bundle, dir));
  MN_TRY(read_prompt(g));
  MN_TRY(read_source(g));
  MN_TRY(mn_cli_int(cli, "beams", 0, 256, &g->beams));
  if (g->beams && !g->bundle.speech.n_eos)
    return mn_fail(MN_ERR_CONFIG, "--beams looks for whole answers, and this tokenizer has no token that ends one");
  MN_TRY(mn_cli_only(cli, !g->beams, "drawing; --beams draws nothing", "temperature top-k top-p min-p repetition-penalty seed ignore-eos"));
  MN_TRY(mn_cli_only(cli, !g->beams, "drawing: of beams only the text is kept", "session-in session-out"));
  const char *to = mn_cli_get(g->cli, "session-out");
  mn_session_config config = {.batch = g->beams, .prefill = 256, .compute = compute, .forget = mn_cli_given(cli, "forget"), .passing = !to};
  MN_TRY(mn_session_new(g->bundle.model, g->bundle.params, &config, &g->session));
  if (to) /* again, now that its size is known */
    MN_TRY(mn_context(mn_output_try(to, mn_session_state_bytes(g->session)), "--session-out"));
  MN_TRY(mn_session_file_of_both(from, to, &g->kept));
  if (from) MN_TRY(mn_session_load(g->session, from));
  if (g->beams > 1) MN_TRY(mn_session_fork(g->session, &g->spare));
  if (g->source.len || g->frames) MN_TRY(put_source(g));
  MN_TRY(mn_session_fits_at_most(g->session, (int64_t)g->prompt.len + n));
  MN_TRY(mn_sampler_new(&sampling, g->bundle.model->config.vocab_size, &g->sampler));
  return mn_sampler_keep_to(g->sampler, g->bundle.tokenizer);
}

static mn_status write_session(void *ctx, const char *path, mn_file_stamp *stamp) { return mn_session_save_over(ctx, path, stamp); }

static mn_status run(mn_cli *cli) {
  generation g = {.cli = cli};
  const char *to = mn_cli_get(cli, "session-out");
  int64_t n = 0;
  MN_TRY(mn_cli_int(cli, "tokens", 1, INT32_MAX, &n));
  mn_status status = set_up(&g, n);
  if (status == MN_OK) status = g.beams ? search(&g, n) : generate(&g, n);
  if (status == MN_OK && mn_session_forgets(g.session)) mn_remark_forgetting(cli, g.session);
  if (status == MN_OK && to) status = mn_session_file_save_to(&g.kept, to, write_session, g.session);
  if (g.kept.path) to = g.kept.path;
  if (status == MN_OK) status = report(&g);
  if (status == MN_OK && to) mn_cli_note(cli, "wrote %s: the session after %" PRId64 " tokens", to, mn_session_position(g.session));
  if (status == MN_OK && mn_cli_interrupted())
    status = mn_fail(MN_ERR_CANCELLED, "interrupted after %zu tokens%s%s", g.made.len, to ? "; the session is in " : "", to ? to : "");
  mn_sampler_free(g.sampler);
  mn_session_free(g.session);
  mn_session_file_close(&g.kept);
  mn_session_free(g.spare);
  mn_bundle_close(&g.bundle);
  mn_ids_free(&g.prompt);
  mn_ids_free(&g.source);
  free(g.frames);
  mn_ids_free(&g.made);
  mn_text_free(&g.text);
  return status;
}

static const mn_option options[] = {
    {"model", "MODEL", NULL, MN_CLI_MODEL, 0},
    {"prompt", "TEXT", NULL, "what the text begins with", 0},
    {"prompt-file", "FILE", NULL, "the same from a file", 0},
    {"source", "TEXT", NULL,
     "what a model of a source and a target reads: it says the target; where it reads numbers, a safetensors file with source [S, C]", 0},
    {"tokens", "N", "200", "how many tokens to generate at most", 0},
    MN_SAMPLING_OPTIONS("0.8"),
    {"beams", "N", "0", "beam search for the likeliest whole answer, so many beginnings; 0: draw", 0},
    {"ignore-eos", NULL, NULL, "go on after the token that ends a document", 0},
    {"session-in", "FILE", NULL, "go on from a saved session: it remembers what it was fed", 0},
    {"session-out", "FILE", NULL, "save the session at the end", MN_OPTION_OUTPUT},
    {"precision", "WORD", "f32", "f32 or bf16", 0},
    MN_EXACT_OPTION,
    MN_CONTEXT_OPTION,
    MN_CACHE_OPTION,
    {"forget", NULL, NULL, "past the end of a cache (max_context) forget the oldest tokens", 0},
    {0}};
static const char *const examples[] = {"mneme generate --model runs/quick --prompt \"Call me\" --temperature 0.7",
                                       "mneme generate --model runs/quick --session-in book.safetensors --prompt \"The \"", NULL};
const mn_verb mn_verb_generate = {
    .name = "generate",
    .purpose = MN_VERB_USE,
    .summary = "generate text from a trained model",
    .usage = "--model MODEL [--prompt TEXT] [options]",
    .about =
        "Text goes to standard output as it is made, and ends with the model's end-of-document token or after --tokens. The same "
        "seed gives the same text.\nWith --session-in the model goes on from a file that `mneme stream` or `mneme generate` saved, "
        "in this process or another. Without a prompt a new text begins: the token that begins one is read first or, of models without one "
        "and after a saved session, the token that ends a document.",
    .options = options,
    .examples = examples,
    .common = MN_CLI_BACKEND | MN_CLI_THREADS | MN_CLI_SEED,
    .min_args = 0,
    .max_args = 1,
    .run = run,
};
