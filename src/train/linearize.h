/* linearize.h - a trained decoder of softmax attention becomes one of another mixer (Lizard) in two ordinary trainings (Nguyen et al. 2025,
 * arXiv 2507.09025): in the first, beside each attention a Lizard mixer learns to say what it says (a model of type matching); in the
 * second the model with Lizard in place of attention learns its language again, by matrices of low rank beside W_q, W_k and W_v. Then
 * those are merged. OUT receives
 *     match.json, tune.json           the two recipes, as any other: `mneme train OUT/match.json --out OUT/match`
 *     match/, tune/                   what was trained by them, with checkpoints and logs
 *     model.safetensors, config.json, tokenizer.json, recipe.json      the model
 *     linearize.json                  what became of each layer */
#ifndef MN_LINEARIZE_H
#define MN_LINEARIZE_H

#include "train/trainer.h"

typedef struct mn_linearize_config {
  const char *teacher, *out_dir;
  const char *layers;                          /* "all", or "0,2-3": the blocks that are converted; the others stay */
  const char *const *data;                     /* text files; none: the data that the teacher was trained on */
  const char *const *mixer, *const *set;       /* "key=value": of the mixer; of both recipes */
  const char *const *match, *const *tune;      /* of one recipe */
  int n_data, n_mixer, n_set, n_match, n_tune; /* how many of each */
  int64_t match_steps, tune_steps, rank;       /* rank: of what is added to W_q, W_k, W_v */
  uint64_t seed;
} mn_linearize_config;

/* Writes the two recipes. Refused by name: a directory that is no decoder, a block that is chosen and is no attention, or one that the mixer
 * cannot stand for; keys that are none; data that the tokenizer does not fit is found when it is opened. */
mn_status mn_linearize_begin(const mn_linearize_config *c);

typedef struct mn_linearized_layer {
  const char *mixer; /* what it is now */
  bool converted;
  double before,
      after; /* relative squared error of what it says, of held-out data: before the first training and after it; NaN where it stays */
  double alpha, meta;                /* where the mixer has them: weight of the window, sum of the meta tokens' exponentials; else NaN */
  int64_t state_before, state_after; /* bytes of a stream */
} mn_linearized_layer;

typedef struct mn_linearized { /* lives in an arena */
  int n;
  mn_linearized_layer *layers;
  double teacher_loss, loss; /* nats per unit of held-out data; NaN: there is none */
  int merged;                /* matrices */
} mn_linearized;

/* After both trainings: what is measured, and the merged model, into OUT. Of `watch` only stop is looked at. */
mn_status mn_linearize_end(const char *out_dir, int threads, const mn_watch *watch, mn_arena *arena, mn_linearized *out);

#endif
