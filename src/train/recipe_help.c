/* recipe_help.c - every key of a recipe, from the tables that read it. */
#include <stdio.h>

#include "train/recipe.h"

static void section(mn_text *t, mn_help_form form, const char *title, const char *about, const mn_field *fields) {
  if (form == MN_HELP_MARKDOWN) mn_text_addf(t, "\n## %s\n\n%s%s", title, about, *about ? "\n\n" : "");
  else mn_text_addf(t, "\n%s%s%s\n", title, *about ? ": " : "", about);
  mn_config_help(fields, form, t);
}

void mn_recipe_help(mn_help_form form, mn_text *t) {
  char title[128], about[512];
  section(t, form, "the top level", "", mn_recipe_fields);
  section(t, form, "tokenizer", "How text becomes tokens. A trained one is kept in the cache and beside the model", mn_tokenizer_fields);
  section(t, form, "data", "What is learned: text files, or a task", mn_data_fields);
  for (int i = 0; i < mn_source_count(); i++) {
    const mn_source_def *d = mn_source_at(i);
    if (d->fields == mn_data_fields) continue;
    snprintf(title, sizeof title, "data, type: %s", d->name);
    section(t, form, title, d->summary, d->fields);
  }
  for (int i = 0; i < mn_objective_count(); i++) {
    const mn_objective_def *d = mn_objective_at(i);
    snprintf(title, sizeof title, "objective, type: %s", d->name);
    snprintf(about, sizeof about, "%s%s%s%s", d->summary, d->paper ? " (" : "", d->paper ? d->paper : "", d->paper ? ")" : "");
    if (d->fields) section(t, form, title, about, d->fields);
    else mn_text_addf(t, form == MN_HELP_MARKDOWN ? "\n## %s\n\n%s\n" : "\n%s: %s\n", title, about);
  }
  section(t, form, "train", "", mn_train_fields);
  section(t, form, "train.optimizer", "", mn_optimizer_fields);
  section(t, form, "each of train.groups", "What holds for parameters whose names fit", mn_group_fields);
  section(t, form, "train.schedule", "", mn_schedule_fields);
  section(t, form, "init", "The values of a trained model to begin with", mn_init_fields);
  section(t, form, "each of stages", "One training after the other on the same weights, each with an optimizer and a schedule of its own",
          mn_stage_fields);
  section(t, form, "model", "A stack of blocks between an embedding and a head", mn_model_fields);
  for (int i = 0; i < mn_model_count(); i++) {
    const mn_model_def *d = mn_model_at(i);
    static const char *const shared[] = {"", "; beside its own keys, those of a stack that reads no tokens",
                                         "; beside its own keys, those of model"};
    snprintf(title, sizeof title, "model, type: %s", d->name);
    snprintf(about, sizeof about, "%s%s%s%s%s", d->summary, d->paper ? " (" : "", d->paper ? d->paper : "", d->paper ? ")" : "",
             shared[d->trunk]);
    if (d->fields) section(t, form, title, about, d->fields);
  }
  section(t, form, "model, of a kind that reads no tokens", "What such kinds have instead of the keys of model",
          mn_trunk_fields(MN_TRUNK_PLAIN));
  section(t, form, "model.block, and each of model.blocks", "", mn_block_fields);
  for (int i = 0; i < mn_channel_count(); i++) {
    const mn_channel_def *d = mn_channel_at(i);
    snprintf(title, sizeof title, "channel, type: %s", d->name);
    if (d->fields) section(t, form, title, d->summary, d->fields);
  }
  for (int i = 0; i < mn_linear_count(); i++) {
    const mn_linear_def *d = mn_linear_at(i);
    snprintf(title, sizeof title, "model.linear, type: %s", d->name);
    snprintf(about, sizeof about, "%s%s%s%s", d->summary, d->paper ? " (" : "", d->paper ? d->paper : "", d->paper ? ")" : "");
    if (d->fields) section(t, form, title, about, d->fields);
  }
  section(t, form, "cross, of a block of encoder_decoder", "Attention to the source", mn_cross_fields);
  for (int i = 0; i < mn_mixer_count(); i++) {
    const mn_mixer_def *d = mn_mixer_at(i);
    snprintf(title, sizeof title, "mixer, type: %s", d->name);
    snprintf(about, sizeof about, "%s (%s)", d->summary ? d->summary : "", d->paper ? d->paper : "");
    section(t, form, title, about, d->fields);
  }
  for (int i = 0; mn_task_at(i); i++) {
    const mn_task_def *d = mn_task_at(i);
    snprintf(title, sizeof title, "data.task, name: %s", d->name);
    section(t, form, title, d->help ? d->help : "", d->fields);
  }
}
