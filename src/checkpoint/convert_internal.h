/* convert_internal.h - what the parts of converting share: the list of tensors that are to be written. */
#ifndef MN_CONVERT_INTERNAL_H
#define MN_CONVERT_INTERNAL_H

#include "checkpoint/checkpoint_internal.h"
#include "checkpoint/convert.h"

typedef struct mn_converting mn_converting;

typedef struct mn_target { /* a tensor of the new file */
  mn_converting *job;
  const char *name;
  mn_shape shape;
  mn_dtype type;
  const mn_checkpoint_tensor *same; /* its values in their order; NULL: they are put together from pieces */
  int first, n;                     /* pieces: [first, first + n) of the job's */
} mn_target;

struct mn_converting {
  const mn_convert_options *options;
  mn_checkpoint *from;
  mn_arena *arena;
  mn_target *targets;
  int n;
  int64_t done, total; /* values, for the watch */
  double squares, errors;
  mn_convert_report *report;
};

/* Elements [first, first + n) of the tensor as f32. */
mn_status mn_target_read(const mn_target *t, int64_t first, int64_t n, float *to);
/* The bytes [offset, offset + n) of the tensor in its new type, which begin and end at blocks: what both writers ask. ctx: mn_target */
mn_status mn_target_source(void *ctx, size_t offset, size_t n, void *to);

#endif
