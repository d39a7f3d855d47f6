/* params.h - the parameters' memory: one tensor per name, on a backend, shared by all plans of a model; and the files that a model is
 * kept in.
 *
 * Each tensor has a type and an owner, who says where its bytes lie and who may write them. Declaring takes no memory: a tensor has
 * none before values are drawn or read for it, or a plan is bound to it. */
#ifndef MN_PARAMS_H
#define MN_PARAMS_H

#include "backend/backend.h"
#include "base/table.h"
#include "compile/plan.h"
#include "model/model.h"
#include "model/origin.h"

#include <stdatomic.h>

enum { MN_DIGEST_CHANGES = '!' };

typedef enum mn_param_owner {
  MN_PARAM_EMPTY,     /* declared: no memory yet                                                                  */
  MN_PARAM_ALLOCATED, /* the set, in memory of its backend                                                        */
  MN_PARAM_MAPPED,    /* a file, whose bytes are used where they lie and never written                            */
  MN_PARAM_SHARED     /* another set (or another tensor of this one), through which alone it is written           */
} mn_param_owner;

typedef struct mn_param_file { /* whose bytes are mapped; zeros: none are */
  void *file;
  const char *path; /* lives as long as the file */
  mn_status (*intact)(const void *file);
  void (*close)(void *file);
} mn_param_file;

typedef struct mn_params mn_params;
struct mn_params {
  mn_backend *backend; /* outlives the set */
  mn_arena *arena;
  mn_dtype dtype;        /* of parameters                                                                            */
  int n_model;           /* parameters of the model: what is saved as the model                                      */
  int n;                 /* parameters: what can be trained. Behind the model's those that only a training step has  */
  int n_all;             /* and after them the buffers, which training may assign; their info's init is a constant    */
  mn_param_info *info;   /* [n_all] */
  mn_dtype *type;        /* [n_all] of each tensor's memory: dtype, or a buffer's own */
  void **data;           /* [n_all] each mn_shape_count(shape) elements of its type; NULL while it is empty */
  mn_param_owner *owner; /* [n_all] */
  mn_dtype cache;        /* of the caches of streams that run on it (mn_build); f32: as they are computed */
  bool exact_products;   /* what is built on the set never rounds activations to 8 bits (mn_build) */
  mn_param_file file;    /* closed with the set */
  mn_params **lender;    /* [n_lenders] sets that tensors are shared from; they are kept alive */
  int n_lenders;
  atomic_int holders;  /* who asked for the set, and the sets that share from it: the last one that lets go frees it */
  char (*digests)[33]; /* of an opened model: content hashes, "" where not known yet; MN_DIGEST_CHANGES: a plan writes it. Else NULL */
  mn_origin origin;    /* written beside them; of an opened model, what its file says */
  mn_table at;         /* name -> number */
};

/* All parameters and buffers of the model, or of whatever a scope has declared (one mixer, one block), without memory. */
mn_status mn_params_declare(const mn_model *m, mn_backend *b, mn_dtype dtype, mn_params **out);
mn_status mn_params_declare_scope(const mn_scope *s, mn_backend *b, mn_dtype dtype, mn_params **out);
/* Fills all by their initialisers from (seed, name, element), in any number of threads with the same result. Shared tensors keep the
 * values they have; a mapped one is refused. */
mn_status mn_params_draw(mn_params *p, uint64_t seed);
/* Both at once. */
mn_status mn_params_new(const mn_model *m, mn_backend *b, mn_dtype dtype, uint64_t seed, mn_params **out);
mn_status mn_params_of_scope(const mn_scope *s, mn_backend *b, mn_dtype dtype, uint64_t seed, mn_params **out);
void mn_params_free(mn_params *p);                 /* its memory goes with the last set that shares from it; NULL is fine */
int64_t mn_params_count(const mn_params *p);       /* elements of the model's parameters */
size_t mn_params_bytes(const mn_params *p, int i); /* of tensor i's memory */
mn_status mn_params_on_host(const mn_params *p, int i, void **host); /* a copy to free */
int mn_params_find(const mn_params *p, const char *name);            /* a parameter or a buffer; -1: none */
/* For a build that binds the set's parameters: each in the type that it has here. While the set lives; of NULL: no types. */
mn_param_types mn_params_types(const mn_params *p);
/* Parameters of the scope that the set does not have, drawn from the seed: those of a training step alone, such as the head of an
 * auxiliary loss. They stand behind the model's, train as all others do, and are no part of the model that is saved (a checkpoint
 * keeps them). The numbers of buffers move. A buffer that the set does not have is MN_ERR_CONFIG. */
mn_status mn_params_extend(mn_params *p, const mn_scope *s, uint64_t seed);
/* Without them again. */
void mn_params_shrink(mn_params *p);
/* Points every parameter and buffer of the scope's graph at its memory in the plan. A graph need not use all there are: a head, or
 * what only another stage of training reads, may be left out. An empty tensor gets memory, undefined until it is loaded or drawn
 * (a set is bound for the first time in one thread). A plan that would write to a mapped or shared one is refused (MN_ERR_ARG). */
mn_status mn_params_bind(const mn_params *p, const mn_scope *s, mn_plan *plan);

/* ---- owners ---- (params_owner.c) */
/* Tensor i has memory: it is given some where it was empty. */
mn_status mn_params_need(const mn_params *p, int i);
/* Parameter i, which is empty, is kept in a type of its own: of storage (types.h), as the file has it whose bytes it will be. Graphs
 * that are built with mn_params_types read it so; nothing is drawn in such a type, and no training assigns it. */
mn_status mn_params_store(mn_params *p, int i, mn_dtype type);
/* What is built on the set from now on multiplies matrices in blocks or f16 by activations as they are, at some cost (exact_products). A set
 * that keeps none so is MN_ERR_CONFIG. */
mn_status mn_params_keep_exact(mn_params *p);
/* The same, for writing to it: a mapped or a shared tensor is refused by name (MN_ERR_ARG), since it is not this set's. */
mn_status mn_params_writable(const mn_params *p, int i);
/* The empty tensor `name` of `to` is from now on tensor `of` of `from`, which has values: what is written through `from` is what both
 * read (a program that has settled them is told by mn_program_refresh). The two have one backend, type and shape, and may be one set: two
 * heads that are tied. `from` may be freed first: its memory stays until `to` is freed. Refused (MN_ERR_ARG): where `to` has the
 * tensor already, where `from` has no values yet or a training step's alone, and where `from` shares from `to`, so that neither would
 * ever go. */
mn_status mn_params_share(mn_params *to, const char *name, mn_params *from, const char *of);
/* Copies what is mapped or shared, so that all is the set's own and can be trained. Before plans are bound, which would read the old
 * place, and before others share from it (MN_ERR_ARG). */
mn_status mn_params_own(mn_params *p);
/* The files that this set's values, or those it shares, are mapped from are what was opened. Whoever runs plans asks after each run,
 * before its results count; programs do. */
mn_status mn_params_check_files(const mn_params *p);

/* Whether all values are finite, buffers' too; the message names the first tensor that is not. */
mn_status mn_params_check_finite(const mn_params *p);

/* DIR/model.safetensors and DIR/config.json. Reading checks names, shapes, types and that every value is finite; both ways
 * through safetensors.h. An unknown or a missing tensor is refused before any is read. */
mn_status mn_params_save(const mn_params *p, const char *path);
/* As a file of `origin`, in the place of no other file than that of the stamp (mn_file_writer_expect; NULL: of any). */
mn_status mn_params_save_as(const mn_params *p, const mn_origin *origin, const char *path, mn_file_stamp *stamp);
mn_status mn_params_load(mn_params *p, const char *path);
/* The same for an empty set that is read and not written: a tensor that lies in the file in its type and aligned to its elements
 * is mapped, where the backend is on the host; the others are copied. The bytes are read once, to hold them against checksums and
 * to find what is not finite, and no memory is taken for them. */
mn_status mn_params_map(mn_params *p, const char *path);
mn_status mn_model_save_dir(const mn_model *m, const mn_params *p, const char *dir); /* in any files' place; see model_dir.h */
/* The two must belong together where the weights say what they belong to; a tokenizer is the caller's to check (origin.h). */
mn_status mn_model_load_dir(const char *dir, mn_backend *b, mn_dtype dtype, mn_model **model, mn_params **params);
/* The same with weights that are mapped where they can be (mn_params_map): for what reads them. */
mn_status mn_model_open_dir(const char *dir, mn_backend *b, mn_dtype dtype, mn_model **model, mn_params **params);
/* Of values that never change, each one's content hash is worked out once, when it is first asked for: for sets that are opened. */
mn_status mn_params_keep_digests(mn_params *p);
/* Of configuration, names, shapes and values, 32 hexadecimal digits: what a session file must match. */
mn_status mn_model_fingerprint(const mn_model *m, const mn_params *p, char hex[33]);

#endif
