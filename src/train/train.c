/* train.c - the loop around the steps: what is kept, when, and how a training ends. */
#define _GNU_SOURCE
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/file.h"
#include "format/json.h"
#include "train/out_dir.h"
#include "train/recipe_stages.h"
#include "train/runs.h"
#include "train/trainer_internal.h"

typedef struct loop {
  const mn_recipe *recipe;
  const mn_train_options *o;
  mn_trainer *t;
  mn_runlog *log;
  mn_out_dir *dir;
  bool logged;    /* metrics.jsonl was there when the training began */
  double seconds; /* in steps; the first one, which warms up, is not counted    */
  int64_t timed_steps;
  double window_seconds; /* since the last record */
  int64_t window_steps;
  double saved_at;    /* mn_now() of the last checkpoint */
  int64_t saved_step; /* -1: none                        */
  mn_evaluation validation;
  mn_step_result last;
  bool said_unasked;
} loop;

static void tell(const loop *l, mn_train_event e) {
  e.step = l->t ? l->t->state.step : 0;
  e.steps = l->recipe->train.steps;
  if (l->o->event) l->o->event(l->o->watch.ctx, &e);
}

static void remark(const loop *l, const char *fmt, ...) MN_PRINTF(2, 3);
static void remark(const loop *l, const char *fmt, ...) {
  char text[1024];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  tell(l, (mn_train_event){.kind = MN_EVENT_REMARK, .text = text});
}

/* ---- the directory ---- */

/* A new run wants a directory without one; *exists tells whether there is a checkpoint to go on from. */
static mn_status look_for_run(const loop *l, bool *exists) {
  int64_t *steps;
  size_t n;
  MN_TRY(mn_checkpoint_list(l->o->out_dir, &steps, &n));
  int64_t newest = n ? steps[0] : 0;
  free(steps);
  *exists = n > 0;
  if (n && !l->o->resume)
    return mn_fail(MN_ERR_CONFIG, "%s already holds a run (step %lld): --resume goes on with it; choose another --out for a new one",
                   l->o->out_dir, (long long)newest);
  return n ? MN_OK : mn_out_dir_fresh(l->o->out_dir);
}

/* What describes the model beside its weights. A run that goes on keeps the tokenizer it began with. */
static mn_status write_description(const loop *l, bool goes_on) {
  mn_arena *arena = mn_arena_new();
  const mn_value *root = arena ? mn_model_to_config(arena, l->t->model) : NULL;
  char *config = mn_path_join(l->o->out_dir, "config.json"), *recipe = mn_path_join(l->o->out_dir, "recipe.json");
  char *tokenizer = mn_path_join(l->o->out_dir, "tokenizer.json");
  mn_status status = root && config && recipe && tokenizer ? mn_json_write(config, root) : MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_json_write(recipe, l->t->state.recipe);
  if (status == MN_OK && l->t->tok && (!goes_on || !mn_file_exists(tokenizer))) status = mn_tokenizer_save(l->t->tok, tokenizer);
  free(config);
  free(recipe);
  free(tokenizer);
  mn_arena_free(arena);
  return status;
}

static bool log_is_there(const loop *l) {
  char *path = mn_path_join(l->o->out_dir, "metrics.jsonl");
  bool there = path && mn_file_exists(path);
  free(path);
  return there;
}

/* The first file of a training's directory that is not there any more, or NULL. */
static const char *missing_file(const loop *l) {
  const char *names[] = {"config.json", "recipe.json", l->t->tok ? "tokenizer.json" : NULL, l->logged ? "metrics.jsonl" : NULL,
                         l->saved_step >= 0 ? "model.safetensors" : NULL};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    char *path = names[i] ? mn_path_join(l->o->out_dir, names[i]) : NULL;
    bool missing = path && !mn_file_exists(path);
    free(path);
    if (missing) return names[i];
  }
  return NULL;
}

/* A directory that somebody has removed or emptied meanwhile is made again, with all that belongs in it. */
static mn_status still_there(loop *l) {
  bool made_again = false;
  MN_TRY(mn_out_dir_still(l->dir, &made_again));
  const char *missing = made_again ? NULL : missing_file(l);
  if (!made_again && !missing) return MN_OK;
  if (made_again)
    remark(l, "%s was removed while this training ran: it is made again, without the earlier checkpoints and records", l->o->out_dir);
  else remark(l, "%s/%s is missing: what belongs there is written again", l->o->out_dir, missing);
  l->saved_step = -1;
  MN_TRY(write_description(l, false));
  if (l->log && !log_is_there(l) && mn_runlog_reopen(l->log) != MN_OK) remark(l, "%s; training goes on", mn_message());
  return MN_OK;
}

static mn_status save(loop *l) {
  if (!l->o->out_dir) return MN_OK;
  MN_TRY(still_there(l));
  if (l->saved_step == l->t->state.step) return MN_OK;
  if (!l->t->optimizer || mn_trainer_stage(l->t) != mn_stage_of(l->t->whole, l->t->state.step))
    return mn_fail(MN_ERR_INTERNAL, "a stage could not be begun, and the one before it is gone");
  mn_status status = mn_checkpoint_save(l->o->out_dir, &l->t->state, l->recipe->train.keep_last);
  l->saved_at = mn_now();
  if (status != MN_OK) return status;
  l->saved_step = l->t->state.step;
  tell(l, (mn_train_event){.kind = MN_EVENT_CHECKPOINT});
  return MN_OK;
}

/* Adds to the message, which stays this thread's. */
static mn_status say_more(mn_status status, const char *before, const char *after) {
  char *why = mn_strdup(mn_message());
  mn_fail(status, "%s%s%s", before, why ? why : "", after);
  free(why);
  return status;
}

/* "; the checkpoint of step 40 is intact": what lies on the disk, and this thread's message as it was. */
static const char *what_is_kept(const loop *l, char buf[96]) {
  const mn_kept_message message = mn_message_keep();
  int64_t *steps = NULL;
  size_t n = 0;
  if (!l->o->out_dir || mn_checkpoint_list(l->o->out_dir, &steps, &n) != MN_OK || n == 0)
    snprintf(buf, 96, "; there is no earlier checkpoint");
  else snprintf(buf, 96, "; the checkpoint of step %lld is intact", (long long)steps[0]);
  free(steps);
  mn_message_restore(&message);
  return buf;
}

static bool ends_stage(const loop *l) {
  const mn_recipe *r = l->recipe;
  int i = mn_trainer_stage(l->t);
  return r->n_stages && l->t->state.step == r->stages[i].begin + r->stages[i].steps;
}

/* A checkpoint on the way: when it cannot be written, the training goes on and the next one may succeed. */
static void save_on_the_way(loop *l) {
  const mn_train_config *c = &l->recipe->train;
  bool by_step = (c->checkpoint_every && l->t->state.step % c->checkpoint_every == 0) || ends_stage(l);
  bool by_time = c->checkpoint_minutes > 0 && mn_now() - l->saved_at >= 60 * c->checkpoint_minutes;
  if ((!by_step && !by_time) || l->t->state.step == c->steps) return;
  char kept[96];
  if (save(l) != MN_OK)
    remark(l, "step %lld: no checkpoint: %s%s; training goes on", (long long)l->t->state.step, mn_message(), what_is_kept(l, kept));
}

/* ---- the log ---- */

static mn_status open_log(loop *l, int64_t resume_step) {
  if (!l->o->out_dir) return MN_OK;
  mn_text recipe = {0}, all = {0};
  char hex[33], identity[67];
  const char *data = l->t->run_data;
  mn_status status = mn_value_to_json(l->t->state.recipe, 0, &recipe);
  snprintf(identity, sizeof identity, "%s %s", l->t->params->origin.recipe, data);
  mn_text_addf(&all, "%s %s", recipe.data ? recipe.data : "", data);
  if (status == MN_OK) status = mn_text_status(&all);
  if (status == MN_OK) {
    mn_content_hash(all.data, all.len, hex);
    mn_run run = {.name = l->recipe->name,
                  .recipe = recipe.data,
                  .fingerprint = hex,
                  .identity = identity,
                  .parameters = mn_params_count(l->t->params),
                  .isa = l->t->backend->isa,
                  .threads = mn_pool_threads(l->t->backend->pool),
                  .out_dir = l->o->out_dir};
    status = mn_runlog_open(l->o->db_path, &run, resume_step, &l->log);
  }
  mn_text_free(&recipe);
  mn_text_free(&all);
  return status;
}

static int64_t tokens_of(const loop *l) { /* in a step */
  const mn_train_config *c = &l->t->recipe->train;
  return c->accumulate * c->batch * c->seq_len;
}

static void record(loop *l) {
  double rate = l->window_seconds > 0 ? (double)(l->window_steps * tokens_of(l)) / l->window_seconds : (double)NAN;
  mn_runlog_value values[4 + MN_OBJECTIVES] = {
      {"loss", l->last.loss}, {"learning_rate", l->last.learning_rate}, {"grad_norm", l->last.grad_norm}};
  char names[MN_OBJECTIVES][80], type[64];
  size_t n = 3;
  if (isfinite(rate)) values[n++] = (mn_runlog_value){"tokens_per_second", rate};
  for (int k = 0; k < l->last.n_parts; k++) {
    snprintf(names[k], sizeof names[k], "loss_%s", mn_objective_title(&l->t->recipe->objectives, k, type));
    values[n++] = (mn_runlog_value){names[k], l->last.part[k]};
  }
  if (l->log) mn_runlog_record(l->log, l->t->state.step, l->t->state.tokens, values, n);
  l->window_seconds = 0;
  l->window_steps = 0;
}

static mn_status validate(loop *l) {
  MN_TRY(mn_trainer_validate(l->t, &l->o->watch, &l->validation));
  const mn_evaluation *v = &l->validation;
  if (!v->batches) return MN_OK;
  mn_figure figures[MN_EVALUATION_FIGURES];
  mn_runlog_value values[MN_EVALUATION_FIGURES];
  char names[MN_EVALUATION_FIGURES][88];
  size_t n = 0;
  for (int i = 0, all = mn_evaluation_figures(v, figures); i < all; i++) {
    if (figures[i].kind == MN_FIGURE_OF_LOSS) continue;
    snprintf(names[i], sizeof names[i], "validation_%s", figures[i].name);
    values[n++] = (mn_runlog_value){names[i], figures[i].value};
  }
  if (l->log) mn_runlog_record(l->log, l->t->state.step, l->t->state.tokens, values, n);
  tell(l, (mn_train_event){.kind = MN_EVENT_VALIDATION, .validation = v});
  return MN_OK;
}

/* ---- the loop ---- */

static mn_status stopped(loop *l) {
  if (!l->o->out_dir) return mn_fail(MN_ERR_CANCELLED, "interrupted after step %lld", (long long)l->t->state.step);
  char kept[96];
  if (save(l) != MN_OK) {
    char text[96];
    snprintf(text, sizeof text, "interrupted after step %lld, and its checkpoint could not be written: ", (long long)l->t->state.step);
    return say_more(MN_ERR_IO, text, what_is_kept(l, kept));
  }
  return mn_fail(MN_ERR_CANCELLED, "interrupted after step %lld; %s holds everything, and --resume goes on from there",
                 (long long)l->t->state.step, l->o->out_dir);
}

/* The first step without a loss, or without a part of it; later ones are told by the log. */
static void say_unasked(loop *l) {
  if (!l->last.unasked || l->said_unasked) return;
  l->said_unasked = true;
  remark(l, "step %lld asked for nothing%s: no target in it counts; such a step has no loss", (long long)l->t->state.step,
         isfinite(l->last.loss) ? " of one of the objectives" : "");
}

static mn_status one_step(loop *l) {
  const mn_train_config *c = &l->recipe->train;
  mn_trainer *t = l->t;
  const int64_t before = t->state.step;
  double start = mn_now();
  mn_status status = mn_trainer_step(t, &l->last);
  double seconds = mn_now() - start;
  if (status == MN_ERR_CANCELLED) return status; /* the step was not taken */
  l->window_seconds += seconds;
  l->window_steps++;
  if (l->timed_steps++ > 0) l->seconds += seconds;
  bool due = t->state.step % c->log_every == 0 || t->state.step == 1 || t->state.step == c->steps || status != MN_OK;
  if (due && t->state.step > before) record(l); /* of a step that was not taken there is nothing to tell */
  if (status != MN_OK) {
    char kept[96];
    return l->o->out_dir && status == MN_ERR_NUMERIC ? say_more(status, "", what_is_kept(l, kept)) : status;
  }
  say_unasked(l);
  double per_step = (double)tokens_of(l);
  double rate = l->timed_steps > 1 ? per_step * (double)(l->timed_steps - 1) / l->seconds : per_step / seconds;
  tell(l, (mn_train_event){.kind = MN_EVENT_STEP, .result = &l->last, .tokens_per_second = rate, .unit = mn_source_unit(l->t->source)});
  return MN_OK;
}

/* A file that the training reads has gone or changed: what was trained before is sound, and is kept. */
static mn_status lost_data(loop *l, mn_status status) {
  if (status != MN_ERR_IO || !l->o->out_dir) return status;
  const mn_kept_message why = mn_message_keep();
  char kept[96], after[160];
  bool saved = save(l) == MN_OK;
  if (saved)
    snprintf(after, sizeof after, "; the training stops after step %lld, which is saved: --resume goes on from there",
             (long long)l->saved_step);
  else snprintf(after, sizeof after, "; the training stops, and its checkpoint could not be written%s", what_is_kept(l, kept));
  mn_message_restore(&why);
  return say_more(status, "", after);
}

static void say_stage(const loop *l) {
  int i = mn_trainer_stage(l->t);
  const mn_stage *s = &l->recipe->stages[i];
  remark(l, "stage %d of %d%s%s begins after step %lld", i + 1, l->recipe->n_stages, s->name ? ", " : "", s->name ? s->name : "",
         (long long)s->begin);
}

static mn_status run(loop *l) {
  const mn_train_config *c = &l->recipe->train;
  l->saved_at = mn_now();
  while (l->t->state.step < c->steps) {
    if (mn_watch_stops(&l->o->watch)) return stopped(l);
    int stage = mn_trainer_stage(l->t);
    mn_status status = one_step(l);
    if (mn_trainer_stage(l->t) != stage) say_stage(l);
    if (status == MN_ERR_CANCELLED) return stopped(l);
    if (status != MN_OK) return lost_data(l, status);
    int64_t step = l->t->state.step;
    if (c->validate_every && step % c->validate_every == 0 && step < c->steps) {
      status = validate(l);
      if (status == MN_ERR_CANCELLED) return stopped(l);
      if (status != MN_OK) return lost_data(l, status);
    }
    if (l->o->out_dir) save_on_the_way(l);
  }
  MN_TRY(mn_params_check_finite(l->t->params));
  char kept[96];
  mn_status status = save(l);
  if (status != MN_OK) return say_more(status, "the trained model could not be written: ", what_is_kept(l, kept));
  status = validate(l);
  if (status == MN_ERR_CANCELLED) remark(l, "the training is done; its last validation was interrupted, and `mneme eval` makes up for it");
  else if (status != MN_OK) return status;
  status = save(l); /* once more where the directory has gone since; otherwise all that was promised is saved */
  return status == MN_OK ? MN_OK : say_more(status, "the trained model could not be left: ", "");
}

/* Of the first checkpoint, with a model and its two moments, and of the model beside it. */
static uint64_t room_needed(const mn_trainer *t) { return 4 * (uint64_t)mn_params_count(t->params) * mn_dtype_size(t->params->dtype); }

static mn_status stage_at(void *ctx, int64_t step) { return mn_trainer_at(ctx, step); }

static mn_status open_loop(loop *l) {
  const mn_train_options *o = l->o;
  char *saved = NULL;
  int64_t resume_step = -1;
  bool exists = false;
  if (o->out_dir) {
    MN_TRY(mn_out_dir_open(o->out_dir, o->resume, &l->dir));
    MN_TRY(mn_out_dir_spares_data(o->out_dir, l->recipe));
    if (o->db_path && *o->db_path) MN_TRY(mn_context(mn_out_dir_spares(o->out_dir, o->db_path), "--db"));
    if (o->db_path && *o->db_path) MN_TRY(mn_context(mn_runs_try(o->db_path), "--db"));
    MN_TRY(look_for_run(l, &exists));
    MN_TRY(mn_checkpoint_tidy(o->out_dir));
    saved = exists ? mn_path_join(o->out_dir, "tokenizer.json") : NULL;
  }
  mn_status status = (exists ? mn_trainer_reopen : mn_trainer_new)(l->recipe, o->threads, saved, &o->watch, &l->t);
  free(saved);
  MN_TRY(status);
  l->saved_step = -1;
  if (o->out_dir) MN_TRY(mn_out_dir_room(l->dir, room_needed(l->t)));
  if (o->out_dir && o->resume) {
    bool found;
    MN_TRY(mn_checkpoint_resume(o->out_dir, &l->t->state, stage_at, l->t, &found));
    if (found) resume_step = l->saved_step = l->t->state.step;
    else remark(l, "%s has no checkpoint yet: training begins at step 0", o->out_dir);
    if (resume_step >= l->recipe->train.steps) MN_TRY(mn_checkpoint_complete(o->out_dir, resume_step, l->recipe->train.keep_last));
    const mn_train_state *s = &l->t->state;
    if (found && s->steps_before < l->recipe->train.steps)
      remark(l, "train.steps was %lld and is %lld now: from step %lld on the schedule is that of the longer run",
             (long long)s->steps_before, (long long)l->recipe->train.steps, (long long)s->step);
  }
  mn_text doubt = {0};
  mn_model_doubt(l->t->model, &doubt);
  if (doubt.len && mn_text_status(&doubt) == MN_OK) remark(l, "%s", doubt.data);
  mn_text_free(&doubt);
  if (l->recipe->init.from && resume_step < 0)
    remark(l, "the weights to begin with are those of %s%s", l->recipe->init.from, l->t->drawn ? "; what it lacks is drawn" : "");
  if (l->recipe->train.from && resume_step < 0) remark(l, "the weights to begin with are those of %s", l->recipe->train.from);
  if (o->out_dir) MN_TRY(write_description(l, resume_step >= 0));
  tell(l, (mn_train_event){.kind = MN_EVENT_BEGIN});
  MN_TRY(open_log(l, resume_step));
  l->logged = l->log && log_is_there(l);
  return MN_OK;
}

static const char *ending(mn_status status) { return status == MN_OK ? "finished" : status == MN_ERR_CANCELLED ? "interrupted" : "failed"; }

mn_status mn_train(const mn_recipe *recipe, const mn_train_options *options, mn_train_result *out) {
  loop l = {.recipe = recipe, .o = options, .saved_step = -1};
  *out = (mn_train_result){0};
  mn_status status = open_loop(&l);
  if (status == MN_OK) {
    out->already_done = l.t->state.step >= recipe->train.steps;
    status = run(&l);
  }
  if (l.t) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    *out = (mn_train_result){.steps = l.t->state.step,
                             .tokens = l.t->state.tokens,
                             .unit = mn_source_unit(l.t->source),
                             .parameters = mn_params_count(l.t->params),
                             .run = l.log ? mn_runlog_id(l.log) : 0,
                             .loss = l.last.loss,
                             .validation = l.validation,
                             .seconds = l.seconds,
                             .peak_bytes = (int64_t)usage.ru_maxrss * 1024,
                             .already_done = out->already_done};
    if (l.timed_steps > 1) out->tokens_per_second = (double)((l.timed_steps - 1) * tokens_of(&l)) / l.seconds;
  }
  char *message = mn_strdup(status == MN_OK ? "" : mn_message());
  mn_runlog_close(l.log, ending(status), message ? message : "");
  mn_trainer_free(l.t);
  mn_out_dir_close(l.dir);
  if (status != MN_OK && message) mn_fail(status, "%s", message);
  free(message);
  return status;
}
