/* checkpoint_internal.h - what the readers of the forms fill in. */
#ifndef MN_CHECKPOINT_INTERNAL_H
#define MN_CHECKPOINT_INTERNAL_H

#include "base/table.h"
#include "checkpoint/checkpoint.h"
#include "format/gguf.h"
#include "format/safetensors.h"

struct mn_checkpoint {
  mn_arena *arena;
  mn_checkpoint_form form;
  const char *path, *settings_path;
  const mn_value *settings;
  int n, room;
  mn_checkpoint_tensor *tensors;
  mn_table at; /* name -> number */
  mn_st **shards;
  int n_shards;
  mn_gguf *gguf;   /* the first file where a model was split, which has the metadata */
  mn_gguf **parts; /* the others */
  int n_parts;
};

mn_status mn_checkpoint_add(mn_checkpoint *c, const mn_checkpoint_tensor *t);          /* a name that is there already is refused */
mn_status mn_checkpoint_json(mn_arena *arena, const char *path, const mn_value **out); /* hf.c: with Infinity as a number */
/* hf.c: DIR/name, without checksums, as other programs read it; NULL: no memory was there for it. */
mn_status mn_checkpoint_write_json(const char *dir, const char *name, const mn_value *v);
mn_status mn_checkpoint_open_hf(mn_checkpoint *c);                                     /* hf.c */
mn_status mn_checkpoint_open_gguf(mn_checkpoint *c);                                   /* gguf.c */

#endif
