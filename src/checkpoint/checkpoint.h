/* checkpoint.h - settings and weights as other programs keep them: a directory as Hugging Face's programs write it (config.json, and
 * safetensors in one file or in shards) or a GGUF file. Tensors by name, whoever holds them; what they mean is an architecture's
 * business (arch.h).
 *
 * Nothing is trusted: the readers of safetensors and GGUF check every length and offset, and here the index of shards is held against
 * what the shards hold. Data stays mapped until the checkpoint is closed. */
#ifndef MN_CHECKPOINT_H
#define MN_CHECKPOINT_H

#include "base/types.h"
#include "format/value.h"

typedef struct mn_checkpoint mn_checkpoint;

typedef enum mn_checkpoint_form {
  MN_FORM_MNEME, /* a directory that mneme train made: no checkpoint, but opened beside them (bundle.h) */
  MN_FORM_HF,
  MN_FORM_GGUF
} mn_checkpoint_form;

typedef struct mn_checkpoint_tensor {
  const char *name;
  const char *file; /* that holds it, for messages            */
  const char *type; /* as the file spells it: "BF16", "Q4_K"  */
  mn_dtype dtype;   /* MN_DTYPES where Mneme has no such type   */
  mn_shape shape;   /* row-major                              */
  const void *data; /* mapped; may be unaligned               */
  size_t bytes;
} mn_checkpoint_tensor;

/* What lies at `path`; nothing that is known is an error. */
mn_status mn_checkpoint_form_at(const char *path, mn_checkpoint_form *out);

mn_status mn_checkpoint_open(const char *path, mn_checkpoint **out);
void mn_checkpoint_close(mn_checkpoint *c); /* NULL is fine */
mn_checkpoint_form mn_checkpoint_form_of(const mn_checkpoint *c);
const char *mn_checkpoint_path(const mn_checkpoint *c);          /* what was opened                          */
const char *mn_checkpoint_settings_path(const mn_checkpoint *c); /* the file that the settings are from */
/* config.json, or a GGUF file's metadata as a map of its keys ("llama.block_count") without what is a tokenizer's. */
const mn_value *mn_checkpoint_settings(const mn_checkpoint *c);

int mn_checkpoint_count(const mn_checkpoint *c);
const mn_checkpoint_tensor *mn_checkpoint_at(const mn_checkpoint *c, int i);
const mn_checkpoint_tensor *mn_checkpoint_find(const mn_checkpoint *c, const char *name); /* NULL when absent */

/* Can its elements be read as numbers? Else MN_ERR_UNSUPPORTED names tensor and type. */
mn_status mn_checkpoint_readable(const mn_checkpoint_tensor *t);
/* Elements [first, first + n) as f32 or f64 (dtype). */
mn_status mn_checkpoint_read(const mn_checkpoint_tensor *t, int64_t first, int64_t n, mn_dtype dtype, void *dst);

/* The files are still what was opened. */
mn_status mn_checkpoint_intact(const mn_checkpoint *c);

#endif
