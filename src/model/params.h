/* params.h - the parameters' memory: one tensor per name, on a backend, shared by all plans of a model; and the files that a model is
 * kept in. */
#ifndef MN_PARAMS_H
#define MN_PARAMS_H

#include "backend/backend.h"
#include "base/table.h"
#include "compile/plan.h"
#include "model/model.h"
#include "model/origin.h"

typedef struct mn_params {
  mn_backend *backend;
  mn_arena *arena;
  mn_dtype dtype;      /* of parameters                                                                            */
  int n_model;         /* parameters of the model: what is saved as the model                                      */
  int n;               /* parameters: what can be trained. Behind the model's those that only a training step has  */
  int n_all;           /* and after them the buffers, which training may assign; their info's init is a constant    */
  mn_param_info *info; /* [n_all] */
  mn_dtype *type;      /* [n_all] of each tensor's memory: dtype, or a buffer's own */
  void **data;         /* [n_all] each mn_shape_count(shape) elements of its type    */
  char (*digests)[33]; /* of an opened model, whose values do not change: content hashes, "" where not known yet; else NULL */
  mn_origin origin;    /* written beside them; of an opened model, what its file says */
  mn_table at;         /* name -> number */
} mn_params;

/* Memory for all parameters and buffers of the model, or of whatever a scope has declared (one mixer, one block). What is in it is
 * undefined until it is loaded or drawn. */
mn_status mn_params_declare(const mn_model *m, mn_backend *b, mn_dtype dtype, mn_params **out);
mn_status mn_params_declare_scope(const mn_scope *s, mn_backend *b, mn_dtype dtype, mn_params **out);
/* Fills all by their initialisers from (seed, name, element), in any number of threads with the same result. */
mn_status mn_params_draw(mn_params *p, uint64_t seed);
/* Both at once. */
mn_status mn_params_new(const mn_model *m, mn_backend *b, mn_dtype dtype, uint64_t seed, mn_params **out);
mn_status mn_params_of_scope(const mn_scope *s, mn_backend *b, mn_dtype dtype, uint64_t seed, mn_params **out);
void mn_params_free(mn_params *p);
int64_t mn_params_count(const mn_params *p);                         /* elements of the model's parameters */
size_t mn_params_bytes(const mn_params *p, int i);                   /* of tensor i's memory */
mn_status mn_params_on_host(const mn_params *p, int i, void **host); /* a copy to free */
int mn_params_find(const mn_params *p, const char *name);            /* a parameter or a buffer; -1: none */
/* Parameters of the scope that the set does not have, drawn from the seed: those of a training step alone, such as the head of an
 * auxiliary loss. They stand behind the model's, train as all others do, and are no part of the model that is saved (a checkpoint
 * keeps them). The numbers of buffers move. A buffer that the set does not have is MN_ERR_CONFIG. */
mn_status mn_params_extend(mn_params *p, const mn_scope *s, uint64_t seed);
/* Without them again. */
void mn_params_shrink(mn_params *p);
/* Points every parameter and buffer of the scope's graph at its memory in the plan. A graph need not use all there are: a head, or
 * what only another stage of training reads, may be left out. */
void mn_params_bind(const mn_params *p, const mn_scope *s, mn_plan *plan);
/* Whether all values are finite, buffers' too; the message names the first tensor that is not. */
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
