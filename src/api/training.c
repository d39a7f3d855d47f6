/* training.c - mneme.h's training: a recipe step by step, or whole as `mneme train` does it. */
#include "api/door.h"
#include "api/settings.h"
#include "base/file.h"
#include "model/model_dir.h"
#include "train/out_dir.h"
#include "train/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct mn_training {
  mn_recipe *recipe;
  mn_trainer *trainer;
};

mn_status mn_training_new(const char *recipe, const char *const *settings, int threads, mn_training **out) {
  MN_DOOR;
  if (!out) return mn_fail(MN_ERR_ARG, "mn_training_new: out is NULL");
  *out = NULL;
  if (!recipe) return mn_fail(MN_ERR_ARG, "mn_training_new: recipe is NULL");
  MN_TRY(mn_threads_check("mn_training_new", threads));
  mn_training *t = mn_calloc(1, sizeof *t);
  if (!t) return MN_ERR_MEMORY;
  mn_status status = mn_recipe_read(recipe, settings, mn_settings_count(settings), &t->recipe);
  if (status == MN_OK) status = mn_trainer_new(t->recipe, threads, NULL, NULL, &t->trainer);
  if (status != MN_OK) mn_training_free(t);
  else *out = t;
  return status;
}

void mn_training_free(mn_training *t) {
  if (!t) return;
  mn_trainer_free(t->trainer);
  mn_recipe_free(t->recipe);
  free(t);
}

mn_status mn_training_step(mn_training *t, double *loss) {
  MN_DOOR;
  MN_NEED(t);
  mn_step_result r;
  MN_TRY(mn_trainer_step(t->trainer, &r));
  if (loss) *loss = r.loss;
  return MN_OK;
}

mn_status mn_training_validate(mn_training *t, double *loss) {
  MN_DOOR;
  MN_NEED(t);
  mn_evaluation e;
  MN_TRY(mn_trainer_validate(t->trainer, NULL, &e));
  if (loss) *loss = e.batches ? e.loss : (double)NAN;
  return MN_OK;
}

int64_t mn_training_steps(const mn_training *t) { return t ? t->recipe->train.steps : 0; }
int64_t mn_training_done(const mn_training *t) { return !t ? 0 : mn_trainer_steps_done(t->trainer); }

/* A directory may hold what this training saved before; another's model, or a run with checkpoints, is not replaced. */
static mn_status own_place(const mn_training *t, const char *dir) {
  char *weights = mn_path_join(dir, "model.safetensors"), *checkpoints = mn_path_join(dir, "checkpoints");
  mn_origin there;
  mn_st *st = NULL;
  mn_status status = weights && checkpoints ? MN_OK : MN_ERR_MEMORY;
  const bool run = status == MN_OK && mn_file_exists(checkpoints), saved = status == MN_OK && mn_file_exists(weights);
  bool own = !run;
  if (status == MN_OK && !run && saved) {
    own = mn_st_open(weights, &st) == MN_OK;
    if (own) mn_origin_read(st, &there);
    own = own && !strcmp(there.recipe, mn_trainer_params(t->trainer)->origin.recipe);
    mn_st_close(st);
  } else if (status == MN_OK && !run) {
    status = mn_out_dir_fresh(dir);
  }
  free(weights);
  free(checkpoints);
  if (status != MN_OK || own) return status;
  return mn_fail(MN_ERR_CONFIG, "%s holds a model that this training did not save; give another directory", dir);
}

mn_status mn_training_save(const mn_training *t, const char *dir) {
  MN_DOOR;
  MN_NEED(t);
  if (!dir || !*dir) return mn_fail(MN_ERR_ARG, "mn_training_save: dir is %s", dir ? "empty" : "NULL");
  mn_model_dir there;
  MN_TRY(mn_model_dir_look(dir, &there));
  MN_TRY(mn_out_dir_spares_data(dir, t->recipe));
  MN_TRY(own_place(t, dir));
  return mn_model_dir_save(dir, mn_trainer_model(t->trainer), mn_trainer_params(t->trainer), mn_trainer_tokenizer(t->trainer), &there);
}

/* ---- the whole training ---- */
typedef struct observer {
  mn_train_fn on_step;
  void *ctx;
  atomic_int stop;
} observer;

static void on_event(void *ctx, const mn_train_event *e) {
  observer *o = ctx;
  if (e->kind == MN_EVENT_STEP && o->on_step && !o->on_step(o->ctx, e->step, e->steps, e->result->loss, e->tokens_per_second)) o->stop = 1;
}

mn_status mn_lm_train(const char *recipe, const char *const *settings, const char *out_dir, bool resume, mn_train_fn on_step, void *ctx) {
  MN_DOOR;
  if (!recipe || !out_dir) return mn_fail(MN_ERR_ARG, "mn_lm_train: recipe and out_dir must not be NULL");
  if (!resume) MN_TRY(mn_out_dir_spares(out_dir, recipe));
  mn_recipe *r;
  MN_TRY(mn_recipe_read(recipe, settings, mn_settings_count(settings), &r));
  observer o = {.on_step = on_step, .ctx = ctx};
  mn_train_options options = {.out_dir = out_dir, .resume = resume, .watch = {.stop = &o.stop, .ctx = &o}, .event = on_event};
  mn_train_result result;
  mn_status status = mn_train(r, &options, &result);
  mn_recipe_free(r);
  return status;
}
