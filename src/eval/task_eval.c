/* task_eval.c - see task_eval.h: tasks of text by greedy generation, single and in grids. */
#include "eval/task_eval.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- a model as a responder ---- */
struct mn_generator {
  const mn_tokenizer *tok;
  mn_encoder *enc;
  mn_session *session;
  mn_ids prompt, made;
  bool forgot;
};

mn_status mn_generator_new(const mn_model *model, const mn_params *params, const mn_tokenizer *tok, int64_t prefill, mn_dtype compute,
                           bool forget, mn_generator **out) {
  *out = NULL;
  mn_generator *g = mn_calloc(1, sizeof *g);
  if (!g) return MN_ERR_MEMORY;
  g->tok = tok;
  mn_session_config config = {.batch = 1, .prefill = prefill, .compute = compute, .forget = forget, .passing = true};
  mn_status status = mn_encoder_new(tok, &g->enc);
  if (status == MN_OK) status = mn_session_new(model, params, &config, &g->session);
  if (status != MN_OK) mn_generator_free(g);
  else *out = g;
  return status;
}

void mn_generator_free(mn_generator *g) {
  if (!g) return;
  mn_session_free(g->session);
  mn_encoder_free(g->enc);
  mn_ids_free(&g->prompt);
  mn_ids_free(&g->made);
  free(g);
}

bool mn_generator_forgot(const mn_generator *g) { return g->forgot; }
size_t mn_generator_state_bytes(const mn_generator *g) { return mn_session_room_bytes(g->session); }

int64_t mn_greedy(const float *logits, int64_t vocab_size, const mn_tokenizer *tok) {
  int64_t best = -1;
  for (int64_t k = 0; k < vocab_size; k++) {
    size_t bytes;
    if (!isfinite(logits[k])) return -1;
    if ((best < 0 || logits[k] > logits[best]) && (!tok || mn_tokenizer_token(tok, (int32_t)k, &bytes))) best = k;
  }
  return best;
}

/* A text that cannot be encoded counts its bytes; generating from it then says why. */
static size_t count_tokens(void *ctx, const char *text, size_t n) {
  mn_generator *g = ctx;
  g->prompt.len = 0;
  return mn_encoder_add(g->enc, text, n, 0, &g->prompt) == MN_OK ? g->prompt.len : n;
}

static mn_status generate(void *ctx, const mn_task_text *sample, int64_t new_tokens, mn_text *out, int64_t *prompt_tokens) {
  mn_generator *g = ctx;
  const float *logits = NULL;
  int64_t vocab_size = mn_session_vocab_size(g->session);
  g->prompt.len = g->made.len = 0;
  MN_TRY(mn_encoder_add(g->enc, sample->prompt, strlen(sample->prompt), 0, &g->prompt));
  *prompt_tokens = (int64_t)g->prompt.len;
  MN_TRY(mn_session_reset(g->session));
  MN_TRY(mn_session_fits(g->session, (int64_t)g->prompt.len + new_tokens - 1)); /* the last one is not fed */
  MN_TRY(mn_session_feed(g->session, g->prompt.data, (int64_t)g->prompt.len, &logits));
  for (int64_t i = 0; i < new_tokens; i++) {
    MN_TRY(mn_stop_check("answering"));
    int64_t best = mn_greedy(logits, vocab_size, g->tok);
    if (best < 0)
      return mn_fail(MN_ERR_NUMERIC, "the model's output is not a number after %lld tokens", (long long)mn_session_position(g->session));
    int32_t token = (int32_t)best;
    if (token == mn_tokenizer_eos(g->tok)) break;
    MN_TRY(mn_ids_add(&g->made, token));
    if (i + 1 < new_tokens) MN_TRY(mn_session_feed(g->session, &token, 1, &logits));
  }
  g->forgot = g->forgot || mn_session_forgets(g->session);
  return mn_tokenizer_decode(g->tok, g->made.data, g->made.len, true, out);
}

mn_responder mn_generator_responder(mn_generator *g) { return (mn_responder){g, generate, count_tokens}; }

/* ---- one task ---- */
enum { NEW_TOKENS = 10, FIT_SAMPLES = 8 };

static int64_t new_tokens_of(const mn_task *task) { return task->new_tokens ? task->new_tokens : NEW_TOKENS; }

static mn_status one_text(const mn_task *task, const mn_responder *who, const mn_text_eval_config *c, int64_t i, mn_text_eval *out) {
  mn_task_text sample;
  mn_text text = {0};
  int64_t length = 0;
  MN_TRY(mn_task_sample_text(task, c->split, (uint64_t)i, &sample));
  mn_status status = who->answer(who->ctx, &sample, c->new_tokens > 0 ? c->new_tokens : new_tokens_of(task), &text, &length);
  if (status == MN_OK) status = mn_text_status(&text);
  if (status == MN_OK) {
    double score = mn_task_score_text(task, &sample, text.data ? text.data : "");
    out->examples++;
    out->right += score >= 1;
    out->score += score;
    out->prompt_tokens += (double)length;
    if (length > out->longest) out->longest = length;
  }
  mn_text_free(&text);
  mn_task_text_free(&sample);
  return status;
}

/* Of `total` examples in all cells, `done` were done before. */
static mn_status eval_text(mn_task *task, const mn_responder *who, const mn_text_eval_config *c, int64_t done, int64_t total,
                           mn_text_eval *out) {
  *out = (mn_text_eval){0};
  if (c->examples < 1) return mn_fail(MN_ERR_ARG, "task %s: at least one example is needed", task->def->name);
  mn_task_count_with(task, who->count, who->ctx);
  bool goes_on = !mn_watch_stops(&c->watch);
  for (int64_t i = 0; i < c->examples && goes_on; i++) {
    MN_TRY(one_text(task, who, c, i, out));
    done++;
    goes_on = mn_watch_tell(&c->watch, NULL, done, total) && !mn_watch_stops(&c->watch);
  }
  if (!goes_on && done < total)
    return mn_fail(MN_ERR_CANCELLED, "task %s: interrupted after %lld examples", task->def->name, (long long)done);
  out->score /= (double)out->examples;
  out->prompt_tokens /= (double)out->examples;
  mn_wilson_interval(out->right, out->examples, &out->low, &out->high);
  return MN_OK;
}

mn_status mn_eval_text(mn_task *task, const mn_responder *who, const mn_text_eval_config *config, mn_text_eval *out) {
  return eval_text(task, who, config, 0, config->examples, out);
}

/* ---- grids ---- */
static mn_status set(mn_arena *arena, const mn_value *settings, const char *key, const char *value, const mn_value **out) {
  char *assignment = mn_arena_format(arena, "%s=%s", key, value);
  return assignment ? mn_value_set(arena, settings, assignment, out) : MN_ERR_MEMORY;
}

/* The longest of the first prompts, with room for the answer. */
static mn_status longest(const char *name, const mn_value *settings, const mn_responder *who, const mn_grid_config *c, int64_t *out) {
  mn_task *task = NULL;
  mn_task_text sample;
  MN_TRY(mn_task_open(name, settings, &task));
  mn_task_count_with(task, who->count, who->ctx);
  mn_status status = MN_OK;
  *out = 0;
  for (int64_t i = 0; i < FIT_SAMPLES && i < c->each.examples && status == MN_OK; i++) {
    if ((status = mn_task_sample_text(task, c->each.split, (uint64_t)i, &sample)) != MN_OK) break;
    int64_t n = (int64_t)task->count_tokens(task->count_ctx, sample.prompt, strlen(sample.prompt));
    if (n > *out) *out = n;
    mn_task_text_free(&sample);
  }
  *out += c->each.new_tokens > 0 ? c->each.new_tokens : new_tokens_of(task);
  mn_task_close(task);
  return status;
}

/* The most `garbage` with which prompt and answer are at most `tokens` long: by halving, as more garbage is never shorter. */
static mn_status fit_garbage(mn_grid *g, const char *name, const mn_value *settings, const mn_responder *who, const mn_grid_config *c,
                             int64_t tokens, const mn_value **out) {
  int64_t low = -1, high = 64 * tokens, length;
  if (high > 1 << 28) high = 1 << 28;
  while (high - low > 1) { /* `low` fits, `high` does not or was never tried */
    int64_t middle = low + (high - low) / 2;
    char number[32];
    const mn_value *tried = NULL;
    snprintf(number, sizeof number, "%lld", (long long)middle);
    MN_TRY(set(g->arena, settings, "garbage", number, &tried));
    MN_TRY(longest(name, tried, who, c, &length));
    if (length <= tokens) low = middle, *out = tried;
    else high = middle;
  }
  if (low < 0)
    return mn_fail(MN_ERR_CONFIG, "task %s: no prompt is as short as %lld tokens; without any garbage it takes %lld", name,
                   (long long)tokens, (long long)length);
  return MN_OK;
}

static mn_status row_settings(mn_grid *g, const char *name, const mn_value *settings, const mn_responder *who, const mn_grid_config *c,
                              int row, const mn_value **out) {
  *out = settings;
  if (c->n_values == 0) return MN_OK;
  const mn_task_def *def = mn_task_find(name);
  if (c->vary) return set(g->arena, settings, c->vary, c->values[row], out);
  char *end;
  long long tokens = strtoll(c->values[row], &end, 10);
  if (end == c->values[row] || *end || tokens < 1) return mn_fail(MN_ERR_CONFIG, "lengths: '%s' is not a number of tokens", c->values[row]);
  if (def && mn_field_find(def->fields, "len")) return set(g->arena, settings, "len", c->values[row], out);
  if (def && mn_field_find(def->fields, "garbage")) return fit_garbage(g, name, settings, who, c, tokens, out);
  return mn_fail(MN_ERR_CONFIG, "task %s has no length to set", name);
}

static mn_status lay_out(mn_grid *g, const char *name, const mn_value *settings, const mn_responder *who, const mn_grid_config *c) {
  g->rows = c->n_values > 0 ? c->n_values : 1;
  g->columns = c->depths > 1 ? c->depths : 1;
  size_t cells = (size_t)g->rows * (size_t)g->columns;
  g->row_label = c->n_values == 0 ? "task" : c->vary ? c->vary : "tokens";
  g->row_names = mn_arena_alloc(g->arena, (size_t)g->rows * sizeof *g->row_names);
  g->depth_names = mn_arena_alloc(g->arena, (size_t)g->columns * sizeof *g->depth_names);
  g->settings = mn_arena_alloc(g->arena, cells * sizeof *g->settings);
  g->cells = mn_arena_alloc(g->arena, cells * sizeof *g->cells);
  if (!g->row_names || !g->depth_names || !g->settings || !g->cells) return MN_ERR_MEMORY;
  for (int k = 0; k < g->columns; k++)
    g->depth_names[k] = g->columns > 1 ? mn_arena_format(g->arena, "%.4g", 100.0 * k / (g->columns - 1)) : "any";
  for (int r = 0; r < g->rows; r++) {
    const mn_value *row = NULL;
    g->row_names[r] = c->n_values > 0 ? mn_arena_strdup(g->arena, c->values[r]) : name;
    MN_TRY(row_settings(g, name, settings, who, c, r, &row));
    for (int k = 0; k < g->columns; k++) {
      if (!g->row_names[r] || !g->depth_names[k]) return MN_ERR_MEMORY;
      g->settings[r * g->columns + k] = row;
      if (g->columns > 1) MN_TRY(set(g->arena, row, "depth", g->depth_names[k], &g->settings[r * g->columns + k]));
    }
  }
  return MN_OK;
}

mn_status mn_eval_grid(const char *name, const mn_value *settings, const mn_responder *who, const mn_grid_config *config, mn_grid *out) {
  *out = (mn_grid){.arena = mn_arena_new()};
  mn_status status = out->arena ? MN_OK : MN_ERR_MEMORY;
  if (status == MN_OK && !settings && !(settings = mn_value_map(out->arena, 0, NULL, NULL))) status = MN_ERR_MEMORY;
  if (status == MN_OK) status = lay_out(out, name, settings, who, config);
  for (int i = 0; i < out->rows * out->columns && status == MN_OK; i++) /* all mistakes before the first cell */
    status = mn_task_check(name, out->settings[i]);
  for (int i = 0; i < out->rows * out->columns && status == MN_OK; i++) {
    mn_task *task = NULL;
    status = mn_task_open(name, out->settings[i], &task);
    if (status == MN_OK)
      status = eval_text(task, who, &config->each, i * config->each.examples, (int64_t)out->rows * out->columns * config->each.examples,
                         &out->cells[i]);
    mn_task_close(task);
  }
  if (status != MN_OK) mn_grid_free(out);
  return status;
}

void mn_grid_free(mn_grid *g) {
  mn_arena_free(g->arena);
  *g = (mn_grid){0};
}

mn_heatmap mn_grid_heatmap(mn_grid *g, const char *title) {
  double *values = mn_arena_alloc(g->arena, (size_t)(g->rows * g->columns) * sizeof *values);
  for (int i = 0; values && i < g->rows * g->columns; i++) values[i] = (double)g->cells[i].right / (double)g->cells[i].examples;
  return (mn_heatmap){.title = title,
                      .x_label = "depth of the needle, %",
                      .y_label = g->row_label,
                      .value_label = "part right",
                      .x_names = g->depth_names,
                      .y_names = g->row_names,
                      .n_x = g->columns,
                      .n_y = g->rows,
                      .values = values,
                      .low = 0,
                      .high = 1};
}
