/* model.h - from a recipe to a model: a stack of blocks (mixer, channel part) between an embedding and a head. A model is
 * itself a segment in, a segment out (mn_model_apply), so it can stand inside another. */
#ifndef MN_MODEL_H
#define MN_MODEL_H

#include "nn/mixer.h"

typedef enum mn_channel_kind { MN_CHANNEL_NONE, MN_CHANNEL_SWIGLU, MN_CHANNEL_GEGLU, MN_CHANNEL_MLP } mn_channel_kind;

typedef struct mn_block { /* x + mixer(norm(x)), then x + channel(norm(x)) */
  mn_mixer mixer;
  int channel;    /* mn_channel_kind */
  int64_t hidden; /* F; 0: chosen from d_model */
  int norm;       /* mn_norm_kind */
  double norm_eps;
} mn_block;

typedef struct mn_model_config {
  int64_t vocab_size, d_model, layers;
  bool tie_embeddings;
  int norm; /* mn_norm_kind of the blocks and before the head */
  double norm_eps, init_std;
  const mn_value *block;  /* while parsing: one block, `layers` times ... */
  const mn_value *blocks; /* ... or a list of {repeat: n, mixer: ..., channel: ...} */
} mn_model_config;

typedef struct mn_model {
  mn_arena *arena;
  mn_model_config config;
  int n_blocks;
  mn_block *blocks;
} mn_model;

extern const mn_field mn_model_fields[], mn_block_fields[];

/* map: the recipe's `model`. vocab_size 0 in the map is filled with `vocab_size` (the tokenizer's). Every fault is named
 * with file, line and key. Free with mn_model_free. */
mn_status mn_model_parse(const mn_value *map, const char *where, int64_t vocab_size, mn_model **out);
void mn_model_free(mn_model *m);
const mn_value *mn_model_to_value(mn_arena *arena, const mn_model *m);  /* reading it back gives the same model */
const mn_value *mn_model_to_config(mn_arena *arena, const mn_model *m); /* config.json's content: {model: ...} */

/* A block list alone, for wrapping: x [B,T,D] exact type -> [B,T,D]. */
mn_tensor *mn_block_apply(mn_scope *s, const mn_block *b, mn_tensor *x);
/* tokens i32 [B,T] -> h [B,T,D] after the last norm, compute type: what the head projects. */
mn_tensor *mn_model_hidden(mn_scope *s, const mn_model *m, mn_tensor *tokens);
mn_tensor *mn_model_head(mn_scope *s, const mn_model *m);                     /* [vocab_size, D], memory's type */
mn_tensor *mn_model_apply(mn_scope *s, const mn_model *m, mn_tensor *tokens); /* logits [B,T,vocab_size], exact type */
/* sum over tokens of weight * nll, and nll per token [B*T]. target i32 [B,T] (negative: ignored), weight [B,T] or NULL. */
mn_tensor *mn_model_loss(mn_scope *s, const mn_model *m, mn_tensor *tokens, mn_tensor *target, mn_tensor *weight, mn_tensor **nll);

/* ---- the parameters' memory: one tensor per name, on a backend, shared by all plans of a model ---- */
#include "backend/backend.h"
#include "base/table.h"
#include "compile/plan.h"
#include "model/origin.h"

typedef struct mn_params {
  mn_backend *backend;
  mn_arena *arena;
  mn_dtype dtype;
  int n;
  mn_param_info *info;
  void **data;         /* each mn_shape_count(shape) elements of dtype */
  char (*digests)[33]; /* of an opened model, whose values do not change: content hashes, "" where not known yet; else NULL */
  mn_origin origin;    /* written beside them; of an opened model, what its file says */
  mn_table at;         /* name -> number */
} mn_params;

/* Memory for all parameters of the model, or of whatever a scope has declared (one mixer, one block). What is in it is
 * undefined until it is loaded or drawn. */
mn_status mn_params_declare(const mn_model *m, mn_backend *b, mn_dtype dtype, mn_params **out);
mn_status mn_params_declare_scope(const mn_scope *s, mn_backend *b, mn_dtype dtype, mn_params **out);
/* Fills all by their initialisers from (seed, name, element), in any number of threads with the same result. */
mn_status mn_params_draw(mn_params *p, uint64_t seed);
/* Both at once. */
mn_status mn_params_new(const mn_model *m, mn_backend *b, mn_dtype dtype, uint64_t seed, mn_params **out);
mn_status mn_params_of_scope(const mn_scope *s, mn_backend *b, mn_dtype dtype, uint64_t seed, mn_params **out);
void mn_params_free(mn_params *p);
int64_t mn_params_count(const mn_params *p);              /* elements in all */
int mn_params_find(const mn_params *p, const char *name); /* -1: none */
/* Points every parameter of the scope's graph at its memory in the plan. */
void mn_params_bind(const mn_params *p, const mn_scope *s, mn_plan *plan);
/* Whether all values are finite; the message names the first tensor that is not. */
mn_status mn_params_check_finite(const mn_params *p);

/* DIR/model.safetensors and DIR/config.json. Reading checks names, shapes, types and that every value is finite; both ways
 * through safetensors.h. An unknown or a missing tensor is refused before any is read. */
mn_status mn_params_save(const mn_params *p, const char *path);
mn_status mn_params_load(mn_params *p, const char *path);
mn_status mn_model_save_dir(const mn_model *m, const mn_params *p, const char *dir); /* model.safetensors + config.json */
/* The two must belong together where the weights say what they belong to; a tokenizer is the caller's to check (origin.h). */
mn_status mn_model_load_dir(const char *dir, mn_backend *b, mn_dtype dtype, mn_model **model, mn_params **params);
/* Of configuration, names, shapes and values, 32 hexadecimal digits: what a session file must match. */
mn_status mn_model_fingerprint(const mn_model *m, const mn_params *p, char hex[33]);

#endif
