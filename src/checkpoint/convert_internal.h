/* convert_internal.h - what the parts of converting share: what is read, and the list of tensors that are to be written. */
#ifndef MN_CONVERT_INTERNAL_H
#define MN_CONVERT_INTERNAL_H

#include "base/claim.h"
#include "checkpoint/arch.h"
#include "checkpoint/checkpoint_internal.h"
#include "checkpoint/convert.h"

typedef struct mn_converting mn_converting;

typedef struct mn_target_piece { /* a parameter in a tensor of the new file */
  mn_arch_piece from;
  const mn_arch_tensor *row; /* of the list: where it stands in the new form */
  const mn_mixer *mixer;
  unsigned how;
  int64_t rotary, turned, first, rows, width; /* first: its first row there */
  int64_t base;                               /* the parameter's first row that stands there */
} mn_target_piece;

typedef struct mn_target { /* a tensor of the new file */
  mn_converting *job;
  const char *name;
  mn_shape shape;
  mn_dtype type;
  const mn_checkpoint_tensor *same; /* its values in their order; or */
  const void *values;               /* they lie in memory, in the type `has`; or they are put together from pieces: */
  mn_dtype has;
  mn_target_piece *pieces;
  int n_pieces;
  int64_t *at; /* MN_T_ROWS: for each row there, which of all pieces' rows it is, counted through; made when first read */
} mn_target;

struct mn_converting {
  const mn_convert_options *options;
  const char *path;        /* of what is read */
  mn_checkpoint *from;     /* NULL: a directory of Mneme's, whose model and parameters are opened */
  mn_checkpoint_form form; /* of what is written */
  mn_arena *arena;
  mn_target *targets;
  int n, room;
  mn_arch_piece *pieces; /* where the model's parameters stand in what is read */
  int n_from;
  bool made;       /* the directory that is written to was not there */
  bool alone;      /* what is in it is ours, and may be taken back */
  mn_claim *claim; /* on it; NULL: none is needed */
  /* where the form changes: what the model is */
  mn_settings settings;
  const mn_arch_def *arch;
  const mn_value *recipe;
  mn_backend *backend;
  mn_model *model;
  mn_params *params;
  float *turned; /* a transposed tensor, whole */
  const mn_target *turned_of;
  int64_t done, total; /* values, for the watch */
  double squares, errors;
  mn_convert_report *report;
};

/* Elements [first, first + n) of the tensor as f32. */
mn_status mn_target_read(const mn_target *t, int64_t first, int64_t n, float *to);
/* The bytes [offset, offset + n) of the tensor in its new type, which begin and end at blocks: what both writers ask. ctx: mn_target */
mn_status mn_target_source(void *ctx, size_t offset, size_t n, void *to);
/* The type of a tensor that has `has`: by the rules, by the options, or as it is where the new form has that. */
mn_status mn_target_choose(mn_target *t, mn_dtype has);

/* convert_form.c: the targets of another form, by the architecture's list. */
mn_status mn_convert_open_model(mn_converting *job);
mn_status mn_convert_list_pieces(mn_converting *job);
mn_status mn_pieces_read(const mn_target *t, int64_t first, int64_t n, float *to);

/* convert_settings.c: settings and tokenizer in the other form. */
mn_status mn_convert_own_metadata(const mn_converting *job, mn_gguf_writer *w); /* of a model of Mneme's */
mn_status mn_convert_metadata(const mn_converting *job, mn_gguf_writer *w);
mn_status mn_convert_config(const mn_converting *job, const char *dir);
/* What was written says the same of the model as what was read. */
mn_status mn_convert_verify(const mn_converting *job, const char *path);

#endif
